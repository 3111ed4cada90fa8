"""The flow `air-runner`: the other way round, a manager of Air-Executor has Prefect run its runners.

The manager's backend `prefect` makes the deployment and its flow runs over REST. The parameters are a claim and
nothing else: whoever may create flow runs can name no command, and a claim that is not the job's own ends at once.
Which NATS, and as whom, is said by the environment of the flow run.

A flow run that is cancelled ends its runner by SIGTERM. Nothing of a runner outlives its flow run: when the flow's
process is killed the kernel tells the runner, and what a killed runner left of its task is found by its environment.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from prefect import State, flow
from prefect.states import Completed, Failed

PROGRAM = "AIR_RUNNER_PROGRAM"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


@flow(name="air-runner", retries=0, persist_result=False)
def air_runner(job: str, seq: int, runner: UUID, fence: int, backend: str) -> State[None]:
    """Runs `air-runner` (or what `AIR_RUNNER_PROGRAM` names) with a claim, to its end."""
    claim = {
        "AIR_JOB": job,
        "AIR_SEQ": str(seq),
        "AIR_RUNNER": str(runner),
        "AIR_FENCE": str(fence),
        "AIR_BACKEND": backend,
    }
    program = os.environ.get(PROGRAM, "air-runner")
    try:
        process = subprocess.Popen(
            [program], env=os.environ | claim, stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent
        )
    except OSError as error:
        # As the runner itself says that it could not try.
        return Failed(message=f"{program} cannot be started (exit code 69): {error}; install it, or set {PROGRAM}")
    try:
        code = process.wait()
    except BaseException:
        # Cancelled. The runner ends its task within ten seconds, and hands it back.
        process.terminate()
        process.wait()
        raise
    finally:
        _sweep(f"AIR_RUNNER={runner}".encode())
    if code == 0:
        return Completed()
    how = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
    return Failed(message=f"air-runner {how}")


def _end_with_parent() -> None:
    """SIGTERM to the runner when this process dies, however it dies."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _sweep(mark: bytes) -> None:
    """Kills what has `mark` in its environment: tasks of a runner that could not do it."""
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in environ.read_bytes().split(b"\0"):
                os.kill(int(environ.parent.name), signal.SIGKILL)
