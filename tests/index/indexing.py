"""An index and the process that keeps it, as tests have them and wait for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.events import IndexReconciled, IndexReported, IndexState, Reason
from schemas.indexes import IndexSpec
from schemas.topics import INDEX_RECONCILED, INDEX_REPORTED
from streams.client import Client, RequestRefused
from tests.harness import Bus, Process, eventually, soon, unique
from tests.seed import changes, publish

INDEX = ["-m", "streams", "index"]
# How long anything may take on a busy machine.
PATIENCE_S = 180.0


def define(bus: Bus, index: str, wanted: IndexSpec) -> None:
    """Publishes an index, or another definition of it."""
    plain = wanted.model_dump(exclude_defaults=True, mode="json")
    publish(bus, *changes([{"kind": "index", "name": index, "spec": plain}]))


@contextmanager
def indexer(bus: Bus, folder: Path, tenant: str = "index") -> Iterator[Process]:
    """Runs an index processor for a block; it must end in good order."""
    client = {"CLIENT_KEY": "", "CLIENT_PRINCIPAL": "", "CLIENT_TENANT": tenant}
    with _ending_well(INDEX, {**bus.environment, **client}, folder) as process:
        yield process


@contextmanager
def jobs(bus: Bus, folder: Path) -> Iterator[Process]:
    """Runs the jobs; an index that was as its source is left alone until somebody asks."""
    environment = {**bus.environment, "JOBS_RECONCILE_AGAIN_MS": "500"}
    with _ending_well(["-m", "workers", "jobs"], environment, folder) as process:
        yield process


@contextmanager
def _ending_well(
    command: list[str], environment: dict[str, str], folder: Path
) -> Iterator[Process]:
    process = Process(command, environment, folder / f"{unique(command[-1])}.log")
    try:
        process.ready()
        yield process
        assert process.stop() == 0
    finally:
        if process.child.poll() is None:
            process.kill()


def compared(bus: Bus, index: str, reconcile: int) -> list[IndexReconciled]:
    """Returns what comparisons since a wish have found, once one has found nothing."""
    found: list[IndexReconciled] = []

    def good() -> bool:
        found[:] = [
            each for each in bus.events(INDEX_RECONCILED, index) if each.reconcile >= reconcile
        ]
        return bool(found) and not differing(found[-1])

    eventually(good, PATIENCE_S, "a comparison that finds nothing")
    return found


def differing(found: IndexReconciled) -> int:
    """Returns how many rows and chunks a comparison has found to differ."""
    return found.missing + found.stale + found.surplus + found.unreachable


def told(bus: Bus, index: str) -> IndexReported | None:
    """Returns what was told of an index last."""
    return next(reversed(bus.events(INDEX_REPORTED, index)), None)


def was(bus: Bus, index: str, state: IndexState) -> None:
    """Returns when it was told of an index that it is so, though it may be so no more."""

    def so() -> bool:
        return any(each.state is state for each in bus.events(INDEX_REPORTED, index))

    eventually(so, PATIENCE_S, f"{state} of {index}, for however short a time")


async def answers(client: Client, index: str, refusal: Reason | None = None) -> None:
    """Returns when a search of an index is answered, or refused for this reason.

    Gateway and worker hear of it each in its own time.
    """

    async def heard_of() -> bool:
        try:
            await client.search(index, "anything", k=1)
        except RequestRefused as refused:
            return refused.refusal.reason is refusal
        return refusal is None

    await soon(heard_of, PATIENCE_S, f"that {index} is heard of")


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
        eventually(so, PATIENCE_S, f"{state} of {index}")
    except AssertionError as late:
        raise AssertionError(f"{late}: {found}") from None
    return found[0]
