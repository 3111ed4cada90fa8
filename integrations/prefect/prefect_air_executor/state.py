"""The wire protocol of Air-Executor without I/O or clocks: tasks, records, and what a cancel makes of a job's state.

The rules are those of docs/protocol.md, sections 1, 4, 6 and 9.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta, timezone
from typing import Any

TASK_BYTES_MAX = 524_288
LEASE_TTL_DEFAULT = timedelta(seconds=30)
FINAL = frozenset({"succeeded", "failed", "cancelled", "skipped"})

_JOB = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SPAN = re.compile(r"(\d+)([a-z]+)")
_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "day": timedelta(days=1),
    "days": timedelta(days=1),
}


@dataclass(frozen=True)
class Task:
    """A task as a user publishes it. Exactly one of `run` and `exec` is given."""

    id: str | None = None
    run: str | None = None
    exec: Sequence[str] | None = None
    needs: Sequence[str | dict[str, Any]] | None = None
    input: Any = None
    env: dict[str, str] | None = None
    cwd: str | None = None
    timeout: str | int | None = None
    retry: dict[str, Any] | None = None
    backend: str | None = None
    image: str | None = None
    resources: dict[str, str] | None = None
    not_before: str | None = None
    labels: dict[str, str] | None = None

    def __post_init__(self) -> None:
        if (self.run is None) == (self.exec is None):
            raise ValueError("a task has exactly one of `run` and `exec`")
        if self.id is not None and not _TASK.fullmatch(self.id):
            raise ValueError(f"`{self.id}` is no task id: letters, digits, - and _, at most 64, no - or _ first")

        for name in self.env or {}:
            if not name or "=" in name or name.startswith("AIR_"):
                raise ValueError(f"`{name}` is no name for a task's environment; AIR_ is Air-Executor's own")

    @classmethod
    def of(cls, task: Task | dict[str, Any]) -> Task:
        """The task in `task`; a field that does not exist is refused by name."""
        if isinstance(task, Task):
            return task
        unknown = set(task) - {one.name for one in fields(cls)}
        if unknown:
            raise ValueError(f"a task has no field {', '.join(f'`{name}`' for name in sorted(unknown))}")
        return cls(**task)

    def encode(self) -> bytes:
        """The message: JSON, absent fields left out."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        body = json.dumps({name: value for name, value in values.items() if value is not None}).encode()
        if len(body) > TASK_BYTES_MAX:
            raise ValueError(f"task `{self.id}` has {len(body)} bytes; a message has at most {TASK_BYTES_MAX}")
        return body


@dataclass(frozen=True)
class Record:
    """The last record of a task: the truth about it."""

    task: str
    status: str
    sequence: int
    body: dict[str, Any] = field(repr=False)

    @property
    def is_final(self) -> bool:
        """Whether the task is over."""
        return self.status in FINAL

    @property
    def error(self) -> str | None:
        """What went wrong, and how to mend it."""
        return self.body.get("error")

    @property
    def tail(self) -> str:
        """The last 4 KiB that the program printed."""
        return self.body.get("tail") or ""

    def describe(self) -> str:
        """Status, exit, error and tail, for people."""
        words = [f"task `{self.task}` {self.status}"]
        if (code := self.body.get("exit")) is not None:
            words.append(f"exit code {code}")
        if (number := self.body.get("signal")) is not None:
            words.append(f"signal {number}")
        if self.error:
            words.append(self.error)
        tail = self.tail.rstrip()
        return ": ".join(words) + (f"\n--- the last that it printed ---\n{tail}" if tail else "")


@dataclass(frozen=True)
class State:
    """The state of a job, at a revision of its key."""

    status: str
    revision: int
    body: dict[str, Any] = field(repr=False)

    @property
    def counters(self) -> dict[str, int]:
        """Tasks by their last record, and what they did."""
        return dict(self.body.get("counters") or {})

    @property
    def failed_task(self) -> str | None:
        """The task at which a `failed` job stopped."""
        return self.body.get("task")

    @property
    def phase(self) -> str | None:
        """How far the work of a `working` job is."""
        return (self.body.get("lease") or {}).get("phase")

    def is_done(self, sequence: int) -> bool:
        """Whether the job is through with the message `sequence`, or stopped before it."""
        return self.status == "failed" or int(self.body.get("drained") or 0) >= max(sequence, 1)


def check_job(job: str) -> str:
    """`job`, if it can be the name of one."""
    if not _JOB.fullmatch(job):
        raise ValueError(f"`{job}` is no name of a job: letters, digits, - and _, at most 64")
    return job


def parse_span(span: str | int) -> timedelta:
    """A span such as `1h30m`; a whole number is seconds."""
    if isinstance(span, int):
        return timedelta(seconds=span)
    parts = _SPAN.findall(span.replace(" ", ""))
    if not parts or "".join(number + unit for number, unit in parts) != span.replace(" ", ""):
        raise ValueError(f"`{span}` is no span")
    try:
        return sum((int(number) * _UNITS[unit] for number, unit in parts), timedelta())
    except KeyError as unit:
        raise ValueError(f"`{span}` is no span: unit {unit}") from None


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return time.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """The moment that `format_time` wrote."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _stopping(phase: dict[str, Any]) -> dict[str, Any] | None:
    """A phase once a user cancels; none where nothing has run, and the lease is dropped."""
    if phase["phase"] == "running":
        return {**phase, "phase": "stopping", "then": "cancel"}
    if phase["phase"] == "stopping":
        return phase
    if phase["phase"] == "recovering":
        before = _stopping(phase["from"])
        return None if before is None else {**phase, "from": before}
    return None


def _may_commit(phase: dict[str, Any]) -> bool:
    if phase["phase"] == "recovering":
        return _may_commit(phase["from"])
    return bool(phase["phase"] != "starting")


def cancelled(state: dict[str, Any], now: datetime) -> dict[str, Any] | None:
    """What a cancel makes of the state of a job; none where it changes nothing."""
    if state["status"] in ("cancelling", "removing"):
        return None
    after = copy.deepcopy(state)
    after["updated"] = format_time(now)
    if (hold := after.get("hold_until")) and parse_time(hold) <= now:
        del after["hold_until"]
    if state["status"] == "working":
        lease = after["lease"]
        stopping = _stopping(lease)
        if stopping == lease:
            return None
        if stopping is not None:
            after["lease"] = stopping
            return after
        if _may_commit(lease):
            until = now + parse_span(lease["ttl"])
            known = after.get("zombie_until")
            after["zombie_until"] = format_time(max(until, parse_time(known)) if known else until)
    for name in ("lease", "drained", "task", "purge_to"):
        after.pop(name, None)
    after["status"] = "cancelling"
    return after


def new_state(now: datetime, held_for: timedelta | None = None) -> dict[str, Any]:
    """The state of a job without a key; held where a key was deleted, since its runner may live on."""
    names = ("succeeded", "failed", "cancelled", "skipped", "retrying", "reset", "parked")
    counters = dict.fromkeys((*names, "attempts", "losses", "subtasks", "cpu_ms"), 0)
    state: dict[str, Any] = {"v": 1, "status": "waiting", "counters": counters, "accounted": 0, "failing": 0}
    state["last_record"] = 0
    if held_for is not None:
        state["hold_until"] = state["zombie_until"] = format_time(now + held_for)
    state["updated"] = format_time(now)
    return state
