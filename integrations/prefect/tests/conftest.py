"""Servers that tests share, and a job name for each."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

# Before anything imports Prefect: nothing of this machine's own settings is used.
for name in [name for name in os.environ if name.startswith(("NATS_", "PREFECT_")) and name != "PREFECT_HOME"]:
    del os.environ[name]

import pytest
from installation import BIN, Air, Prefect

from prefect_air_executor.protocol import Client


def pytest_configure() -> None:
    """Says what is missing, before any test does."""
    for program in ("airx", "air-runner"):
        if not (BIN / program).is_file():
            raise pytest.UsageError(f"{BIN / program} is missing: set AIR_BIN")
    if not os.environ.get("AIR_NATS_SERVER"):
        raise pytest.UsageError("AIR_NATS_SERVER does not name a nats-server")


@pytest.fixture(scope="session")
def air(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Air]:
    """An installation with a manager."""
    one = Air(tmp_path_factory.mktemp("air"))
    try:
        one.airx("init")
        one.start_manager()
        yield one
    finally:
        one.stop()


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory, air: Air) -> Iterator[Prefect]:
    """A Prefect server, whose flows find the installation."""
    one = Prefect(tmp_path_factory.mktemp("prefect"), air)
    try:
        one.start_server()
        yield one
    finally:
        one.stop()


@pytest.fixture
async def client(air: Air) -> AsyncIterator[Client]:
    """A client of the installation."""
    async with air.executor().client() as one:
        yield one


@pytest.fixture
def job(request: pytest.FixtureRequest) -> str:
    """A name of a job that no other test uses."""
    return request.node.name.replace("[", "-").replace("]", "")[:64]


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    """A file that a task waits for."""
    return tmp_path / "go"
