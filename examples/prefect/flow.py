"""A Prefect flow with static steps round a dynamic middle, which fans out into a thousand tasks in Air-Executor.

    pip install prefect-air-executor
    airx dev &
    NATS_URL=nats://127.0.0.1:4222 python flow.py 1000

Prefect sees four tasks, however many there are in the middle: the plan decides that only while it runs. Run again by
Prefect (a retry of a task, or of the whole flow), it finds its job and waits for what is left of it.
"""

import os
import sys

from prefect import flow, task

from prefect_air_executor import AirExecutor, Job, JobResult, Task, asubmit_job, await_for_job

# Decides how many parts there are: as many lines in AIR_TASKS, as many tasks. All of them are queued with the plan's
# record, or none is.
PLAN = r"""
parts=$(cat "$AIR_INPUT")
for part in $(seq "$parts"); do
    echo "{\"id\":\"part-$part\",\"run\":\"echo $((part * part)) > \$AIR_OUTPUT\"}"
done >> "$AIR_TASKS"
echo "$parts" > "$AIR_OUTPUT"
"""


@task
def prepare(parts: int) -> int:
    """A static step before: any code of Prefect."""
    return max(1, parts)


@task(retries=3, retry_delay_seconds=2)
async def submit(executor: AirExecutor, parts: int) -> Job:
    """Queues the dynamic middle; run again, it attaches to what it queued."""
    plan = Task(id="plan", input=parts, run=PLAN, timeout="10m")
    return await asubmit_job(executor, [plan], name="squares")


@task(retries=3, retry_delay_seconds=2)
async def wait(executor: AirExecutor, job: Job) -> JobResult:
    """Waits for all of it. One coroutine, whatever the number of tasks."""
    return await await_for_job(executor, job)


@task
async def report(executor: AirExecutor, result: JobResult) -> int:
    """A static step after: adds up what the parts wrote."""
    async with executor.client() as air:
        records = await air.records(result.name)
        parts = [record for record in records.values() if record.task.startswith("part-")]
        total = sum([await air.output(record) for record in parts])
    print(f"{result.name}: {len(parts)} parts, sum of squares {total}")
    return total


@flow(name="squares", log_prints=True, retries=2, retry_delay_seconds=2)
async def squares(parts: int = 1000, block: str | None = None) -> int:
    """The sum of the first squares, each computed by a task of its own."""
    executor = await AirExecutor.aload(block) if block else AirExecutor.from_env()
    job = await submit(executor, prepare(parts))
    return await report(executor, await wait(executor, job))


if __name__ == "__main__":
    import asyncio

    os.environ.setdefault("NATS_URL", "nats://127.0.0.1:4222")
    print(asyncio.run(squares(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)))
