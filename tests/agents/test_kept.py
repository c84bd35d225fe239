"""Runs whose processes are killed: nothing is lost or happens twice, and the log says it all."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from infra.asker import Asker
from infra.serving import AGENT_POOL
from schemas.agents import run_id
from schemas.codec import Unreadable
from schemas.events import (
    AgentJournaled,
    ApprovalWanted,
    InferenceCompleted,
    InferenceRequested,
)
from schemas.topics import (
    AGENT_JOURNALED,
    AGENT_TOLD,
    APPROVAL_WANTED,
    BEHIND,
    INFERENCE_COMPLETED,
    INFERENCE_REQUESTED,
    INFERENCE_ROUTED,
    REPLY,
    root_of,
)
from tests.agents.conftest import AGENTS, CAREFUL, ENDLESS, PLATFORM, TENANT, Office, wanted
from tests.agents.replaying import replayed
from tests.agents.test_runs import SUM, journal, turns
from tests.broker.approving import PATIENCE_S, approve, command
from tests.harness import eventually, running

pytestmark = pytest.mark.stack

RUNS, KILLS = 40, 6


async def differences(office: Office, entries: list[AgentJournaled]) -> list[int]:
    """Returns the entries that say other than what they lead to, taken in once more."""
    return [*(await replayed(office.bus, entries)).differing]


def said(office: Office, request_id: str) -> Counter[tuple[str, bytes | None]]:
    """Returns what a run put on the log, each record as often as it did."""
    found: Counter[tuple[str, bytes | None]] = Counter()
    children = f"{request_id}{BEHIND}"
    for topic in (AGENT_TOLD.member(TENANT), INFERENCE_COMPLETED, INFERENCE_REQUESTED):
        for record in office.bus.records(topic.name):
            with suppress(Unreadable):
                event = office.bus.codec.decode(record.value, topic.event)
                if isinstance(event, InferenceCompleted):
                    its = event.routed.request.request_id == request_id
                elif isinstance(event, InferenceRequested):
                    its = event.request_id.startswith(children)
                else:
                    its = event.request_id == request_id
                found[topic.name, record.value] += its
    return +found


def again(office: Office, request_id: str) -> None:
    """Has agents read again, after a new start, all that came for a run since its beginning."""
    assert office.agents.stop() == 0
    names = [INFERENCE_ROUTED.member(AGENT_POOL).name, REPLY.member(PLATFORM).name]
    servers = office.bus.kafka.bootstrap_servers
    group = Consumer({"bootstrap.servers": servers, "group.id": "agents"})
    first: dict[tuple[str, int], int] = {}
    for record in (each for name in names for each in office.bus.records(name)):
        if record.key == root_of(request_id).encode():
            first.setdefault((record.topic, record.partition), record.offset)
    assert len(first) == len(names)
    places = [TopicPartition(*place, at) for place, at in first.items()]
    group.commit(offsets=places, asynchronous=False)
    group.close()
    office.agents.start()
    office.agents.ready(PATIENCE_S)


def journals_of(
    office: Office, runs: Iterable[InferenceRequested]
) -> dict[str, list[AgentJournaled]]:
    """Returns the entries of runs, by the run's id."""
    found: dict[str, list[AgentJournaled]] = {run_id(each.request_id, TENANT): [] for each in runs}
    for entry in office.bus.events(AGENT_JOURNALED):
        if entry.run_id in found:
            found[entry.run_id].append(entry)
    return found


def steps(office: Office, runs: Iterable[InferenceRequested]) -> int:
    """Returns how many entries runs have so far."""
    return sum(map(len, journals_of(office, runs).values()))


def approvals(office: Office, request_id: str, least: int) -> list[ApprovalWanted]:
    """Returns what a run's calls wait for, if it is as much by now."""
    calls = run_id(request_id, TENANT)
    found = {
        each.approval_id: each
        for each in office.bus.events(APPROVAL_WANTED, TENANT)
        if each.request_id.startswith(calls)
    }
    return [*found.values()] if len(found) >= least else []


def noted(office: Office, request_id: str) -> bool:
    """Returns whether the gateway reads no call of a run again that had its effect."""
    done, topic = set(office.did(request_id)), INFERENCE_REQUESTED
    committed = office.bus.committed("gateway", topic.name)
    asked = [each for each in office.bus.records(topic.name) if each.key == TENANT.encode()]
    return all(
        committed[each.partition] > each.offset
        for each in asked
        if office.bus.codec.decode(each.value, topic.event).request_id in done
    )


async def test_records_that_come_again_behind_the_end_of_a_run_lead_to_the_same_to_the_byte(
    office: Office, asker: Asker
) -> None:
    asked = wanted(turns([SUM], [SUM], "it is 3"))
    await asker.completion(asked)
    once = said(office, asked.request_id)
    assert len(once) > 5
    await asyncio.to_thread(again, office, asked.request_id)

    def twice() -> bool:
        # A process that is held up for long enough reads once more what is not committed.
        return min(said(office, asked.request_id).values()) > 1

    await asyncio.to_thread(eventually, twice, PATIENCE_S, "all that was said, said again")
    assert said(office, asked.request_id).keys() == once.keys()
    assert len(office.did(asked.request_id)) == 2


async def test_a_slow_tool_keeps_no_other_run_waiting(office: Office, asker: Asker) -> None:
    slow = wanted(turns([ENDLESS], "late"))
    waiting = asyncio.create_task(asker.completion(slow))
    called = partial(journal, office, slow.request_id)
    await asyncio.to_thread(eventually, lambda: len(called()) == 2, PATIENCE_S, "the slow call")
    fast = [asker.completion(wanted(turns([SUM], "it is 3"))) for _ in range(20)]
    answers = await asyncio.gather(*fast)
    assert [each and each.content for each in answers] == ["it is 3"] * 20
    assert not waiting.done()
    assert office.did(slow.request_id) == []
    waiting.cancel()


async def test_who_approves_after_everything_was_killed_lets_a_run_go_on_where_it_stood(
    office: Office, asker: Asker, folder: Path
) -> None:
    asked = wanted(turns([SUM], [SUM], "it is 3"), endpoint=CAREFUL)
    asking = asyncio.create_task(asker.completion(asked))
    done: set[str] = set()
    for number in (1, 2):
        waits = partial(approvals, office, asked.request_id, number)
        await asyncio.to_thread(eventually, waits, PATIENCE_S, "an approval that is wanted")
        # Whoever takes over has called again what is not committed: these tools do it again.
        sure = partial(noted, office, asked.request_id)
        await asyncio.to_thread(eventually, sure, PATIENCE_S, "the calls committed")
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
        more = steps(office, runs) + drawn.randint(1, 2 * RUNS // KILLS)

        def grown(least: int = more) -> bool:
            return all(each.done() for each in asking) or steps(office, runs) >= least

        await asyncio.to_thread(eventually, grown, PATIENCE_S, "steps of the runs")
        office.agents.kill()
        office.agents.start()
        await asyncio.to_thread(office.agents.ready, PATIENCE_S)
    answers = await asyncio.gather(*asking)
    assert [each and each.content for each in answers] == ["it is 3"] * RUNS
    journals = journals_of(office, runs)
    for each in runs:
        effects = office.did(each.request_id)
        assert len(effects) == len(set(effects)) == 3
        entries = journals[run_id(each.request_id, TENANT)]
        assert [entry.ended for entry in entries] == [False] * 6 + [True]
        assert await differences(office, entries) == []


async def test_runs_go_on_though_processes_come_and_go_beside_each_other(
    office: Office, asker: Asker, folder: Path
) -> None:
    wait = ["add", {"a": 1, "b": 2, "wait_s": 0.5}]
    runs = [wanted(turns([wait, SUM], [wait], [wait], "it is 3")) for _ in range(RUNS)]
    asking = [asyncio.create_task(asker.completion(each)) for each in runs]
    begun = partial(steps, office, runs)
    await asyncio.to_thread(eventually, lambda: begun() > RUNS, PATIENCE_S, "runs under way")
    with ExitStack() as opened:
        second = running(office.bus, AGENTS, folder, start_s=PATIENCE_S, **office.identity)
        process = await asyncio.to_thread(opened.enter_context, second)
        office.agents.kill()
        half = 5 * RUNS
        await asyncio.to_thread(eventually, lambda: begun() > half, PATIENCE_S, "the runs go on")
        office.agents.start()
        await asyncio.to_thread(office.agents.ready, PATIENCE_S)
        process.kill()
    answers = await asyncio.gather(*asking)
    assert [each and each.content for each in answers] == ["it is 3"] * RUNS
    journals = journals_of(office, runs)
    for each in runs:
        effects = office.did(each.request_id)
        assert len(effects) == len(set(effects)) == 4
        assert await differences(office, journals[run_id(each.request_id, TENANT)]) == []
