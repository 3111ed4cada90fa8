"""The DAG of the Airflow backend: copy or link this file into the folder of DAGs, or name this folder as a bundle of Airflow."""

from airflow.sdk import DAG

from air_executor_provider.runner import air_runner

dag: DAG = air_runner()
