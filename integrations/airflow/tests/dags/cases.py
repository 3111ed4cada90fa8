"""DAGs of the system tests. `FLAGS` is a folder: a task that waits for a file there goes on when it appears."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, task

from air_executor_provider.operator import AirExecutorSubmitOperator
from air_executor_provider.sensor import AirExecutorJobSensor

FLAGS = os.environ.get("AIR_TEST_FLAGS", "/nowhere")
WAIT = f"echo waiting; while ! test -e {FLAGS}/$AIR_JOB; do sleep 0.2; done; echo '\"gone on\"' > $AIR_OUTPUT"
SHORT = {"inline_s": 0.0}

with DAG("waits", schedule=None):
    AirExecutorSubmitOperator(task_id="air", tasks=[{"run": WAIT}, {"run": "true"}])

with DAG("left", schedule=None):
    AirExecutorSubmitOperator(task_id="air", tasks={"run": WAIT}, cancel_on_kill=False)

with DAG("timed", schedule=None):
    AirExecutorSubmitOperator(task_id="air", tasks={"run": WAIT}, execution_timeout=timedelta(seconds=5), retries=0)

with DAG("fails", schedule=None):
    bad = {"id": "bad", "run": "echo the disk is full; exit 3", "retry": {"max": 0}}
    AirExecutorSubmitOperator(task_id="air", tasks=[{"id": "good", "run": "true"}, bad])
    AirExecutorSubmitOperator(task_id="end", tasks=[bad], end_from_trigger=True, **SHORT)

with DAG("short", schedule=None):
    # Over before Airflow's scheduler has seen that the worker's process ended.
    AirExecutorSubmitOperator.partial(task_id="air", **SHORT).expand(
        tasks=[{"run": f"echo {n} > $AIR_OUTPUT", "id": "n"} for n in range(20)]
    )

with DAG("ends", schedule=None):
    AirExecutorSubmitOperator.partial(task_id="air", end_from_trigger=True, hold_s=0.0, **SHORT).expand(
        tasks=[{"run": f"echo {n} > $AIR_OUTPUT", "id": "n"} for n in range(20)]
    )

with DAG("starts", schedule=None, params={"n": 6}):

    @task
    def twice(outputs: dict) -> int:
        """Gets an output that a triggerer has pushed."""
        return 2 * outputs["task"]

    crunch = AirExecutorSubmitOperator(
        task_id="air",
        tasks={"run": "echo {{ params.n }} > $AIR_OUTPUT", "labels": {"run": "{{ run_id }}"}},
        start_from_trigger=True,
        end_from_trigger=True,
    )
    twice(crunch.output)
    AirExecutorSubmitOperator(task_id="half", tasks={"run": "echo 1 > $AIR_OUTPUT"}, start_from_trigger=True)

with DAG("senses", schedule=None):
    AirExecutorJobSensor(task_id="job", job="outside", timeout=300)
    AirExecutorJobSensor(task_id="task", job="outside", task="second", timeout=300)
    AirExecutorJobSensor(
        task_id="poked", job="outside", deferrable=False, mode="reschedule", poke_interval=1, timeout=300
    )
    AirExecutorJobSensor(task_id="bad", job="outside", task="third", timeout=300, retries=0)
