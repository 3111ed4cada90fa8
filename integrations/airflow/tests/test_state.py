"""The pure part of the protocol: transitions against the schema that the project's own code writes, names, spans."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from air_executor_provider import identity, state
from air_executor_provider.link import Refused

SCHEMA = json.loads((Path(__file__).resolve().parents[3] / "docs/schemas/state.json").read_text())
AT = datetime(2026, 1, 31, 8, tzinfo=timezone.utc)
TARGET = {"task": "t", "seq": 5, "attempt": 2, "expected": 3}
RUNNING = {"phase": "running", "target": TARGET, "fence": 7, "started": "2026-01-31T07:59:00.000Z", "host": "h"}
STOPPING = {**RUNNING, "phase": "stopping", "then": "cancel"}
STARTING = {"phase": "starting", "target": TARGET}
SETTLING = {"phase": "settling", "decisions": [{"target": TARGET, "verdict": "skip", "reason": "why"}]}


def recovering(inner: dict[str, Any]) -> dict[str, Any]:
    return {"phase": "recovering", "from": inner, "by": "m"}


def working(phase: dict[str, Any]) -> state.State:
    lease = {
        "runner": "01a20d30-f5ba-7430-85c1-8f9e4310ff8a",
        "manager": "m",
        "backend": "process",
        "claimed": "2026-01-31T07:59:00.000Z",
        "renewed": "2026-01-31T07:59:00.000Z",
        "ttl": "30s",
        "start_within": "10s",
        **phase,
    }
    return {**state.new_state(AT), "status": "working", "lease": lease}


def valid(value: state.State | None) -> state.State:
    assert value is not None
    jsonschema.validate(value, SCHEMA)
    return value


@pytest.mark.parametrize("phase", [STARTING, SETTLING, recovering(STARTING), recovering(SETTLING)])
def test_a_lease_under_which_nothing_runs_is_dropped(phase: dict[str, Any]) -> None:
    after = valid(state.stopped(valid(working(phase)), AT))
    assert after["status"] == "cancelling"
    assert "lease" not in after
    settles = phase in (SETTLING, recovering(SETTLING))
    assert after.get("zombie_until") == ("2026-01-31T08:00:30.000Z" if settles else None)


@pytest.mark.parametrize(("phase", "to"), [(RUNNING, STOPPING), (recovering(RUNNING), recovering(STOPPING))])
def test_a_runner_is_asked_to_stop(phase: dict[str, Any], to: dict[str, Any]) -> None:
    after = valid(state.stopped(valid(working(phase)), AT))
    assert after["lease"] == working(to)["lease"]
    assert state.is_ending(after)
    assert not state.is_ending(working(phase))


@pytest.mark.parametrize("phase", [STOPPING, {**STOPPING, "then": "remove"}, recovering(STOPPING)])
def test_what_stops_already_is_left(phase: dict[str, Any]) -> None:
    assert state.stopped(valid(working(phase)), AT) is None


def test_what_belongs_to_a_status_goes_with_it() -> None:
    completed = {**state.new_state(AT), "status": "completed", "drained": 9, "hold_until": "2026-01-31T07:00:00.000Z"}
    assert "drained" not in valid(state.stopped(valid(completed), AT))
    assert "hold_until" not in valid(state.stopped(completed, AT))
    failed = {**state.new_state(AT), "status": "failed", "task": "t", "hold_until": "2026-01-31T09:00:00.000Z"}
    retried = valid(state.retried(valid(failed), AT))
    assert retried["status"] == "waiting"
    assert "task" not in retried
    assert retried["hold_until"] == "2026-01-31T09:00:00.000Z"
    assert state.stopped({**completed, "status": "cancelling"}, AT) is None
    assert state.retried(working(RUNNING), AT) is None
    with pytest.raises(ValueError, match="removing"):
        state.retried({**completed, "status": "removing"}, AT)


def test_a_later_zombie_is_kept() -> None:
    before = {**working(SETTLING), "zombie_until": "2026-01-31T08:05:00.000Z"}
    assert valid(state.stopped(before, AT))["zombie_until"] == "2026-01-31T08:05:00.000Z"


def test_new_and_rebuilt_states_are_states() -> None:
    valid(state.new_state(AT))
    assert valid(state.rebuilt_state(AT, timedelta(minutes=1)))["hold_until"] == "2026-01-31T08:01:00.000Z"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("7days", 604_800), ("250ms", 0.25), (45, 45), ("1m 30s", 90)]
)
def test_spans(text: object, seconds: float) -> None:
    assert state.span(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs", "s5", True])
def test_no_spans(text: object) -> None:
    with pytest.raises(ValueError, match="no span"):
        state.span(text)


def test_over_is_drained_or_failed() -> None:
    fresh = state.new_state(AT)
    assert not state.is_over(fresh, 0)
    assert state.is_over({**fresh, "status": "completed", "drained": 9}, 9)
    assert not state.is_over({**fresh, "status": "completed", "drained": 9}, 10)
    assert state.is_over({**fresh, "status": "failed"}, 10)


def instance(**other: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{"dag_id": "my.dag", "run_id": "manual__2026+1", "task_id": "air", "map_index": -1, **other}
    )


def test_names_follow_from_the_task_instance() -> None:
    job, tasks = identity.identify(instance(), None, {"run": "true"})
    assert state.JOB_NAME.fullmatch(job)
    assert job.startswith("my-dag-air-")
    assert tasks == [{"run": "true", "id": "task"}]
    others = [
        instance(run_id="b"),
        instance(map_index=0),
        instance(map_index=1),
        instance(task_id="b"),
        instance(dag_id="d"),
    ]
    assert len({job, *(identity.job_of(one) for one in others)}) == 6
    assert identity.job_of(instance(map_index=None)) == job
    long = identity.job_of(instance(dag_id="d" * 250, task_id="ü" * 250))
    assert state.JOB_NAME.fullmatch(long)
    # Pinned: a name that changes with a version of this package would submit again what runs.
    assert job == "my-dag-air-2a3f26e51027a3a0"


def test_in_a_job_of_others_ids_are_ours_alone() -> None:
    _, tasks = identity.identify(instance(), "nightly", [{"run": "a"}, {"run": "b", "id": "b"}])
    _, other = identity.identify(instance(run_id="2"), "nightly", [{"run": "a"}])
    assert tasks[0]["id"] != other[0]["id"]
    assert tasks[1]["id"] == "b"
    assert all(state.TASK_ID.fullmatch(task["id"]) for task in tasks)
    with pytest.raises(Refused, match="no name of a job"):
        identity.identify(instance(), "a b", [{"run": "a"}])
