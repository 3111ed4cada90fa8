"""Flows of the system tests. The worker runs them from this file; `flag` is a path by which a test speaks to one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from prefect import flow

from prefect_air_executor import AirExecutor, asubmit_job, await_for_job, submit_job, wait_for_job


def _note(flag: str, what: str) -> None:
    with Path(flag + ".log").open("a") as log:
        log.write(what + "\n")


@flow
def quick(flag: str) -> int:
    """Is over at once."""
    _note(flag, "ran")
    return 7


def _cancelled(flow: Any, flow_run: Any, state: Any) -> None:
    _note(flow_run.parameters["flag"], "cancelled")


@flow(on_cancellation=[_cancelled])
def waits(flag: str) -> None:
    """Runs until the file is there."""
    _note(flag, f"started {os.getpid()}")
    while not Path(flag).exists():
        time.sleep(0.1)
    _note(flag, "done")


@flow
def deaf(flag: str) -> None:
    """Does not heed SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _note(flag, f"started {os.getpid()}")
    while not Path(flag).exists():
        time.sleep(0.1)


@flow(retries=1)
def fails_once(flag: str) -> None:
    """Fails, and is retried by its own engine."""
    _note(flag, "tried")
    if Path(flag + ".log").read_text().count("tried") == 1:
        raise RuntimeError("for once")


@flow
def sync_job(flag: str) -> None:
    """Waits for a job in code that is not async."""
    executor = AirExecutor.from_env()
    job: Any = submit_job(executor, [{"id": "long", "run": "exec sleep 600"}], name="inner")
    _note(flag, job.name)
    wait_for_job(executor, job)


@flow
async def async_job(flag: str) -> None:
    """Waits for a job in async code."""
    executor = AirExecutor.from_env()
    job = await asubmit_job(executor, [{"id": "long", "run": "exec sleep 600"}], name="inner")
    _note(flag, job.name)
    await await_for_job(executor, job)
