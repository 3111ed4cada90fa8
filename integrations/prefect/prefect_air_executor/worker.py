"""The worker type `air`: Prefect schedules flow runs, Air-Executor runs each as the one task of a job.

The job is named after the flow run and the scheduling of it, so that whoever submits it, and how often, there is one.
The worker keeps nothing: what it has to know after a restart is in Prefect (the pool's flow runs and their states) and
in NATS (the job and its record). A look at both, every few seconds, does what is due:

- `Cancelling`: the job is cancelled, and the flow run becomes `Cancelled`. Prefect 3 asks the process of a flow run to
  cancel itself; that gets a while, and its hooks run. Who is queued, hangs or is gone is cancelled all the same.
- The task is over, but its flow run is not: `Crashed`, with what the record says.
- `Pending`, but never published: published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import anyio
import anyio.abc
import httpx
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import State as FlowState
from prefect.client.schemas.objects import StateType
from prefect.exceptions import Abort, InfrastructureNotFound, ObjectNotFound
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Crashed
from prefect.utilities.engine import propose_state
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult
from pydantic import Field

from prefect_air_executor.executor import AirExecutor
from prefect_air_executor.protocol import AirError, Client
from prefect_air_executor.state import Record, Task

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

TASK = "flow-run"
_PID = "air:"
_PAGE = 200
_LOOK_MAX = 5.0
_LOST_AFTER = timedelta(seconds=30)
_STOP_WITHIN = 60.0
_SECRETS = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_CLIENT_CUSTOM_HEADERS")

T = TypeVar("T")


class AirVariables(BaseVariables):
    """What a work pool or a deployment may set."""

    executor: AirExecutor = Field(
        default_factory=AirExecutor.from_env,
        title="Air-Executor",
        description="Connection to Air-Executor. Without it, NATS_URL and the like of the worker are used.",
    )
    timeout: str = Field(default="0", description="Time that a flow run may take, such as 2h; 0 for no limit.")
    cancel_grace_seconds: int = Field(
        default=30,
        ge=0,
        description="Time for a flow run to cancel itself, hooks included, before Air-Executor ends it.",
    )
    working_dir: str | None = Field(default=None, description="Working directory; by default an own temporary one.")
    backend: str | None = Field(default=None, description="Backend of Air-Executor that must run the flow run.")
    image: str | None = Field(default=None, description="Container image, for backends that know images.")
    cpu: str | None = Field(default=None, description="CPU to ask for, such as 500m or 2.")
    memory: str | None = Field(default=None, description="Memory to ask for, such as 512Mi.")
    share_credentials: bool = Field(
        default=True,
        description="Send the worker's Prefect API key with the task. Whoever may read the stream of tasks sees it; "
        "without it, the hosts of runners must have one.",
    )


class AirJobConfiguration(BaseJobConfiguration):
    """How one flow run is run."""

    executor: AirExecutor = Field(default_factory=AirExecutor.from_env)
    timeout: str = Field(default="0")
    cancel_grace_seconds: int = Field(default=30, ge=0)
    working_dir: str | None = Field(default=None)
    backend: str | None = Field(default=None)
    image: str | None = Field(default=None)
    cpu: str | None = Field(default=None)
    memory: str | None = Field(default=None)
    share_credentials: bool = Field(default=True)

    def task(self) -> Task:
        """The task of the flow run. Prefect retries flow runs; Air-Executor only those whose runner was lost."""
        env = {name: value for name, value in self.env.items() if value is not None}
        if not self.share_credentials:
            env = {name: value for name, value in env.items() if name not in _SECRETS}
        resources = {name: value for name, value in (("cpu", self.cpu), ("memory", self.memory)) if value}
        return Task(
            id=TASK,
            run=self.command,
            env=env,
            cwd=self.working_dir,
            timeout=self.timeout,
            retry={"max": 0},
            backend=self.backend,
            image=self.image,
            resources=resources or None,
            labels=self.labels,
        )


class AirWorkerResult(BaseWorkerResult):
    """A flow run whose task is over."""


class AirWorker(BaseWorker[AirJobConfiguration, AirVariables, AirWorkerResult]):
    """Runs flow runs as tasks of Air-Executor."""

    type = "air"
    job_configuration = AirJobConfiguration
    job_configuration_variables = AirVariables
    _display_name = "Air-Executor"
    _description = "Execute flow runs as durable tasks of Air-Executor, on NATS."

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections: dict[str, Client] = {}
        self._connecting = asyncio.Lock()
        self._looks: anyio.CancelScope | None = None
        self._busy: set[UUID] = set()
        # Flow runs whose `run` waits here; and what was found out of those that others submitted.
        self._watched: set[UUID] = set()
        self._adopted: dict[UUID, AirJobConfiguration] = {}

    # ---- life ----

    async def setup(self) -> None:
        """Begins to look after the pool's flow runs, those of earlier workers too."""
        await super().setup()
        assert self._runs_task_group is not None
        self._looks = await self._runs_task_group.start(self._look_again_and_again)

    async def teardown(self, *exc_info: Any) -> None:
        """Stops looking. What runs in Air-Executor goes on."""
        if self._looks is not None:
            self._looks.cancel()
        await super().teardown(*exc_info)
        for client in self._connections.values():
            with suppress(Exception):
                await client.nats.close()
        self._connections.clear()

    async def _air(self, executor: AirExecutor) -> Client:
        key = repr(sorted((name, repr(value)) for name, value in executor._options().items())) + executor.prefix
        async with self._connecting:
            if key not in self._connections:
                self._connections[key] = await executor.connect()
            return self._connections[key]

    # ---- run ----

    async def run(
        self,
        flow_run: FlowRun,
        configuration: AirJobConfiguration,
        task_status: anyio.abc.TaskStatus[Any] | None = None,
    ) -> AirWorkerResult:
        """Publishes a flow run, and waits for its record. States are set here, so the result is always good."""
        client = await self._air(configuration.executor)
        job = await self._job(flow_run.id)
        self._watched.add(flow_run.id)
        try:
            await client.publish(job, [configuration.task()])
            if task_status is not None:
                task_status.started(_PID + job)
            record = await self._patiently(lambda: client.finished(job, TASK))
            await self._patiently(lambda: self._settle(flow_run.id, job, record))
        finally:
            self._watched.discard(flow_run.id)
        return AirWorkerResult(status_code=0, identifier=_PID + job)

    async def kill_infrastructure(
        self, infrastructure_pid: str, configuration: AirJobConfiguration, grace_seconds: int = 30
    ) -> None:
        """Cancels the job of a flow run; Prefect asks for it where a flow run has been `Cancelling` for too long."""
        if not infrastructure_pid.startswith(_PID):
            raise InfrastructureNotFound(f"`{infrastructure_pid}` is no job of Air-Executor")
        client = await self._air(configuration.executor)
        job = infrastructure_pid[len(_PID) :]
        await client.cancel(job, even_if_over=True)
        await asyncio.wait_for(client.stopped(job), grace_seconds + _STOP_WITHIN)

    async def _job(self, flow_run: UUID) -> str:
        """The job of a flow run: one for each time that it was scheduled, the same for whoever asks.

        The engine writes `AwaitingRetry`, which is scheduled too, while the same process goes on: what counts is the
        one before it became pending for the last time.
        """
        states = sorted(await self.client.read_flow_run_states(flow_run), key=lambda state: state.timestamp)
        last = max((n for n, state in enumerate(states) if state.type == StateType.PENDING), default=len(states))
        scheduled = [state for state in states[:last] if state.type == StateType.SCHEDULED]
        turn = (scheduled or states)[-1 if scheduled else 0]
        return f"prefect-{flow_run}-{turn.id.hex[-12:]}"

    # ---- look ----

    async def _look_again_and_again(
        self, task_status: anyio.abc.TaskStatus[anyio.CancelScope] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        interval = min(get_current_settings().worker.query_seconds, _LOOK_MAX)
        with anyio.CancelScope() as scope:
            task_status.started(scope)
            while True:
                await anyio.sleep(interval)
                try:
                    await self._look()
                except Exception as error:
                    self._logger.warning("Flow runs could not be looked after: %r; trying again", error)

    async def _look(self) -> None:
        """Begins what is due for each flow run of the pool that is under way."""
        if self._runs_task_group is None or self._work_pool is None:
            return
        under_way = await self._under_way()
        for flow_run in under_way:
            self._begin(flow_run)
        ids = {flow_run.id for flow_run in under_way}
        self._adopted = {one: found for one, found in self._adopted.items() if one in ids}
        # Somebody may write `Cancelled` without `Cancelling`, which is over for Prefect.
        for flow_run_id in self._watched - ids:
            with suppress(ObjectNotFound):
                flow_run = await self.client.read_flow_run(flow_run_id)
                if flow_run.state is not None and flow_run.state.is_cancelled():
                    self._begin(flow_run)

    async def _under_way(self) -> list[FlowRun]:
        types = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
        found: list[FlowRun] = []
        while True:
            page = await self.client.read_flow_runs(
                flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types))),
                work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[self._work_pool_name])),
                limit=_PAGE,
                offset=len(found),
            )
            found += page
            if len(page) < _PAGE:
                return found

    def _begin(self, flow_run: FlowRun) -> None:
        if flow_run.id in self._busy or flow_run.id in self._submitting_flow_run_ids or flow_run.state is None:
            return
        assert self._runs_task_group is not None
        self._busy.add(flow_run.id)
        self._runs_task_group.start_soon(self._look_after, flow_run, flow_run.state)

    async def _look_after(self, flow_run: FlowRun, state: FlowState) -> None:
        try:
            if state.type in (StateType.CANCELLING, StateType.CANCELLED):
                await self._cancel(flow_run)
            elif flow_run.id not in self._watched:
                await self._adopt(flow_run, state)
        except ObjectNotFound:
            self._logger.debug("Flow run '%s', or its deployment, is gone", flow_run.id)
        except Exception as error:
            self._logger.warning("Flow run '%s' could not be looked after: %r; trying again", flow_run.id, error)
        finally:
            self._busy.discard(flow_run.id)

    async def _configuration(self, flow_run: FlowRun) -> AirJobConfiguration:
        return await self.job_configuration.resolve_for_flow_run(
            flow_run,
            client=self.client,
            work_pool=self.work_pool.model_copy(deep=True),
            worker_name=self.name,
            worker_id=self.backend_id,
        )

    async def _adopt(self, flow_run: FlowRun, state: FlowState) -> None:
        """Takes care of a flow run that another worker submitted, or was about to."""
        configuration = self._adopted.get(flow_run.id) or await self._configuration(flow_run)
        self._adopted[flow_run.id] = configuration
        client = await self._air(configuration.executor)
        pid = flow_run.infrastructure_pid or ""
        if pid.startswith(_PID) and state.type == StateType.RUNNING:
            # The usual case asks only NATS; what follows asks Prefect whether this still is the job.
            job = pid[len(_PID) :]
        else:
            job = await self._job(flow_run.id)
        record = await client.end(job, TASK)
        if record is not None:
            await self._settle(flow_run.id, job, record)
        elif state.type == StateType.PENDING and _age(state) > _LOST_AFTER:
            if await client.state(job) is None and not await client.is_queued(job):
                self.get_flow_run_logger(flow_run).info("Publishing flow run '%s', which was lost", flow_run.id)
                await client.publish(job, [configuration.task()])
            if pid != _PID + job:
                await self.client.update_flow_run(flow_run.id, infrastructure_pid=_PID + job)

    # ---- end ----

    async def _settle(self, flow_run_id: UUID, job: str, record: Record) -> None:
        """Sets the state of a flow run whose task is over, where the flow run did not set it itself."""
        try:
            flow_run = await self.client.read_flow_run(flow_run_id)
        except ObjectNotFound:
            return
        state = flow_run.state
        # What is `Cancelling` is ended by a look, which waits for the same record.
        if state is None or state.is_cancelling() or await self._job(flow_run_id) != job:
            return
        if record.status == "cancelled":
            # The engine calls it a crash when its process is told to end.
            if not state.is_final() or state.is_crashed():
                await self._set_cancelled(flow_run, f"Cancelled in Air-Executor: job '{job}'.")
        elif state.type in (StateType.PENDING, StateType.RUNNING):
            why = "its process ended without saying how" if record.status == "succeeded" else record.describe()
            with suppress(Abort):
                message = f"Air-Executor ran this flow run in job '{job}': {why}"
                await propose_state(self.client, Crashed(message=message), flow_run_id=flow_run_id)
                self.get_flow_run_logger(flow_run).error(message)

    async def _cancel(self, flow_run: FlowRun) -> None:
        """Ends a flow run that somebody cancels, and its job."""
        logger = self.get_flow_run_logger(flow_run)
        configuration = await self._configuration(flow_run)
        client = await self._air(configuration.executor)
        job = await self._job(flow_run.id)
        state = await client.state(job)
        if state is None or state.status not in ("cancelling", "cancelled", "removing"):
            if state is not None and state.phase == "running":
                with anyio.move_on_after(configuration.cancel_grace_seconds):
                    await client.finished(job, TASK)
            logger.info("Cancelling job '%s' in Air-Executor", job)
            await client.cancel(job, even_if_over=True)
        await asyncio.wait_for(client.stopped(job), _STOP_WITHIN)
        flow_run = await self.client.read_flow_run(flow_run.id)
        if flow_run.state is not None and (not flow_run.state.is_final() or flow_run.state.is_crashed()):
            await self._set_cancelled(flow_run, f"Cancelled, with its job '{job}' in Air-Executor.")

    async def _set_cancelled(self, flow_run: FlowRun, message: str) -> None:
        await self.client.set_flow_run_state(flow_run.id, Cancelled(message=message), force=True)
        self.get_flow_run_logger(flow_run).info(message)

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` gives, tried again while Prefect or NATS is away: the flow run goes on without this worker."""
        while True:
            try:
                return await attempt()
            except (httpx.HTTPError, AirError, OSError) as error:
                self._logger.warning("%r; trying again", error)
                await anyio.sleep(_LOOK_MAX)


def _age(state: FlowState) -> timedelta:
    return datetime.now(timezone.utc) - state.timestamp
