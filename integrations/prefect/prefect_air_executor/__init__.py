"""Air-Executor for Prefect: jobs of durable tasks from flows, and a worker of the type `air`.

Start at `jobs` (what flows call), `executor` (the connection, a block), `worker` (flow runs as tasks), `runner`
(runners as flow runs). `protocol` is what is said to NATS, `state` its part without I/O: nothing of Prefect is in them.
"""

from prefect_air_executor.executor import AirExecutor
from prefect_air_executor.jobs import (
    Job,
    JobCancelled,
    JobFailed,
    JobResult,
    Progress,
    asubmit_job,
    await_for_job,
    submit_job,
    wait_for_job,
)
from prefect_air_executor.protocol import AirError
from prefect_air_executor.state import Record, State, Task
from prefect_air_executor.worker import AirWorker

__all__ = [
    "AirError",
    "AirExecutor",
    "AirWorker",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobResult",
    "Progress",
    "Record",
    "State",
    "Task",
    "asubmit_job",
    "await_for_job",
    "submit_job",
    "wait_for_job",
]
