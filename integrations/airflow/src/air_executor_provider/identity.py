"""Names that are the same whenever and wherever the same Airflow task instance submits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .link import Refused
from .protocol import Task, check_job
from .state import digest, readable


def owner_of(instance: Any) -> dict[str, str]:
    """The labels that say which task instance a task belongs to."""
    return {
        "airflow-dag": instance.dag_id,
        "airflow-run": instance.run_id,
        "airflow-task": instance.task_id,
        "airflow-map": str(_map_index(instance)),
    }


def job_of(instance: Any) -> str:
    """The name of the job that belongs to a task instance alone."""
    tail = digest(instance.dag_id, instance.run_id, instance.task_id, _map_index(instance))
    return readable(instance.dag_id, instance.task_id, tail=tail)


def identify(instance: Any, job: str | None, tasks: Sequence[Task] | Task | None) -> tuple[str, list[Task]]:
    """The job, and the tasks with their ids.

    In a job of its own a task without an id is called ``task``, or ``task-N`` of several. In a job that the user names, others
    may have theirs, and the ids get a part that only this task instance has.
    """
    given = [tasks] if isinstance(tasks, Mapping) else list(tasks or [])
    name = check_job(job.strip()) if job and job.strip() else job_of(instance)
    part = ""
    if name != job_of(instance):
        part = f"-{digest(instance.dag_id, instance.run_id, instance.task_id, _map_index(instance))}"
    named = []
    for at, task in enumerate(given):
        if not isinstance(task, Mapping):
            raise Refused(
                f"task {at} of the job {name} is {type(task).__name__}, not a task: write an object with `run` or `exec`"
            )
        own = f"task{part}" if len(given) == 1 else f"task{part}-{at}"
        named.append({**task, "id": task.get("id") or own})
    return name, named


def ids_of(tasks: Sequence[Task]) -> tuple[str, ...]:
    """The ids of tasks."""
    return tuple(task["id"] for task in tasks)


def _map_index(instance: Any) -> int:
    return -1 if instance.map_index is None else int(instance.map_index)
