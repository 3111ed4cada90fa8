"""The sensor: waits for a job or a task that somebody else submits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from .hook import AirExecutorHook, run
from .link import AirError, Settings, Unreachable
from .operator import AirExecutorJobLink
from .protocol import check_job, connected
from .trigger import AirExecutorJobTrigger, hold, look

if TYPE_CHECKING:
    from airflow.sdk import Context


class AirExecutorJobSensor(BaseSensorOperator):
    """Waits until a job is completed, or a task of it has succeeded. It need not be there yet.

    :param job: the job (templated).
    :param task: a task of it (templated); by default all that is queued in the job when the sensor starts, and what that queues.
    :param expected: how it must end; any other end fails the sensor.
    :param deferrable: wait in the triggerer, with no slot held.
    :param poll_s: seconds between two looks of the triggerer at a job of which nothing was heard.
    :param hold_s: seconds that a deferred sensor stays so at least; see the operator.
    """

    template_fields: Sequence[str] = ("job", "task", "conn_id")
    operator_extra_links = (AirExecutorJobLink(),)
    ui_color = "#dbe9f4"

    def __init__(
        self,
        *,
        job: str,
        task: str | None = None,
        expected: Sequence[str] = ("completed", "succeeded"),
        conn_id: str = AirExecutorHook.default_conn_name,
        deferrable: bool = True,
        poll_s: float = 10.0,
        hold_s: float = 5.0,
        retries: int = 2,
        retry_delay: timedelta = timedelta(seconds=10),
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, retry_delay=retry_delay, **kwargs)
        self.job = job
        self.task = task
        self.expected = expected
        self.conn_id = conn_id
        self.deferrable = deferrable
        self.poll_s = poll_s
        self.hold_s = hold_s

    def execute(self, context: Context) -> Any:
        """Looks once; defers if it is not over."""
        if not self.deferrable:
            return super().execute(context)
        seen, upto = self._look(0)
        if seen is not None:
            return self._judge(seen)
        trigger = AirExecutorJobTrigger(
            conn_id=self.conn_id,
            job=self.job,
            task=self.task,
            upto=upto,
            poll_s=self.poll_s,
            not_before=hold(self.hold_s),
        )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))

    def poke(self, context: Context) -> bool:
        """Looks once."""
        seen, _ = self._look(0)
        if seen is None:
            return False
        self._judge(seen)
        return True

    def execute_complete(self, context: Context, event: dict[str, Any]) -> str:
        """What the trigger waited for is over."""
        if "status" not in event:
            raise AirflowException(event["error"])
        return self._judge(event)

    def _look(self, upto: int) -> tuple[dict[str, Any] | None, int]:
        async def ask(settings: Settings) -> tuple[dict[str, Any] | None, int]:
            async with connected(settings) as air:
                last = await air.last_queued(self.job)
                return await look(air, self.job, self.task, upto), last

        try:
            check_job(self.job)
            return run(ask(AirExecutorHook(self.conn_id).get_conn()))
        except Unreachable as error:
            raise AirflowException(str(error)) from error
        except AirError as error:
            raise AirflowFailException(str(error)) from error

    def _judge(self, seen: dict[str, Any]) -> str:
        status: str = seen["status"]
        if status in self.expected:
            return status
        name = f"the task {self.job}/{self.task}" if self.task else f"the job {self.job}"
        shown = f"`airx show {self.job} {self.task}`" if self.task else f"`airx status {self.job}`"
        text = (
            f"{name} ended as {status}" + (f": {seen['error']}" if seen.get("error") else "") + f". {shown} shows more."
        )
        if tail := (seen.get("tail") or "").rstrip():
            text += "\nThe last that it printed:\n" + "\n".join(f"  {line}" for line in tail.splitlines())
        raise AirflowException(text)
