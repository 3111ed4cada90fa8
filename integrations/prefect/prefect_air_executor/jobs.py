"""What a flow calls: submit a job, wait for it. Both attach to what is there, so that a retried flow goes on.

`submit_job` and `wait_for_job` are awaited in async flows and simply called in others; `asubmit_job` and
`await_for_job` are the same, always async.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import anyio
import httpx
import prefect.runtime
from prefect._internal.compatibility.async_dispatch import async_dispatch
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.exceptions import CancelledRun, ObjectNotFound
from prefect.logging import get_logger, get_run_logger
from prefect.utilities.slugify import slugify

from prefect_air_executor.executor import AirExecutor
from prefect_air_executor.protocol import AirError, Client
from prefect_air_executor.state import Record, State, Task, check_job

_SUBMITTED = "prefect-submitted"
_DIGEST = "prefect-tasks"
_FLOW_RUN = "prefect-flow-run"
_ASK_PREFECT = 10.0
_TELL = 10.0
_CANCEL_WITHIN = 25.0


@dataclass(frozen=True)
class Job:
    """A job that was submitted: plain values, which may be handed from task to task of a flow."""

    name: str
    sequence: int
    tasks: tuple[str, ...]
    attached: bool = False


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    status: str
    succeeded: int
    failed: int
    cancelled: int
    skipped: int
    known: int

    @property
    def over(self) -> int:
        """Tasks that are over."""
        return self.succeeded + self.failed + self.cancelled + self.skipped

    def __str__(self) -> str:
        return f"{self.status}: {self.over} of {self.known} known tasks are over, {self.failed} failed"


@dataclass(frozen=True)
class JobResult:
    """A job that is over."""

    name: str
    status: str
    counters: dict[str, int]
    outputs: dict[str, Any]
    failed: tuple[str, ...] = ()


class JobFailed(AirError):
    """A job failed: the first failed task, with the last that it printed."""

    def __init__(self, job: str, record: Record | None, number: int) -> None:
        self.job, self.record = job, record
        others = f" ({number} tasks failed)" if number > 1 else ""
        super().__init__(f"job `{job}` failed{others}" + (f": {record.describe()}" if record else ""))

    @property
    def task(self) -> str | None:
        """The failed task."""
        return None if self.record is None else self.record.task


class JobCancelled(AirError):
    """A job was cancelled or removed before it was over."""


async def asubmit_job(
    executor: AirExecutor,
    tasks: Sequence[Task | dict[str, Any]],
    *,
    job: str | None = None,
    name: str | None = None,
    spec: dict[str, Any] | None = None,
) -> Job:
    """Submits tasks as a job; gives the job, which may still be running.

    The name of the job is `job`, or else made of the flow run, and of `name` where a flow run has several jobs. Tasks
    without an id are called `task-1`, `task-2`, …; so the same flow run always names the same. A job that this flow
    run has submitted is attached to, and nothing is published.

    Args:
        executor: the connection.
        tasks: tasks, or dictionaries with the same fields.
        job: name of the job.
        name: what tells the jobs of one flow run apart; used without `job`.
        spec: fields of the job's spec, such as `{"on_failure": "continue", "timeout": "1h"}`.

    Raises:
        ValueError: a task, or the name, is invalid.
        AirError: NATS cannot be reached, or refuses.
    """
    named = _named(tasks)
    flow_run = prefect.runtime.flow_run.id
    job = check_job(job or _job_name(name, flow_run))
    digest = hashlib.sha256(b"\n".join(task.encode() for task in named)).hexdigest()[:32]
    ids = tuple(task.id or "" for task in named)
    async with executor.client() as client:
        known, _ = await client.spec(job)
        labels = known.get("labels") or {}
        if (sequence := labels.get(_SUBMITTED)) is not None:
            if labels.get(_DIGEST) != digest:
                _logger().warning("Job '%s' is there already, with other tasks than these; attached to it", job)
            return Job(job, int(sequence), ids, attached=True)
        marks = {_DIGEST: digest} | ({_FLOW_RUN: str(flow_run)} if flow_run else {})
        changes = dict(spec or {})
        # The spec is there before the first task, or that would run by another policy.
        await client.update_spec(job, {**changes, "labels": {**(changes.get("labels") or {}), **marks}})
        sequence = await client.publish(job, named)
        # Written last: whoever dies before publishes the same ids again, and none of them runs twice.
        await client.update_spec(job, {"labels": {_SUBMITTED: str(sequence)}})
    _logger().info("Submitted job '%s' with %d tasks", job, len(named))
    return Job(job, sequence, ids)


@async_dispatch(asubmit_job)
def submit_job(
    executor: AirExecutor,
    tasks: Sequence[Task | dict[str, Any]],
    *,
    job: str | None = None,
    name: str | None = None,
    spec: dict[str, Any] | None = None,
) -> Job:
    """Like `asubmit_job`; to be awaited where the caller is async."""
    return asyncio.run(asubmit_job(executor, tasks, job=job, name=name, spec=spec))


async def await_for_job(
    executor: AirExecutor,
    job: Job | str,
    *,
    timeout: float | None = None,
    outputs: bool = True,
    raise_on_failure: bool = True,
    cancel_with_flow: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
) -> JobResult:
    """Waits until a job is over, sub-tasks and retries included; holds no thread.

    Args:
        executor: the connection.
        job: what `submit_job` gave, or the name of a job, which is over when nothing of it is left.
        timeout: seconds to wait; the job goes on after that.
        outputs: whether to read the outputs of the submitted tasks.
        raise_on_failure: whether a failed task raises; otherwise the result names it in `failed`.
        cancel_with_flow: whether the job is cancelled when the flow run is cancelled.
        on_progress: is told of each change; without it, changes are logged every ten seconds.

    Raises:
        JobFailed: a task failed for good.
        JobCancelled: the job was cancelled or removed.
        CancelledRun: the flow run is being cancelled, and the job with it.
        TimeoutError: the time is over.
    """
    wanted = job if isinstance(job, Job) else Job(check_job(job), 0, ())
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(executor.client())
        flow_run = _FlowRun(prefect.runtime.flow_run.id if cancel_with_flow else None)
        try:
            state = await asyncio.wait_for(_over(client, wanted, flow_run, on_progress or _Log()), timeout)
        except asyncio.TimeoutError:
            raise TimeoutError(f"job '{wanted.name}' is not over after {timeout} s; it goes on") from None
        except BaseException:
            # The engine ends a flow run by a signal or by cancelling its coroutine; so does a worker that only stops.
            with anyio.CancelScope(shield=True), anyio.move_on_after(_CANCEL_WITHIN):
                if await flow_run.is_cancelled():
                    # A loop that is ended by a signal has cancelled all its tasks: those of the connection too.
                    async with executor.client() as another:
                        await another.cancel(wanted.name)
                    _logger().info("Cancelled job '%s' with its flow run", wanted.name)
            raise
        return await _result(client, wanted, state, outputs, raise_on_failure)


@async_dispatch(await_for_job)
def wait_for_job(
    executor: AirExecutor,
    job: Job | str,
    *,
    timeout: float | None = None,
    outputs: bool = True,
    raise_on_failure: bool = True,
    cancel_with_flow: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
) -> JobResult:
    """Like `await_for_job`; to be awaited where the caller is async."""
    waiting = await_for_job(
        executor,
        job,
        timeout=timeout,
        outputs=outputs,
        raise_on_failure=raise_on_failure,
        cancel_with_flow=cancel_with_flow,
        on_progress=on_progress,
    )
    return asyncio.run(waiting)


def _named(tasks: Sequence[Task | dict[str, Any]]) -> list[Task]:
    """The tasks, each with an id of its own."""
    named = [Task.of(task) for task in tasks]
    if not named:
        raise ValueError("a job has at least one task")
    named = [task if task.id else replace(task, id=f"task-{number}") for number, task in enumerate(named, 1)]
    seen: set[str | None] = set()
    for task in named:
        if task.id in seen:
            raise ValueError(f"two tasks are called `{task.id}`")
        seen.add(task.id)
    return named


def _job_name(name: str | None, flow_run: str | None) -> str:
    if not flow_run:
        raise ValueError("give `job`: outside of a flow run there is nothing to name a job after")
    word = slugify(name or prefect.runtime.flow_run.flow_name or "flow")[:27].strip("-")
    return f"{word or 'flow'}-{flow_run}"


def _logger() -> Any:
    with suppress(prefect.exceptions.MissingContextError):
        return get_run_logger()
    return get_logger("air_executor")


class _Log:
    """Tells the log of progress, but not more than every ten seconds."""

    def __init__(self) -> None:
        self._due = time.monotonic() + _TELL

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _TELL
            _logger().info("%s", progress)


class _FlowRun:
    """The flow run that waits: whether somebody cancels it."""

    def __init__(self, flow_run: str | None) -> None:
        self._id = UUID(flow_run) if flow_run else None

    async def is_cancelled(self) -> bool:
        """Whether its state is `Cancelling` or `Cancelled`; false where Prefect does not say."""
        if self._id is None:
            return False
        try:
            async with get_client() as client:
                return await self._asked(client, self._id)
        except (httpx.HTTPError, ObjectNotFound, OSError):
            return False

    @staticmethod
    async def _asked(client: PrefectClient, flow_run: UUID) -> bool:
        state = (await client.read_flow_run(flow_run)).state
        return state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED)

    async def cancelled(self) -> None:
        """Waits until it is. Not every process that runs a flow is told by a signal."""
        while True:
            await asyncio.sleep(_ASK_PREFECT)
            if await self.is_cancelled():
                return


async def _over(client: Client, job: Job, flow_run: _FlowRun, tell: Callable[[Progress], None]) -> State:
    """Waits for the end of a job, or of the flow run that waits for it."""
    ended = asyncio.ensure_future(_ended(client, job, tell))
    stopped = asyncio.ensure_future(flow_run.cancelled())
    try:
        await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            stopped.result()
            raise CancelledRun("the flow run is being cancelled")
        return ended.result()
    finally:
        for one in (ended, stopped):
            one.cancel()
        await asyncio.gather(ended, stopped, return_exceptions=True)


async def _ended(client: Client, job: Job, tell: Callable[[Progress], None]) -> State:
    before: Progress | None = None
    seen = False
    async for state in client.follow(job.name):
        if state is None:
            if seen or await _was_removed(client, job):
                raise JobCancelled(f"job '{job.name}' was removed")
            continue
        seen = True
        counters = state.counters
        ends = {name: counters.get(name, 0) for name in ("succeeded", "failed", "cancelled", "skipped")}
        known = max(len(job.tasks) + counters.get("subtasks", 0), sum(ends.values()))
        progress = Progress(status=state.status, known=known, **ends)
        if progress != before:
            tell(progress)
            before = progress
        if state.status == "removing":
            raise JobCancelled(f"job '{job.name}' is being removed")
        if state.is_done(job.sequence):
            return state
    raise AssertionError("follow never ends")


async def _was_removed(client: Client, job: Job) -> bool:
    """Whether nothing is left of a job that was submitted: nobody was there to see it when it had a key."""
    if job.sequence == 0 or await client.is_queued(job.name, patience=math.inf):
        return False
    # A message goes only after the key has come.
    return await client.state(job.name, patience=math.inf) is None


async def _result(client: Client, job: Job, state: State, outputs: bool, raise_on_failure: bool) -> JobResult:
    failed: tuple[str, ...] = ()
    if state.status == "failed" or state.counters.get("failed"):
        records = await client.records(job.name)
        found = sorted((one for one in records.values() if one.status == "failed"), key=lambda one: one.sequence)
        failed = tuple(one.task for one in found)
        if raise_on_failure:
            named = records.get(state.failed_task or "")
            raise JobFailed(job.name, named or (found[0] if found else None), len(found))
    if state.status == "cancelled":
        raise JobCancelled(f"job '{job.name}' was cancelled")
    values = await _outputs(client, job) if outputs else {}
    return JobResult(job.name, state.status, state.counters, values, failed)


async def _outputs(client: Client, job: Job) -> dict[str, Any]:
    """The outputs of the submitted tasks that succeeded."""
    many = asyncio.Semaphore(100)

    async def one(task: str) -> tuple[str, Any, bool]:
        async with many:
            record = await client.record(job.name, task)
            if record is None or record.status != "succeeded":
                return task, None, False
            return task, await client.output(record), True

    return {task: value for task, value, there in await asyncio.gather(*map(one, job.tasks)) if there}
