"""A client of Air-Executor that needs NATS alone: the wire protocol of ``docs/protocol.md``.

It knows nothing of Airflow. Start with :func:`connected`; requests are in :mod:`.link`, what a job's key may become is in
:mod:`.state`. Every error is an :class:`AirError`, whose text is one line that says what, where, and how to mend it.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client as NatsClient

from . import state as rules
from .link import PATIENCE_S, WRONG_SEQUENCE, Key, Link, Refused, Settings, Unreachable

Record = dict[str, Any]
Task = dict[str, Any]

#: Messages on their way before their acknowledgements are awaited.
WINDOW = 500


@dataclass(frozen=True)
class Ack:
    """The acknowledgement of a published task."""

    seq: int
    duplicate: bool


def now() -> datetime:
    """This moment."""
    return datetime.now(timezone.utc)


def check_task(task: Task, where: str) -> bytes:
    """The bytes of a task.

    :raises Refused: it is no task; a server would take it all the same, and the system record it as failed.
    """
    if not isinstance(task, dict):
        raise Refused(f"{where} is {type(task).__name__}, not a task: write an object with `run` or `exec`")
    for name in task:
        if name not in rules.TASK_FIELDS:
            known = ", ".join(sorted(rules.TASK_FIELDS))
            raise Refused(f"{where} has the unknown field `{name}`; the fields are {known}")
    if (task.get("run") is None) == (task.get("exec") is None):
        raise Refused(f"{where} needs `run` (a line for the shell) or `exec` (a list of texts), and not both")
    if not isinstance(task.get("id"), str) or not rules.TASK_ID.fullmatch(task["id"]):
        raise Refused(f"{where} has the id {task.get('id')!r}; an id is 1 to 64 of A-Z a-z 0-9 _ -, not _ or - first")
    try:
        data = json.dumps(task, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise Refused(f"{where} cannot be written as JSON: {error}; use texts, numbers, lists and objects") from error
    if len(data) > rules.TASK_BYTES_MAX:
        raise Refused(
            f"{where} has {len(data):,} bytes; 524,288 is the most: keep large input in a file or an object store"
        )
    return data


def check_job(job: str) -> str:
    """:raises Refused: the name is none that a job can have."""
    if not isinstance(job, str) or not rules.JOB_NAME.fullmatch(job):
        raise Refused(f"{job!r} is no name of a job; write 1 to 64 of A-Z a-z 0-9 _ -")
    return job


class Air(Link):
    """A connection to an installation; made by :func:`connected`."""

    def __init__(self, settings: Settings, client: NatsClient) -> None:
        super().__init__(settings, client)
        prefix = settings.prefix
        self._tasks, self._results = f"{prefix}.tasks", f"{prefix}.results"
        self._jobs, self._specs, self._blobs = f"{prefix}-jobs", f"{prefix}-specs", f"{prefix}-blobs"

    # --- tasks ----------------------------------------------------------------------------------------------------

    async def publish(self, job: str, tasks: Sequence[Task]) -> list[Ack]:
        """Queues tasks, in order; each has an id. A task that is sent twice within two minutes is stored once.

        :raises AirError: one is no task (then nothing was sent), or NATS does not store one.
        """
        check_job(job)
        bodies = [check_task(task, f"task {at} of the job {job}") for at, task in enumerate(tasks)]
        acks: list[Ack] = []
        for start in range(0, len(tasks), WINDOW):
            window = range(start, min(start + WINDOW, len(tasks)))
            acks += await asyncio.gather(*(self._publish(job, tasks[at]["id"], bodies[at]) for at in window))
        return acks

    async def _publish(self, job: str, task: str, body: bytes) -> Ack:
        headers = {"Nats-Msg-Id": f"{job}/{task}"}
        answer, _ = await self._patiently(lambda: self._ask(f"{self._tasks}.{job}", body, headers))
        if error := answer.get("error"):
            raise self._refusal(f"the task {job}/{task}", error)
        if "seq" not in answer:
            raise Refused(
                f"{self._tasks}.{job} at {self.settings.where} was answered by something that is no stream: {answer}"
            )
        return Ack(answer["seq"], bool(answer.get("duplicate")))

    async def queued(self, seq: int) -> Task | None:
        """The task that waits at a sequence; none when it is gone."""
        stored = await self._get(self.stream, {"seq": seq})
        if stored is None or not stored.subject.startswith(f"{self._tasks}."):
            return None
        with suppress(ValueError, msgspec.DecodeError):
            task = stored.value()
            return task if isinstance(task, dict) else None
        return None

    async def last_queued(self, job: str) -> int:
        """The sequence of the last message in a job's queue, 0 for none."""
        stored = await self._last(self.stream, f"{self._tasks}.{check_job(job)}")
        return stored.seq if stored else 0

    # --- records --------------------------------------------------------------------------------------------------

    async def last_record(self, job: str, task: str) -> tuple[int, Record] | None:
        """The truth about a task, from the leader: the sequence and value of its last record."""
        stored = await self._last(self.stream, f"{self._results}.{check_job(job)}.{task}")
        return (stored.seq, stored.value()) if stored else None

    async def last_records(self, job: str, tasks: Iterable[str]) -> dict[str, tuple[int, Record]]:
        """The last records of tasks, by direct get: a replica may lag, so what is absent or not final may be so no more."""
        found: dict[str, tuple[int, Record]] = {}
        ids = list(tasks)
        for start in range(0, len(ids), WINDOW):
            subjects = [f"{self._results}.{check_job(job)}.{task}" for task in ids[start : start + WINDOW]]
            for stored in await self._many({"multi_last": subjects}):
                found[stored.subject.rpartition(".")[2]] = (stored.seq, stored.value())
        return found

    async def records_after(self, job: str, seq: int = 0) -> AsyncIterator[tuple[int, Record]]:
        """All records of a job after a sequence, in order, with those of garbage passed over."""
        while True:
            page = await self._many(
                {"next_by_subj": f"{self._results}.{check_job(job)}.*", "seq": seq + 1, "batch": WINDOW}
            )
            for stored in page:
                seq = stored.seq
                with suppress(ValueError, msgspec.DecodeError):
                    yield seq, stored.value()
            if len(page) < WINDOW:
                return

    async def output(self, record: Record) -> Any:
        """The result of a task, from its record or from the object store.

        :raises Unreachable: it is not there, or not all of it.
        """
        if not (blob := record.get("output_blob")):
            return record.get("output")
        try:
            store = await self.nats.jetstream().object_store(self._blobs)
            # One that is deleted while it is read would be waited for without end.
            data = (await asyncio.wait_for(store.get(blob), PATIENCE_S)).data
        except (nats.js.errors.Error, nats.errors.Error, TimeoutError, asyncio.TimeoutError) as error:
            raise Unreachable(
                f"the output of {record.get('task')} cannot be read from {self._blobs} at {self.settings.where}: "
                f"{error or type(error).__name__}; was the job removed, or its records' time (`keep`) over?"
            ) from error
        return json.loads(data or b"null")

    # --- keys -----------------------------------------------------------------------------------------------------

    async def state(self, job: str) -> Key:
        """The state of a job, from the leader."""
        return await self._key(self._jobs, check_job(job))

    async def spec(self, job: str) -> Key:
        """What the user wants of a job, from the leader."""
        return await self._key(self._specs, check_job(job))

    async def merge_spec(self, job: str, fields: Mapping[str, Any]) -> None:
        """Sets fields of a job's spec, and leaves the others."""
        while True:
            key = await self.spec(job)
            merged = {**(key.value or {}), **fields}
            if merged == key.value or await self._swap(self._specs, job, merged, key.revision):
                return

    async def signal(self, job: str) -> None:
        """Wakes whoever works on a job; without it they look within their poll."""
        with suppress(Exception):
            await self.nats.publish(f"{self.settings.prefix}.signals.{job}", b"")
            await self.nats.flush(timeout=2)

    async def cancel(self, job: str) -> bool:
        """Cancels what runs and waits in a job, by compare-and-swap of its key; managers do the rest.

        False where there is nothing to cancel, or somebody has done it already.

        :raises AirError: the key is of a newer version, or NATS does not answer.
        """
        while True:
            last, key = await self.last_queued(job), await self.state(job)
            if key.value is None:
                if last == 0:
                    return False
                state = rules.new_state(now()) if key.revision == 0 else await self._rebuilt(job)
            else:
                state = key.value
                if state["status"] in ("completed", "cancelled") and rules.is_over(state, last):
                    return False
            following = rules.stopped(state, now())
            if following is None:
                return False
            if await self._swap(self._jobs, job, following, key.revision):
                await self.signal(job)
                return True

    async def _rebuilt(self, job: str) -> rules.State:
        ttl = rules.LEASE_TTL_DEFAULT
        spec = (await self.spec(job)).value or {}
        with suppress(ValueError):
            ttl = rules.span(spec["lease_ttl"]) if "lease_ttl" in spec else ttl
        return rules.rebuilt_state(now(), ttl)

    async def retry(self, job: str, lasts: Mapping[str, tuple[int, Record]]) -> int:
        """Queues again tasks that failed, were cancelled or skipped, from their last records; gives how many.

        :raises AirError: the job is being cancelled or removed, or NATS refuses a batch.
        """
        wire = ((await self.spec(job)).value or {}).get("wire", "json")
        done = 0
        for seq, last in sorted(lasts.values(), key=lambda one: (one[1].get("seq") or one[0], one[0])):
            if last["status"] in ("failed", "cancelled", "skipped") and last.get("spec"):
                done += await self._reset(job, seq, last, wire)
        while done:
            key = await self.state(job)
            state = key.value
            if state is None:
                state = rules.new_state(now()) if key.revision == 0 else await self._rebuilt(job)
            try:
                following = rules.retried(state, now())
            except ValueError as error:
                raise Refused(f"the job {job} cannot be retried: {error}; try again when that is done") from error
            if key.value is not None and following is None:
                break
            if await self._swap(self._jobs, job, following or state, key.revision):
                break
        if done:
            await self.signal(job)
        return done

    async def _reset(self, job: str, seq: int, last: Record, wire: str) -> bool:
        """One batch: the record that resets a task, and its next attempt. False when somebody was before us."""
        task = last["task"]
        spec = {**last["spec"], "id": task}
        kept = {name: last[name] for name in ("parent", "traceparent") if last.get(name)}
        record = {
            "v": rules.VERSION,
            "task": task,
            "status": "reset",
            "attempt": last["attempt"],
            "previous": last["status"],
            "after": seq,
            "failures": 0,
            "losses": 0,
            "ended": rules.to_time(now()),
            **kept,
            "spec": spec,
        }
        common: dict[str, str] = {}
        encode: Callable[[Any], bytes] = lambda value: json.dumps(value, separators=(",", ":")).encode()  # noqa: E731
        if wire == "msgpack":
            common["Content-Type"], encode = "application/msgpack", msgspec.msgpack.encode
        named = {"parent": "Air-Parent", "traceparent": "traceparent"}
        next_headers = {named[name]: value for name, value in kept.items()}
        next_headers["Air-Attempt"] = str(last["attempt"] + 1)

        async def send() -> dict[str, Any]:
            batch = {**common, "Nats-Batch-Id": uuid.uuid4().hex}
            first = {**batch, "Nats-Batch-Sequence": "1", "Nats-Expected-Last-Subject-Sequence": str(seq)}
            answer = await self._ask(f"{self._results}.{job}.{task}", encode(record), first)
            if answer.get("error"):
                return answer
            second = {**batch, **next_headers, "Nats-Batch-Sequence": "2", "Nats-Batch-Commit": "1"}
            return await self._ask(f"{self._tasks}.{job}", encode(spec), second)

        answer, unsure = await self._patiently(send)
        error = answer.get("error")
        if error is None:
            return True
        if error.get("err_code") != WRONG_SEQUENCE:
            raise self._refusal(f"to retry {job}/{task}", error)
        now_last = await self.last_record(job, task) if unsure else None
        return now_last is not None and now_last[1] == record

    # --- news -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def news(self, jobs: Iterable[str]) -> AsyncIterator[asyncio.Event]:
        """An event that is set when one of the jobs may have ended. Best effort: look from time to time all the same."""
        heard = asyncio.Event()

        async def on_event(_: Any) -> None:
            heard.set()

        subscriptions = []
        try:
            for job in jobs:
                for kind in ("completed", "failed", "cancelled"):
                    subject = f"{self.settings.prefix}.events.{check_job(job)}.{kind}"
                    subscriptions.append(await self.nats.subscribe(subject, cb=on_event))
            yield heard
        finally:
            for one in subscriptions:
                with suppress(Exception):
                    await one.unsubscribe()

    async def check(self) -> str:
        """One line about the installation.

        :raises AirError: NATS lacks what `airx init` makes.
        """
        for stream in (self.stream, f"KV_{self._jobs}", f"KV_{self._specs}"):
            answer = await self._ask(f"$JS.API.STREAM.INFO.{stream}")
            if error := answer.get("error"):
                raise self._refusal(f"to tell of the stream {stream}", error)
        managers = await self._ask(
            f"$JS.API.STREAM.INFO.KV_{self.settings.prefix}-managers", b'{"subjects_filter":"$KV.>"}'
        )
        count = len((managers.get("state") or {}).get("subjects") or {})
        version = str(self.nats.connected_server_version).strip("<>").rpartition(" ")[2]
        said = "no manager runs: start `airx manager`" if count == 0 else f"{count} manager{'s' * (count != 1)}"
        return f"NATS {version} at {self.settings.where}: streams are there, {said}"


class _Shared:
    def __init__(self, connecting: asyncio.Task[Air]) -> None:
        self.connecting = connecting
        self.users = 0


_shared: dict[tuple[asyncio.AbstractEventLoop, Settings], _Shared] = {}


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Air]:
    """A connection, the same one for all who have it at the same time in one event loop.

    :raises AirError: NATS cannot be reached, or refuses us.
    """
    key = (asyncio.get_running_loop(), settings)
    shared = _shared.get(key)
    if shared is None:
        shared = _shared[key] = _Shared(asyncio.ensure_future(Air.connect(settings)))
    shared.users += 1
    try:
        yield await asyncio.shield(shared.connecting)
    finally:
        shared.users -= 1
        if shared.users == 0 and _shared.get(key) is shared:
            del _shared[key]
            await _close(shared.connecting)


async def _close(connecting: asyncio.Task[Air]) -> None:
    if not connecting.done():
        connecting.cancel()
    for air in await asyncio.gather(connecting, return_exceptions=True):
        if isinstance(air, Air):
            await air.close()
