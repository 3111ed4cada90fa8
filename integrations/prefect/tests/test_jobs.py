"""What flows call, outside of a flow run, and the block."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from installation import Air, auntil
from keys import certificate, credentials
from pydantic import ValidationError

from prefect_air_executor import (
    AirError,
    AirExecutor,
    JobCancelled,
    JobFailed,
    Progress,
    asubmit_job,
    await_for_job,
    submit_job,
    wait_for_job,
)
from prefect_air_executor.protocol import Client


async def test_a_job_gives_its_outputs_and_tells_its_progress(air: Air, job: str) -> None:
    told: list[Progress] = []
    sub = """echo '{"id":"sub","run":"true"}' >> $AIR_TASKS; echo 7 > $AIR_OUTPUT"""
    submitted = await asubmit_job(air.executor(), [{"run": sub}, {"id": "named", "run": "true"}], job=job)
    assert (submitted.tasks, submitted.attached) == (("task-1", "named"), False)
    result = await await_for_job(air.executor(), submitted, on_progress=told.append)
    assert (result.status, result.outputs) == ("completed", {"task-1": 7, "named": None})
    assert result.counters["succeeded"] == 3
    assert (told[-1].over, told[-1].known) == (3, 3)


def test_the_same_in_code_that_is_not_async(air: Air, job: str) -> None:
    submitted = submit_job(air.executor(), [{"run": "echo 1 > $AIR_OUTPUT"}], job=job)
    assert wait_for_job(air.executor(), submitted).outputs == {"task-1": 1}  # type: ignore[union-attr]


async def test_the_names_without_a_are_awaited_in_async_code(air: Air, job: str) -> None:
    submitted = await submit_job(air.executor(), [{"run": "true"}], job=job)  # type: ignore[misc]
    assert (await wait_for_job(air.executor(), submitted)).status == "completed"  # type: ignore[misc]


async def test_a_second_submit_attaches_and_publishes_nothing(
    air: Air, client: Client, job: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = await asubmit_job(air.executor(), [{"run": "true"}], job=job)
    await await_for_job(air.executor(), first)
    before = (await client._jetstream.stream_info("AIR")).state.last_seq
    again = await asubmit_job(air.executor(), [{"run": "true"}], job=job)
    assert (again.sequence, again.attached) == (first.sequence, True)
    assert (await client._jetstream.stream_info("AIR")).state.last_seq == before
    assert (await await_for_job(air.executor(), again)).counters["succeeded"] == 1
    await asubmit_job(air.executor(), [{"run": "false"}], job=job)
    assert (await client._jetstream.stream_info("AIR")).state.last_seq == before


async def test_a_submit_that_was_cut_off_is_completed(air: Air, client: Client, job: str, tmp_path: Path) -> None:
    """Half of the tasks are queued and run, and the spec does not say that all are."""
    tasks = [{"id": f"t{n}", "run": f"echo {n} >> {tmp_path}/log"} for n in range(10)]
    await asubmit_job(air.executor(), tasks[:5], job=job)
    for n in range(5):
        await client.finished(job, f"t{n}")
    spec, revision = await client.spec(job)
    del spec["labels"]["prefect-submitted"]
    assert await client._swap("specs", job, spec, revision)
    submitted = await asubmit_job(air.executor(), tasks, job=job)
    assert not submitted.attached
    result = await await_for_job(air.executor(), submitted)
    assert result.counters["succeeded"] == 10
    assert (tmp_path / "log").read_text().split() == [str(n) for n in range(10)]


async def test_a_failure_names_the_task_and_shows_what_it_printed(air: Air, job: str) -> None:
    tasks = [{"id": "good", "run": "true"}, {"id": "bad", "run": "echo no such table >&2; exit 3", "retry": {"max": 0}}]
    submitted = await asubmit_job(air.executor(), [*tasks, {"id": "later", "run": "true"}], job=job)
    with pytest.raises(JobFailed, match="bad.*exit code 3") as failure:
        await await_for_job(air.executor(), submitted)
    assert failure.value.task == "bad"
    assert "no such table" in str(failure.value)


async def test_a_job_that_goes_on_after_a_failure(air: Air, job: str) -> None:
    tasks = [{"id": "bad", "run": "exit 3", "retry": {"max": 0}}, {"id": "good", "run": "echo 5 > $AIR_OUTPUT"}]
    submitted = await asubmit_job(air.executor(), tasks, job=job, spec={"on_failure": "continue"})
    result = await await_for_job(air.executor(), submitted, raise_on_failure=False)
    assert (result.status, result.failed, result.outputs) == ("completed", ("bad",), {"good": 5})
    with pytest.raises(JobFailed, match="bad"):
        await await_for_job(air.executor(), submitted)


async def test_a_misspelt_field_of_the_spec_is_told(air: Air, job: str) -> None:
    submitted = await asubmit_job(air.executor(), [{"run": "true"}], job=job, spec={"on_failur": "stop"})
    with pytest.raises(TimeoutError, match="it goes on"):
        await await_for_job(air.executor(), submitted, timeout=3)
    assert "on_failur" in air.airx("status", job)


async def test_waiting_ends_when_the_job_is_cancelled_or_removed(air: Air, client: Client, job: str) -> None:
    for verb in ("cancel", "rm"):
        name = f"{verb}-{job}"[:64]
        submitted = await asubmit_job(air.executor(), [{"run": "sleep 600"}], job=name)
        waiting = asyncio.create_task(await_for_job(air.executor(), submitted))
        await auntil("it runs", lambda name=name: _is_running(client, name))
        await asyncio.to_thread(air.airx, *(("rm", name, "--no-wait", "--yes") if verb == "rm" else ("cancel", name)))
        with pytest.raises(JobCancelled):
            await asyncio.wait_for(waiting, 120)


async def test_a_job_that_was_removed_before_anybody_waited(air: Air, job: str) -> None:
    submitted = await asubmit_job(air.executor(), [{"run": "true"}], job=job)
    await await_for_job(air.executor(), submitted)
    await asyncio.to_thread(air.airx, "rm", job, "--yes")
    with pytest.raises(JobCancelled):
        await await_for_job(air.executor(), submitted, timeout=120)


async def _is_running(client: Client, job: str) -> bool:
    state = await client.state(job)
    return state is not None and state.phase == "running"


async def test_waiting_that_is_given_up_leaves_the_job_alone(air: Air, client: Client, job: str, flag: Path) -> None:
    run = f"until [ -e {flag} ]; do sleep 0.1; done"
    submitted = await asubmit_job(air.executor(), [{"run": run}], job=job)
    waiting = asyncio.create_task(await_for_job(air.executor(), submitted))
    await auntil("it runs", lambda: _is_running(client, job))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    flag.touch()
    assert (await await_for_job(air.executor(), submitted)).status == "completed"


async def test_waiting_goes_on_when_the_server_comes_back(tmp_path: Path, flag: Path) -> None:
    air = Air(tmp_path / "air")
    try:
        air.airx("init")
        air.start_manager()
        run = f"until [ -e {flag} ]; do sleep 0.1; done; echo 1 > $AIR_OUTPUT"
        submitted = await asubmit_job(air.executor(), [{"run": run}], job="patient")
        async with air.executor().client() as client:
            await auntil("it runs", lambda: _is_running(client, "patient"))
        waiting = asyncio.create_task(await_for_job(air.executor(), submitted))
        await asyncio.sleep(0)
        air.nats.kill()
        done, _ = await asyncio.wait([waiting], timeout=3)
        assert not done, "nobody was there to tell"
        air.start_nats()
        flag.touch()
        assert (await asyncio.wait_for(waiting, 120)).outputs == {"task-1": 1}
    finally:
        air.stop()


async def test_no_name_and_no_tasks(air: Air) -> None:
    with pytest.raises(ValueError, match="outside of a flow run"):
        await asubmit_job(air.executor(), [{"run": "true"}])
    with pytest.raises(ValueError, match="at least one"):
        await asubmit_job(air.executor(), [], job="a")
    with pytest.raises(ValueError, match="two tasks"):
        await asubmit_job(air.executor(), [{"id": "a", "run": "true"}, {"id": "a", "run": "true"}], job="a")


@pytest.mark.parametrize(
    ("config", "values"),
    [
        ("authorization { user: u, password: secret-word }", {"user": "u", "password": "secret-word"}),
        ("authorization { token: secret-word }", {"token": "secret-word"}),
    ],
)
async def test_users_and_tokens(tmp_path: Path, config: str, values: dict[str, str]) -> None:
    air = Air(tmp_path / "air", config)
    try:
        with pytest.raises(AirError, match="NATS cannot be reached.*[Aa]uthorization"):
            await air.executor(connect_timeout=5).connect()
        executor = air.executor(**values)
        assert "secret-word" not in repr(executor)
        assert "secret-word" not in json.dumps(executor.model_dump(mode="json"))
        async with executor.client() as client:
            await client.nats.flush()
    finally:
        air.stop()


async def test_credentials_as_text_and_as_a_file(tmp_path: Path) -> None:
    config, text = credentials()
    air = Air(tmp_path / "air", config)
    file = tmp_path / "user.creds"
    file.write_text(text)
    try:
        with pytest.raises(AirError, match="NATS cannot be reached"):
            await air.executor(connect_timeout=5).connect()
        for values in ({"credentials": text}, {"credentials_file": str(file)}):
            async with air.executor(**values).client() as client:
                await client.nats.flush()
    finally:
        air.stop()


async def test_tls_with_a_certificate_of_the_client(tmp_path: Path) -> None:
    cert, key = (str(file) for file in certificate(tmp_path))
    config = f'tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{cert}", verify: true }}'
    air = Air(tmp_path / "air", config)
    url = air.url.replace("nats://", "tls://")
    try:
        for values in ({}, {"tls_ca_file": cert}):
            with pytest.raises(AirError, match="NATS cannot be reached"):
                await AirExecutor(servers=[url], connect_timeout=3, **values).connect()
        executor = AirExecutor(servers=[url], tls_ca_file=cert, tls_cert_file=cert, tls_key_file=key)
        async with executor.client() as client:
            await client.nats.flush()
    finally:
        air.stop()


async def test_a_server_that_is_not_there() -> None:
    with pytest.raises(AirError, match="NATS cannot be reached at nats://127.0.0.1:1"):
        await AirExecutor(servers=["nats://127.0.0.1:1"], connect_timeout=2).connect()


@pytest.mark.parametrize(
    "values",
    [{"user": "u"}, {"token": "t", "credentials_file": "f"}, {"tls_cert_file": "c"}, {"prefix": "A"}, {"servers": []}],
)
def test_what_does_not_go_together_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AirExecutor(**values)  # type: ignore[arg-type]


def test_the_environment_of_airx_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NATS_URL": "nats://a:1, nats://b:2", "NATS_TOKEN": "t", "AIR_PREFIX": "my-air"}.items():
        monkeypatch.setenv(name, value)
    executor = AirExecutor.from_env()
    assert executor.servers == ["nats://a:1", "nats://b:2"]
    assert executor.token is not None
    assert (executor.token.get_secret_value(), executor.prefix) == ("t", "my-air")
