"""What the supervisor tells the world: one small file, replaced as a whole at every change."""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


class State(enum.StrEnum):
    """Where a service is in its life."""

    STOPPED = "stopped"
    WAITING = "waiting"
    PREPARING = "preparing"
    STARTING = "starting"
    READY = "ready"
    DONE = "done"
    FAILING = "failing"
    STOPPING = "stopping"


GOOD = frozenset({State.READY, State.DONE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One service as it is now.

    Attributes:
        born: The process's creation time in seconds since the epoch, which tells a recycled pid.
        restarts: Deaths and failed starts since it was last started by request.
        reason: Why it is not ready, or why it last ended; empty when nothing went wrong.
    """

    name: str
    state: State
    pid: int | None
    born: float | None
    port: int | None
    restarts: int
    reason: str


def write(path: Path, statuses: Mapping[str, Status]) -> None:
    """Replace the file in one step, so that a reader never sees half of it."""
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps({name: asdict(one) for name, one in statuses.items()}, indent=1))
    os.replace(scratch, path)


def read(path: Path) -> dict[str, Status]:
    """What was last written; empty when there never was a stack here."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text())
    return {name: Status(**{**one, "state": State(one["state"])}) for name, one in found.items()}
