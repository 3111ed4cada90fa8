"""What Airflow costs by itself: a DAG of one task that opens a file."""

from pathlib import Path

from airflow.sdk import DAG, Param, task

with DAG("alone", schedule=None, params={"file": Param("", type="string")}):

    @task
    def opens(params: dict) -> None:
        Path(params["file"]).write_text("")

    opens()
