"""What the worker decides without any server: the name of a job, and the task of a flow run."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State, StateType

from prefect_air_executor import AirExecutor, AirWorker
from prefect_air_executor.worker import AirJobConfiguration

FLOW_RUN = UUID("018f3b1e-7c5a-7d3e-9f00-0123456789ab")


class History:
    """States of a flow run, each a second after the one before."""

    def __init__(self, *names: str) -> None:
        types = {"Late": "SCHEDULED", "AwaitingRetry": "SCHEDULED", "Submitting": "PENDING"}
        start = datetime(2026, 1, 31, tzinfo=timezone.utc)
        self.states = [
            State(
                id=uuid4(),
                type=StateType(types.get(name, name.upper())),
                name=name,
                timestamp=start + timedelta(seconds=n),
            )
            for n, name in enumerate(names)
        ]

    async def read_flow_run_states(self, flow_run: UUID) -> list[State]:
        """As the API does, in no order to rely on."""
        assert flow_run == FLOW_RUN
        return self.states[::-1]


async def job_of(history: History) -> str:
    worker = SimpleNamespace(client=history)
    return await AirWorker._job(worker, FLOW_RUN)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "turn"),
    [
        (["Scheduled"], 0),
        (["Scheduled", "Pending"], 0),
        (["Scheduled", "Late", "Pending", "Submitting", "Running"], 1),
        (["Scheduled", "Pending", "Submitting", "Running", "AwaitingRetry", "Running"], 0),
        (["Scheduled", "Pending", "Running", "Failed", "AwaitingRetry", "Pending"], 4),
        (["Pending", "Running"], 0),
    ],
)
async def test_the_job_follows_from_the_scheduling(names: list[str], turn: int) -> None:
    history = History(*names)
    assert await job_of(history) == f"prefect-{FLOW_RUN}-{history.states[turn].id.hex[-12:]}"


def test_the_task_of_a_flow_run() -> None:
    env = {"PREFECT_API_KEY": "k", "PREFECT_API_URL": "u", "UNSET": None}
    configuration = AirJobConfiguration(
        executor=AirExecutor(), command="prefect flow-run execute", env=env, cpu="2", labels={"a": "b"}
    )
    task = json.loads(configuration.task().encode())
    assert task == {
        "id": "flow-run",
        "run": "prefect flow-run execute",
        "env": {"PREFECT_API_KEY": "k", "PREFECT_API_URL": "u"},
        "timeout": "0",
        "retry": {"max": 0},
        "resources": {"cpu": "2"},
        "labels": {"a": "b"},
    }
    configuration.share_credentials = False
    assert json.loads(configuration.task().encode())["env"] == {"PREFECT_API_URL": "u"}


def test_what_a_work_pool_may_set() -> None:
    template = AirWorker.get_default_base_job_template()
    variables = template["variables"]["properties"]
    assert set(template["job_configuration"]) == set(variables)
    assert variables["cancel_grace_seconds"]["default"] == 30
    assert "secret" not in json.dumps(variables.get("executor", {}).get("default", {}))
