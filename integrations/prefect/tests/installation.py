"""An installation of Air-Executor for tests: a real nats-server, real managers, and a real Prefect server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

from prefect_air_executor import AirExecutor

SCRIPTS = Path(__file__).parent.parent / "scripts"
ROOT = SCRIPTS.parent.parent.parent
BIN = Path(os.environ.get("AIR_BIN", ROOT / "target/debug")).absolute()
# A guard against hanging, nothing else.
LIMIT = 900.0

T = TypeVar("T")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def until(what: str, condition: Callable[[], T], limit: float = LIMIT) -> T:
    """What `condition` gives once it is true."""
    end = time.monotonic() + limit
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {limit} s in vain: {what}"
        time.sleep(0.5)
    return value


async def auntil(what: str, condition: Callable[[], Awaitable[T]], limit: float = LIMIT) -> T:
    """What `condition` gives once it is true."""
    end = time.monotonic() + limit
    while not (value := await condition()):
        assert time.monotonic() < end, f"waited {limit} s in vain: {what}"
        await asyncio.sleep(0.1)
    return value


class Process:
    """A program with its own log, in a session of its own."""

    def __init__(self, log: Path, *command: str | Path, env: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as out:
            self.child = subprocess.Popen(
                [str(word) for word in command], stdout=out, stderr=out, env=env, start_new_session=True
            )

    def text(self) -> str:
        """What it printed."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL to the whole session: nothing of it can say good-bye."""
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()

    def stop(self) -> None:
        """SIGTERM, and what is left after a while is killed."""
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def ended(self, limit: float = LIMIT) -> int:
        """Its exit code, once it has ended."""
        try:
            return self.child.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.child.args} did not end:\n{self.text()}") from None


class Air:
    """NATS and managers."""

    def __init__(self, folder: Path, config: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.url = f"nats://127.0.0.1:{self.port}"
        self.manager: Process | None = None
        conf = folder / "nats.conf"
        store = f'store_dir: "{folder / "store"}", sync_interval: always'
        conf.write_text(f"listen: 127.0.0.1:{self.port}\njetstream {{ {store} }}\n{config}\n")
        self.start_nats()

    def start_nats(self) -> None:
        """Starts the server, or starts it again on the same state."""
        log = self.folder / "nats.log"
        before = log.read_text().count("Server is ready") if log.exists() else 0
        self.nats = Process(log, os.environ["AIR_NATS_SERVER"], "-c", self.folder / "nats.conf")

        def ready() -> bool:
            assert self.nats.child.poll() is None, self.nats.text()
            return self.nats.text().count("Server is ready") > before

        until("nats-server is ready", ready)

    def airx(self, *arguments: str, ok: bool = True) -> str:
        """Runs `airx`; its output."""
        done = subprocess.run(
            [BIN / "airx", "--server", self.url, *arguments], capture_output=True, text=True, timeout=LIMIT, check=False
        )
        assert done.returncode == 0 or not ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start_manager(self) -> None:
        """Starts a manager."""
        options = ("--poll", "1s", "--sync-interval", "0s", "--max-runners", "8")
        self.manager = Process(
            self.folder / "manager.log", BIN / "airx", "--server", self.url, "manager", *options, env=_plain()
        )

    def executor(self, **values: Any) -> AirExecutor:
        """The block for it."""
        return AirExecutor(servers=[self.url], **values)

    def stop(self) -> None:
        """Ends all."""
        if self.manager is not None:
            self.manager.stop()
        self.nats.stop()


class Prefect:
    """A Prefect server, and programs that speak to it."""

    def __init__(self, folder: Path, air: Air) -> None:
        self.folder, self.air = folder, air
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.env = _plain() | {
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_API_URL": self.api,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_CLI_PROMPT": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_CLIENT_MAX_RETRIES": "20",
            "DO_NOT_TRACK": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "NATS_URL": air.url,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.server: Process | None = None
        self.workers: list[Process] = []

    def start_server(self) -> None:
        """Starts the server, or starts it again on the same state."""
        env = {**self.env, "PYTHON": sys.executable}
        del env["PREFECT_HOME"]
        self.server = Process(
            self.folder / "server.log", SCRIPTS / "prefect-server", self.folder, str(self.port), env=env
        )
        until("the Prefect server is healthy", self._is_healthy)

    def _is_healthy(self) -> bool:
        try:
            return bool(httpx.get(f"{self.api}/health", timeout=5).json() is True)
        except (httpx.HTTPError, ValueError):
            return False

    def prefect(self, *arguments: str) -> str:
        """Runs the command line of Prefect; its output."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start_worker(self, pool: str, name: str) -> Process:
        """Starts a worker of the type `air`, and waits until it polls."""
        log = self.folder / f"{name}.log"
        before = log.read_text().count("started!") if log.exists() else 0
        options = ("--pool", pool, "--type", "air", "--name", name)
        worker = Process(log, sys.executable, "-m", "prefect", "worker", "start", *options, env=self.env)
        self.workers.append(worker)
        until(f"worker {name} has started", lambda: worker.text().count("started!") > before)
        return worker

    def run(self, script: Path, *arguments: str) -> Process:
        """Starts a Python program as a user would."""
        log = self.folder / f"{script.stem}-{time.monotonic_ns()}.log"
        return Process(log, sys.executable, script, *arguments, env=self.env)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """A POST to the API; SQLite answers 503 when it is busy."""

        def once() -> httpx.Response | None:
            try:
                answer = httpx.post(f"{self.api}{path}", json=body, timeout=60)
            except httpx.HTTPError:
                return None
            return None if answer.status_code == 503 else answer

        answer = until(f"the API takes {path}", once)
        assert answer.is_success, answer.text
        return answer.json()

    def get(self, path: str) -> Any:
        """A GET from the API."""

        def once() -> httpx.Response | None:
            try:
                answer = httpx.get(f"{self.api}{path}", timeout=60)
            except httpx.HTTPError:
                return None
            return None if answer.status_code == 503 else answer

        answer = until(f"the API gives {path}", once)
        assert answer.is_success, answer.text
        return answer.json()

    def state(self, flow_run: str) -> str:
        """Type of the state of a flow run."""
        return str(self.get(f"/flow_runs/{flow_run}")["state_type"])

    def states(self, flow_run: str) -> list[str]:
        """Types of all its states, in order."""
        found = self.get(f"/flow_run_states/?flow_run_id={flow_run}")
        return [one["type"] for one in sorted(found, key=lambda one: one["timestamp"])]

    def until_state(self, flow_run: str, *types: str) -> dict[str, Any]:
        """The flow run, once its state is one of `types`."""

        def there() -> bool:
            state = self.state(flow_run)
            # A crash may still be put right where the flow run was cancelled.
            ends = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"} - ({"CRASHED"} if "CANCELLED" in types else set())
            over = state in ends - set(types)
            assert not over, f"flow run {flow_run} is {state}: {self.get(f'/flow_runs/{flow_run}')['state']['message']}"
            return state in types

        until(f"flow run {flow_run} is {types}", there)
        return dict(self.get(f"/flow_runs/{flow_run}"))

    def cancel(self, flow_run: str) -> None:
        """What the user interface does when somebody cancels."""
        body = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False}
        assert self.post(f"/flow_runs/{flow_run}/set_state", body)["status"] == "ACCEPT"

    def job(self, flow_run: str) -> str:
        """The job in which the worker runs a flow run."""
        pid = until(
            f"{flow_run} is submitted",
            lambda: self.get(f"/flow_runs/{flow_run}")["infrastructure_pid"],
        )
        return str(pid).removeprefix("air:")

    def stop(self) -> None:
        """Ends all."""
        for worker in self.workers:
            worker.stop()
        if self.server is not None:
            self.server.kill()


def _plain() -> dict[str, str]:
    """The environment without anything of NATS, Air-Executor and Prefect, and with this Python first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NATS_", "AIR_", "PREFECT_"))}
    return kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
