"""Runs whose processes are killed: nothing is lost or happens twice, and the log says it all."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from pathlib import Path

import pytest

from infra.asker import Asker
from infra.registry import Reader, Registry
from infra.settings import RegistrySettings
from schemas.agents import run_id
from schemas.codec import Codec
from schemas.events import AgentJournaled, ApprovalWanted
from schemas.topics import APPROVAL_WANTED
from streams.agents.folding import Folded, emitted, fold
from tests.agents.conftest import CAREFUL, TENANT, Office, wanted
from tests.agents.test_runs import SUM, journal, turns
from tests.broker.approving import PATIENCE_S, approve, command
from tests.harness import eventually

pytestmark = pytest.mark.stack

RUNS, KILLS = 40, 6


async def differences(office: Office, entries: list[AgentJournaled]) -> list[int]:
    """Returns the entries that say other than what they lead to, taken in once more."""
    registry = Registry(RegistrySettings(url=office.bus.environment["REGISTRY_URL"]))
    reader = Reader(Codec(await asyncio.to_thread(registry.ids)), registry)
    folded: Folded | None = None
    found = []
    for entry in entries:
        taken = await fold(folded, entry, reader)
        folded = taken.folded
        if emitted(taken.outgoing) != entry.emitted or taken.ended != entry.ended:
            found.append(entry.seq)
    return found


def approvals(office: Office, request_id: str, least: int) -> list[ApprovalWanted]:
    """Returns what a run's calls wait for, if it is as much by now."""
    calls = run_id(request_id, TENANT)
    found = {
        each.approval_id: each
        for each in office.bus.events(APPROVAL_WANTED, TENANT)
        if each.request_id.startswith(calls)
    }
    return [*found.values()] if len(found) >= least else []


async def test_who_approves_after_everything_was_killed_lets_a_run_go_on_where_it_stood(
    office: Office, asker: Asker, folder: Path
) -> None:
    asked = wanted(turns([SUM], [SUM], "it is 3"), endpoint=CAREFUL)
    asking = asyncio.create_task(asker.completion(asked))
    done: set[str] = set()
    for number in (1, 2):
        waits = partial(approvals, office, asked.request_id, number)
        await asyncio.to_thread(eventually, waits, PATIENCE_S, "an approval that is wanted")
        for process in (office.agents, office.gateway):
            process.kill()
        for process in (office.gateway, office.agents):
            process.start()
            await asyncio.to_thread(process.ready, PATIENCE_S)
        [name] = {each.approval_id for each in waits()} - done
        done.add(name)
        await asyncio.to_thread(approve, office.bus, folder, name)
        again = await asyncio.to_thread(command, office.bus, folder, "approve", name)
        assert again.returncode != 0
    answer = await asking
    assert answer is not None
    assert answer.content == "it is 3"
    assert len(office.did(asked.request_id)) == len(set(office.did(asked.request_id))) == 2
    assert await differences(office, journal(office, asked.request_id)) == []


async def test_runs_whose_processor_is_killed_again_and_again_end_each_with_each_effect_once(
    office: Office, asker: Asker
) -> None:
    drawn = random.Random(7)
    wait = ["add", {"a": 1, "b": 2, "wait_s": 0.5}]
    runs = [wanted(turns([wait, SUM], [wait], "it is 3")) for _ in range(RUNS)]
    asking = [asyncio.create_task(asker.completion(each)) for each in runs]
    for _ in range(KILLS):
        more = sum(len(journal(office, each.request_id)) for each in runs) + drawn.randint(
            1, 2 * RUNS // KILLS
        )

        def grown(least: int = more) -> bool:
            ended = all(each.done() for each in asking)
            return ended or sum(len(journal(office, each.request_id)) for each in runs) >= least

        await asyncio.to_thread(eventually, grown, PATIENCE_S, "steps of the runs")
        office.agents.kill()
        office.agents.start()
        await asyncio.to_thread(office.agents.ready, PATIENCE_S)
    answers = await asyncio.gather(*asking)
    assert [each and each.content for each in answers] == ["it is 3"] * RUNS
    for each in runs:
        effects = office.did(each.request_id)
        assert len(effects) == len(set(effects)) == 3
        entries = journal(office, each.request_id)
        assert [entry.ended for entry in entries] == [False] * 6 + [True]
        assert await differences(office, entries) == []
