"""The trigger: waits for a job in the triggerer, and cancels it when a user ends the deferred task.

It keeps nothing: it may run twice, and move to another triggerer at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk.execution_time.comms import GetTaskStates
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from .attach import Outcome, Plan, outcome, outputs, submit, wait
from .hook import AirExecutorHook, cancel_unfinished, dashboard_of
from .identity import identify, ids_of, owner_of
from .link import AirError, Unreachable
from .protocol import Air, Task, connected
from .state import FINAL, is_over, to_time

#: Key of the XCom with the name of the job.
JOB_KEY = "job"
#: Seconds that Airflow has to say what became of a task: within the time that it gives us, 30 s.
ASK_S = 15.0


class AirExecutorTrigger(BaseTrigger):
    """Waits for a plan; without one it first submits ``tasks``, as the operator would.

    :param plan: what was submitted, as :meth:`Plan.to_json` gives it.
    :param not_before: time (RFC 3339) before which no event is yielded, however early the job is over: Airflow fails a task
        whose trigger fires before its scheduler has read that the worker's process has ended.
    :param end: end a task that succeeded from here, without another process.
    """

    def __init__(
        self,
        conn_id: str = AirExecutorHook.default_conn_name,
        plan: Mapping[str, Any] | None = None,
        job: str | None = None,
        tasks: Sequence[Task] | Task | None = None,
        spec: Mapping[str, Any] | None = None,
        outputs: Sequence[str] | None = None,
        wait_for: str = "family",
        poll_s: float = 10.0,
        not_before: str | None = None,
        end: bool = False,
        again: bool = True,
        cancel_on_kill: bool = True,
        push: bool = True,
        xcom_bytes_max: int = 1_048_576,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.conn_id = conn_id
        self.plan = dict(plan) if plan else None
        self.job = job
        self.tasks = tasks
        self.spec = spec
        self.outputs = outputs
        self.wait_for = wait_for
        self.poll_s = poll_s
        self.not_before = not_before
        self.end = end
        self.again = again
        self.cancel_on_kill = cancel_on_kill
        self.push = push
        self.xcom_bytes_max = xcom_bytes_max

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What makes the same trigger elsewhere."""
        names = (
            "conn_id plan job tasks spec outputs wait_for poll_s not_before end again cancel_on_kill push xcom_bytes_max"
        ).split()
        return "air_executor_provider.trigger.AirExecutorTrigger", {name: getattr(self, name) for name in names}

    async def _connected(self) -> AbstractAsyncContextManager[Air]:
        return connected(await AirExecutorHook(self.conn_id).settings())

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Waits for the end, through outages; yields one event."""
        # The first request makes the triggerer load its API, which takes long; when a task is ended there is no time for that.
        asking = asyncio.ensure_future(self._airflow_state()) if self.cancel_on_kill else None
        if asking is not None:
            asking.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            async with await self._patient() as air:
                plan = Plan.from_json(self.plan) if self.plan else await self._submit(air)
                await wait(air, plan, self.poll_s, self.log)
                event = await self._end(air, plan) if self.end else TriggerEvent({"plan": plan.to_json()})
        except AirError as error:
            self.log.error("%s", error)
            event = TriggerEvent({"error": str(error)})
        if self.not_before:
            early = datetime.fromisoformat(self.not_before.replace("Z", "+00:00")) - datetime.now(timezone.utc)
            await asyncio.sleep(max(0.0, early.total_seconds()))
        if asking is not None:
            await asyncio.gather(asking, return_exceptions=True)
        yield event

    async def _patient(self) -> AbstractAsyncContextManager[Air]:
        """A connection, however long NATS is away: a job that goes on is not failed for it."""
        said = ""
        while True:
            context = await self._connected()
            try:
                air = await context.__aenter__()
            except Unreachable as error:
                if str(error) != said:
                    said = str(error)
                    self.log.warning("%s; trying again", said)
                await asyncio.sleep(2.0)
                continue
            return _Entered(context, air)

    async def _submit(self, air: Air) -> Plan:
        """The first half of the operator, in the triggerer."""
        instance: Any = self.task_instance
        if instance is None:
            raise AirError("the trigger has neither a plan nor a task instance; defer with a plan")
        job, tasks = identify(instance, self.job, self.tasks)
        began = getattr(instance, "start_date", None) or datetime.now(timezone.utc)
        done = await submit(
            air,
            job,
            tasks,
            owner=owner_of(instance),
            began=began,
            wait_for=self.wait_for,  # type: ignore[arg-type]
            spec=self.spec,
            again=self.again,
        )
        self.log.info("the job %s: %d tasks queued, %d known, %d again", job, done.published, done.attached, done.again)
        self.plan = done.plan.to_json()
        return done.plan

    async def _end(self, air: Air, plan: Plan) -> TriggerEvent:
        result: Outcome = await outcome(air, plan)
        link = dashboard_of(await AirExecutorHook.aget_connection(self.conn_id), plan.job)
        xcoms: dict[str, Any] = {JOB_KEY: plan.job, "_link_AirExecutorJobLink": link}
        if not result.succeeded:
            # A failure is told by a worker: only there can it be one that Airflow does not try again.
            self.log.error("%s", result.text())
            return TriggerEvent({"plan": plan.to_json()})
        if self.push:
            xcoms["return_value"] = await outputs(air, result, self.outputs, self.xcom_bytes_max)
        await self._push(xcoms)
        self.log.info("the job %s: %d tasks succeeded", plan.job, len(plan.tasks))
        return TaskSuccessEvent()

    async def _push(self, xcoms: Mapping[str, Any]) -> None:
        """Pushes XComs as a worker does. Those of an end event arrive as JSON within JSON with Airflow 3.3.2."""
        instance: Any = self.task_instance
        where = {"dag_id": instance.dag_id, "task_id": instance.task_id, "run_id": instance.run_id}
        for key, value in xcoms.items():
            await asyncio.to_thread(XCom.set, key, value, map_index=instance.map_index, **where)

    async def on_kill(self) -> None:
        """A user ended the deferred task (mark, clear, or end of the run): cancels the job, where that is wanted."""
        if not self.cancel_on_kill:
            return
        try:
            state = await asyncio.wait_for(self._airflow_state(), ASK_S)
        except (TimeoutError, asyncio.TimeoutError):
            self.log.warning("Airflow does not say who ended the task; the job goes on, and `airx cancel` ends it")
            return
        if state == "deferred":
            # Nobody acted: the trigger has moved to another triggerer, which goes on with it.
            self.log.info("the trigger has moved; the job goes on")
            return
        if state == "running":
            # It was cleared, and its next try has begun already, on a busy triggerer: that one goes on with what it finds.
            self.log.info("the task runs again; the job goes on")
            return
        plan = Plan.from_json(self.plan) if self.plan else self._unsubmitted()
        async with await self._connected() as air:
            done = await cancel_unfinished(air, plan)
        self.log.info("the job %s: %s", plan.job, "cancelled" if done else "there is nothing to cancel")

    def _unsubmitted(self) -> Plan:
        """The plan of a trigger that was ended before it had submitted all."""
        instance: Any = self.task_instance
        job, tasks = identify(instance, self.job, self.tasks)
        return Plan(job, ids_of(tasks), self.wait_for)  # type: ignore[arg-type]

    async def _airflow_state(self) -> str | None:
        """The state of our task instance, as Airflow has it now; none when it was cleared or is gone."""
        from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

        instance: Any = self.task_instance
        if instance is None:
            return None
        map_index = instance.map_index if instance.map_index is not None and instance.map_index >= 0 else None
        reply: Any = await SUPERVISOR_COMMS.asend(
            GetTaskStates(
                dag_id=instance.dag_id, task_ids=[instance.task_id], run_ids=[instance.run_id], map_index=map_index
            )
        )
        states: Mapping[str, Any] = reply.task_states.get(instance.run_id) or {}
        name = instance.task_id if map_index is None else f"{instance.task_id}_{map_index}"
        state = states.get(name)
        return None if state is None else str(getattr(state, "value", state))


class AirExecutorJobTrigger(BaseTrigger):
    """Waits until a job or a task that somebody else submits is over: what the sensor defers to."""

    def __init__(
        self,
        conn_id: str,
        job: str,
        task: str | None = None,
        upto: int = 0,
        poll_s: float = 10.0,
        not_before: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.conn_id, self.job, self.task_name, self.upto = conn_id, job, task, upto
        self.poll_s, self.not_before = poll_s, not_before

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What makes the same trigger elsewhere."""
        return "air_executor_provider.trigger.AirExecutorJobTrigger", {
            "conn_id": self.conn_id,
            "job": self.job,
            "task": self.task_name,
            "upto": self.upto,
            "poll_s": self.poll_s,
            "not_before": self.not_before,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Waits for the end, through outages; yields one event."""
        seen, said = None, ""
        while seen is None:
            try:
                async with (
                    connected(await AirExecutorHook(self.conn_id).settings()) as air,
                    air.news([self.job]) as heard,
                ):
                    while (seen := await look(air, self.job, self.task_name, self.upto)) is None:
                        heard.clear()
                        try:
                            await asyncio.wait_for(heard.wait(), self.poll_s)
                        except (TimeoutError, asyncio.TimeoutError):
                            continue
            except Unreachable as error:
                if str(error) != said:
                    said = str(error)
                    self.log.warning("%s; trying again", said)
                await asyncio.sleep(2.0)
            except AirError as error:
                yield TriggerEvent({"error": str(error)})
                return
        if self.not_before:
            early = datetime.fromisoformat(self.not_before.replace("Z", "+00:00")) - datetime.now(timezone.utc)
            await asyncio.sleep(max(0.0, early.total_seconds()))
        yield TriggerEvent(seen)


async def look(air: Air, job: str, task: str | None, upto: int) -> dict[str, Any] | None:
    """How a job or task ended; none while it has not."""
    if task is not None:
        last = await air.last_record(job, task)
        if last is not None and last[1]["status"] in FINAL:
            record = last[1]
            return {"status": record["status"], "error": record.get("error"), "tail": record.get("tail")}
        return None
    last_queued = max(upto, await air.last_queued(job))
    state = (await air.state(job)).value
    if state is None or not is_over(state, last_queued):
        return None
    return {"status": state["status"], "error": state.get("task") and f"at the task {state['task']}"}


class _Entered(AbstractAsyncContextManager[Air]):
    """A context that was entered already."""

    def __init__(self, context: AbstractAsyncContextManager[Air], air: Air) -> None:
        self.context, self.air = context, air

    async def __aenter__(self) -> Air:
        return self.air

    async def __aexit__(self, *error: Any) -> bool | None:
        return await self.context.__aexit__(*error)


def hold(seconds: float) -> str:
    """The moment that many seconds from now."""
    return to_time(datetime.now(timezone.utc) + timedelta(seconds=seconds))
