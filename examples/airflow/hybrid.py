"""Static steps of Airflow round a dynamic middle of Air-Executor: one Airflow task waits for a thousand that it never sees.

    extract ──▶ crunch: plan ──▶ part-0 … part-999, side by side in eight jobs ──▶ total ──▶ report

`plan` decides at run time how many parts there are. Each of them could queue more. While they run, `crunch` is deferred, and
holds no slot. Put this file into the DAGs folder; the connection `air_executor_default` says where NATS is.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param, task

from air_executor_provider.operator import AirExecutorSubmitOperator

# Runs where a manager of Air-Executor is. What it writes to AIR_TASKS exists once it has succeeded, all of it or nothing.
PLAN = """
import json, os

count = json.load(open(os.environ["AIR_INPUT"]))["count"]
job = os.environ["AIR_JOB"][:60]
square = "n=$(cat $AIR_INPUT); echo $((n * n)) > $AIR_OUTPUT"
sum_up = '''
import json, os
needs = json.load(open(os.environ["AIR_NEEDS"])).values()
json.dump(sum(need["output"] for need in needs), open(os.environ["AIR_OUTPUT"], "w"))
'''
with open(os.environ["AIR_TASKS"], "a") as tasks:
    parts = [(f"{job}-{n % 8}", f"part-{n}") for n in range(count)]
    for n, (where, part) in enumerate(parts):
        print(json.dumps({"job": where, "id": part, "run": square, "input": n}), file=tasks)
    needs = [f"{where}/{part}" for where, part in parts]
    print(json.dumps({"id": "total", "exec": ["python3", "-c", sum_up], "needs": needs}), file=tasks)
"""

with DAG(
    "hybrid",
    description="Static steps round a dynamic middle",
    schedule=None,
    params={"count": Param(1000, type="integer", minimum=1, maximum=1000)},
):

    @task
    def extract(params: dict) -> dict:
        """A step that is always there; what it finds decides how much there is to do."""
        return {"count": params["count"]}

    crunch = AirExecutorSubmitOperator(
        task_id="crunch",
        tasks={"id": "plan", "exec": ["python3", "-c", PLAN], "input": extract()},
        outputs=["total"],
    )

    @task
    def report(outputs: dict) -> int:
        """Gets the results by XCom, as of any other task."""
        print("the total is", outputs["total"])
        return outputs["total"]

    report(crunch.output)
