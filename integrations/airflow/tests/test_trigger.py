"""The triggers against a real server, with Airflow's side of the conversation written down here."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetTaskStates, SetXCom
from airflow.triggers.base import TaskSuccessEvent
from conftest import Installation

from air_executor_provider import trigger as triggers
from air_executor_provider.identity import job_of
from air_executor_provider.protocol import connected
from air_executor_provider.trigger import AirExecutorTrigger

INSTANCE = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1, start_date=None)


class Comms:
    """What a triggerer answers."""

    def __init__(self, state: str | None) -> None:
        self.state = state
        self.xcoms: dict[str, Any] = {}
        self.silent = False

    async def asend(self, message: Any) -> Any:
        assert isinstance(message, GetTaskStates), message
        if self.silent:
            await asyncio.Event().wait()
        return SimpleNamespace(task_states={"r": {"t": self.state}})

    def send(self, message: Any) -> None:
        assert isinstance(message, SetXCom), message
        self.xcoms[message.key] = message.value


@pytest.fixture
def comms(air: Installation, monkeypatch: pytest.MonkeyPatch) -> Comms:
    value = {"conn_type": "air_executor", "host": air.server.url, "extra": {"dashboard": "http://d"}}
    monkeypatch.setenv("AIRFLOW_CONN_AIR_EXECUTOR_DEFAULT", json.dumps(value))
    one = Comms("deferred")
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", one, raising=False)
    return one


def made(run: str, **other: Any) -> AirExecutorTrigger:
    one = AirExecutorTrigger(tasks={"run": run}, poll_s=1.0, **other)
    path, arguments = one.serialize()
    assert path.endswith(".AirExecutorTrigger")
    again = AirExecutorTrigger(**json.loads(json.dumps(arguments)))
    again.task_instance = INSTANCE  # type: ignore[assignment]
    return again


async def ended_by_user(one: AirExecutorTrigger, comms: Comms, state: str | None) -> str:
    """What becomes of a job whose trigger is cancelled as a triggerer does it."""
    job = job_of(INSTANCE)

    async def run() -> None:
        async for _ in one.run():
            raise AssertionError("the job is not over")

    running = asyncio.ensure_future(run())
    hook = triggers.AirExecutorHook()
    async with connected(await hook.settings()) as client:
        while (((await client.state(job)).value or {}).get("lease") or {}).get("phase") != "running":
            assert not running.done(), running.result()
            await asyncio.sleep(0.1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        comms.state = state
        await asyncio.wait_for(one.on_kill(), 60)
        after = (await client.state(job)).value
        assert after is not None
        ending = after["status"] in ("cancelling", "cancelled") or after["lease"]["phase"] == "stopping"
        await client.cancel(job)
        return "cancelled" if ending else "goes on"


async def test_a_success_is_pushed_as_a_worker_pushes_it(comms: Comms) -> None:
    events = [event async for event in made("echo '{\"a\": [1]}' > $AIR_OUTPUT", end=True).run()]
    assert isinstance(events[0], TaskSuccessEvent)
    assert events[0].xcoms is None
    job = job_of(INSTANCE)
    assert comms.xcoms["return_value"] == {"task": {"a": [1]}}
    assert comms.xcoms["job"] == job
    assert comms.xcoms["_link_AirExecutorJobLink"] == f"http://d/#/jobs/{job}"


async def test_a_failure_is_left_to_a_worker(comms: Comms) -> None:
    one = AirExecutorTrigger(tasks={"run": "exit 1", "retry": {"max": 0}}, end=True)
    one.task_instance = INSTANCE  # type: ignore[assignment]
    events = [event async for event in one.run()]
    assert events[0].payload["plan"]["job"] == job_of(INSTANCE)
    assert comms.xcoms == {}


async def test_an_error_is_one_line_for_the_worker(comms: Comms) -> None:
    events = [event async for event in made("", job="no name").run()]
    assert "'no name' is no name of a job" in events[0].payload["error"]


@pytest.mark.parametrize(
    ("state", "wanted", "becomes"),
    [
        ("failed", True, "cancelled"),
        (None, True, "cancelled"),
        ("deferred", True, "goes on"),
        ("running", True, "goes on"),
        ("failed", False, "goes on"),
    ],
)
async def test_a_job_is_cancelled_if_a_user_ended_its_task(
    comms: Comms, state: str | None, wanted: bool, becomes: str
) -> None:
    assert await ended_by_user(made("sleep 600", cancel_on_kill=wanted), comms, state) == becomes


async def test_a_job_goes_on_if_airflow_does_not_say(comms: Comms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "ASK_S", 0.5)
    comms.silent = True
    assert await ended_by_user(made("sleep 600"), comms, "failed") == "goes on"
