"""The Airflow connection of type ``air_executor``: where NATS is, and how to get in."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar
from urllib.parse import quote

from airflow.sdk import BaseHook, Connection

from .attach import Plan, is_over
from .link import AirError, Refused, Settings
from .protocol import Air, Record, connected

T = TypeVar("T")

_TEXTS = "token creds_file creds nkey_file nkey_seed tls_ca tls_cert tls_key tls_hostname".split()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end, from code that is not asynchronous."""
    return asyncio.run(coroutine)


def settings_of(connection: Connection) -> Settings:
    """What an Airflow connection says.

    :raises Refused: a field cannot be.
    """
    extra = connection.extra_dejson
    host = (connection.host or "127.0.0.1").strip()
    if connection.schema and "://" not in host:
        host = f"{connection.schema}://{host}"
    servers = []
    for one in (part.strip() for part in host.split(",") if part.strip()):
        scheme, found, rest = one.rpartition("://")
        scheme = scheme if found else "nats"
        has_port = rest.rpartition("]")[2].rpartition("@")[2].count(":") > 0
        port = "" if has_port else f":{connection.port or 4222}"
        servers.append(f"{scheme}://{rest}{port}")
    unknown = set(extra) - {*_TEXTS, "tls", "prefix", "dashboard", "connect_timeout"}
    if unknown:
        raise Refused(
            f"the connection {connection.conn_id} has the unknown extra field {', '.join(sorted(unknown))}; "
            f"known are {', '.join(sorted([*_TEXTS, 'tls', 'prefix', 'dashboard', 'connect_timeout']))}"
        )
    settings = Settings(
        servers=tuple(servers),
        user=connection.login or None,
        password=connection.password or None,
        tls=str(extra.get("tls") or "").lower() in ("true", "1", "yes"),
        prefix=extra.get("prefix") or "air",
        connect_timeout_s=float(extra.get("connect_timeout") or 10),
        **{name: extra.get(name) or None for name in _TEXTS},
    )
    settings.check()
    return settings


class AirExecutorHook(BaseHook):
    """Talks to Air-Executor by the connection ``conn_id``.

    Methods without ``async`` make a connection for each call; in asynchronous code use :meth:`connect`.
    """

    conn_name_attr = "conn_id"
    default_conn_name = "air_executor_default"
    conn_type = "air_executor"
    hook_name = "Air-Executor"

    def __init__(self, conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    # --- connection -----------------------------------------------------------------------------------------------

    def get_conn(self) -> Settings:
        """The settings of the connection; a live one belongs to an event loop, so see :meth:`connect`."""
        return settings_of(self.get_connection(self.conn_id))

    async def settings(self) -> Settings:
        """The settings of the connection."""
        return settings_of(await self.aget_connection(self.conn_id))

    async def connect(self) -> AbstractAsyncContextManager[Air]:
        """``async with await hook.connect() as air``: a connection, shared within the event loop."""
        return connected(await self.settings())

    def test_connection(self) -> tuple[bool, str]:
        """What the button *Test* shows."""

        async def check(settings: Settings) -> str:
            async with connected(settings) as air:
                return await air.check()

        try:
            return True, run(check(self.get_conn()))
        except AirError as error:
            return False, str(error)

    def dashboard(self, job: str, task: str | None = None) -> str:
        """The address of a job or task in the dashboard that the connection names; empty without one."""
        return dashboard_of(self.get_connection(self.conn_id), job, task)

    # --- calls ----------------------------------------------------------------------------------------------------

    def state(self, job: str) -> dict[str, Any] | None:
        """The state of a job; none where no manager has begun with it."""

        async def ask(settings: Settings) -> dict[str, Any] | None:
            async with connected(settings) as air:
                return (await air.state(job)).value

        return run(ask(self.get_conn()))

    def record(self, job: str, task: str) -> Record | None:
        """The last record of a task, the truth about it."""

        async def ask(settings: Settings) -> Record | None:
            async with connected(settings) as air:
                last = await air.last_record(job, task)
                return last[1] if last else None

        return run(ask(self.get_conn()))

    def output(self, job: str, task: str) -> Any:
        """The result of a task, wherever it is kept.

        :raises Refused: there is no such task.
        """

        async def ask(settings: Settings) -> Any:
            async with connected(settings) as air:
                last = await air.last_record(job, task)
                if last is None:
                    raise Refused(f"the task {job}/{task} has no record; correct the names, or wait for it")
                return await air.output(last[1])

        return run(ask(self.get_conn()))

    def cancel(self, job: str) -> bool:
        """Cancels a job; false where there is nothing to cancel."""

        async def ask(settings: Settings) -> bool:
            async with connected(settings) as air:
                return await air.cancel(job)

        return run(ask(self.get_conn()))


def dashboard_of(connection: Connection, job: str, task: str | None = None) -> str:
    """The address of a job or task in the dashboard that a connection names; empty without one.

    The field is an address; ``{job}`` and ``{task}`` in it are filled in, else ``#/jobs/JOB`` is added.
    """
    base = str(connection.extra_dejson.get("dashboard") or "").strip()
    if not base:
        return ""
    if "{job}" in base:
        return base.replace("{job}", quote(job)).replace("{task}", quote(task or ""))
    return f"{base.rstrip('/')}/#/jobs/{quote(job)}" + (f"/{quote(task)}" if task else "")


async def cancel_unfinished(air: Air, plan: Plan) -> bool:
    """Cancels a plan's job (and those into which it queued, where it waits for its family) if it is not over."""
    if await is_over(air, plan):
        return False
    done, jobs = False, [plan.job]
    for job in jobs:
        if plan.wait_for == "family":
            children = ((await air.state(job)).value or {}).get("children") or []
            jobs += [child for child in children if child not in jobs]
        done |= await air.cancel(job)
    return done
