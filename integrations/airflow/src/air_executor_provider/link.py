"""The link to NATS: a connection of nats-py, requests that are repeated while their fate is unknown, and what they read and write.

It knows neither Airflow nor jobs; those are in :mod:`.protocol`. Every error is an :class:`AirError`, whose text is one
line that says what, where, and how to mend it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.client import RawCredentials

from . import state as rules

L = TypeVar("L", bound="Link")

#: Time for which a request is repeated: below the two minutes for which the server remembers a message id.
PATIENCE_S = 60.0
REQUEST_S = 5.0

NO_MESSAGE = 10037
NO_STREAM = 10059
WRONG_SEQUENCE = 10071
#: Refusals that pass: another write in flight, no room, too many batches, an incomplete batch.
PASSING = frozenset({10002, 10008, 10023, 10028, 10047, 10164, 10176, 10199})


class AirError(Exception):
    """Something did not work; the text says what, where, and how to mend it."""


class Unreachable(AirError):
    """NATS does not answer. What was asked may have happened."""


class Refused(AirError):
    """NATS or the protocol says no, and will say no again."""


@dataclass(frozen=True)
class Settings:
    """How to reach an installation."""

    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    creds_file: str | None = None
    creds: str | None = field(default=None, repr=False)
    nkey_file: str | None = None
    nkey_seed: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_hostname: str | None = None
    prefix: str = "air"
    connect_timeout_s: float = 10.0

    @property
    def where(self) -> str:
        """The servers, without what is secret in their addresses."""
        return ",".join(
            f"{scheme}://{rest.rpartition('@')[2]}"
            for scheme, _, rest in (one.partition("://") for one in self.servers)
        )

    def check(self) -> None:
        """:raises Refused: a setting cannot be."""
        if not rules.PREFIX.fullmatch(self.prefix):
            raise Refused(f"the prefix `{self.prefix}` is none; it begins with a-z, then a-z, 0-9 and -, at most 32")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise Refused(
                "a client certificate needs its key, and a key its certificate: give both tls_cert and tls_key"
            )

    def options(self) -> dict[str, Any]:
        """The options of nats-py."""
        self.check()
        options: dict[str, Any] = {"servers": list(self.servers)}
        for name in ("user", "password", "token"):
            if getattr(self, name):
                options[name] = getattr(self, name)
        if self.creds:
            options["user_credentials"] = RawCredentials(self.creds)
        elif self.creds_file:
            options["user_credentials"] = self.creds_file
        elif self.nkey_seed:
            options["nkeys_seed_str"] = self.nkey_seed
        elif self.nkey_file:
            options["nkeys_seed"] = self.nkey_file
        if self.tls or self.tls_ca or self.tls_cert:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_cert:
                context.load_cert_chain(self.tls_cert, self.tls_key)
            options["tls"] = context
            if self.tls_hostname:
                options["tls_hostname"] = self.tls_hostname
        return options


@dataclass(frozen=True)
class Stored:
    """A message of a stream."""

    seq: int
    subject: str
    headers: Mapping[str, str]
    data: bytes
    time: str

    def value(self) -> Any:
        """What it holds, from JSON or MessagePack."""
        if self.headers.get("Content-Type") == "application/msgpack":
            return msgspec.msgpack.decode(self.data)
        return json.loads(self.data)


@dataclass(frozen=True)
class Key:
    """What a key holds: its value (none where it is absent or deleted) and its revision (0 where it never was)."""

    value: dict[str, Any] | None
    revision: int


class Link:
    """A connection to an installation."""

    def __init__(self, settings: Settings, client: NatsClient) -> None:
        self.settings = settings
        self.nats = client
        self.stream = settings.prefix.upper().replace("-", "_")

    @classmethod
    async def connect(cls: type[L], settings: Settings) -> L:
        """Connects; afterwards the connection is renewed for ever.

        :raises Unreachable: there is no server, or it does not let us in.
        """
        try:
            options = settings.options()
        except (OSError, ssl.SSLError) as error:
            raise Refused(f"the TLS files of {settings.where} cannot be read: {error}; correct their paths") from error
        client, told, refused = NatsClient(), [""], asyncio.Event()

        async def on_error(error: Exception) -> None:
            told[0] = str(error) or type(error).__name__
            if "authorization" in told[0].lower():
                refused.set()

        async def connect() -> None:
            await client.connect(
                **options,
                name="air-executor",
                error_cb=on_error,
                max_reconnect_attempts=-1,
                reconnect_time_wait=1,
                connect_timeout=5,
                ping_interval=3,
                max_outstanding_pings=3,
            )

        tries = [asyncio.ensure_future(connect()), asyncio.ensure_future(refused.wait())]
        try:
            await asyncio.wait(tries, timeout=settings.connect_timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if tries[0].done() and not tries[0].cancelled():
                tries[0].result()
                return cls(settings, client)
        except Exception as error:
            told[0] = str(error) or type(error).__name__
        finally:
            for one in tries:
                one.cancel()
            await asyncio.gather(*tries, return_exceptions=True)
        with suppress(Exception):
            await client.close()
        if refused.is_set():
            raise Refused(
                f"the NATS server {settings.where} refuses the credentials ({told[0]}); correct login, password, token, creds or nkey"
            )
        raise Unreachable(
            f"no NATS server answers at {settings.where} ({told[0] or 'no answer'}); is the address right, and the server up?"
        )

    async def close(self) -> None:
        """Ends the connection."""
        with suppress(Exception):
            await self.nats.close()

    async def _ask(
        self, subject: str, payload: bytes = b"", headers: dict[str, str] | None = None, timeout: float = REQUEST_S
    ) -> dict[str, Any]:
        """One request to the server; its answer may be an error of it.

        :raises Unreachable: no answer.
        """
        try:
            reply = await self.nats.request(subject, payload, timeout=timeout, headers=headers)
        except nats.errors.NoRespondersError:
            raise Unreachable(
                f"nobody answers {subject} on {self.settings.where}; make the streams with `airx init`, or give the "
                "user the right to publish there"
            ) from None
        except (nats.errors.Error, TimeoutError, asyncio.TimeoutError, OSError) as error:
            why = str(error) or type(error).__name__
            raise Unreachable(f"the NATS server {self.settings.where} does not answer {subject}: {why}") from error
        if not reply.data:
            return {}
        answer: dict[str, Any] = json.loads(reply.data)
        return answer

    async def _patiently(self, ask: Callable[[], Awaitable[dict[str, Any]]]) -> tuple[dict[str, Any], bool]:
        """Repeats a request while its fate is unknown or a refusal passes.

        Gives the answer, and whether one before it may have been done.
        """
        loop = asyncio.get_running_loop()
        until, wait, unsure = loop.time() + PATIENCE_S, 0.1, False
        while True:
            try:
                answer = await ask()
                code = (answer.get("error") or {}).get("err_code")
                if code not in PASSING or loop.time() > until:
                    return answer, unsure
            except Unreachable:
                unsure = True
                if loop.time() > until:
                    raise
            await asyncio.sleep(wait)
            wait = min(wait * 2, 2.0)

    def _refusal(self, what: str, error: Mapping[str, Any]) -> Refused:
        code, text = error.get("err_code"), error.get("description", "no reason given")
        mend = {NO_STREAM: "; make the streams with `airx init`"}.get(code or 0, "")
        return Refused(f"NATS at {self.settings.where} refuses {what}: {text} ({code}){mend}")

    async def _last(self, stream: str, subject: str) -> Stored | None:
        """The last message of a subject, from the leader."""
        return await self._get(stream, {"last_by_subj": subject})

    async def _get(self, stream: str, what: dict[str, Any]) -> Stored | None:
        answer, _ = await self._patiently(
            lambda: self._ask(f"$JS.API.STREAM.MSG.GET.{stream}", json.dumps(what).encode())
        )
        if error := answer.get("error"):
            if error.get("err_code") == NO_MESSAGE:
                return None
            raise self._refusal(f"to read {what.get('last_by_subj', stream)}", error)
        message = answer["message"]
        head = base64.b64decode(message.get("hdrs", "")).decode(errors="replace")
        headers = dict(line.split(":", 1) for line in head.split("\r\n")[1:] if ":" in line)
        return Stored(
            message["seq"],
            message["subject"],
            {name: value.strip() for name, value in headers.items()},
            base64.b64decode(message.get("data", "")),
            message["time"],
        )

    async def _many(self, what: dict[str, Any]) -> list[Stored]:
        """Messages of a direct get that has many replies; fewer than there are where a replica lags."""
        inbox = self.nats.new_inbox()
        subscription = await self.nats.subscribe(inbox)
        found: list[Stored] = []
        try:
            await self.nats.publish(f"$JS.API.DIRECT.GET.{self.stream}", json.dumps(what).encode(), reply=inbox)
            while True:
                message = await subscription.next_msg(timeout=REQUEST_S)
                headers = message.headers or {}
                status = headers.get("Status", "")
                if status in ("204", "404"):
                    return found
                if status:
                    why = headers.get("Description", "no answer")
                    raise Unreachable(
                        f"the stream {self.stream} at {self.settings.where} cannot be read: {status} {why}"
                    )
                found.append(
                    Stored(
                        int(headers["Nats-Sequence"]),
                        headers["Nats-Subject"],
                        headers,
                        message.data,
                        headers.get("Nats-Time-Stamp", ""),
                    )
                )
        except (nats.errors.Error, TimeoutError, asyncio.TimeoutError) as error:
            raise Unreachable(f"the stream {self.stream} at {self.settings.where} cannot be read: {error}") from error
        finally:
            with suppress(Exception):
                await subscription.unsubscribe()

    async def _key(self, bucket: str, key: str) -> Key:
        stored = await self._last(f"KV_{bucket}", f"$KV.{bucket}.{key}")
        if stored is None:
            return Key(None, 0)
        if stored.headers.get("KV-Operation") in ("DEL", "PURGE") or "Nats-Marker-Reason" in stored.headers:
            return Key(None, stored.seq)
        try:
            value = json.loads(stored.data)
            if not isinstance(value, dict):
                raise ValueError("it is no object")
        except ValueError as error:
            raise Refused(
                f"the key {key} of the bucket {bucket} holds garbage: {error}; a manager mends its own within a poll"
            ) from error
        if value.get("v", 1) > rules.VERSION:
            raise Refused(
                f"the key {key} of the bucket {bucket} is of version {value['v']}; update airflow-provider-air-executor"
            )
        return Key(value, stored.seq)

    async def _swap(self, bucket: str, key: str, value: dict[str, Any], revision: int) -> bool:
        """Writes a key if it is at a revision; false when it is not."""
        subject, data = f"$KV.{bucket}.{key}", json.dumps(value, separators=(",", ":")).encode()
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        answer, unsure = await self._patiently(lambda: self._ask(subject, data, headers))
        error = answer.get("error")
        if error is None:
            return True
        if error.get("err_code") != WRONG_SEQUENCE:
            raise self._refusal(f"the key {key} of the bucket {bucket}", error)
        if not unsure:
            return False
        stored = await self._last(f"KV_{bucket}", subject)
        return stored is not None and stored.data == data
