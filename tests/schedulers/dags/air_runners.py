"""DAGs of the conformance suite: each test has one of its own, with its own connection and its own program of runners."""

import os

from air_executor_provider.runner import air_runner
from airflow.sdk import DAG

FOLDER = os.environ["AIR_TEST_FOLDER"]

for number in range(20):
    dag: DAG = air_runner(f"air_runner_{number}", conn_id=f"air_{number}", program=f"{FOLDER}/runner-{number}")
    globals()[dag.dag_id] = dag
