"""Queues three tasks, follows the job to its end and prints the result, with nats-py.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    NATS_URL=nats://127.0.0.1:4222 venv/bin/python client.py demo

Run it twice: the second run queues nothing, since the server knows each Nats-Msg-Id for two minutes.
"""

import asyncio
import json
import os
import sys

import nats

TEXT = "the quick brown fox"
LETTERS = {"id": "letters", "input": TEXT, "run": "tr -cd a-z < $AIR_INPUT | wc -c > $AIR_OUTPUT"}
TASKS = [
    {"id": "words", "input": TEXT, "run": "wc -w < $AIR_INPUT > $AIR_OUTPUT"},
    # Queues a sub-task, which it got as its input.
    {"id": "plan", "input": LETTERS, "run": "cat $AIR_INPUT >> $AIR_TASKS"},
    # Waits for that sub-task too, and gets the outputs of what it needs.
    {"id": "report", "needs": ["words", "letters"], "run": "cat $AIR_NEEDS > $AIR_OUTPUT"},
]


async def main(job: str) -> None:
    client = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    jetstream = client.jetstream()
    for task in TASKS:
        headers = {"Nats-Msg-Id": f"{job}-{task['id']}"}
        ack = await jetstream.publish(f"air.tasks.{job}", json.dumps(task).encode(), headers=headers)
        print("known" if ack.duplicate else "queued", task["id"])

    # The job is over when it has failed, or when its queue was seen empty up to our last task (`drained`).
    jobs = await jetstream.key_value("air-jobs")
    async for entry in await jobs.watch(job):
        state = json.loads(entry.value) if entry and entry.value else {}
        if state.get("status") == "failed" or state.get("drained", 0) >= ack.seq:
            break
    print(f"{job} {state['status']}: {state['counters']['succeeded']} succeeded")
    if state["status"] != "completed":
        sys.exit(1)

    # The last record of a task is the truth about it.
    record = await jetstream.get_last_msg("AIR", f"air.results.{job}.report")
    print("report", json.dumps(json.loads(record.data)["output"], separators=(",", ":")))
    await client.close()


asyncio.run(main(sys.argv[1]))
