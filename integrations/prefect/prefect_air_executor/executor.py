"""The block `AirExecutor`: how to reach the NATS servers of an installation of Air-Executor."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client as Nats
from nats.aio.client import RawCredentials
from prefect.blocks.core import Block
from prefect.logging import get_logger
from pydantic import Field, SecretStr, model_validator
from typing_extensions import Self

from prefect_air_executor.protocol import AirError, Client

_logger = get_logger("air_executor")


class AirExecutor(Block):
    """A connection to Air-Executor: jobs of durable tasks on NATS."""

    _block_type_name = "Air-Executor"
    _block_type_slug = "air-executor"
    _description = "Connects to the NATS servers of an installation of Air-Executor."

    servers: list[str] = Field(
        default=["nats://127.0.0.1:4222"],
        min_length=1,
        description="Addresses of NATS servers, such as nats://127.0.0.1:4222 or tls://nats.internal:4222.",
    )
    user: str | None = Field(default=None, description="User, with a password.")
    password: SecretStr | None = Field(default=None, description="Password of the user.")
    token: SecretStr | None = Field(default=None, description="Token, instead of a user.")
    credentials: SecretStr | None = Field(
        default=None, title="Credentials", description="Text of a .creds file: JWT and seed of a user."
    )
    credentials_file: str | None = Field(
        default=None, title="Credentials File", description="Path of a .creds file where the flow runs."
    )
    tls_ca_file: str | None = Field(
        default=None, title="TLS CA File", description="Certificates that the servers' are signed with."
    )
    tls_cert_file: str | None = Field(default=None, title="TLS Certificate File", description="Own certificate.")
    tls_key_file: str | None = Field(default=None, title="TLS Key File", description="Key of the own certificate.")
    tls_hostname: str | None = Field(
        default=None, title="TLS Host Name", description="Name that the servers' certificates must have."
    )
    prefix: str = Field(
        default="air", pattern=r"^[a-z][a-z0-9-]{0,31}$", description="Prefix of the installation's names."
    )
    connect_timeout: int = Field(default=10, ge=1, description="Seconds to wait for a connection.")

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        ways = [self.user, self.token, self.credentials, self.credentials_file]
        if sum(way is not None for way in ways) > 1:
            raise ValueError("give one of user, token, credentials and credentials_file")
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password belong together")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file belong together")
        return self

    @classmethod
    def from_env(cls) -> AirExecutor:
        """What the environment says, in the variables of `airx`: NATS_URL, NATS_CREDS, AIR_PREFIX and so on."""
        names = {
            "credentials_file": "NATS_CREDS",
            "user": "NATS_USER",
            "password": "NATS_PASSWORD",
            "token": "NATS_TOKEN",
            "tls_ca_file": "NATS_CA",
            "tls_cert_file": "NATS_CERT",
            "tls_key_file": "NATS_KEY",
            "prefix": "AIR_PREFIX",
        }
        values: dict[str, Any] = {field: os.environ[name] for field, name in names.items() if os.environ.get(name)}
        if urls := os.environ.get("NATS_URL"):
            values["servers"] = [url.strip() for url in urls.split(",")]
        return cls(**values)

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "servers": self.servers,
            "connect_timeout": self.connect_timeout,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 1,
            "name": "prefect-air-executor",
        }
        if self.user is not None and self.password is not None:
            options |= {"user": self.user, "password": self.password.get_secret_value()}
        if self.token is not None:
            options["token"] = self.token.get_secret_value()
        if self.credentials is not None:
            options["user_credentials"] = RawCredentials(self.credentials.get_secret_value())
        if self.credentials_file is not None:
            options["user_credentials"] = Path(self.credentials_file)
        if self.tls_ca_file or self.tls_cert_file or any(url.startswith(("tls://", "wss://")) for url in self.servers):
            context = ssl.create_default_context(cafile=self.tls_ca_file)
            if self.tls_cert_file is not None:
                context.load_cert_chain(self.tls_cert_file, self.tls_key_file)
            options["tls"] = context
        if self.tls_hostname is not None:
            options["tls_hostname"] = self.tls_hostname
        return options

    async def connect(self) -> Client:
        """A client over a connection of its own, which reconnects for ever; close it by `client.nats.close()`.

        Raises:
            AirError: no server can be reached, or all refuse the user.
        """
        refused: list[Exception] = []

        async def failed(error: Exception) -> None:
            _logger.debug("NATS: %r", error)
            refused.append(error)

        connection = Nats()
        try:
            # Only the first connection is tried for a bounded time: it would be tried for ever otherwise.
            await asyncio.wait_for(connection.connect(error_cb=failed, **self._options()), self.connect_timeout)
        except (nats.errors.Error, asyncio.TimeoutError, OSError, ValueError) as error:
            await connection.close()
            # What a server says tells more than that it hung up thereupon, which may come before it.
            said = [one for one in refused if isinstance(one, nats.errors.Error)]
            why = (said or refused or [error])[-1]
            raise AirError(f"NATS cannot be reached at {', '.join(self.servers)}: {why!r}") from error
        return Client(connection, self.prefix)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client for as long as the context lasts.

        Raises:
            AirError: no server can be reached, or all refuse the user.
        """
        client = await self.connect()
        try:
            yield client
        finally:
            await client.nats.close()
