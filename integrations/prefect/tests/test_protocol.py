"""The client of the wire protocol: against the golden bytes of version 1, and against a real server and manager."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from installation import ROOT, Air, auntil

from prefect_air_executor import protocol
from prefect_air_executor.protocol import AirError, Client, NotInstalled
from prefect_air_executor.state import Record, Task, cancelled, format_time, parse_span, parse_time

GOLDEN = ROOT / "protocol/tests/golden/v1"
NOW = datetime(2026, 1, 31, 8, 0, 20, 250_000, timezone.utc)


def golden(name: str) -> dict[str, Any]:
    return dict(json.loads((GOLDEN / f"{name}.json").read_text()))


@pytest.mark.parametrize("name", ["waiting", "completed", "failed", "failed-unnamed", "cancelled", "everything"])
def test_cancel_of_a_job_that_nobody_works_on(name: str) -> None:
    before = golden(f"state-{name}")
    after = cancelled(before, NOW)
    assert after is not None
    assert after["status"] == "cancelling"
    assert after["updated"] == "2026-01-31T08:00:20.250Z"
    assert not {"lease", "drained", "task", "purge_to", "hold_until"} & set(after)
    same = set(before) - {"status", "updated", "drained", "task", "purge_to", "hold_until"}
    assert all(after[key] == before[key] for key in same)


def test_a_hold_stays_until_it_has_passed() -> None:
    after = cancelled(golden("state-everything"), parse_time("2026-01-31T08:00:08.999Z"))
    assert after is not None
    assert after["hold_until"] == "2026-01-31T08:00:09.000Z"


def test_cancel_of_a_runner_stops_it() -> None:
    before = golden("state-working-running")
    after = cancelled(before, NOW)
    assert after is not None
    assert after == {
        **before,
        "updated": format_time(NOW),
        "lease": {**before["lease"], "phase": "stopping", "then": "cancel"},
    }
    assert after["lease"] == golden("state-working-stopping-cancel")["lease"]


def test_cancel_of_a_recovery_stops_what_it_recovers() -> None:
    after = cancelled(golden("state-working-recovering-running"), NOW)
    assert after is not None
    assert after["lease"] == golden("state-working-recovering-stopping-cancel")["lease"]


@pytest.mark.parametrize(
    ("name", "zombie"),
    [
        ("starting", False),
        ("recovering-starting", False),
        ("settling", True),
        ("recovering-settling", True),
    ],
)
def test_a_lease_under_which_nothing_runs_is_dropped(name: str, zombie: bool) -> None:
    before = golden(f"state-working-{name}")
    after = cancelled(before, NOW)
    assert after is not None
    assert after["status"] == "cancelling"
    assert "lease" not in after
    until = format_time(NOW + parse_span(before["lease"]["ttl"]))
    assert after.get("zombie_until") == (until if zombie else None)


@pytest.mark.parametrize(
    "name",
    [
        "cancelling",
        "removing",
        "working-stopping-cancel",
        "working-stopping-remove",
        "working-recovering-stopping-cancel",
        "working-recovering-stopping-remove",
    ],
)
def test_cancel_changes_nothing_where_it_was_said_before(name: str) -> None:
    assert cancelled(golden(f"state-{name}"), NOW) is None


@pytest.mark.parametrize(
    ("span", "seconds"),
    [("90s", 90), ("1h30m", 5400), ("250ms", 0.25), ("7days", 604_800), (45, 45), ("1day", 86_400)],
)
def test_spans(span: str | int, seconds: float) -> None:
    assert parse_span(span) == timedelta(seconds=seconds)


@pytest.mark.parametrize("span", ["", "s", "1", "1 fortnight", "1h 30"])
def test_what_is_no_span(span: str) -> None:
    with pytest.raises(ValueError, match="no span"):
        parse_span(span)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({}, "exactly one"),
        ({"run": "a", "exec": ["a"]}, "exactly one"),
        ({"run": "a", "id": "_a"}, "no task id"),
        ({"runn": "a"}, "no field `runn`"),
        ({"run": "a", "env": {"AIR_JOB": "a"}}, "`AIR_JOB` is no name"),
    ],
)
def test_a_wrong_task_is_refused_before_it_is_published(values: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Task.of(values)


def test_a_task_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 524288"):
        Task(id="a", run="true", input="x" * 600_000).encode()


async def test_tasks_run_in_order_and_once(client: Client, job: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    tasks = [Task(id=f"t{n}", run=f"echo {n} >> {log}; echo {n} > $AIR_OUTPUT") for n in range(5)]
    first = await client.publish(job, tasks)
    assert await client.publish(job, tasks) == first
    async for state in client.follow(job):
        if state is not None and state.is_done(first):
            break
    # After the server has forgotten the ids of the messages too: here, by other ones.
    for task in tasks:
        await client._jetstream.publish(f"air.tasks.{job}", task.encode())
    await auntil("the job is through with all", lambda: _is_drained(client, job, first + 5))
    assert log.read_text().split() == ["0", "1", "2", "3", "4"]
    records = await client.records(job)
    assert {name: await client.output(record) for name, record in records.items()} == {f"t{n}": n for n in range(5)}


async def _is_drained(client: Client, job: str, sequence: int) -> bool:
    state = await client.state(job)
    return state is not None and state.is_done(sequence)


async def test_more_tasks_than_a_window(client: Client, job: str) -> None:
    await client.update_spec(job, {"paused": True})
    await client.publish(job, [Task(id=f"t{n}", run="true") for n in range(1200)])
    info = await client._jetstream.stream_info("AIR", subjects_filter=f"air.tasks.{job}")
    assert info.state.subjects == {f"air.tasks.{job}": 1200}
    assert await client.cancel(job)
    await auntil("the job is cancelled", lambda: _has_status(client, job, "cancelled"))
    records = await client.records(job)
    assert len(records) == 1200
    assert {record.status for record in records.values()} == {"cancelled"}


async def _has_status(client: Client, job: str, status: str) -> bool:
    state = await client.state(job)
    return state is not None and state.status == status


async def test_cancel_ends_what_runs_and_what_waits(client: Client, job: str, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    tasks = [Task(id="long", run=f"echo $$ > {pid}; exec sleep 600"), Task(id="next", run="true")]
    await client.publish(job, tasks)
    await auntil("it runs", lambda: _has_phase(client, job, "running"))
    await auntil("its program runs", lambda: _is_there(pid))
    assert await client.cancel(job)
    state = await client.stopped(job)
    assert state is not None
    assert state.status in ("cancelling", "cancelled")
    await auntil("the job is cancelled", lambda: _has_status(client, job, "cancelled"))
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()
    records = await client.records(job)
    assert {name: record.status for name, record in records.items()} == {"long": "cancelled", "next": "cancelled"}


async def _has_phase(client: Client, job: str, phase: str) -> bool:
    state = await client.state(job)
    return state is not None and state.phase == phase


async def _is_there(file: Path) -> bool:
    return file.exists() and bool(file.read_text())


async def test_cancel_of_what_is_over_or_never_was(client: Client, job: str) -> None:
    assert not await client.cancel(job)
    sequence = await client.publish(job, [Task(id="a", run="true")])
    await client.finished(job, "a")
    await auntil("the job is done", lambda: _is_drained(client, job, sequence))
    assert not await client.cancel(job)
    assert await client.cancel(job, even_if_over=True)
    await auntil("the job is cancelled", lambda: _has_status(client, job, "cancelled"))


async def test_cancel_before_any_manager_has_seen_the_job(tmp_path: Path) -> None:
    air = Air(tmp_path / "air")
    try:
        air.airx("init")
        async with air.executor().client() as client:
            await client.publish("early", [Task(id="a", run=f"touch {tmp_path}/ran")])
            assert await client.cancel("early")
            assert await _has_status(client, "early", "cancelling")
            air.start_manager()
            await auntil("the job is cancelled", lambda: _has_status(client, "early", "cancelled"))
            record = await client.record("early", "a")
            assert record is not None
            assert record.status == "cancelled"
        assert not (tmp_path / "ran").exists()
        assert air.airx("verify")
    finally:
        air.stop()


async def test_a_record_in_messagepack_and_an_output_in_a_blob(client: Client, job: str) -> None:
    await client.update_spec(job, {"wire": "msgpack"})
    large = 'head -c 700000 /dev/zero | tr "\\0" x | sed "s/.*/\\"&\\"/" > $AIR_OUTPUT'
    await client.publish(job, [Task(id="small", run="echo '[1,2]' > $AIR_OUTPUT"), Task(id="large", run=large)])
    large_record, small_record = await client.finished(job, "large"), await client.finished(job, "small")
    assert await client.output(small_record) == [1, 2]
    assert "output_blob" in large_record.body
    assert await client.output(large_record) == "x" * 700_000


async def test_an_output_that_is_gone_or_lacks_a_part_is_told(
    client: Client, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "PATIENCE", 2.0)
    jetstream = client.nats.jetstream()
    store = await jetstream.object_store("air-blobs")
    await store.put(job, b'"x"')
    record = Record("t", "succeeded", 1, {"output_blob": job})
    assert await client.output(record) == "x"
    blob = await store.get_info(job)
    await jetstream.purge_stream("OBJ_air-blobs", subject=f"$O.air-blobs.C.{blob.nuid}")
    with pytest.raises(AirError, match="output of task `t` cannot be read"):
        await client.output(record)
    await store.delete(job)
    with pytest.raises(AirError, match="was the job removed"):
        await client.output(record)


async def test_a_message_that_is_no_task_is_the_end_of_its_job(client: Client, job: str) -> None:
    ack = await client._jetstream.publish(f"air.tasks.{job}", b'{"id":"a","runn":"true"}')
    record = await client.finished(job, "a")
    assert (record.task, record.status) == (f"_{ack.seq}", "failed")
    assert "runn" in (record.error or "")


async def test_an_update_of_a_spec_keeps_what_others_said(client: Client, air: Air, job: str) -> None:
    await client.update_spec(job, {"timeout": "1h", "labels": {"team": "a"}})
    await client.update_spec(job, {"labels": {"more": "b"}})
    spec, _ = await client.spec(job)
    assert spec == {"timeout": "1h", "labels": {"team": "a", "more": "b"}}


async def test_a_key_of_a_newer_version_is_not_touched(client: Client, job: str) -> None:
    body = json.dumps({**golden("state-completed"), "v": 2}).encode()
    await client._jetstream.publish(f"$KV.air-jobs.{job}", body)
    with pytest.raises(AirError, match="another version"):
        await client.cancel(job)


async def test_a_server_without_the_streams(tmp_path: Path) -> None:
    air = Air(tmp_path / "air")
    try:
        async with air.executor().client() as client:
            with pytest.raises(AirError, match="airx init"):
                await client.publish("a", [Task(id="a", run="true")], patience=1)
            with pytest.raises(NotInstalled):
                await client.state("a")
    finally:
        air.stop()
