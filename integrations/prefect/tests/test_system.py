"""The whole of it: a real Prefect server, workers of the type `air`, managers, runners, and what is killed of them."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from installation import ROOT, Air, Prefect, Process, until

pytestmark = pytest.mark.system

FLOWS = Path(__file__).parent / "flows.py"
EXAMPLE = ROOT / "examples/prefect/flow.py"
PARTS = 1000
POOL = "air-pool"


def status(air: Air, job: str) -> dict[str, Any]:
    """The state of a job; empty without a key."""
    text = air.airx("-o", "json", "status", job, ok=False)
    try:
        return dict(json.loads(text))
    except ValueError:
        return {}


@pytest.fixture(scope="session")
def pool(prefect: Prefect) -> str:
    """A work pool of the type `air`."""
    prefect.prefect("work-pool", "create", POOL, "--type", "air")
    return POOL


@pytest.fixture
def worker(prefect: Prefect, pool: str) -> Process:
    """A worker that polls the pool; one for all tests, unless one has killed it."""
    alive = [one for one in prefect.workers if one.child.poll() is None]
    return alive[0] if alive else prefect.start_worker(pool, f"worker-{len(prefect.workers)}")


class Runs:
    """Starts flow runs of `flows.py`."""

    def __init__(self, prefect: Prefect, flag: Path) -> None:
        self.prefect, self.flag = prefect, flag

    def start(self, name: str, **job_variables: Any) -> str:
        """A flow run, scheduled for now."""
        flow = self.prefect.post("/flows/", {"name": name.replace("_", "-")})
        body = {
            "name": "test",
            "flow_id": flow["id"],
            "work_pool_name": POOL,
            "path": str(FLOWS.parent),
            "entrypoint": f"{FLOWS.name}:{name}",
            "enforce_parameter_schema": False,
        }
        deployment = self.prefect.post("/deployments/", body)
        body = {"parameters": {"flag": str(self.flag)}, "job_variables": job_variables}
        return str(self.prefect.post(f"/deployments/{deployment['id']}/create_flow_run", body)["id"])

    def log(self) -> list[str]:
        """What flows noted."""
        log = Path(f"{self.flag}.log")
        return log.read_text().splitlines() if log.exists() else []

    def pid(self) -> int:
        """The process of the flow, once it has noted it."""
        line = until("the flow has started", lambda: next((one for one in self.log() if "started" in one), None))
        return int(line.split()[1])


@pytest.fixture
def runs(prefect: Prefect, pool: str, flag: Path) -> Runs:
    return Runs(prefect, flag)


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def record(air: Air, job: str) -> dict[str, Any]:
    """The last record of the flow run's task."""
    text = air.airx("-o", "json", "show", job, "flow-run", ok=False)
    return dict(json.loads(text)) if text.startswith("{") else {}


def is_cancelled(air: Air, job: str) -> bool:
    return bool(status(air, job).get("status") == "cancelled")


# ---- the hybrid: a flow with a dynamic middle ----


def test_a_thousand_tasks_while_prefect_and_the_manager_are_killed(prefect: Prefect, air: Air) -> None:
    program = prefect.run(EXAMPLE, str(PARTS))
    job = until("the job is submitted", lambda: _submitted(program))
    done = until("a fifth is done", lambda: _succeeded(air, job, PARTS // 5))
    assert done < PARTS, "too fast to be killed in the middle"
    assert prefect.server is not None
    assert air.manager is not None
    prefect.server.kill()
    air.manager.kill()
    air.start_manager()
    done = until("half is done", lambda: _succeeded(air, job, PARTS // 2))
    prefect.start_server()
    assert program.ended() == 0, program.text()
    total = sum(n * n for n in range(1, PARTS + 1))
    assert f"{PARTS} parts, sum of squares {total}" in program.text()
    assert str(total) in program.text().splitlines()
    state = status(air, job)
    assert state["status"] == "completed"
    # The plan, the parts, and the rest of the fan-out, since a thousand parts and a record are too many for one batch.
    assert state["counters"]["succeeded"] == PARTS + 2
    assert state["counters"]["subtasks"] == PARTS
    assert state["counters"]["failed"] == 0
    air.airx("verify", job)
    flow_run = job.removeprefix("squares-")
    assert prefect.state(flow_run) == "COMPLETED"


def _submitted(program: Process) -> str | None:
    assert program.child.poll() is None, program.text()
    found = re.search(r"Submitted job '([^']+)'", program.text())
    return found[1] if found else None


def _succeeded(air: Air, job: str, number: int) -> int:
    done = int(status(air, job).get("counters", {}).get("succeeded", 0))
    return done if done >= number else 0


# ---- the worker ----


def test_a_flow_run_is_a_task(prefect: Prefect, air: Air, worker: Process, runs: Runs) -> None:
    flow_run = runs.start("quick")
    prefect.until_state(flow_run, "COMPLETED")
    job = prefect.job(flow_run)
    until("the job is completed", lambda: status(air, job).get("status") == "completed")
    assert prefect.states(flow_run) == ["SCHEDULED", "PENDING", "PENDING", "RUNNING", "COMPLETED"]
    assert runs.log() == ["ran"]


def test_two_workers_run_a_flow_run_once(prefect: Prefect, pool: str, worker: Process, runs: Runs) -> None:
    other = prefect.start_worker(pool, "other")
    flow_runs = [runs.start("quick") for _ in range(4)]
    for flow_run in flow_runs:
        prefect.until_state(flow_run, "COMPLETED")
    other.stop()
    assert runs.log() == ["ran"] * 4


def test_a_retry_of_the_engine_stays_in_its_job(prefect: Prefect, air: Air, worker: Process, runs: Runs) -> None:
    flow_run = runs.start("fails_once")
    prefect.until_state(flow_run, "COMPLETED")
    until("the job is completed", lambda: status(air, prefect.job(flow_run)).get("status") == "completed")
    assert runs.log() == ["tried", "tried"]
    assert prefect.state(flow_run) == "COMPLETED"


def test_a_flow_run_that_is_scheduled_again_is_a_new_job(
    prefect: Prefect, air: Air, worker: Process, runs: Runs
) -> None:
    flow_run = runs.start("quick", command="echo no interpreter here >&2; exit 3")
    found = prefect.until_state(flow_run, "CRASHED")
    message = found["state"]["message"]
    assert "exit code 3" in message
    assert "no interpreter here" in message
    first = prefect.job(flow_run)
    prefect.post(
        f"/flow_runs/{flow_run}/set_state", {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}
    )
    until("it has crashed again", lambda: prefect.states(flow_run).count("CRASHED") == 2)
    until("it is another job", lambda: prefect.job(flow_run) != first)


def test_a_worker_that_is_killed_is_not_missed(prefect: Prefect, air: Air, worker: Process, runs: Runs) -> None:
    flow_run = runs.start("waits")
    runs.pid()
    worker.kill()
    runs.flag.touch()
    prefect.until_state(flow_run, "COMPLETED")
    assert [line.split()[0] for line in runs.log()] == ["started", "done"]


def test_the_next_worker_reports_the_crash_that_none_saw(
    prefect: Prefect, air: Air, pool: str, worker: Process, runs: Runs
) -> None:
    flow_run = runs.start("waits")
    pid = runs.pid()
    job = prefect.job(flow_run)
    worker.kill()
    # The process that supervises the flow is killed with it: nobody is left who could tell Prefect.
    for parent in (_parent(_parent(pid)), _parent(pid), pid):
        os.kill(parent, signal.SIGKILL)
    until("the task is over", lambda: status(air, job).get("status") == "failed")
    assert prefect.state(flow_run) == "RUNNING"
    prefect.start_worker(pool, "next")
    found = prefect.until_state(flow_run, "CRASHED")
    assert job in found["state"]["message"]


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


# ---- cancelling ----


def test_cancel_of_a_flow_run_that_runs(prefect: Prefect, air: Air, worker: Process, runs: Runs) -> None:
    # Time enough to hear of it on a machine that is ten times slower.
    flow_run = runs.start("waits", cancel_grace_seconds=600)
    pid = runs.pid()
    prefect.until_state(flow_run, "RUNNING")
    prefect.cancel(flow_run)
    prefect.until_state(flow_run, "CANCELLED")
    until("its process is gone", lambda: is_gone(pid))
    until("its job is cancelled", lambda: is_cancelled(air, prefect.job(flow_run)))
    assert runs.log()[1:] == ["cancelled"], "the hook ran once, and nothing else"
    assert prefect.states(flow_run)[-2:] == ["CANCELLING", "CANCELLED"]


def test_cancel_of_a_flow_run_that_does_not_heed(prefect: Prefect, air: Air, worker: Process, runs: Runs) -> None:
    flow_run = runs.start("deaf", cancel_grace_seconds=1)
    pid = runs.pid()
    prefect.until_state(flow_run, "RUNNING")
    prefect.cancel(flow_run)
    found = prefect.until_state(flow_run, "CANCELLED")
    until("its process is gone", lambda: is_gone(pid))
    job = prefect.job(flow_run)
    until("its job is cancelled", lambda: is_cancelled(air, job))
    assert job in found["state"]["message"]
    assert record(air, job)["status"] == "cancelled"


def test_cancel_of_a_flow_run_that_nobody_runs_yet(prefect: Prefect, air: Air, worker: Process, runs: Runs) -> None:
    assert air.manager is not None
    air.manager.stop()
    flow_run = runs.start("quick")
    job = prefect.job(flow_run)
    prefect.cancel(flow_run)
    prefect.until_state(flow_run, "CANCELLED")
    assert status(air, job)["status"] == "cancelling"
    air.start_manager()
    until("its job is cancelled", lambda: is_cancelled(air, job))
    assert record(air, job)["status"] == "cancelled"
    assert runs.log() == []
    assert prefect.state(flow_run) == "CANCELLED"


def test_cancel_while_no_worker_is_there(prefect: Prefect, air: Air, pool: str, worker: Process, runs: Runs) -> None:
    assert air.manager is not None
    air.manager.stop()
    flow_run = runs.start("quick")
    job = prefect.job(flow_run)
    worker.kill()
    prefect.cancel(flow_run)
    prefect.start_worker(pool, "late")
    prefect.until_state(flow_run, "CANCELLED")
    air.start_manager()
    until("its job is cancelled", lambda: is_cancelled(air, job))
    assert runs.log() == []


def test_cancel_in_air_executor(prefect: Prefect, air: Air, worker: Process, runs: Runs) -> None:
    flow_run = runs.start("waits")
    pid = runs.pid()
    job = prefect.job(flow_run)
    air.airx("cancel", job)
    found = prefect.until_state(flow_run, "CANCELLED")
    assert job in found["state"]["message"]
    assert is_gone(pid)


@pytest.mark.parametrize("name", ["sync_job", "async_job"])
def test_a_job_is_cancelled_with_the_flow_run_that_waits_for_it(
    prefect: Prefect, air: Air, worker: Process, runs: Runs, name: str
) -> None:
    flow_run = runs.start(name, env={"NATS_URL": air.url})
    inner = until("the job is submitted", lambda: next(iter(runs.log()), None))
    until("its task runs", lambda: status(air, inner).get("status") == "working")
    prefect.cancel(flow_run)
    prefect.until_state(flow_run, "CANCELLED")
    until("the inner job is cancelled", lambda: is_cancelled(air, inner))
    until("the outer job is cancelled", lambda: is_cancelled(air, prefect.job(flow_run)))


# ---- at the end ----


def test_verify_finds_nothing(air: Air) -> None:
    """Over all jobs of all tests."""
    air.airx("verify")
