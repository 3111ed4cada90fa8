"""Submitting without ever submitting twice, waiting for the end, and saying how it was.

Nothing here knows of Airflow, and nothing is remembered between calls: a :class:`Plan` is all that a later process
needs, and everything else is read from NATS.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, get_args

from . import state as rules
from .link import AirError, Refused, Unreachable
from .protocol import Air, Record, Task, check_job, now

WaitFor = Literal["tasks", "job", "family"]
#: Time for which a submit waits until a cancel of the same job is done.
ENDING_S = 120.0
#: Failed tasks that an error names.
NAMED_MAX = 10
LABEL = "airflow"


@dataclass(frozen=True)
class Plan:
    """What was submitted, and what its end is."""

    job: str
    tasks: tuple[str, ...]
    wait_for: WaitFor = "family"
    #: Sequence of the last of the tasks' messages: the job is over when it is drained up to there.
    upto: int = 0
    #: Sequence before the first of them: failures that are older are others'.
    since: int = 0

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "tasks": list(self.tasks)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        """From plain values."""
        return cls(**{**value, "tasks": tuple(value["tasks"])})

    def __post_init__(self) -> None:
        check_job(self.job)
        if self.wait_for not in get_args(WaitFor):
            raise Refused(f"wait_for is {self.wait_for!r}; write tasks, job or family")


@dataclass(frozen=True)
class Submitted:
    """What a submit did."""

    plan: Plan
    published: int
    attached: int
    again: int


@dataclass(frozen=True)
class Failure:
    """A task that did not succeed."""

    job: str
    task: str
    status: str
    error: str = ""
    tail: str = ""
    attempt: int = 0


@dataclass(frozen=True)
class Outcome:
    """How it ended."""

    plan: Plan
    failures: tuple[Failure, ...] = ()
    #: A job that ended without any task to blame, and how.
    ended: tuple[str, ...] = ()
    records: Mapping[str, Record] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Whether everything did."""
        return not self.failures and not self.ended

    def text(self) -> str:
        """What failed, why, and how to mend it; the log of the first failed task at the end."""
        job = self.plan.job
        if not self.failures:
            return f"the job {job}: {'; '.join(self.ended)}. `airx status {job}` shows more; clear the task to run it again."
        first = self.failures[0]
        lines = [
            f"the task {first.job}/{first.task} {_passive(first.status)}"
            + (f" at attempt {first.attempt}" if first.attempt else "")
            + (f": {first.error}" if first.error else "")
            + f". `airx show {first.job} {first.task}` shows more; clear the task to run again what did not succeed."
        ]
        if more := self.failures[1:]:
            names = ", ".join(f"{one.job}/{one.task} ({one.status})" for one in more[: NAMED_MAX - 1])
            rest = f" and {len(more) - NAMED_MAX + 1:,} more" if len(more) >= NAMED_MAX else ""
            lines.append(f"Besides: {names}{rest}.")
        if first.tail:
            lines.append(f"The last that {first.job}/{first.task} printed:")
            lines += [f"  {line}" for line in first.tail.rstrip().splitlines()]
        return "\n".join(lines)


def _exit(record: Record) -> str:
    """What the exit code says, where the record has no error text."""
    if record.get("signal"):
        return f"ended by signal {record['signal']}"
    return f"exit code {record['exit']}" if record.get("exit") else ""


def _passive(status: str) -> str:
    return {"cancelled": "was cancelled", "skipped": "was skipped"}.get(status, status)


async def submit(
    air: Air,
    job: str,
    tasks: Sequence[Task],
    *,
    owner: Mapping[str, str],
    began: datetime,
    wait_for: WaitFor = "family",
    spec: Mapping[str, Any] | None = None,
    again: bool = True,
) -> Submitted:
    """Queues those of the tasks that are not known yet, and attaches to those that are.

    :param owner: labels that say whose they are: tasks of the same ids with others are refused.
    :param began: when this try began. What had failed before (in all that is waited for) is run again, if ``again``.
    :raises AirError: a task is none, belongs to somebody else, or NATS does not take it.
    """
    if not tasks:
        raise Refused(f"the job {job} gets no task; give at least one")
    labelled = [{**task, "labels": {**(task.get("labels") or {}), **owner}} for task in tasks]
    ids = tuple(task["id"] for task in tasks)
    if len(set(ids)) < len(ids):
        twice = next(one for at, one in enumerate(ids) if one in ids[:at])
        raise Refused(f"the job {job} gets two tasks of the id {twice}; an id names one task of a job")
    plan = Plan(job, ids, wait_for)
    await _until_ended(air, job)
    if spec:
        await air.merge_spec(job, spec)
    known = await records(air, job, ids)
    for name, (_, record) in known.items():
        _own(job, name, (record.get("spec") or {}).get("labels"), owner)
    missing = [task for task in labelled if task["id"] not in known]
    acks = await air.publish(job, missing)
    for task, ack in zip(missing, acks, strict=True):
        # Somebody published the same id within two minutes: is it ours?
        if ack.duplicate and (waits := await air.queued(ack.seq)):
            _own(job, task["id"], waits.get("labels"), owner)
    sequences = [ack.seq for ack in acks]
    sequences += [record["seq"] for _, record in known.values() if record.get("seq")]
    plan = replace(plan, upto=max(sequences, default=0), since=max(min(sequences, default=1) - 1, 0))
    run_again = await _again(air, plan, began) if again else 0
    duplicates = sum(ack.duplicate for ack in acks)
    return Submitted(plan, len(acks) - duplicates, len(known) + duplicates, run_again)


def _own(job: str, task: str, labels: Mapping[str, str] | None, owner: Mapping[str, str]) -> None:
    theirs = {name: (labels or {}).get(name, "nobody's") for name in owner}
    if theirs != dict(owner):
        raise Refused(
            f"the task {job}/{task} is there already, and belongs to {', '.join(theirs.values())}: leave `job` out, so that "
            "each run has a job of its own, or put {{ run_id }} into the id"
        )


async def _until_ended(air: Air, job: str) -> None:
    """Waits while the job is being cancelled: what is queued now might be purged with the rest."""
    loop = asyncio.get_running_loop()
    until = loop.time() + ENDING_S
    async with air.news([job]) as heard:
        while rules.is_ending((await air.state(job)).value):
            if loop.time() > until:
                raise Refused(
                    f"the job {job} is still being cancelled or removed after {ENDING_S:.0f} s; does a manager run? (`airx doctor`)"
                )
            await _heard(heard, 1.0)


async def _again(air: Air, plan: Plan, began: datetime) -> int:
    """Runs again what did not succeed before this try began."""
    done = 0
    for job in await _jobs(air, plan):
        lasts = {
            task: (seq, record)
            for task, (seq, record) in (await _bad(air, plan, job)).items()
            if rules.from_time(record["ended"]) < began
        }
        if lasts:
            done += await air.retry(job, lasts)
    return done


async def records(air: Air, job: str, tasks: Sequence[str]) -> dict[str, tuple[int, Record]]:
    """The last records of tasks: by direct get, and from the leader for those that are not over by it."""
    found = await air.last_records(job, tasks)
    unsure = [task for task in tasks if task not in found or found[task][1]["status"] not in rules.FINAL]
    # A few are asked of the leader one by one; of many the replicas' word is as good: what is published again is not run again.
    if len(unsure) <= 20:
        for task in unsure:
            if last := await air.last_record(job, task):
                found[task] = last
    return found


async def _jobs(air: Air, plan: Plan) -> list[str]:
    """The jobs that are waited for as a whole, as far as they are known; of single tasks the one that they are in."""
    jobs = [plan.job]
    if plan.wait_for == "family":
        for job in jobs:
            state = (await air.state(job)).value or {}
            jobs += [child for child in state.get("children") or [] if child not in jobs]
    return jobs


async def _bad(air: Air, plan: Plan, job: str) -> dict[str, tuple[int, Record]]:
    """The last records of tasks of a job that are waited for, are over, and have not succeeded."""
    if plan.wait_for == "tasks":
        lasts = await records(air, job, plan.tasks)
    else:
        state = (await air.state(job)).value
        counters = (state or {}).get("counters") or {}
        suspicious = state is None or state["status"] in ("failed", "cancelled", "waiting", "working")
        if not suspicious and not any(counters.get(name) for name in ("failed", "cancelled", "skipped")):
            return {}
        lasts = {}
        async for seq, record in air.records_after(job, plan.since):
            lasts[record["task"]] = (seq, record)
    return {task: one for task, one in lasts.items() if one[1]["status"] in rules.FINAL - {"succeeded"}}


async def is_over(air: Air, plan: Plan) -> bool:
    """Whether nothing of the plan runs or waits any more."""
    # The queue before the key: a completed state that is read afterwards knows of what was gone.
    last = max(plan.upto, await air.last_queued(plan.job) if plan.wait_for != "tasks" else 0)
    state = (await air.state(plan.job)).value
    if state is not None and state["status"] == "failed":
        return plan.wait_for != "family" or await _children_over(air, state, {plan.job})
    if plan.wait_for == "tasks":
        # Completed or cancelled up to the tasks: one without a record was removed.
        if state is not None and rules.is_over(state, plan.upto):
            return True
        lasts = await records(air, plan.job, plan.tasks)
        return all(task in lasts and lasts[task][1]["status"] in rules.FINAL for task in plan.tasks)
    if state is None:
        # No manager has begun, or the job was removed: then its records are gone, and so is the queue.
        return last > 0 and await air.last_queued(plan.job) == 0 and not await _started(air, plan)
    return rules.is_over(state, last) and (plan.wait_for != "family" or await _children_over(air, state, {plan.job}))


async def _started(air: Air, plan: Plan) -> bool:
    """Whether any of the plan's tasks is still queued or recorded, where the job has no key."""
    if await air.queued(plan.upto):
        return True
    return bool(await records(air, plan.job, plan.tasks[-1:]))


async def _children_over(air: Air, state: rules.State, seen: set[str]) -> bool:
    for child in state.get("children") or []:
        if child in seen:
            continue
        seen.add(child)
        last = await air.last_queued(child)
        of_child = (await air.state(child)).value
        if of_child is None:
            if last:
                return False
            continue
        if not rules.is_over(of_child, last) or not await _children_over(air, of_child, seen):
            return False
    return True


async def wait(air: Air, plan: Plan, poll_s: float, log: Any = None) -> None:
    """Waits for the end: hears of it, and looks every ``poll_s``. An outage of NATS is waited out."""
    said = ""
    async with air.news([plan.job]) as heard:
        while True:
            heard.clear()
            try:
                if await is_over(air, plan):
                    return
                said = ""
            except Unreachable as error:
                if log is not None and str(error) != said:
                    said = str(error)
                    log.warning("%s; waiting for it to come back", said)
            await _heard(heard, poll_s)


async def _heard(heard: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError, asyncio.TimeoutError):
        await asyncio.wait_for(heard.wait(), seconds)
        # Managers tell of an end when it is written; many ends at once are one look.
        await asyncio.sleep(0.02)


async def outcome(air: Air, plan: Plan) -> Outcome:
    """How a plan ended that is over."""
    own = await records(air, plan.job, plan.tasks)
    failures, ended = [], []
    bad: dict[tuple[str, str], tuple[int, Record]] = {}
    for job in await _jobs(air, plan):
        state = (await air.state(job)).value
        for task, one in (await _bad(air, plan, job)).items():
            bad[job, task] = one
        if state is not None and state["status"] in ("failed", "cancelled"):
            ended.append(f"{job} {_passive(state['status'])}" + (f" at {state['task']}" if state.get("task") else ""))
    order = {"failed": 0, "cancelled": 1, "skipped": 2}
    for (job, task), (seq, record) in sorted(bad.items(), key=lambda one: (order[one[1][1]["status"]], one[1][0])):
        del seq
        failures.append(
            Failure(
                job,
                task,
                record["status"],
                record.get("error") or _exit(record),
                record.get("tail") or "",
                record["attempt"],
            )
        )
    for task in plan.tasks:
        if task not in own:
            failures.append(Failure(plan.job, task, "missing", "it has no record: it was removed, or never ran"))
        elif own[task][1]["status"] not in rules.FINAL:
            why = "it will not run, since the job failed" if ended else "it is not over"
            failures.append(Failure(plan.job, task, own[task][1]["status"], why))
    # A job that was cancelled while nothing of the plan waited in it harmed nothing.
    blamed = [] if failures or plan.wait_for == "tasks" else [one for one in ended if "was cancelled" not in one]
    return Outcome(plan, tuple(failures), tuple(blamed), {task: record for task, (_, record) in own.items()})


async def outputs(air: Air, result: Outcome, wanted: Sequence[str] | None, bytes_max: int) -> dict[str, Any]:
    """The results of tasks by their ids: of the plan's own, or of those that are named (``task`` or ``job/task``).

    :raises Refused: all together are larger than ``bytes_max``, or one that is named has no record.
    """
    found: dict[str, Any] = {}
    size = 0
    for name in result.plan.tasks if wanted is None else wanted:
        job, _, task = name.rpartition("/")
        record = result.records.get(name)
        if record is None:
            last = await air.last_record(job or result.plan.job, task)
            if last is None:
                raise Refused(f"the task {job or result.plan.job}/{task} of `outputs` has no record; correct its name")
            record = last[1]
        found[name] = await air.output(record)
        size += len(json.dumps(found[name]))
        if size > bytes_max:
            raise Refused(
                f"the outputs of the job {result.plan.job} have more than {bytes_max:,} bytes up to the task {name}: name those "
                "that are needed in `outputs`, let tasks write large results elsewhere, or raise xcom_bytes_max"
            )
    return found


__all__ = [
    "AirError",
    "Failure",
    "Outcome",
    "Plan",
    "Submitted",
    "WaitFor",
    "is_over",
    "now",
    "outcome",
    "outputs",
    "records",
    "submit",
    "wait",
]
