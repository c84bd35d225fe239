"""Starts with snapshots of all kinds: each knows what it would know without, and loses no run."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.asker import Asker
from infra.bus import BusUnreachable, Publisher
from infra.follow import topic_id
from infra.registry import Registry
from infra.settings import HealthSettings, LakeSettings
from infra.telemetry import now
from schemas.agents import run_id
from schemas.codec import Unreadable
from schemas.events import AgentJournaled, AgentsSnapshotted
from schemas.topics import AGENT_JOURNALED, AGENT_SNAPSHOTTED
from streams.agents import journal as journals
from streams.agents import snapshots
from streams.agents.journal import Journal
from streams.agents.kept import BACK, Kept
from streams.agents.snapshots import LEAST, Standing, parted, taken
from streams.steps import Runtime
from tests.agents.conftest import CAREFUL, TENANT, Office, wanted
from tests.agents.test_kept import approvals, differences
from tests.agents.test_runs import SUM, journal, turns
from tests.broker.approving import PATIENCE_S, approve
from tests.harness import Bus, eventually, soon, unique
from tests.unit.limiting import view_with

pytestmark = pytest.mark.stack

HOUR = timedelta(hours=1)
# What is wrong with a snapshot.
FAULTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "it is of a journal that is gone": {"topic_id": "another"},
    "it is old": {"taken_at": now() - BACK},
    "the journal ends before it": {"offset": 10**9},
    "a part is missing": {"parts": 2},
}


def entry_of(root: str, number: int, seq: int) -> AgentJournaled:
    """Returns an entry of one of the runs that lie on one partition."""
    return AgentJournaled(
        run_id=run_id(root, f"{TENANT}-{number}"),
        tenant=TENANT,
        agent="main.agents.nobody",
        seq=seq,
        cause_id=f"{root}/{number}/{seq}",
        cause=b"",
        until=now() + HOUR if seq == 0 else None,
        at=now(),
    )


def write(bus: Bus, root: str, runs: int, entries: int = 3) -> None:
    """Puts the entries of runs on one partition of the journal; half of them are over."""
    for seq in range(entries):
        for number in range(runs):
            entry = entry_of(root, number, seq)
            entry = replace(entry, ended=seq == entries - 1 and number % 2 == 0)
            key = AGENT_JOURNALED.key(entry).encode()
            bus.put(AGENT_JOURNALED.name, key, bus.codec.encode(entry))
    bus.settle()


def lying(bus: Bus, root: str) -> tuple[int, Standing]:
    """Returns the partition of some runs, and all that its journal comes to, read from scratch."""
    found: dict[str, Kept] = {}
    ends: Counter[int] = Counter()
    for record in bus.records(AGENT_JOURNALED.name):
        ends[record.partition] = record.offset + 1
        with suppress(Unreadable):
            entry = bus.codec.decode(record.value, AgentJournaled)
            found.setdefault(entry.run_id, Kept()).take(entry, record)
    [place] = {kept.partition for run, kept in found.items() if run.startswith(root)}
    return place, Standing(ends[place], {run: kept for run, kept in found.items() if kept.causes})


def identity(bus: Bus) -> str:
    found = topic_id(bus.admin, AGENT_JOURNALED.name)
    assert found is not None
    return found


@asynccontextmanager
async def started(bus: Bus) -> AsyncIterator[Journal]:
    """Gives a journal that is known as far as it lies there by now."""
    name, failed = unique("agents"), list[BaseException]()
    publisher = Publisher(bus.kafka, bus.codec, name)
    runtime = Runtime(
        name=name,
        kafka=bus.kafka,
        health=HealthSettings(),
        lake=LakeSettings(root=Path()),
        registry=Registry(bus.registry_settings),
        codec=bus.codec,
        view=view_with(),
        publisher=publisher,
    )
    opened = Journal(runtime, failed.append, lambda run: None)
    try:
        await asyncio.wait_for(opened.complete(), PATIENCE_S)
        yield opened
    finally:
        await opened.close()
        await publisher.close()
    assert failed == []


def knows_all(opened: Journal, lies: Standing) -> bool:
    """Returns whether a journal knows runs as who has read all of it."""
    return all(
        replace(opened.kept(run), heard=kept.heard) == kept for run, kept in lies.runs.items()
    )


def restored(office: Office, partition: int) -> int:
    """Returns how often the processor took a snapshot of a partition at its start."""
    lines = office.agents.log(most=10**8).splitlines(keepends=True)
    # The last may be there in part.
    told = [json.loads(line) for line in lines if "restored" in line and line.endswith("\n")]
    return sum(each["event"] == "runs restored" and each["partition"] == partition for each in told)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_start_knows_all_runs_whatever_snapshot_there_is(bus: Bus, fault: str) -> None:
    root, planted = unique("runs"), unique("planted")
    write(bus, root, 20)
    place, lies = lying(bus, root)
    over = Kept(place, {"planted": 0}, until=now() + HOUR, ended=True)
    told = Standing(lies.offset, {**lies.runs, planted: over})
    snapshot = replace(taken(told, place, identity(bus), now()), **FAULTS[fault])
    bus.send(AGENT_SNAPSHOTTED, snapshot)
    # Of those that go on, each has one more by now.
    write(bus, root, 20, entries=4)
    _, lies = lying(bus, root)
    async with started(bus) as opened:
        assert knows_all(opened, lies)
        # Only the snapshot tells of it.
        assert bool(opened.kept(planted).causes) == (fault == "nothing")


@pytest.mark.parametrize("silent", [False, True], ids=["at the start", "amid reading"])
async def test_a_start_does_without_snapshots_whose_broker_is_gone(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    async def told(*_: object) -> AsyncIterator[AgentsSnapshotted | None]:
        if not silent:
            raise BusUnreachable("no broker answers")
        await asyncio.Event().wait()
        yield None

    monkeypatch.setattr(snapshots, "told", told)
    monkeypatch.setattr(snapshots, "READ_S", 0.1)
    root = unique("runs")
    write(bus, root, 20)
    _, lies = lying(bus, root)
    async with started(bus) as opened:
        assert knows_all(opened, lies)


async def test_who_goes_on_with_runs_writes_down_what_it_knows_for_who_starts_and_nobody_else(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "SNAPSHOT_S", 0.1)
    root, runs = unique("runs"), 2 * LEAST
    write(bus, root, runs, entries=1)
    place, before = lying(bus, root)

    async def told() -> list[AgentsSnapshotted]:
        found = await asyncio.to_thread(bus.events, AGENT_SNAPSHOTTED, str(place))
        # Others may lie there, and may be faulty.
        return [each for each in found if any(run.run_id.startswith(root) for run in each.runs)]

    async with started(bus), started(bus) as going_on:
        await going_on.append(entry_of(root, runs, 0), ())
        await soon(told, PATIENCE_S, "a snapshot")
    [snapshot] = await told()
    _, lies = lying(bus, root)
    assert before.offset < snapshot.offset <= lies.offset
    assert {run.run_id: run.causes for run in snapshot.runs if run.run_id.startswith(root)} == {
        run: tuple(kept.causes) for run, kept in lies.runs.items() if run.startswith(root)
    }
    async with started(bus) as opened:
        assert knows_all(opened, lies)


async def test_a_run_goes_on_whose_processor_is_killed_and_starts_from_a_snapshot(
    office: Office, asker: Asker, folder: Path
) -> None:
    bus = office.bus
    asked = wanted(turns([SUM], "it is 3"), endpoint=CAREFUL, deadline=now() + HOUR / 6)
    write(bus, asked.request_id, LEAST)
    place, _ = lying(bus, asked.request_id)
    # Its entries come last, so who goes on with it writes the snapshot.
    asking = asyncio.create_task(asker.completion(asked))
    waits = partial(approvals, office, asked.request_id, 1)
    await asyncio.to_thread(eventually, waits, PATIENCE_S, "an approval that is wanted")

    def told() -> list[AgentsSnapshotted]:
        of_all = bus.events(AGENT_SNAPSHOTTED, str(place))
        runs = run_id(asked.request_id, TENANT)
        return [each for each in of_all if any(run.run_id == runs for run in each.runs)]

    await asyncio.to_thread(eventually, told, 3 * PATIENCE_S, "a snapshot of the run")
    office.agents.kill()
    # None of these tells of the run.
    empty = replace(told()[-1], runs=(), snapshot_id=unique("empty"))
    for changes in FAULTS.values():
        if changes:
            bus.send(AGENT_SNAPSHOTTED, replace(empty, **changes))
    bus.send(AGENT_SNAPSHOTTED, *parted(told()[-1]))
    for again in (True, False):
        before = restored(office, place)
        office.agents.start()
        await asyncio.to_thread(office.agents.ready, PATIENCE_S)

        def known(least: int = before) -> bool:
            return restored(office, place) > least

        # It may be a member of its group before that.
        await asyncio.to_thread(eventually, known, PATIENCE_S, "the runs of a snapshot")
        assert restored(office, place) == before + 1
        if again:
            office.agents.kill()
    [name] = {each.approval_id for each in waits()}
    await asyncio.to_thread(approve, bus, folder, name)
    answer = await asking
    assert answer is not None
    assert answer.content == "it is 3"
    assert len(office.did(asked.request_id)) == 1
    assert await differences(office, journal(office, asked.request_id)) == []
