"""Runs that go on with others, and facts that outlive them, from end to end."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.asker import Asker, RequestRefused
from infra.bootstrap import ROOT
from infra.stack.local import LocalStack
from infra.telemetry import now
from schemas.events import InferenceRequested, Reason, RequestCancelled
from schemas.topics import REQUEST_CANCELLED
from streams.client import Client
from tests.agents.conftest import ADD, ENDLESS, TENANT, WORKERS, Office, wanted
from tests.agents.replaying import replayed
from tests.agents.test_runs import SUM, journal, told, turns
from tests.broker.pools import PATIENCE_S
from tests.harness import eventually, running, unique
from tests.seed import changes, publish

pytestmark = pytest.mark.stack

# How long a command may take of which another try is made.
TRY_S = 60.0
KEEPER, FACTS = "main.agents.keeper", "main.facts.people"
COLUMNS = [{"name": name} for name in ("tenant", "principal", "at")]
# Nobody is granted the facts: the agents reach them in their own name.
DOCUMENTS: list[dict[str, Any]] = [
    {"kind": "schema", "name": "main.facts"},
    {
        "kind": "index",
        "name": FACTS,
        "spec": {"key_columns": ["id"], "text": "fact", "columns": COLUMNS},
    },
    {
        "kind": "agent",
        "name": KEEPER,
        "spec": {"endpoint": "main.agents.model", "tools": [ADD], "memory": {"index": FACTS}},
        "grants": {"everyone": ["EXECUTE"]},
    },
]


@pytest.fixture(scope="module")
def people(office: Office, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Three principals of the tenant whom no other test knows, and where facts about them lie."""
    names = unique("ann"), unique("bob"), unique("eve")
    users = [{"kind": "user", "name": name, "spec": {"tenant": TENANT}} for name in names]
    publish(office.bus, *changes([*DOCUMENTS, *users]))
    played = [*WORKERS, "tests.agents.recalling:open_facts", "--pool", "search"]
    with running(office.bus, played, folder, start_s=PATIENCE_S):
        yield names


@pytest.fixture
def ann(people: tuple[str, str, str]) -> str:
    """One who asks."""
    return people[0]


@pytest.fixture
def bob(people: tuple[str, str, str]) -> str:
    """Another."""
    return people[1]


@pytest.fixture
def eve(people: tuple[str, str, str]) -> str:
    """Who is forgotten."""
    return people[2]


def asks(who: str, said: str, **changes: Any) -> InferenceRequested:
    return wanted(said, endpoint=KEEPER, principal=who, **changes)


async def answer(asker: Asker, asked: InferenceRequested) -> str:
    completion = await asker.completion(asked)
    assert completion is not None
    return completion.content


async def refusal(asker: Asker, asked: InferenceRequested) -> tuple[Reason, str]:
    with pytest.raises(RequestRefused) as refused:
        await asker.completion(asked)
    return refused.value.refusal.reason, refused.value.refusal.message


def outputs(office: Office, asked: InferenceRequested) -> list[Any]:
    """Returns what the calls of a run came to."""
    items = (
        json.loads(each.item or "{}")
        for each in told(office, asked.request_id)
        if each.kind.endswith("item.done")
    )
    return [json.loads(each["output"]) for each in items if "output" in each]


def command(
    office: Office, *words: str, timeout: float = PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    """Runs `tessera memory` as whom agents ask."""
    return subprocess.run(
        [sys.executable, "-m", "streams", "memory", *words],
        cwd=ROOT,
        env={**os.environ, **office.bus.environment, **office.identity},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


async def kept(office: Office, asked: InferenceRequested) -> str:
    """Waits until the conversation of a run is kept; returns what is shown of it."""
    shown = partial(command, office, "conversations", asked.request_id, "--tenant", TENANT)

    def is_shown() -> bool:
        try:
            return shown(timeout=TRY_S).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    await asyncio.to_thread(eventually, is_shown, PATIENCE_S, "the conversation")
    return shown().stdout


async def test_a_run_goes_on_with_what_was_said_and_another_forks_it_behind_a_turn(
    office: Office, asker: Asker, ann: str
) -> None:
    first = asks(ann, turns([SUM], "it is 3", "as I said", "again"))
    assert await answer(asker, first) == "it is 3"
    second = asks(ann, "Really?", previous=first.request_id)
    assert await answer(asker, second) == "as I said"
    third = asks(ann, "Once more!", previous=second.request_id)
    assert await answer(asker, third) == "again"
    # Behind the first turn, with the results of its call: the model says its second turn.
    fork = asks(ann, "What is it?", previous=third.request_id, previous_turns=1)
    assert await answer(asker, fork) == "it is 3"
    beyond = asks(ann, "And?", previous=third.request_id, previous_turns=5)
    reason, message = await refusal(asker, beyond)
    assert reason is Reason.REQUEST_INVALID
    assert "has 4 turns" in message
    for each in (second, fork, beyond):
        assert (await replayed(office.bus, journal(office, each.request_id))).differing == ()


async def test_what_somebody_else_said_and_what_nobody_said_sound_the_same(
    asker: Asker, ann: str, bob: str
) -> None:
    asked = asks(ann, turns("hello", "hello again"))
    await answer(asker, asked)
    foreign = await refusal(asker, asks(bob, "Hm?", previous=asked.request_id))
    unknown = await refusal(asker, asks(bob, "Hm?", previous="nothing"))
    assert foreign == unknown
    assert foreign[0] is Reason.NOT_FOUND


async def test_a_run_is_gone_on_with_once_it_is_over_also_where_it_was_called_off(
    office: Office, asker: Asker, ann: str, bob: str
) -> None:
    asked = asks(ann, turns([ENDLESS], "late"))
    asking = asyncio.create_task(asker.completion(asked))
    begun = partial(journal, office, asked.request_id)
    await asyncio.to_thread(eventually, lambda: len(begun()) == 2, what="the call of the tool")
    reason, message = await refusal(asker, asks(ann, "Hm?", previous=asked.request_id))
    assert reason is Reason.CONFLICT
    assert "still under way" in message
    assert (await refusal(asker, asks(bob, "Hm?", previous=asked.request_id)))[
        0
    ] is Reason.NOT_FOUND
    cancelled = RequestCancelled(
        request_id=asked.request_id, tenant=TENANT, cancelled_at=now(), deadline=asked.deadline
    )
    office.bus.send(REQUEST_CANCELLED, cancelled)
    with pytest.raises(RequestRefused):
        await asking
    # The turn whose call came to nothing is left out: the model has its turn once more.
    said = await kept(office, asked)
    assert [line.split()[0] for line in said.splitlines()] == ["user"]


async def test_a_client_goes_on_with_a_run_of_its_own(office: Office, ann: str) -> None:
    bus = office.bus
    async with Client(
        tenant=TENANT, principal=ann, kafka=bus.kafka, registry=bus.registry_settings
    ) as client:
        first = await client.run(KEEPER, turns("one", "two", "three"))
        second = await client.run(KEEPER, "Go on.", previous=first.request_id)
        assert second.completion.content == "two"
        fork = await client.run(KEEPER, "Go on.", previous=second.request_id, previous_turns=1)
        assert fork.completion.content == "two"


async def test_a_fact_is_found_in_a_later_run_by_whom_it_is_about_and_nobody_else(
    office: Office, asker: Asker, ann: str, bob: str
) -> None:
    recall = turns([["recall", {"query": "drinks"}]], "well")
    await answer(asker, asks(ann, turns([["remember", {"fact": "Ann likes tea."}]], "noted")))
    hers, his = asks(ann, recall), asks(bob, recall)
    for each in (hers, his):
        await answer(asker, each)
    [found] = outputs(office, hers)
    assert [each["fact"] for each in found["result"]] == ["Ann likes tea."]
    assert outputs(office, his) == [{"result": []}]


async def test_who_is_forgotten_has_said_nothing_and_is_known_to_nobody(
    office: Office, asker: Asker, eve: str
) -> None:
    asked = asks(eve, turns([["remember", {"fact": "Eve is 7."}]], "noted", "what?"))
    await answer(asker, asked)
    said = await kept(office, asked)
    [one] = command(office, "conversations", "--principal", eve, "--json").stdout.splitlines()
    assert json.loads(one)["request_id"] == asked.request_id
    assert "calls remember" in said
    assert said.splitlines()[-1].split() == ["assistant", "noted"]
    assert "Eve is 7." in command(office, "facts", "--principal", eve).stdout
    forgotten = command(office, "forget", "--principal", eve)
    assert (forgotten.returncode, forgotten.stderr) == (0, "")
    assert "1 conversations" in forgotten.stdout
    assert f"1 facts deleted in {FACTS}" in forgotten.stdout
    assert "nothing is written down" in command(office, "facts", "--principal", eve).stdout
    gone = await refusal(asker, asks(eve, "Hm?", previous=asked.request_id))
    assert gone[0] is Reason.NOT_FOUND


async def test_while_nothing_can_be_kept_runs_end_and_what_they_said_is_kept_later(
    office: Office, asker: Asker, ann: str, postgres: LocalStack
) -> None:
    first = asks(ann, turns("one", "two", "three"))
    await answer(asker, first)
    await asyncio.to_thread(postgres.stop, "postgres")
    meanwhile = asks(ann, turns("four", "five"))
    assert await answer(asker, meanwhile) == "four"
    reason, _ = await refusal(asker, asks(ann, "Go on.", previous=first.request_id))
    assert reason is Reason.PROVIDER_UNAVAILABLE
    # What was not kept yet is kept by who takes over.
    office.agents.kill()
    await asyncio.to_thread(postgres.start, "postgres")
    await asyncio.to_thread(postgres.wait_ready, ["postgres"])
    office.agents.start()
    await asyncio.to_thread(office.agents.ready, PATIENCE_S)
    assert await answer(asker, asks(ann, "Go on.", previous=first.request_id)) == "two"
    await kept(office, meanwhile)
    assert await answer(asker, asks(ann, "Go on.", previous=meanwhile.request_id)) == "five"
