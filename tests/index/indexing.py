"""An index and the process that keeps it, as tests have them and wait for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.events import IndexReported, IndexState
from schemas.indexes import IndexSpec
from schemas.topics import INDEX_REPORTED
from tests.harness import Bus, Process, eventually, unique
from tests.seed import changes, publish

INDEX = ["-m", "streams", "index"]


def define(bus: Bus, index: str, wanted: IndexSpec) -> None:
    """Publishes an index, or another definition of it."""
    plain = wanted.model_dump(exclude_defaults=True, mode="json")
    publish(bus, *changes([{"kind": "index", "name": index, "spec": plain}]))


@contextmanager
def indexer(bus: Bus, folder: Path, tenant: str = "index") -> Iterator[Process]:
    """Runs an index processor for a block; it must end in good order."""
    client = {"CLIENT_KEY": "", "CLIENT_PRINCIPAL": "", "CLIENT_TENANT": tenant}
    environment = {**bus.environment, **client}
    process = Process([*INDEX], environment, folder / f"{unique('index')}.log")
    try:
        process.ready()
        yield process
        assert process.stop() == 0
    finally:
        if process.child.poll() is None:
            process.kill()


def told(bus: Bus, index: str) -> IndexReported | None:
    """Returns what was told of an index last."""
    return next(reversed(bus.events(INDEX_REPORTED, index)), None)


def stands(bus: Bus, index: str, state: IndexState, **more: object) -> IndexReported:
    """Returns what is told of an index once it is so."""
    found: list[IndexReported] = []

    def so() -> bool:
        last = told(bus, index)
        found[:] = [last] if last else []
        return (
            last is not None
            and last.state is state
            and all(getattr(last, name) == value for name, value in more.items())
        )

    try:
        eventually(so, 60.0, f"{state} of {index}")
    except AssertionError as late:
        raise AssertionError(f"{late}: {found}") from None
    return found[0]
