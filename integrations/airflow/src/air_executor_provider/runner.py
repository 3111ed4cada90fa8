"""The DAG ``air_runner``, by which managers of Air-Executor have Airflow start their runners.

A run of it starts ``air-runner`` for one claim, and ends when that does. Its ``conf`` is the claim and nothing else: the
program and the way to NATS come from the worker and its connection, so that whoever may trigger the DAG runs no command of
theirs. See ``docs/backends.md`` for the manager's side.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, BaseOperator, Param
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException

from .hook import AirExecutorHook
from .link import AirError, Refused, Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

#: The task of the DAG, and the XCom by which managers know that the runner is gone, and how it ended.
TASK_ID = "run"
WORD = "exit"
#: Time for processes to end that a killed runner left.
SWEEP_S = 10.0
_PR_SET_PDEATHSIG = 1

_NAME = r"^[A-Za-z0-9_-]{1,64}$"
_UUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"

#: What a claim is: Airflow refuses a run with any other.
CLAIM: dict[str, dict[str, Any]] = {
    "job": {"type": "string", "pattern": _NAME, "title": "Job"},
    "seq": {"type": "integer", "minimum": 1, "title": "Stream sequence of the task's message"},
    "runner": {"type": "string", "pattern": _UUID, "title": "Id of the runner"},
    "fence": {"type": "integer", "minimum": 1, "title": "Revision of the claim"},
    "backend": {"type": "string", "pattern": _NAME, "title": "Name of the backend"},
    "system": {"type": "string", "pattern": r"^[!-~]{1,128}$", "title": "The installation"},
}
_MORE: dict[str, dict[str, Any]] = {
    "image": {"type": ["string", "null"], "maxLength": 512, "title": "Image, with KubernetesExecutor"},
    "resources": {"type": ["object", "null"], "title": "Resources, with KubernetesExecutor"},
}


def claim_of(conf: Mapping[str, Any]) -> dict[str, str]:
    """The environment that tells a runner its claim.

    :raises Refused: it is none.
    """
    environment = {}
    for name, schema in CLAIM.items():
        value = conf.get(name)
        kind = int if schema["type"] == "integer" else str
        text = str(value)
        if type(value) is not kind or (kind is str and not re.fullmatch(schema["pattern"], text)):
            raise Refused(
                f"`{name}` of the run's conf is no part of a claim; such runs are triggered by managers alone"
            )
        environment[f"AIR_{name.upper()}"] = text
    return environment


def nats_of(settings: Settings, folder: Path) -> dict[str, str]:
    """The environment that leads a runner to NATS; credentials that are texts become files in ``folder``.

    :raises Refused: a runner cannot do it.
    """
    if settings.tls_hostname:
        raise Refused(
            "a runner cannot expect another host name than the server's; leave `tls_hostname` out of the connection"
        )
    servers = settings.servers
    if settings.tls:
        servers = tuple(re.sub(r"^nats://", "tls://", one) for one in servers)
    files = {"creds": settings.creds, "nkey": settings.nkey_seed}
    for name, text in files.items():
        if text:
            with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(text)
    found = {
        "NATS_URL": ",".join(servers),
        "NATS_USER": settings.user,
        "NATS_PASSWORD": settings.password,
        "NATS_TOKEN": settings.token,
        "NATS_CREDS": settings.creds_file or (str(folder / "creds") if settings.creds else None),
        "NATS_NKEY": settings.nkey_file or (str(folder / "nkey") if settings.nkey_seed else None),
        "NATS_CA": settings.tls_ca,
        "NATS_CERT": settings.tls_cert,
        "NATS_KEY": settings.tls_key,
        "AIR_PREFIX": settings.prefix,
    }
    return {name: value for name, value in found.items() if value}


def sweep(runner: str) -> list[int]:
    """Kills what a runner left that was killed itself: its task has its id in the environment. Returns what is left."""
    mark, end = f"AIR_RUNNER={runner}".encode(), time.monotonic() + SWEEP_S
    while left := [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if mark in _environ(pid)]:
        if time.monotonic() > end:
            break
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return left


def _environ(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


class AirRunnerOperator(BaseOperator):
    """Starts ``air-runner`` for the claim in the run's conf, and waits for its end.

    :param conn_id: the connection that leads to NATS; where there is none of this name, the worker's environment does.
    :param program: the runner: a path, or a name on the worker's ``PATH``; by default what ``AIR_RUNNER_PROGRAM`` of the
        worker says, else ``air-runner``.
    """

    ui_color = "#dbe9f4"

    def __init__(
        self, *, conn_id: str = AirExecutorHook.default_conn_name, program: str | None = None, **kwargs: Any
    ) -> None:
        # Another try would find its claim gone; the manager claims anew.
        super().__init__(**{**kwargs, "retries": 0})
        self.conn_id = conn_id
        self.program = program
        self._runner: subprocess.Popen[bytes] | None = None

    def execute(self, context: Context) -> None:
        """Runs it."""
        try:
            code = self._start_and_wait(context["dag_run"].conf or {})
        except AirError as error:
            # Nothing has run.
            context["ti"].xcom_push(key=WORD, value=os.EX_UNAVAILABLE)
            raise AirflowFailException(str(error)) from error
        self.log.info("the runner ended with %d", code)
        context["ti"].xcom_push(key=WORD, value=code)
        if code != 0:
            raise AirflowFailException(f"the runner ended with {code}; its manager decides what comes next")

    def _start_and_wait(self, conf: Mapping[str, Any]) -> int:
        claim = claim_of(conf)
        name = self.program or os.environ.get("AIR_RUNNER_PROGRAM") or "air-runner"
        program = shutil.which(name)
        if not program:
            raise Refused(
                f"there is no program {name} on this worker; install air-runner there, or name it in AIR_RUNNER_PROGRAM"
            )
        # Nobody else can read what is in it; gone with it are credentials that were texts.
        with tempfile.TemporaryDirectory(prefix="air-runner-") as folder:
            code = self._run(program, {**self._environment(Path(folder)), **claim})
        if code != 0 and (left := sweep(claim["AIR_RUNNER"])):
            self.log.warning("processes of the task that cannot be killed: %s", left)
        return code

    def _environment(self, folder: Path) -> dict[str, str]:
        # What Airflow is told in its own is none of the runner's business: databases, keys, connections.
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))}
        try:
            settings = AirExecutorHook(self.conn_id).get_conn()
        except AirflowNotFoundException:
            return mine
        mine = {name: value for name, value in mine.items() if not name.startswith("NATS_")}
        return {**mine, **nats_of(settings, folder)}

    def _run(self, program: str, environment: dict[str, str]) -> int:
        libc = ctypes.CDLL(None)

        def with_its_parent() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

        # A session of its own: Airflow kills the whole group of a task some seconds after it has asked it to end, but a runner
        # gives its task ten. Should the task's process be killed, the kernel asks the runner to end.
        self._runner = subprocess.Popen(
            [program], env=environment, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=with_its_parent
        )
        return self._runner.wait()

    def on_kill(self) -> None:
        """Asks the runner to end; it hands its task back."""
        if self._runner is not None and self._runner.poll() is None:
            self._runner.terminate()


def air_runner(
    dag_id: str = "air_runner",
    *,
    conn_id: str = AirExecutorHook.default_conn_name,
    program: str | None = None,
    max_active_runs: int = 1000,
    **kwargs: Any,
) -> DAG:
    """The DAG. Other arguments are those of a DAG; ``conn_id`` and ``program`` those of :class:`AirRunnerOperator`."""
    params = {name: Param(**schema) for name, schema in CLAIM.items()}
    params |= {name: Param(None, **schema) for name, schema in _MORE.items()}
    with DAG(
        dag_id,
        schedule=None,
        catchup=False,
        description="Runners of Air-Executor; triggered by its managers alone",
        params=params,
        max_active_runs=max_active_runs,
        max_active_tasks=max_active_runs,
        is_paused_upon_creation=False,
        **kwargs,
    ) as dag:
        AirRunnerOperator(task_id=TASK_ID, conn_id=conn_id, program=program, do_xcom_push=False)
    return dag
