"""The client and what is built on it, against a real server and a real manager."""

from __future__ import annotations

import asyncio
import signal
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from conftest import Installation, Server

from air_executor_provider import attach, protocol
from air_executor_provider.hook import cancel_unfinished
from air_executor_provider.link import Refused, Settings, Unreachable
from air_executor_provider.protocol import Air, connected

OWNER = {"airflow-dag": "d", "airflow-run": "r", "airflow-task": "t", "airflow-map": "-1"}
LONG = "sleep 600"


def settings(installation: Installation | Server, **other: Any) -> Settings:
    server = installation if isinstance(installation, Server) else installation.server
    return Settings(servers=(server.url,), **{"connect_timeout_s": 5.0, **other})


async def submit(air: Air, job: str, *tasks: dict[str, Any], **other: Any) -> attach.Submitted:
    began = other.pop("began", datetime.now(timezone.utc))
    named = [{"id": f"t{at}", **task} for at, task in enumerate(tasks)]
    return await attach.submit(air, job, named, owner=other.pop("owner", OWNER), began=began, **other)


async def ended(air: Air, plan: attach.Plan) -> attach.Outcome:
    await asyncio.wait_for(attach.wait(air, plan, 1.0), 90)
    return await attach.outcome(air, plan)


async def eventually(what: str, look: Any) -> Any:
    for _ in range(900):
        if seen := await look():
            return seen
        await asyncio.sleep(0.1)
    raise AssertionError(f"waited in vain for: {what}")


async def runs(air: Air, job: str) -> Any:
    async def look() -> bool:
        return (((await air.state(job)).value or {}).get("lease") or {}).get("phase") == "running"

    return await eventually(f"{job} runs", look)


async def test_tasks_are_run_and_their_outputs_read(air: Installation) -> None:
    async with connected(settings(air)) as client:
        done = await submit(client, "j", {"run": "echo 41 > $AIR_OUTPUT"}, {"run": "echo hi", "needs": ["t0"]})
        assert (done.published, done.attached, done.again) == (2, 0, 0)
        result = await ended(client, done.plan)
        assert result.succeeded
        assert await attach.outputs(client, result, None, 1000) == {"t0": 41, "t1": None}
        with pytest.raises(Refused, match="more than 1 bytes"):
            await attach.outputs(client, result, None, 1)
        with pytest.raises(Refused, match="has no record"):
            await attach.outputs(client, result, ["nobody"], 1000)
    air.verify()


async def test_whoever_submits_again_attaches(resting: Installation) -> None:
    async with connected(settings(resting)) as client:
        first = await submit(client, "j", {"run": "true"}, {"run": "true"})
        second = await submit(client, "j", {"run": "true"}, {"run": "true"})
        assert (second.published, second.attached) == (0, 2)
        assert second.plan == first.plan
        resting.manage()
        assert (await ended(client, second.plan)).succeeded
        third = await submit(client, "j", {"run": "true"}, {"run": "true"}, {"run": "true"})
        assert (third.published, third.attached) == (1, 2)
        assert (await ended(client, third.plan)).succeeded
    assert [task["attempt"] for task in resting.tasks("j")] == [1, 1, 1]
    resting.verify()


async def test_a_submit_that_died_in_the_middle_is_completed(resting: Installation) -> None:
    async with connected(settings(resting)) as client:
        labels = {"labels": OWNER}
        await client.publish("j", [{"id": "t1", "run": "true", **labels}])
        done = await submit(client, "j", {"run": "true"}, {"run": "true"}, {"run": "true"})
        assert (done.published, done.attached) == (2, 1)
        resting.manage()
        assert (await ended(client, done.plan)).succeeded
    resting.verify()


@pytest.mark.parametrize("over", [False, True], ids=["queued", "recorded"])
async def test_tasks_of_others_are_not_taken_for_ours(resting: Installation, over: bool) -> None:
    async with connected(settings(resting)) as client:
        theirs = await submit(client, "j", {"run": "true"}, owner={**OWNER, "airflow-run": "yesterday"})
        if over:
            resting.manage()
            await ended(client, theirs.plan)
        with pytest.raises(Refused, match="belongs to d, yesterday, t, -1: leave `job` out"):
            await submit(client, "j", {"run": "true"})


async def test_a_failure_names_the_task_and_shows_its_log(air: Installation) -> None:
    async with connected(settings(air)) as client:
        bad = {"id": "bad", "run": "echo the disk is full; exit 3", "retry": {"max": 1, "backoff": "10ms"}}
        done = await submit(client, "j", {"run": "true"}, bad, {"id": "after", "run": "true", "needs": ["bad"]})
        result = await ended(client, done.plan)
        assert not result.succeeded
        text = result.text()
        assert text.startswith("the task j/bad failed at attempt 2"), text
        assert "`airx show j bad`" in text
        assert "  the disk is full" in text
        assert "j/after" in text


async def test_a_further_try_runs_again_what_had_failed(air: Installation, tmp_path: Any) -> None:
    flag, log = tmp_path / "flag", tmp_path / "log"
    tasks = [
        {"id": "good", "run": f"echo good >> {log}"},
        {"id": "bad", "run": f"echo bad >> {log}; test -e {flag}", "retry": {"max": 0}},
        {"id": "after", "run": f"echo after >> {log}", "needs": ["bad"]},
    ]
    async with connected(settings(air)) as client:
        began = datetime.now(timezone.utc)
        first = await submit(client, "j", *tasks, began=began)
        assert not (await ended(client, first.plan)).succeeded
        # The same try, in another process: it tells of the failure.
        same = await submit(client, "j", *tasks, began=began)
        assert same.again == 0
        assert not (await ended(client, same.plan)).succeeded
        refused = await submit(client, "j", *tasks, again=False)
        assert refused.again == 0
        flag.touch()
        second = await submit(client, "j", *tasks, began=datetime.now(timezone.utc) + timedelta(seconds=1))
        assert second.again >= 1
        assert (await ended(client, second.plan)).succeeded
    assert log.read_text().split() == ["good", "bad", "bad", "after"]
    air.verify()


async def test_a_family_is_waited_for_and_its_failures_told(air: Installation) -> None:
    plan = (
        """echo '{"id":"x","job":"j-kin","run":"sleep 1; exit 4","retry":{"max":0}}' >> $AIR_TASKS; """
        """echo '{"id":"y","run":"echo 7 > $AIR_OUTPUT"}' >> $AIR_TASKS"""
    )
    async with connected(settings(air)) as client:
        done = await submit(client, "j", {"run": plan})
        result = await ended(client, done.plan)
        assert [(one.job, one.task, one.status) for one in result.failures] == [("j-kin", "x", "failed")]
        assert await attach.outputs(client, result, ["y", "j/y"], 1000) == {"y": 7, "j/y": 7}
        alone = await submit(client, "j2", {"run": plan.replace("j-kin", "j2-kin")}, wait_for="tasks")
        assert (await ended(client, alone.plan)).succeeded
        again = await submit(client, "j", {"run": plan}, began=datetime.now(timezone.utc) + timedelta(seconds=1))
        assert again.again == 1
        assert not (await ended(client, again.plan)).succeeded
    air.verify()


async def test_an_output_that_is_gone_or_lacks_a_part_is_told(
    resting: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "PATIENCE_S", 2.0)
    async with connected(settings(resting)) as client:
        jetstream = client.nats.jetstream()
        store = await jetstream.object_store("air-blobs")
        await store.put("b", b'"x"')
        record = {"task": "t", "output_blob": "b"}
        assert await client.output(record) == "x"
        await jetstream.purge_stream("OBJ_air-blobs", subject="$O.air-blobs.C.>")
        with pytest.raises(Unreachable, match="the output of t cannot be read"):
            await client.output(record)
        await store.delete("b")
        with pytest.raises(Unreachable, match="was the job removed"):
            await client.output(record)


async def test_a_job_is_cancelled_by_the_protocol(air: Installation) -> None:
    async with connected(settings(air)) as client:
        done = await submit(client, "j", {"run": LONG}, {"run": "true"})
        await runs(client, "j")
        assert await cancel_unfinished(client, done.plan)
        result = await ended(client, done.plan)
        assert {one.status for one in result.failures} == {"cancelled"}
        assert "was cancelled" in result.text()
        assert not await client.cancel("j")
        assert not await client.cancel("nobody")
        # A further try runs again what was cancelled.
        again = await submit(
            client, "j", {"run": LONG}, {"run": "true"}, began=datetime.now(timezone.utc) + timedelta(seconds=1)
        )
        assert again.again == 2
        await runs(client, "j")
        assert await cancel_unfinished(client, again.plan)
        await ended(client, again.plan)
    air.verify()


async def test_a_job_that_nobody_has_looked_at_is_cancelled(resting: Installation) -> None:
    async with connected(settings(resting)) as client:
        done = await submit(client, "j", {"run": "true"})
        assert await client.cancel("j")
        assert not await client.cancel("j")
        resting.manage()
        result = await ended(client, done.plan)
        assert [one.status for one in result.failures] == ["cancelled"]
    resting.verify()


async def test_a_submit_waits_until_a_cancel_is_done(air: Installation) -> None:
    async with connected(settings(air)) as client:
        await submit(client, "j", {"run": "trap '' TERM; sleep 3"})
        await runs(client, "j")
        assert await client.cancel("j")
        tasks = ({"run": "true"}, {"run": "true"})
        done = await submit(client, "j", *tasks, began=datetime.now(timezone.utc) + timedelta(minutes=1))
        assert done.again == 1
        assert (await client.state("j")).value["status"] not in ("cancelling",)  # type: ignore[index]
        await client.cancel("j")
    air.verify()


async def test_a_killed_manager_and_server_are_waited_out(air: Installation) -> None:
    async with connected(settings(air)) as client:
        done = await submit(client, "j", {"run": "sleep 2; echo 1 > $AIR_OUTPUT"}, {"run": "true"})
        await runs(client, "j")
        waiting = asyncio.ensure_future(attach.wait(client, done.plan, 1.0))
        air.managers[0].send_signal(signal.SIGKILL)
        air.server.kill()
        await eventually("the loss to be noticed", lambda: asyncio.sleep(0, not client.nats.is_connected))
        air.server.start()
        air.manage()
        await asyncio.wait_for(waiting, 90)
        assert (await attach.outcome(client, done.plan)).succeeded
    air.verify()


async def test_a_removed_job_is_told_of(air: Installation) -> None:
    async with connected(settings(air)) as client:
        done = await submit(client, "j", {"run": "true"}, wait_for="job")
        await ended(client, done.plan)
        air.airx("rm", "j", "--yes")
        result = await ended(client, done.plan)
        assert "has no record" in result.text()


async def test_many_tasks_are_sent_in_windows(resting: Installation) -> None:
    async with connected(settings(resting)) as client:
        done = await submit(client, "j", *[{"exec": ["true"]}] * 1200, spec={"labels": {"team": "core"}})
        assert done.published == 1200
        again = await submit(client, "j", *[{"exec": ["true"]}] * 1200, spec={"on_failure": "continue"})
        assert (again.published, again.attached) == (0, 1200)
        assert (await client.spec("j")).value == {"labels": {"team": "core"}, "on_failure": "continue"}
        assert (await client.last_queued("j")) == done.plan.upto


async def test_records_in_messagepack_are_read_and_written(air: Installation) -> None:
    async with connected(settings(air)) as client:
        done = await submit(
            client,
            "j",
            {"run": "echo '{\"a\":1}' > $AIR_OUTPUT; exit 1", "retry": {"max": 0}},
            spec={"wire": "msgpack"},
        )
        assert not (await ended(client, done.plan)).succeeded
        again = await submit(client, "j", {"run": "true"}, began=datetime.now(timezone.utc) + timedelta(seconds=1))
        assert again.again == 1
        assert not (await ended(client, again.plan)).succeeded
    air.verify()


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({"runn": "x"}, "unknown field `runn`"),
        ({}, "needs `run`"),
        ({"run": "x", "exec": ["x"]}, "and not both"),
        ({"run": "x", "id": "_1"}, "has the id '_1'"),
        ({"run": "x", "input": float("nan")}, "cannot be written as JSON"),
        ({"run": "x" * 600_000}, "524,288 is the most"),
    ],
)
async def test_what_is_no_task_is_refused_before_anything_is_sent(
    resting: Installation, task: dict[str, Any], says: str
) -> None:
    async with connected(settings(resting)) as client:
        with pytest.raises(Refused, match=says) as refused:
            await submit(client, "j", {"run": "true"}, task)
        assert "\n" not in str(refused.value)
        assert await client.last_queued("j") == 0


async def test_two_tasks_of_one_id_are_refused(resting: Installation) -> None:
    async with connected(settings(resting)) as client:
        with pytest.raises(Refused, match="two tasks of the id a"):
            await submit(client, "j", {"run": "true", "id": "a"}, {"run": "true", "id": "a"})


async def test_errors_say_what_where_and_how_to_mend_it(server: Server) -> None:
    async with connected(settings(server)) as client:
        with pytest.raises(Refused, match="airx init"):
            await client.check()
    server.kill()
    with pytest.raises(Unreachable, match=rf"no NATS server answers at {server.url}.*is the address right"):
        async with connected(settings(server, connect_timeout_s=1.0)):
            pass
    with pytest.raises(Refused, match="TLS files"):
        async with connected(settings(server, tls_ca="/nowhere")):
            pass
    with pytest.raises(Refused, match="the prefix `A`"):
        async with connected(settings(server, prefix="A")):
            pass


async def test_a_connection_is_shared_and_ended(server: Server) -> None:
    async with connected(settings(server)) as one, connected(settings(server)) as two:
        assert one is two
    assert one.nats.is_closed
    async with connected(settings(server)) as three:
        assert three is not one


def test_a_plan_survives_json() -> None:
    plan = attach.Plan("j", ("a", "b"), "job", 7, 3)
    assert attach.Plan.from_json(plan.to_json()) == plan
    with pytest.raises(Refused, match="wait_for"):
        attach.Plan("j", ("a",), "ever")  # type: ignore[arg-type]
