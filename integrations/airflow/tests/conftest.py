"""A real nats-server and a real manager for each test that asks for them; nothing of NATS is faked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE_S = 90.0
ROOT = Path(__file__).resolve().parents[3]


def until(what: str, look: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Waits for a condition itself; the limit is only a guard against hanging."""
    end = time.monotonic() + patience_s
    while True:
        if seen := look():
            return seen
        assert time.monotonic() < end, f"waited {patience_s:.0f} s in vain for: {what}"
        time.sleep(0.1)


def program(name: str) -> str:
    """A built program of the project."""
    folder = Path(os.environ.get("AIR_BIN", ROOT / "target" / "debug"))
    path = folder / name
    assert path.exists(), f"{path} is not there; build it with `cargo build --bins`, or name its folder in AIR_BIN"
    return str(path)


class Server:
    """A nats-server with JetStream on a free port, with a store of its own."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.folder = folder
        self.program = os.environ.get("AIR_NATS_SERVER") or shutil.which("nats-server") or "nats-server"
        self.port = -1
        self.extra = extra
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, again on the same port if it ran before, and waits until it listens."""
        for old in self.folder.glob("*.ports"):
            old.unlink()
        conf = self.folder / "nats.conf"
        conf.write_text(
            f'host: 127.0.0.1\nport: {self.port}\nports_file_dir: "{self.folder}"\n'
            f'jetstream {{ store_dir: "{self.folder}/store", sync_interval: always }}\n{self.extra}\n'
        )
        log = (self.folder / "nats.log").open("ab")
        self.process = subprocess.Popen([self.program, "--config", str(conf)], stdout=log, stderr=log)

        def listening() -> int:
            for file in self.folder.glob("*.ports"):
                text = file.read_text()
                if text.strip():
                    return int(json.loads(text)["nats"][0].rpartition(":")[2])
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "nats.log").read_text()
            return 0

        self.port = until("the nats-server to listen", listening)

    def kill(self) -> None:
        """Ends it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"nats://127.0.0.1:{self.port}"


class Installation:
    """A server, its streams, and managers."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.managers: list[subprocess.Popen[bytes]] = []

    @property
    def environment(self) -> dict[str, str]:
        """For the programs of the project."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith("NATS_")}
        return {**mine, "NATS_URL": self.server.url}

    def airx(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command of `airx`."""
        done = subprocess.run(
            [program("airx"), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert not check or done.returncode == 0, f"airx {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
        return done

    def manage(self, runners: int = 4) -> subprocess.Popen[bytes]:
        """Starts a manager."""
        log = (self.server.folder / "manager.log").open("ab")
        command = [program("airx"), "manager", "--sync-interval", "0", "--poll", "1s", "--max-runners", str(runners)]
        manager = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self.managers.append(manager)
        return manager

    def verify(self) -> dict[str, Any]:
        """What `airx verify` finds; nothing may be refuted."""
        done = self.airx("verify", "-o", "json", check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def tasks(self, job: str) -> list[dict[str, Any]]:
        """The tasks of a job, as `airx` shows them."""
        found: list[dict[str, Any]] = json.loads(self.airx("tasks", job, "-o", "json").stdout)
        return found

    def stop(self) -> None:
        """Ends the managers."""
        for manager in self.managers:
            if manager.poll() is None:
                manager.send_signal(signal.SIGTERM)
        for manager in self.managers:
            try:
                manager.wait(20)
            except subprocess.TimeoutExpired:
                manager.kill()
                manager.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A running nats-server without streams."""
    one = Server(tmp_path)
    one.start()
    yield one
    one.kill()


@pytest.fixture
def resting(server: Server) -> Iterator[Installation]:
    """An installation that no manager serves yet."""
    installation = Installation(server)
    installation.airx("init")
    yield installation
    installation.stop()


@pytest.fixture
def air(resting: Installation) -> Installation:
    """An installation with one manager."""
    resting.manage()
    return resting
