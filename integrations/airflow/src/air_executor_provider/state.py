"""The parts of the protocol that are pure: names, spans, and the transitions of a job's key that a user may write.

Nothing here does I/O or looks at a clock. The rules are those of ``docs/protocol.md``, sections 1, 6 and 9.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timedelta, timezone
from typing import Any

VERSION = 1
JOB_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
PREFIX = re.compile(r"[a-z][a-z0-9-]{0,31}")
TASK_BYTES_MAX = 524_288
NAME_CHARS_MAX = 64
LEASE_TTL_DEFAULT = timedelta(seconds=30)

FINAL = frozenset({"succeeded", "failed", "cancelled", "skipped"})
COUNTERS = ("succeeded failed cancelled skipped retrying reset parked attempts losses subtasks cpu_ms").split()

#: Fields of a task that a user may write; `fanout` is the system's.
TASK_FIELDS = frozenset(
    "v id run exec needs input env cwd timeout retry backend image resources not_before job labels".split()
)

State = dict[str, Any]


def to_time(at: datetime) -> str:
    """A moment as the protocol writes it."""
    return at.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_time(text: str) -> datetime:
    """The moment that a time of the protocol names."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


_UNITS = {
    "ms": 0.001,
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86_400.0),
    **dict.fromkeys(("w", "week", "weeks"), 604_800.0),
}


def span(value: object) -> timedelta:
    """A span such as ``1h30m``, or a whole number of seconds.

    :raises ValueError: it is none.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return timedelta(seconds=value)
    parts = re.findall(r"(\d+)\s*([a-z]+)", str(value))
    if not parts or re.sub(r"(\d+)\s*([a-z]+)\s*", "", str(value)).strip():
        raise ValueError(f"`{value}` is no span of time; write it as 90s, 30m or 1h30m")
    try:
        return timedelta(seconds=sum(int(number) * _UNITS[unit] for number, unit in parts))
    except KeyError as unit:
        raise ValueError(f"`{value}` is no span of time: unknown unit {unit}; write it as 90s, 30m or 1h30m") from None


def new_state(at: datetime) -> State:
    """The state of a job that nobody has worked on."""
    return {
        "v": VERSION,
        "status": "waiting",
        "counters": dict.fromkeys(COUNTERS, 0),
        "accounted": 0,
        "failing": 0,
        "last_record": 0,
        "updated": to_time(at),
    }


def rebuilt_state(at: datetime, lease_ttl: timedelta) -> State:
    """The state of a job whose key was deleted: held until no runner that the key may have named can live."""
    until = to_time(at + lease_ttl)
    return {**new_state(at), "hold_until": until, "zombie_until": until}


def stopped(state: State, at: datetime) -> State | None:
    """What *cancel* makes of a job's state; none where nothing changes."""
    status = state["status"]
    if status in ("cancelling", "removing"):
        return None
    lease = state.get("lease") if status == "working" else None
    if lease is None:
        return _to(state, "cancelling", at)
    phase = _stopping(lease)
    if phase is None:
        following = _to(state, "cancelling", at)
        if _may_commit(lease):
            _expect_zombie(following, at + span(lease["ttl"]))
        return following
    if phase == lease:
        return None
    return {**_touched(state, at), "lease": phase}


def retried(state: State, at: datetime) -> State | None:
    """What *retry* makes of a job's state; none where nothing changes.

    :raises ValueError: the job is being cancelled or removed.
    """
    if state["status"] in ("cancelling", "removing"):
        raise ValueError(f"it is {state['status']}")
    if state["status"] in ("waiting", "working"):
        return None
    return _to(state, "waiting", at)


def is_ending(state: State | None) -> bool:
    """Whether a job is being cancelled or removed, so that nothing may be queued again yet."""
    if state is None:
        return False
    if state["status"] in ("cancelling", "removing"):
        return True
    phase = state.get("lease") or {}
    if phase.get("phase") == "recovering":
        phase = phase.get("from") or {}
    return bool(phase.get("phase") == "stopping")


def is_over(state: State, last_queued: int) -> bool:
    """Whether nothing more happens in a job by itself, with all that was queued up to ``last_queued``."""
    if state["status"] == "failed":
        return True
    return state["status"] in ("completed", "cancelled") and state["drained"] >= last_queued


def _touched(state: State, at: datetime) -> State:
    following = {**state, "updated": to_time(at)}
    hold = following.get("hold_until")
    if hold is not None and from_time(hold) <= at:
        del following["hold_until"]
    return following


def _to(state: State, status: str, at: datetime) -> State:
    """Another status: what belonged to the former one goes with it."""
    following = {**_touched(state, at), "status": status}
    for field in ("lease", "drained", "task", "purge_to"):
        following.pop(field, None)
    return following


def _expect_zombie(state: State, until: datetime) -> None:
    before = state.get("zombie_until")
    state["zombie_until"] = to_time(max(until, from_time(before)) if before else until)


def _may_commit(phase: State) -> bool:
    if phase["phase"] == "recovering":
        return _may_commit(phase["from"])
    return bool(phase["phase"] != "starting")


def _stopping(phase: State) -> State | None:
    """The phase once a user wants the holder to stop; none where the lease is dropped, since nothing has run."""
    name = phase["phase"]
    if name == "running":
        return {**phase, "phase": "stopping", "then": "cancel"}
    if name == "stopping":
        return phase
    if name == "recovering":
        inner = _stopping(phase["from"])
        return None if inner is None else {**phase, "from": inner}
    if name in ("starting", "settling"):
        return None
    raise ValueError(f"the lease has the unknown phase `{name}`")


def digest(*parts: object) -> str:
    """A short name for a list of texts: 16 hexadecimal digits, the same for ever."""
    text = "\x00".join(str(part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def readable(*parts: str, tail: str) -> str:
    """A name that people recognise and that no other parts give: cut to the limit, ended by ``tail``."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(parts)).strip("-_")
    return f"{slug[: NAME_CHARS_MAX - len(tail) - 1].rstrip('-_')}-{tail}".lstrip("-")
