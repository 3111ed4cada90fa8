"""The operator: submits tasks to Air-Executor, and waits for them without holding a slot."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.definitions.xcom_arg import XComArg
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferralTimeout
from airflow.triggers.base import StartTriggerArgs

from .attach import Outcome, Plan, Submitted, is_over, outcome, outputs, submit, wait
from .hook import AirExecutorHook, cancel_unfinished, run
from .identity import identify, ids_of, job_of, owner_of
from .link import AirError, Settings, Unreachable
from .protocol import Task, connected
from .trigger import JOB_KEY, AirExecutorTrigger, hold

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import TaskInstanceKey

TRIGGER = "air_executor_provider.trigger.AirExecutorTrigger"


class AirExecutorJobLink(BaseOperatorLink):
    """The job in the dashboard that the connection names."""

    name = "Air-Executor job"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The address; empty without a dashboard."""
        hook = AirExecutorHook(getattr(operator, "conn_id", AirExecutorHook.default_conn_name))
        return hook.dashboard(getattr(operator, "job", None) or job_of(ti_key))


class AirExecutorSubmitOperator(BaseOperator):
    """Submits tasks as a job of Air-Executor, and waits until they, and all that they queue, are over.

    The names of the job and its tasks follow from those of the task instance. So whoever submits again (a retry, a cleared
    task, a worker that died) attaches to what is there, and runs again only what had failed.

    :param tasks: one task or a list, as objects with ``run`` or ``exec``; all other fields are optional (templated).
    :param job: name of the job (templated). Without it each task instance has a job of its own.
    :param conn_id: the Airflow connection, of type ``air_executor``.
    :param spec: settings of the job, such as ``{"on_failure": "continue"}``; others that it has stay (templated).
    :param wait_for: ``family`` (the job, and those into which its tasks queued others), ``job``, or ``tasks`` (only these).
    :param outputs: ids of the tasks whose results are returned (``task`` or ``job/task``, sub-tasks too); by default those
        that were given. The XCom is an object of results by id.
    :param xcom_bytes_max: the most that the results may have together, in bytes.
    :param deferrable: wait in the triggerer, with no slot held.
    :param end_from_trigger: end a task that succeeded in the triggerer, without a second process. Custom XCom backends, listeners and asset
        outlets are not served then: Airflow does not do that there.
    :param start_from_trigger: submit in the triggerer as well, without any process. Not for mapped tasks, nor for arguments
        that are another task's output.
    :param poll_s: seconds between two looks at a job of which nothing was heard.
    :param inline_s: seconds for which the worker waits before it defers: a short job needs no second process.
    :param hold_s: seconds that a deferred task stays so at least. Airflow fails a task whose trigger fires before its
        scheduler has seen the worker's process end.
    :param retry_failed: a further try runs again what did not succeed before it; else it tells of it again.
    :param cancel_on_kill: cancel the job when the task is ended by a user or its ``execution_timeout``.
    :param retries: tries after the first, as for any operator; they attach, and mend what befalls Airflow. A job that fails
        is not tried again by them: its tasks have retries of their own.
    """

    template_fields: Sequence[str] = ("tasks", "job", "spec", "outputs", "conn_id")
    template_fields_renderers = {"tasks": "json", "spec": "json"}
    operator_extra_links = (AirExecutorJobLink(),)
    ui_color = "#dbe9f4"

    def __init__(
        self,
        *,
        tasks: Sequence[Task] | Task,
        job: str | None = None,
        conn_id: str = AirExecutorHook.default_conn_name,
        spec: Mapping[str, Any] | None = None,
        wait_for: str = "family",
        outputs: Sequence[str] | None = None,
        xcom_bytes_max: int = 1_048_576,
        deferrable: bool = True,
        end_from_trigger: bool = False,
        start_from_trigger: bool = False,
        poll_s: float = 10.0,
        inline_s: float = 2.0,
        hold_s: float = 5.0,
        retry_failed: bool = True,
        cancel_on_kill: bool = True,
        retries: int = 2,
        retry_delay: timedelta = timedelta(seconds=10),
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, retry_delay=retry_delay, **kwargs)
        self.tasks = tasks
        self.job = job
        self.conn_id = conn_id
        self.spec = spec
        self.wait_for = wait_for
        self.outputs = outputs
        self.xcom_bytes_max = xcom_bytes_max
        self.deferrable = deferrable
        self.end_from_trigger = end_from_trigger
        self.poll_s = poll_s
        self.inline_s = inline_s
        self.hold_s = hold_s
        self.retry_failed = retry_failed
        self.cancel_on_kill = cancel_on_kill
        self._plan: Plan | None = None
        self.start_from_trigger = start_from_trigger
        if start_from_trigger:
            self.start_trigger_args = self._start_args()

    def _start_args(self) -> StartTriggerArgs:
        for name in ("tasks", "job", "spec", "outputs"):
            if any(True for _ in XComArg.iter_xcom_references(getattr(self, name))):
                raise ValueError(
                    f"{self.task_id}: `{name}` is the output of another task, which the triggerer cannot fill in; "
                    "leave start_from_trigger out"
                )
        return StartTriggerArgs(
            trigger_cls=TRIGGER,
            trigger_kwargs={
                **self._waiting(),
                "job": self.job,
                "tasks": self.tasks,
                "spec": self.spec,
                "outputs": self.outputs,
            },
            next_method="execute_complete",
            timeout=self.execution_timeout,
        )

    def _waiting(self) -> dict[str, Any]:
        """What any of our triggers is told."""
        return {
            "conn_id": self.conn_id,
            "wait_for": self.wait_for,
            "poll_s": self.poll_s,
            "end": self.end_from_trigger,
            "again": self.retry_failed,
            "cancel_on_kill": self.cancel_on_kill,
            "push": self.do_xcom_push,
            "xcom_bytes_max": self.xcom_bytes_max,
        }

    def _settings(self) -> Settings:
        return AirExecutorHook(self.conn_id).get_conn()

    def execute(self, context: Context) -> Any:
        """Submits or attaches; returns at once if the job is over soon, else defers."""
        instance: Any = context["ti"]
        try:
            job, tasks = identify(instance, self.job, self.tasks)
            self.job = job
            instance.xcom_push(key=JOB_KEY, value=job)
            # For on_kill, should it come before all is submitted.
            self._plan = Plan(job, ids_of(tasks), self.wait_for)  # type: ignore[arg-type]
            began = instance.start_date or datetime.now(timezone.utc)
            done, over = run(self._submit(job, tasks, owner_of(instance), began))
            self._plan = done.plan
            self.log.info(
                "the job %s: %d tasks queued, %d known already, %d run again",
                job,
                done.published,
                done.attached,
                done.again,
            )
            if over or not self.deferrable:
                return self._finish(done.plan)
        except AirError as error:
            raise _airflow(error) from error
        trigger = AirExecutorTrigger(
            plan=done.plan.to_json(), outputs=self.outputs, not_before=hold(self.hold_s), **self._waiting()
        )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=self._left(began))

    def _left(self, began: datetime) -> timedelta | None:
        """What is left of `execution_timeout`, which Airflow heeds only while a worker runs; never nothing."""
        if self.execution_timeout is None:
            return None
        return max(timedelta(seconds=1), self.execution_timeout - (datetime.now(timezone.utc) - began))

    async def _submit(
        self, job: str, tasks: list[Task], owner: dict[str, str], began: datetime
    ) -> tuple[Submitted, bool]:
        async with connected(self._settings()) as air:
            done = await submit(
                air,
                job,
                tasks,
                owner=owner,
                began=began,
                wait_for=self.wait_for,  # type: ignore[arg-type]
                spec=self.spec,
                again=self.retry_failed,
            )
            patience = self.inline_s if self.deferrable else None
            try:
                await asyncio.wait_for(wait(air, done.plan, self.poll_s, self.log), patience)
            except (TimeoutError, asyncio.TimeoutError):
                return done, await is_over(air, done.plan)
            return done, True

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """The second half: what the trigger waited for is over."""
        if "error" in event:
            raise AirflowException(event["error"])
        plan = Plan.from_json(event["plan"])
        self.job = plan.job
        if self.start_from_trigger:
            context["ti"].xcom_push(key=JOB_KEY, value=plan.job)
        try:
            return self._finish(plan)
        except AirError as error:
            raise _airflow(error) from error

    def _finish(self, plan: Plan) -> Any:
        result, found = run(self._results(plan))
        if not result.succeeded:
            raise AirflowFailException(result.text())
        self.log.info("the job %s: %d tasks succeeded", plan.job, len(plan.tasks))
        return found

    async def _results(self, plan: Plan) -> tuple[Outcome, dict[str, Any] | None]:
        async with connected(self._settings()) as air:
            result = await outcome(air, plan)
            if not result.succeeded or not self.do_xcom_push:
                return result, None
            return result, await outputs(air, result, self.outputs, self.xcom_bytes_max)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As any operator resumes; a time-out of the deferred task ends the job, as it ends a task that runs."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            instance: Any = context["ti"]
            job, tasks = identify(instance, self.job, self.tasks)
            self._plan = Plan(job, ids_of(tasks), self.wait_for)  # type: ignore[arg-type]
            self.on_kill()
            raise

    def on_kill(self) -> None:
        """The worker's process is ended by a user or a time-out: cancels the job, where that is wanted."""
        if not self.cancel_on_kill or self._plan is None:
            return
        plan = self._plan

        async def cancel(settings: Settings) -> bool:
            async with connected(settings) as air:
                return await cancel_unfinished(air, plan)

        # In a thread: a signal may have come while this one's event loop runs.
        settings = self._settings()
        with ThreadPoolExecutor(1) as thread:
            try:
                done = thread.submit(run, cancel(settings)).result()
                self.log.info("the job %s: %s", plan.job, "cancelled" if done else "there is nothing to cancel")
            except AirError as error:
                self.log.error("the job %s was not cancelled: %s", plan.job, error)


def _airflow(error: AirError) -> AirflowException:
    """The exception by which Airflow tries again where that may help, and else not."""
    return AirflowException(str(error)) if isinstance(error, Unreachable) else AirflowFailException(str(error))
