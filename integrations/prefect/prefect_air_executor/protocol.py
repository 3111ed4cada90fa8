"""The wire protocol of Air-Executor, as far as a user of it needs it: publish, follow, read, cancel.

Everything here follows docs/protocol.md, and nothing here knows of Prefect. Reads go to the leader of a stream and
decide nothing; every change of a key is a compare-and-swap (CAS). What needs no server is in `state`.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import msgpack
import nats.errors
import nats.js.errors
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.js import api

from prefect_air_executor.state import (
    LEASE_TTL_DEFAULT,
    Record,
    State,
    Task,
    cancelled,
    check_job,
    new_state,
    parse_span,
)

WINDOW = 500
_WRONG_LAST_SEQUENCE = 10071
_TRY_AGAIN = frozenset({10164, 10002, 10023, 10028, 10047})
_READ_AGAIN = timedelta(seconds=10)
_SETTLE = 0.2
# Seconds for which a server that does not answer is asked again.
PATIENCE = 60.0


class AirError(Exception):
    """Something that Air-Executor, or NATS on its behalf, refuses."""


class NotInstalled(AirError):
    """The streams and buckets are missing."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is missing on this NATS server; `airx init` makes what Air-Executor needs")


def _decode(data: bytes, headers: dict[str, str] | None) -> Any:
    if (headers or {}).get("Content-Type") == "application/msgpack":
        return msgpack.unpackb(data)
    return json.loads(data)


class Client:
    """One installation of Air-Executor, over a connection that the caller owns."""

    def __init__(self, nats: Nats, prefix: str = "air") -> None:
        self.nats = nats
        self.prefix = prefix
        self._jetstream = nats.jetstream(timeout=10)
        self._stream = prefix.upper().replace("-", "_")

    # ---- publish ----

    async def publish(self, job: str, tasks: Iterable[Task], *, patience: float = PATIENCE) -> int:
        """Queues tasks, in windows; gives the sequence of the last one.

        Each carries a `Nats-Msg-Id` of job and id, and an id whose record is final is never run again: publishing the
        same once more queues nothing. `patience` is the time in seconds for which a silent server is asked again.

        Raises:
            AirError: NATS refuses a task, or does not answer in time.
        """
        check_job(job)
        queue = list(tasks)
        last = 0
        for start in range(0, len(queue), WINDOW):
            acks = await asyncio.gather(*(self._publish(job, task, patience) for task in queue[start : start + WINDOW]))
            last = max(last, *acks)
        return last

    async def _publish(self, job: str, task: Task, patience: float) -> int:
        headers = {"Nats-Msg-Id": f"{job}-{task.id}"} if task.id else None
        ack = await self._persist(f"{self.prefix}.tasks.{job}", task.encode(), headers, patience)
        return int(ack.seq)

    async def _persist(self, subject: str, body: bytes, headers: dict[str, Any] | None, patience: float) -> api.PubAck:
        """A publish that is repeated until its outcome is known."""
        clock = asyncio.get_running_loop().time
        until = clock() + patience
        while True:
            try:
                return await self._jetstream.publish(subject, body, headers=headers)
            except nats.js.errors.NoStreamResponseError:
                # So answers a server without the stream, and one that is about to have a leader for it.
                failure: Exception = NotInstalled(f"the stream of `{subject}`")
            except nats.js.errors.APIError as error:
                if error.err_code not in _TRY_AGAIN:
                    raise
                failure = error
            except (nats.errors.Error, asyncio.TimeoutError, OSError) as error:
                if self.nats.is_closed:
                    raise
                failure = error
            if clock() >= until:
                raise AirError(f"NATS did not take a message for `{subject}`: {failure}") from failure
            await asyncio.sleep(_SETTLE)

    async def _swap(self, bucket: str, key: str, value: dict[str, Any], revision: int) -> bool:
        """Writes a key if it still is at `revision`; false where it is not."""
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        try:
            subject = f"$KV.{self.prefix}-{bucket}.{key}"
            await self._persist(subject, json.dumps(value, separators=(",", ":")).encode(), headers, PATIENCE)
        except nats.js.errors.APIError as error:
            if error.err_code == _WRONG_LAST_SEQUENCE:
                return False
            raise AirError(f"NATS refuses the key `{key}` of `{self.prefix}-{bucket}`: {error}") from error
        return True

    # ---- read ----

    async def _last(self, stream: str, subject: str, patience: float = PATIENCE) -> api.RawStreamMsg | None:
        """The last message of a subject, from the leader; asked again while nobody answers."""
        clock = asyncio.get_running_loop().time
        until = clock() + patience
        while True:
            try:
                return await self._jetstream.get_last_msg(stream, subject)
            except nats.js.errors.NotFoundError as error:
                if error.err_code == 10059:
                    raise NotInstalled(f"the stream `{stream}`") from error
                return None
            except (nats.errors.Error, asyncio.TimeoutError, OSError) as error:
                if self.nats.is_closed or clock() >= until:
                    raise AirError(f"NATS does not say what `{subject}` holds: {error!r}") from error
                await asyncio.sleep(_SETTLE)

    async def _key(self, bucket: str, key: str, patience: float = PATIENCE) -> tuple[dict[str, Any] | None, int]:
        """Value and revision of a key; no value where it is absent (revision 0) or deleted."""
        name = f"{self.prefix}-{bucket}"
        message = await self._last(f"KV_{name}", f"$KV.{name}.{key}", patience)
        if message is None:
            return None, 0
        revision = int(message.seq or 0)
        if (message.headers or {}).get("KV-Operation") in ("DEL", "PURGE"):
            return None, revision
        try:
            value = json.loads(message.data or b"")
        except ValueError as error:
            raise AirError(f"the key `{key}` of `{name}` is no JSON: {error}") from error
        if not isinstance(value, dict) or value.get("v", 1) != 1:
            raise AirError(f"the key `{key}` of `{name}` is of another version of Air-Executor")
        return value, revision

    async def state(self, job: str, *, patience: float = PATIENCE) -> State | None:
        """The state of a job; none before a manager has begun with it."""
        value, revision = await self._key("jobs", check_job(job), patience)
        return None if value is None else State(str(value["status"]), revision, value)

    async def spec(self, job: str) -> tuple[dict[str, Any], int]:
        """The spec of a job, and its revision."""
        value, revision = await self._key("specs", check_job(job))
        return value or {}, revision

    async def update_spec(self, job: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Changes fields of a job's spec, by CAS; `labels` are added to those that it has."""
        while True:
            spec, revision = await self.spec(job)
            after = {**spec, **changes}
            if "labels" in changes:
                after["labels"] = {**(spec.get("labels") or {}), **changes["labels"]}
            if after == spec or await self._swap("specs", job, after, revision):
                return after

    async def record(self, job: str, task: str, *, patience: float = PATIENCE) -> Record | None:
        """The last record of a task, from the leader."""
        message = await self._last(self._stream, f"{self.prefix}.results.{check_job(job)}.{task}", patience)
        return None if message is None else self._record(message.data or b"", message.headers, int(message.seq or 0))

    @staticmethod
    def _record(data: bytes, headers: dict[str, str] | None, sequence: int) -> Record:
        body = _decode(data, headers)
        if body.get("v") != 1:
            raise AirError(f"the record {sequence} is of another version of Air-Executor")
        return Record(str(body["task"]), str(body["status"]), sequence, body)

    async def records(self, job: str) -> dict[str, Record]:
        """The last record of every task of a job, sub-tasks too, by task."""
        subject = f"{self.prefix}.results.{check_job(job)}.*"
        config = api.ConsumerConfig(
            deliver_policy=api.DeliverPolicy.LAST_PER_SUBJECT,
            ack_policy=api.AckPolicy.NONE,
            filter_subject=subject,
            inactive_threshold=60,
            mem_storage=True,
        )
        subscription = await self._jetstream.pull_subscribe(subject, stream=self._stream, config=config)
        found: dict[str, Record] = {}
        try:
            left = int((await subscription.consumer_info()).num_pending or 0)
            while left > 0:
                for message in await subscription.fetch(min(left, WINDOW), timeout=30):
                    left -= 1
                    record = self._record(message.data, message.headers, message.metadata.sequence.stream)
                    found[record.task] = record
        finally:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()
        return found

    async def output(self, record: Record) -> Any:
        """The result of a task, also where it was too large for its record.

        Raises:
            AirError: it is not there, or not all of it.
        """
        blob = record.body.get("output_blob")
        if blob is None:
            return record.body.get("output")
        try:
            store = await self._jetstream.object_store(f"{self.prefix}-blobs")
            # One that is deleted while it is read would be waited for without end.
            found = await asyncio.wait_for(store.get(blob), PATIENCE)
        except (nats.js.errors.Error, nats.errors.Error, TimeoutError, asyncio.TimeoutError) as error:
            raise AirError(
                f"the output of task `{record.task}` cannot be read from `{self.prefix}-blobs`: {error!r}; "
                "was the job removed, or its records' time (`keep`) over?"
            ) from error
        return json.loads(found.data or b"null")

    async def is_queued(self, job: str, *, patience: float = PATIENCE) -> bool:
        """Whether the queue of a job holds a message."""
        return await self._last(self._stream, f"{self.prefix}.tasks.{check_job(job)}", patience) is not None

    # ---- follow ----

    @asynccontextmanager
    async def _news(self, subject: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever something was published on `subject`."""
        event = asyncio.Event()

        async def hear(_: Msg) -> None:
            event.set()

        subscription = await self.nats.subscribe(subject, cb=hear)
        try:
            yield event
        finally:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

    @staticmethod
    async def _heard(event: asyncio.Event) -> None:
        """Waits for news, and a moment for those that follow at once; never longer than a look is due anyway."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(event.wait(), _READ_AGAIN.total_seconds())
            await asyncio.sleep(_SETTLE)
        event.clear()

    async def follow(self, job: str) -> AsyncIterator[State | None]:
        """The state of a job: now, and whenever it may have changed, some times a second at most.

        Waits for a server that is away, however long that is.
        """
        async with self._news(f"$KV.{self.prefix}-jobs.{check_job(job)}") as event:
            while True:
                yield await self.state(job, patience=math.inf)
                await self._heard(event)

    async def end(self, job: str, task: str, *, patience: float = PATIENCE) -> Record | None:
        """The final record of a task; none while it is not over.

        A message that is no valid task has its record under the number of the message, and its job failed: for a job
        whose only task is `task`, that is its end too.
        """
        record = await self.record(job, task, patience=patience)
        if record is not None:
            return record if record.is_final else None
        state = await self.state(job, patience=patience)
        if state is None or state.status != "failed":
            return None
        refused = (one for one in (await self.records(job)).values() if one.task.startswith("_"))
        return next((one for one in refused if one.status == "failed"), None)

    async def finished(self, job: str, task: str) -> Record:
        """Waits until a task is over, as `end` says; gives its final record."""
        async with self._news(f"{self.prefix}.results.{check_job(job)}.*") as event:
            while True:
                if (record := await self.end(job, task, patience=math.inf)) is not None:
                    return record
                await self._heard(event)

    # ---- cancel ----

    async def cancel(self, job: str, *, even_if_over: bool = False) -> bool:
        """Cancels a job: one CAS on its key; managers do the rest. False where there is nothing to cancel.

        A job of which nothing runs or waits is left as it is, unless `even_if_over`: then it ends as `cancelled` too.
        """
        check_job(job)
        while True:
            value, revision = await self._key("jobs", job)
            if not even_if_over and not await self._has_work(job, value):
                return False
            now = datetime.now(timezone.utc)
            after = cancelled(await self._begun(job, revision, now) if value is None else value, now)
            if after is None:
                return True
            if await self._swap("jobs", job, after, revision):
                await self.nats.publish(f"{self.prefix}.signals.{job}", b"")
                await self.nats.flush()
                return True

    async def _has_work(self, job: str, state: dict[str, Any] | None) -> bool:
        if state is None:
            return await self.is_queued(job)
        if state["status"] not in ("completed", "cancelled"):
            return True
        message = await self._last(self._stream, f"{self.prefix}.tasks.{job}")
        return message is not None and int(message.seq or 0) > int(state.get("drained") or 0)

    async def _begun(self, job: str, revision: int, now: datetime) -> dict[str, Any]:
        """The state of a job whose key nobody has written yet, or that somebody deleted."""
        if revision == 0:
            return new_state(now)
        spec, _ = await self.spec(job)
        ttl = spec.get("lease_ttl")
        return new_state(now, LEASE_TTL_DEFAULT if ttl is None else parse_span(ttl))

    async def stopped(self, job: str) -> State | None:
        """Waits until nobody works on a job that was cancelled."""
        async for state in self.follow(job):
            if state is None or state.status != "working":
                return state
        raise AssertionError("follow never ends")
