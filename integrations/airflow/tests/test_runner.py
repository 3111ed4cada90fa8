"""The runner of a claim, without an Airflow: what it is told, what it is not, and how it ends."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException
from conftest import until

from air_executor_provider import policy
from air_executor_provider.hook import AirExecutorHook
from air_executor_provider.link import Refused, Settings
from air_executor_provider.runner import AirRunnerOperator, air_runner, claim_of, nats_of

CLAIM: dict[str, Any] = {
    "job": "j", "seq": 5, "runner": "01234567-89ab-7def-8123-0123456789ab", "fence": 7, "backend": "b", "system": "AIR@1",
}  # fmt: skip


def test_a_claim_is_all_that_a_run_says() -> None:
    told = claim_of({**CLAIM, "command": "rm", "NATS_URL": "nats://elsewhere", "image": None})
    assert told == {
        "AIR_JOB": "j", "AIR_SEQ": "5", "AIR_RUNNER": CLAIM["runner"], "AIR_FENCE": "7", "AIR_BACKEND": "b", "AIR_SYSTEM": "AIR@1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [("job", "a b"), ("seq", "5"), ("fence", True), ("runner", None), ("system", "a b")]
)
def test_what_is_no_claim_is_refused(name: str, value: Any) -> None:
    with pytest.raises(Refused, match=f"`{name}`"):
        claim_of({**CLAIM, name: value})


def test_nats_is_where_the_connection_says(tmp_path: Path) -> None:
    settings = Settings(
        servers=("nats://a:1", "nats://b:2"), user="u", password="p", tls=True, creds="the creds", prefix="mine"
    )
    found = nats_of(settings, tmp_path)
    assert found == {
        "NATS_URL": "tls://a:1,tls://b:2", "NATS_USER": "u", "NATS_PASSWORD": "p", "NATS_CREDS": str(tmp_path / "creds"), "AIR_PREFIX": "mine",
    }  # fmt: skip
    assert (tmp_path / "creds").read_text() == "the creds"
    assert (tmp_path / "creds").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Refused, match="tls_hostname"):
        nats_of(Settings(tls_hostname="x"), tmp_path)


class Told:
    """A task instance that remembers its XComs."""

    def __init__(self) -> None:
        self.words: list[int] = []

    def xcom_push(self, key: str, value: int) -> None:
        assert key == "exit"
        self.words.append(value)


def execute(program: str, conf: dict[str, Any]) -> tuple[Told, AirRunnerOperator, Any]:
    told = Told()
    operator = AirRunnerOperator(task_id="run", program=program)
    context: Any = {"dag_run": SimpleNamespace(conf=conf), "ti": told}
    return told, operator, lambda: AirRunnerOperator.execute.__wrapped__(operator, context)  # type: ignore[attr-defined]


def script(folder: Path, text: str) -> str:
    file = folder / "program"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


@pytest.fixture(autouse=True)
def no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: Any) -> Any:
        raise AirflowNotFoundException("no such connection")

    monkeypatch.setattr(AirExecutorHook, "get_conn", none)


def test_a_runner_sees_its_claim_and_nothing_of_airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "secret")
    monkeypatch.setenv("NATS_URL", "nats://worker:4222")
    program = script(tmp_path, f"env > {tmp_path}/env")
    told, _, run = execute(program, CLAIM)
    run()
    seen = (tmp_path / "env").read_text()
    assert told.words == [0]
    assert "AIR_FENCE=7" in seen
    assert "NATS_URL=nats://worker:4222" in seen
    assert "AIRFLOW_" not in seen


@pytest.mark.parametrize(("text", "word"), [("exit 69", 69), ("kill -9 $$", -9)])
def test_the_word_is_how_the_runner_ended(tmp_path: Path, text: str, word: int) -> None:
    told, _, run = execute(script(tmp_path, text), CLAIM)
    with pytest.raises(AirflowFailException, match=str(word)):
        run()
    assert told.words == [word]


def test_nothing_is_left_of_a_runner_that_was_killed(tmp_path: Path) -> None:
    program = script(tmp_path, f"setsid sleep 600 & echo $! > {tmp_path}/pid; kill -9 $$")
    told, _, run = execute(program, CLAIM)
    with pytest.raises(AirflowFailException):
        run()
    assert told.words == [-9]
    task = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    assert not task.exists() or task.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize(("program", "conf"), [("/nowhere/air-runner", CLAIM), ("/bin/true", {})])
def test_what_was_not_started_is_unavailable(program: str, conf: dict[str, Any]) -> None:
    told, _, run = execute(program, conf)
    with pytest.raises(AirflowFailException):
        run()
    assert told.words == [os.EX_UNAVAILABLE]


def test_a_task_that_is_killed_asks_its_runner_to_end_and_waits(tmp_path: Path) -> None:
    program = script(tmp_path, f"trap 'exit 0' TERM; touch {tmp_path}/up; while :; do sleep 0.05; done")
    told, operator, run = execute(program, CLAIM)
    thread = threading.Thread(target=run)
    thread.start()
    until("the runner", lambda: (tmp_path / "up").exists())
    operator.on_kill()
    thread.join(60)
    assert told.words == [0]


def test_a_runner_outlives_no_task_process(tmp_path: Path) -> None:
    program = script(
        tmp_path, f"trap 'touch {tmp_path}/asked; exit 0' TERM; touch {tmp_path}/up; while :; do sleep 0.05; done"
    )
    _, _, run = execute(program, CLAIM)
    task = os.fork()
    if task == 0:
        run()
        os._exit(0)
    until("the runner", lambda: (tmp_path / "up").exists())
    os.kill(task, signal.SIGKILL)
    os.waitpid(task, 0)
    until("the runner to be asked to end", lambda: (tmp_path / "asked").exists())


def test_the_dag_takes_a_claim_and_no_command() -> None:
    dag = air_runner("some", conn_id="other")
    assert set(dag.params) == {*CLAIM, "image", "resources"}
    task = dag.get_task("run")
    assert (task.retries, task.conn_id) == (0, "other")


def test_a_pod_is_what_the_claim_asks_for() -> None:
    instance = SimpleNamespace(operator="AirRunnerOperator", executor_config=None)
    conf = {**CLAIM, "image": "mine:1", "resources": {"cpu": "500m", "memory": None}}
    policy.task_instance_mutation_hook(instance, SimpleNamespace(conf=conf))
    container = instance.executor_config["pod_override"].spec.containers[0]
    assert (container.name, container.image) == ("base", "mine:1")
    assert container.resources.limits == container.resources.requests == {"cpu": "500m"}
    for asked, operator in ((CLAIM, "AirRunnerOperator"), (conf, "BashOperator")):
        other = SimpleNamespace(operator=operator, executor_config={})
        policy.task_instance_mutation_hook(other, SimpleNamespace(conf=asked))
        assert other.executor_config == {}
    policy.task_instance_mutation_hook(instance, None)
