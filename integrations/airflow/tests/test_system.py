"""The provider in a real Airflow with Postgres: everything that can be killed is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Installation, Server, until

HERE = Path(__file__).resolve().parent
SCRIPT = HERE.parent / "scripts" / "airflow"
PATIENCE_S = 900.0
DONE = {"success", "failed", "skipped", "upstream_failed", "removed"}

pytestmark = pytest.mark.system


class Airflow:
    """A running Airflow, by its REST API."""

    def __init__(self, folder: Path, nats: Installation) -> None:
        self.folder, self.nats = folder, nats
        self.flags = folder / "flags"
        self.flags.mkdir()
        dags = folder / "dags"
        dags.mkdir()
        for source in (ROOT / "examples/airflow/hybrid.py", HERE / "dags/cases.py"):
            (dags / source.name).symlink_to(source)
        (folder / "env.extra").write_text(f"export AIR_TEST_FLAGS='{self.flags}'\n")
        self.token = ""

    def connect(self) -> None:
        """Makes the connection, as a person does it on the page of connections."""
        extra = json.dumps({"dashboard": "http://dash.example/air"})
        body = {"connection_id": "air_executor_default", "conn_type": "air_executor", "host": self.nats.server.url}
        self.call("POST", "/api/v2/connections", {**body, "extra": extra})

    def script(self, *arguments: str) -> None:
        environment = {**os.environ, "AIRFLOW_DAGS": str(self.folder / "dags")}
        done = subprocess.run(
            [str(SCRIPT), arguments[0], str(self.folder), *arguments[1:]],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def call(self, method: str, path: str, body: Any = None, tries: int = 30) -> Any:
        port = (self.folder / "api_port").read_text().strip()
        data = None if body is None else json.dumps(body).encode()
        for left in reversed(range(tries)):
            if not self.token and path != "/auth/token":
                credentials = {"username": "admin", "password": "admin"}
                self.token = self.call("POST", "/auth/token", credentials)["access_token"]
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers, method=method)
            try:
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
                    return json.loads(answer.read() or b"null")
            except urllib.error.HTTPError as error:
                text = error.read().decode()
                if error.code < 500 or not left:
                    raise AssertionError(f"{method} {path}: {error.code} {text}") from error
            except OSError:
                if not left:
                    raise
            time.sleep(1)

    def trigger(self, dag: str, run: str, conf: dict[str, Any] | None = None) -> None:
        def parsed() -> bool:
            dags = self.call("GET", "/api/v2/dags?limit=100")["dags"]
            return any(one["dag_id"] == dag for one in dags)

        until(f"the DAG {dag} to be parsed", parsed, PATIENCE_S)
        self.call("POST", f"/api/v2/dags/{dag}/dagRuns", {"dag_run_id": run, "logical_date": None, "conf": conf or {}})

    def tasks(self, dag: str, run: str, task: str | None = None) -> list[dict[str, Any]]:
        found = self.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances?limit=200")["task_instances"]
        return [one for one in found if task in (None, one["task_id"])]

    def state(self, dag: str, run: str, task: str) -> str:
        return str(self.tasks(dag, run, task)[0]["state"])

    def ended(self, dag: str, run: str) -> str:
        def over() -> str | None:
            state = self.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}")["state"]
            return str(state) if state in ("success", "failed") else None

        return str(until(f"{dag} {run} to end", over, PATIENCE_S))

    def reaches(self, dag: str, run: str, task: str, state: str) -> None:
        def there() -> bool:
            now = self.state(dag, run, task)
            assert now == state or now not in DONE, f"{dag}/{task} is {now}:\n{self.log(dag, run, task)}"
            return now == state

        until(f"{dag}/{task} to be {state}", there, PATIENCE_S)

    def waits(self, dag: str, run: str, task: str = "air") -> str:
        """Waits until a triggerer waits for a task; gives the name of the job."""
        self.reaches(dag, run, task, "deferred")
        until(f"the trigger of {dag}/{task}", lambda: " starting" in self.log(dag, run, task, "trigger"), PATIENCE_S)
        return self.job(dag, run, task)

    def xcom(self, dag: str, run: str, task: str, key: str = "return_value", index: int = -1) -> Any:
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/{key}?map_index={index}&deserialize=true"
        return self.call("GET", path)["value"]

    def log(self, dag: str, run: str, task: str, kind: str = "log") -> str:
        found = sorted((self.folder / "home/logs").glob(f"dag_id={dag}/run_id={run}/task_id={task}/*{kind}*"))
        return "\n".join(f"{file.name}:\n{file.read_text()}" for file in found)

    def mark(self, dag: str, run: str, state: str = "failed") -> None:
        self.call("PATCH", f"/api/v2/dags/{dag}/dagRuns/{run}?update_mask=state", {"state": state})

    def job(self, dag: str, run: str, task: str = "air", index: int = -1) -> str:
        return str(until("the name of the job", lambda: self._job(dag, run, task, index)))

    def _job(self, dag: str, run: str, task: str, index: int) -> str | None:
        try:
            return str(self.xcom(dag, run, task, "job", index))
        except AssertionError:
            return None

    def air_status(self, job: str) -> str:
        state = json.loads(self.nats.airx("status", job, "-o", "json").stdout)
        return str((state[0] if isinstance(state, list) else state)["status"])


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    server = Server(tmp_path_factory.mktemp("nats"))
    server.start()
    one = Installation(server)
    one.airx("init")
    one.manage()
    yield one
    one.stop()
    server.kill()


@pytest.fixture(scope="module")
def airflow(nats: Installation) -> Iterator[Airflow]:
    # Not below the folder of pytest: its next session takes that from Postgres, which runs as another user.
    with tempfile.TemporaryDirectory(prefix="air-airflow-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        one = Airflow(folder, nats)
        try:
            one.script("start")
            one.connect()
            yield one
        finally:
            one.script("stop")


def test_the_connection_is_tested_by_its_button(airflow: Airflow) -> None:
    good = {"connection_id": "x", "conn_type": "air_executor", "host": airflow.nats.server.url}
    answer = airflow.call("POST", "/api/v2/connections/test", good)
    assert answer["status"], answer
    assert "1 manager" in answer["message"]
    bad = {**good, "host": "127.0.0.1", "port": 1, "extra": json.dumps({"connect_timeout": 1})}
    answer = airflow.call("POST", "/api/v2/connections/test", bad)
    assert not answer["status"]
    assert "no NATS server answers at nats://127.0.0.1:1" in answer["message"]
    fields = next(
        one for one in airflow.call("GET", "/ui/connections/hook_meta") if one["connection_type"] == "air_executor"
    )
    assert {"token", "creds_file", "nkey_seed", "tls_ca", "dashboard"} <= set(fields["extra_fields"])


def test_a_thousand_tasks_while_everything_is_killed(airflow: Airflow) -> None:
    airflow.trigger("hybrid", "chaos")
    airflow.reaches("hybrid", "chaos", "crunch", "deferred")
    job = airflow.job("hybrid", "chaos", "crunch")
    jobs = [f"{job}-{n}" for n in range(8)]

    def parts(at_least: int) -> bool:
        rows = json.loads(airflow.nats.airx("status", "-o", "json").stdout)
        mine = [row for row in rows if row["job"] in jobs]
        return sum(row["counters"]["succeeded"] for row in mine) >= at_least

    until("the first parts", lambda: parts(50), PATIENCE_S)
    manager = airflow.nats.managers[-1]
    for part in ("scheduler", "triggerer", "dag-processor"):
        airflow.script("kill", part)
    manager.send_signal(signal.SIGKILL)
    manager.wait()
    assert airflow.state("hybrid", "chaos", "crunch") == "deferred"
    airflow.nats.manage()
    for part in ("scheduler", "triggerer", "dag-processor"):
        airflow.script("run", part)
    until("more parts", lambda: parts(400), PATIENCE_S)
    airflow.script("kill", "triggerer")
    airflow.script("run", "triggerer")
    assert airflow.ended("hybrid", "chaos") == "success", airflow.log("hybrid", "chaos", "crunch")

    squares = sum(n * n for n in range(1000))
    assert airflow.xcom("hybrid", "chaos", "report") == squares
    assert airflow.xcom("hybrid", "chaos", "crunch") == {"total": squares}
    # Nothing lost, nothing doubled.
    records = [task for one in jobs for task in airflow.nats.tasks(one)]
    assert sorted(task["task"] for task in records) == sorted(f"part-{n}" for n in range(1000))
    assert {task["status"] for task in records} == {"succeeded"}
    own = {task["task"]: task["status"] for task in airflow.nats.tasks(job)}
    # A fan-out that is larger than a batch has tasks of the system's beside.
    assert {"plan", "total"} <= set(own)
    assert set(own.values()) == {"succeeded"}
    airflow.nats.verify()


def test_a_worker_that_is_killed_while_it_submits_attaches(airflow: Airflow) -> None:
    airflow.trigger("waits", "killed")
    until("the worker to begin", lambda: airflow.state("waits", "killed", "air") in ("running", "deferred"), PATIENCE_S)
    airflow.script("kill", "scheduler")
    airflow.script("run", "scheduler")
    job = airflow.job("waits", "killed")
    (airflow.flags / job).touch()
    assert airflow.ended("waits", "killed") == "success", airflow.log("waits", "killed", "air")
    assert airflow.xcom("waits", "killed", "air") == {"task-0": "gone on", "task-1": None}
    assert [task["status"] for task in airflow.nats.tasks(job)] == ["succeeded"] * 2
    airflow.nats.verify()


def test_short_jobs_survive_the_race_of_deferral(airflow: Airflow) -> None:
    airflow.trigger("short", "race")
    assert airflow.ended("short", "race") == "success"
    for index in range(20):
        job = airflow.job("short", "race", index=index)
        assert airflow.xcom("short", "race", "air", index=index) == {"n": index}
        assert [(task["task"], task["attempt"]) for task in airflow.nats.tasks(job)] == [("n", 1)]


def test_tasks_end_in_the_triggerer(airflow: Airflow) -> None:
    airflow.trigger("ends", "one")
    assert airflow.ended("ends", "one") == "success"
    assert [airflow.xcom("ends", "one", "air", index=index) for index in range(20)] == [{"n": n} for n in range(20)]
    assert "Done. Returned value" not in airflow.log("ends", "one", "air")


def test_tasks_start_in_the_triggerer(airflow: Airflow) -> None:
    airflow.trigger("starts", "one")
    assert airflow.ended("starts", "one") == "success", airflow.log("starts", "one", "air")
    assert airflow.xcom("starts", "one", "twice") == 12
    assert airflow.xcom("starts", "one", "half") == {"task": 1}
    assert not airflow.tasks("starts", "one", "air")[0]["pid"]
    job = airflow.job("starts", "one")
    record = json.loads(airflow.nats.airx("show", job, "task", "-o", "json").stdout)
    assert '"run": "one"' in json.dumps(record)


def test_a_failure_is_told_once_and_where(airflow: Airflow) -> None:
    airflow.trigger("fails", "one")
    assert airflow.ended("fails", "one") == "failed"
    for task in ("air", "end"):
        assert airflow.tasks("fails", "one", task)[0]["try_number"] == 1
        log = airflow.log("fails", "one", task)
        assert "/bad failed at attempt 1: " in log
        assert "the disk is full" in log


@pytest.mark.parametrize("act", ["run", "task"])
def test_a_deferred_task_that_a_user_ends_cancels_its_job(airflow: Airflow, act: str) -> None:
    airflow.trigger("waits", f"ended-{act}")
    job = airflow.waits("waits", f"ended-{act}")
    if act == "run":
        airflow.mark("waits", f"ended-{act}")
    else:
        path = f"/api/v2/dags/waits/dagRuns/ended-{act}/taskInstances/air"
        airflow.call("PATCH", path, {"new_state": "failed"})
    until("the job to be cancelled", lambda: airflow.air_status(job) == "cancelled", PATIENCE_S)
    assert {task["status"] for task in airflow.nats.tasks(job)} == {"cancelled"}


def test_a_job_is_left_where_the_user_wants_that(airflow: Airflow) -> None:
    airflow.trigger("left", "one")
    job = airflow.waits("left", "one")
    airflow.mark("left", "one")
    until("the trigger to be gone", lambda: "trigger completed" in airflow.log("left", "one", "air"), PATIENCE_S)
    (airflow.flags / job).touch()
    until("the job to end", lambda: airflow.air_status(job) == "completed", PATIENCE_S)


def test_a_cleared_task_runs_again_what_was_cancelled(airflow: Airflow) -> None:
    airflow.trigger("waits", "cleared")
    job = airflow.waits("waits", "cleared")
    airflow.call(
        "POST", "/api/v2/dags/waits/clearTaskInstances",
        {"dry_run": False, "dag_run_id": "cleared", "task_ids": ["air"], "only_failed": False},
    )  # fmt: skip
    until("the second try", lambda: airflow.tasks("waits", "cleared", "air")[0]["try_number"] >= 2, PATIENCE_S)
    airflow.reaches("waits", "cleared", "air", "deferred")
    (airflow.flags / job).touch()
    assert airflow.ended("waits", "cleared") == "success", airflow.log("waits", "cleared", "air")
    assert {task["status"] for task in airflow.nats.tasks(job)} == {"succeeded"}


def test_a_deferred_task_whose_time_is_over_cancels_its_job(airflow: Airflow) -> None:
    airflow.trigger("timed", "one")
    assert airflow.ended("timed", "one") == "failed"
    job = airflow.job("timed", "one")
    until("the job to be cancelled", lambda: airflow.air_status(job) == "cancelled", PATIENCE_S)


def test_sensors_wait_for_what_others_submit(airflow: Airflow) -> None:
    airflow.trigger("senses", "one")
    for task in ("job", "task", "bad"):
        airflow.reaches("senses", "one", task, "deferred")
    airflow.nats.airx("submit", "outside", "--id", "first", "--run", "sleep 2")
    airflow.nats.airx("submit", "outside", "--id", "second", "--run", "true")
    airflow.nats.airx("spec", "outside", "set", "on_failure=continue")
    airflow.nats.airx("submit", "outside", "--id", "third", "--run", "exit 9")
    assert airflow.ended("senses", "one") == "failed"
    states = {one["task_id"]: one["state"] for one in airflow.tasks("senses", "one")}
    assert states == {"job": "success", "task": "success", "poked": "success", "bad": "failed"}
    assert "the task outside/third ended as failed" in airflow.log("senses", "one", "bad")


def test_a_link_leads_to_the_job(airflow: Airflow) -> None:
    airflow.trigger("fails", "linked")
    airflow.ended("fails", "linked")
    job = airflow.job("fails", "linked")
    links = airflow.call("GET", "/api/v2/dags/fails/dagRuns/linked/taskInstances/air/links")
    assert links["extra_links"] == {"Air-Executor job": f"http://dash.example/air/#/jobs/{job}"}


def test_the_history_proves_it(airflow: Airflow) -> None:
    airflow.nats.verify()
