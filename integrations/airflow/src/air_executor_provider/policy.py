"""A cluster policy for KubernetesExecutor: pods of the DAG ``air_runner`` get the image and the resources of their task.

In ``airflow_local_settings.py``::

    from air_executor_provider.policy import task_instance_mutation_hook
"""

from __future__ import annotations

from typing import Any


def pod_override(conf: dict[str, Any]) -> Any:
    """What a claim asks of its pod, as ``V1Pod``; none where it asks for nothing."""
    image, resources = conf.get("image"), {k: v for k, v in (conf.get("resources") or {}).items() if v}
    if not image and not resources:
        return None
    from kubernetes.client import models as k8s

    wanted = k8s.V1ResourceRequirements(requests=resources, limits=resources) if resources else None
    container = k8s.V1Container(name="base", image=image, resources=wanted)
    return k8s.V1Pod(spec=k8s.V1PodSpec(containers=[container]))


def task_instance_mutation_hook(task_instance: Any, dag_run: Any = None) -> None:
    """Called by Airflow for each task instance that it makes."""
    if dag_run is None or task_instance.operator != "AirRunnerOperator":
        return
    override = pod_override(dag_run.conf or {})
    if override is not None:
        task_instance.executor_config = {**(task_instance.executor_config or {}), "pod_override": override}
