"""What Prefect costs by itself: a flow that opens a file."""

from pathlib import Path

from prefect import flow


@flow
def alone(file: str) -> None:
    Path(file).write_text("")
