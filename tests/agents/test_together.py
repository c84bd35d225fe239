"""Agents that search, ask each other and hand over, from end to end; and what that costs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack, aclosing
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.asker import Asker, RequestRefused
from schemas.agents import call_id, run_id
from schemas.events import (
    AgentJournaled,
    InferenceRecorded,
    InferenceReplied,
    InferenceRequested,
    Reason,
)
from schemas.topics import AGENT_JOURNALED, INFERENCE_RECORDED, REQUEST_CANCELLED, root_of
from tests.agents.conftest import ADD, CLERK, ENDLESS, TENANT, WIPE, WORKERS, Office, wanted
from tests.agents.test_runs import SUM, cancel, told, turns
from tests.broker.pools import PATIENCE_S
from tests.harness import eventually, running, soon
from tests.seed import changes, publish

pytestmark = [pytest.mark.stack, pytest.mark.usefixtures("team")]

MODEL = "main.agents.model"
PRICED, BOOKS = "main.agents.priced", "main.agents.books"
LIBRARIAN, CHIEF, DESK = "main.agents.librarian", "main.agents.chief", "main.agents.desk"
HURRIED, LOOP, THRIFTY = "main.agents.hurried", "main.agents.loop", "main.agents.thrifty"
MODEST = "modest"
# Of what is left to each who asks, a tenth is time enough to say that it took too long.
HURRY_S = 75
# A turn has 10 tokens read and 5 written: it costs a cent.
PRICES = [{"input": 500, "output": 1000}]
A_TURN = Decimal("0.01")


def agent(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "kind": "agent",
        "name": name,
        "spec": {"endpoint": MODEL, **spec},
        "grants": {"everyone": ["EXECUTE"]},
    }


DOCUMENTS: list[dict[str, Any]] = [
    {"kind": "model", "name": "main.agents.weights", "spec": {"prices": PRICES}, "versions": [{}]},
    {
        "kind": "endpoint",
        "name": PRICED,
        "spec": {
            "routes": [
                {
                    "name": "local",
                    "pool": "played",
                    "model": "played",
                    "entity": "main.agents.weights",
                }
            ]
        },
    },
    {
        "kind": "index",
        "name": BOOKS,
        "spec": {
            "key_columns": ["id"],
            "text": "{body}",
            "columns": [{"name": "id", "type": "long"}],
        },
    },
    agent(LIBRARIAN, indexes=[BOOKS]),
    agent(CHIEF, agents=[CLERK], handoffs=[DESK]),
    agent(DESK, instructions="desk", tools=[ADD]),
    agent(HURRIED, agents=[CLERK], limits={"time": f"{HURRY_S}s"}),
    agent(LOOP, agents=[LOOP]),
    agent(THRIFTY, endpoint=PRICED, tools=[ADD], agents=[THRIFTY], limits={"cost": "0.04"}),
    {
        "kind": "policy",
        "name": "main.agents.one",
        "spec": {
            "rules": [
                {"type": "limit", "name": "one", "unit": "in_flight", "per": "tenant", "most": 1}
            ]
        },
    },
    {
        "kind": "tenant",
        "name": MODEST,
        "spec": {
            "accept_unsigned": True,
            "replies": [MODEST, TENANT],
            "policies": ["main.agents.one"],
        },
    },
]


@pytest.fixture(scope="module")
def team(office: Office, folder: Path) -> Iterator[None]:
    """Agents that reach each other, and an index that is played."""
    publish(office.bus, *changes(DOCUMENTS))
    index = [*WORKERS, "tests.agents.playing:open_index", "--pool", "search"]
    with ExitStack() as opened:
        opened.enter_context(running(office.bus, index, folder, start_s=PATIENCE_S))
        yield


def journal(office: Office, run: str) -> list[AgentJournaled]:
    return [e for e in office.bus.events(AGENT_JOURNALED, root_of(run)) if e.run_id == run]


def child(asked: InferenceRequested, number: int) -> str:
    """Returns the id of the run that a call of another began."""
    called = call_id(run_id(asked.request_id, asked.tenant), number)
    return run_id(called, asked.tenant)


async def replied(asker: Asker, asked: InferenceRequested) -> InferenceReplied:
    async with aclosing(asker.answers(asked)) as replies:
        return [each async for each in replies][-1]


async def said(asker: Asker, asked: InferenceRequested) -> str:
    completion = (await replied(asker, asked)).completion
    assert completion is not None
    return completion.content


def outputs(office: Office, asked: InferenceRequested) -> list[str]:
    """Returns what the calls of a run came to, as its caller was told."""
    items = [json.loads(each.item or "{}") for each in told(office, asked.request_id)]
    results = {
        each["id"]: each["output"] for each in items if "output" in each and "call_id" in each
    }
    return list(results.values())


async def test_an_agent_searches_an_index_and_cites_what_it_found(
    office: Office, asker: Asker
) -> None:
    search = ["books", {"query": "salt", "k": 2, "filters": {"id": 1}}]
    asked = wanted(turns([search], "It is salty [1.2]."), endpoint=LIBRARIAN)
    assert await said(asker, asked) == "It is salty [1.2]."
    [passages] = outputs(office, asked)
    assert "[1.1] salt 0" in passages
    end = json.loads(told(office, asked.request_id)[-1].item or "")
    [cited] = end["output"][0]["content"][0]["annotations"]
    assert (cited["type"], cited["key"], cited["version"]) == ("file_citation", {"id": 1}, "7")
    assert cited["filename"] == "main.agents.rows"


async def test_an_agent_asks_another_with_the_grants_of_the_caller(
    office: Office, asker: Asker
) -> None:
    errand = turns([SUM, ["wipe", {"a": 1, "b": 2}]], "three, and wipe I may not")
    asked = wanted(turns([["clerk", {"message": errand}]], "The clerk says three"), endpoint=CHIEF)
    assert await said(asker, asked) == "The clerk says three"
    [told_chief] = outputs(office, asked)
    assert told_chief == "three, and wipe I may not"
    run = child(asked, 1)
    assert journal(office, run)[-1].ended
    # It says nothing to the caller, who has asked another.
    assert {each.request_id for each in told(office, asked.request_id)} == {asked.request_id}
    assert office.did(asked.request_id) == [call_id(run, 1)]

    def refused() -> list[InferenceRecorded]:
        rows = {each.row_id: each for each in office.bus.events(INFERENCE_RECORDED)}
        return [each for each in rows.values() if each.request_id == call_id(run, 2)]

    eventually(refused, what="the row of the call that was refused")
    [row] = refused()
    assert (row.tenant, row.endpoint, row.reason) == (TENANT, WIPE, Reason.PRIVILEGE_MISSING)


async def test_agents_that_ask_themselves_come_to_an_end(office: Office, asker: Asker) -> None:
    script = turns("the bottom")
    for _ in range(9):
        script = turns([["loop", {"message": script}]], "up")
    asked = wanted(script, endpoint=LOOP)
    assert await said(asker, asked) == "up"
    runs = {each.run_id for each in office.bus.events(AGENT_JOURNALED, asked.request_id)}
    assert len(runs) == 10
    deepest = max(runs, key=len)
    [entry] = journal(office, deepest)
    assert entry.ended


async def test_a_run_that_is_cancelled_calls_off_what_the_agent_that_it_asked_waits_for(
    office: Office, asker: Asker
) -> None:
    asked = wanted(
        turns([["clerk", {"message": turns([ENDLESS], "late")}]], "late"), endpoint=CHIEF
    )
    run = child(asked, 1)
    asking = asyncio.create_task(asker.completion(asked))
    begun = partial(journal, office, run)
    await asyncio.to_thread(eventually, lambda: len(begun()) == 2, what="the tool of the other")
    cancel(office, asked)
    with pytest.raises(RequestRefused) as refused:
        await asking
    assert refused.value.refusal.reason is Reason.CANCELLED
    await asyncio.to_thread(eventually, lambda: begun()[-1].ended, what="the end of the other")

    def off() -> set[str]:
        return {each.request_id for each in office.bus.events(REQUEST_CANCELLED)}

    await asyncio.to_thread(
        eventually, lambda: call_id(run, 1) in off(), what="the tool to be called off"
    )
    assert office.did(asked.request_id) == []


async def test_who_is_asked_has_less_time_than_who_asks(office: Office, asker: Asker) -> None:
    script = turns([["clerk", {"message": turns([ENDLESS], "late")}]], "The clerk is slow")
    asked = wanted(script, endpoint=HURRIED)
    assert await said(asker, asked) == "The clerk is slow"
    # The tool ended before the clerk did, who had time to say so.
    assert outputs(office, asked) == ["late"]
    first = journal(office, child(asked, 1))[0]
    assert first.until is not None
    assert first.until - first.at < timedelta(seconds=HURRY_S)


async def test_the_agent_that_a_conversation_is_handed_to_answers_it(
    office: Office, asker: Asker
) -> None:
    script = json.dumps(
        {
            "turns": [[["transfer_to_desk", {}]]],
            "desk": [[SUM], "At the desk it is three"],
        }
    )
    asked = wanted(script, endpoint=CHIEF)
    assert await said(asker, asked) == "At the desk it is three"
    assert office.did(asked.request_id) == [call_id(child(asked, 1), 1)]
    end = told(office, asked.request_id)[-1]
    assert end.kind == "response.completed"
    assert len(journal(office, run_id(asked.request_id, TENANT))) == 3


async def test_a_tenant_that_may_ask_one_thing_at_a_time_is_in_nobodys_way(
    office: Office, asker: Asker
) -> None:
    gate = office.gate()
    script = turns([["clerk", {"message": turns([SUM, gate.call], "three")}]], "three")
    asked = wanted(script, endpoint=CHIEF, tenant=MODEST)
    asking = asyncio.create_task(asker.completion(asked))
    begun = partial(journal, office, child(asked, 1))
    await asyncio.to_thread(eventually, lambda: len(begun()) >= 2, what="the tools of the other")
    with pytest.raises(RequestRefused) as refused:
        await asker.completion(wanted(turns("no"), tenant=MODEST))
    assert refused.value.refusal.rule == "main.agents.one/one"
    gate.open()
    answer = await asking
    assert answer is not None
    assert answer.content == "three"

    async def next_one() -> bool:
        try:
            return await said(asker, wanted(turns("next"), tenant=MODEST)) == "next"
        except RequestRefused as refused:
            # Its slot is free a moment after the answer is there.
            if refused.refusal.rule != "main.agents.one/one":
                raise
            return False

    await soon(next_one, what="the next run")


async def test_a_run_costs_what_all_that_it_asked_costs(office: Office, asker: Asker) -> None:
    errand = turns([SUM], "three")
    asked = wanted(turns([["thrifty", {"message": errand}]], "three"), endpoint=THRIFTY)
    reply = await replied(asker, asked)
    assert reply.completion is not None
    assert reply.cost_usd == 4 * A_TURN

    def costs() -> dict[str, Decimal | None]:
        rows = office.bus.events(INFERENCE_RECORDED)
        return {e.request_id: e.cost for e in rows if root_of(e.request_id) == asked.request_id}

    eventually(lambda: len(costs()) == 7, what="a row of all that was asked")
    assert sum(cost or 0 for cost in costs().values()) == 4 * A_TURN
    assert costs()[asked.request_id] == 0


async def test_a_run_ends_when_it_cost_what_its_agent_may_spend(
    office: Office, asker: Asker
) -> None:
    asked = wanted(turns(*[[SUM]] * 9), endpoint=THRIFTY)
    with pytest.raises(RequestRefused) as refused:
        await asker.completion(asked)
    refusal = refused.value.refusal
    assert (refusal.reason, refusal.limit) == (Reason.LIMIT_EXCEEDED, "0.04")
    assert len(office.did(asked.request_id)) == 4
