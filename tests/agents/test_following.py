"""Runs as their callers hear them: while they go on, afterwards, and from where they left off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest

from infra.asker import RequestRefused
from schemas.events import Reason, Sampling
from schemas.topics import INFERENCE_ROUTED, root_of
from streams.client import Client, RunEvent, RunUnknown
from tests.agents.conftest import CAREFUL, CLERK, LOST, TENANT, Office
from tests.agents.test_runs import SUM, journal, turns
from tests.harness import PATIENCE_S

pytestmark = pytest.mark.stack


@pytest.fixture
async def client(office: Office) -> AsyncIterator[Client]:
    registry = office.bus.registry_settings
    async with Client(tenant=TENANT, kafka=office.bus.kafka, registry=registry) as client:
        yield client


async def heard(client: Client, run: str, after: int = -1) -> list[RunEvent]:
    return [event async for event in client.follow(run, after)]


async def gather(events: AsyncGenerator[RunEvent, None], said: list[RunEvent]) -> None:
    async for event in events:
        said.append(event)


async def test_a_run_is_heard_as_it_goes_and_again_from_anywhere(client: Client) -> None:
    live = [event async for event in client.stream_run(CLERK, turns([SUM], "three"))]
    assert [event.seq for event in live] == list(range(len(live)))
    assert live[0].kind == "response.created"
    end = live[-1]
    assert (end.kind, end.reply and end.reply.content) == ("response.completed", "three")
    assert [event.reply for event in live[:-1]] == [None] * (len(live) - 1)
    run = end.reply.request_id if end.reply else ""
    assert await heard(client, run) == live
    assert await heard(client, run, after=3) == live[4:]
    # Whoever has heard all of it is told how it ended.
    assert await heard(client, run, after=99) == live[-1:]


async def test_an_answer_is_heard_as_the_model_says_it(client: Client, office: Office) -> None:
    begun, grows, answer = office.gate(), office.gate(), "one two three four"
    script = json.dumps({"turns": [[begun.call], answer], "gate": grows.number})
    live: list[RunEvent] = []
    async with aclosing(client.stream_run(CLERK, script)) as events:
        async for event in events:
            live.append(event)
            (grows if event.delta else begun).open()
    grown = [event for event in live if event.delta]
    # Where it is told whole before its last words are heard, they are not heard twice.
    assert answer.startswith("".join(event.delta for event in grown))
    assert grown[0].seq == grown[-1].seq < live[-1].seq
    told = [event for event in live if event.told]
    assert [event.seq for event in told if "output_text" not in event.kind][-2:] == [
        told[-1].seq - 1,
        told[-1].seq,
    ]
    assert told[-1].reply is not None
    again = await heard(client, told[-1].reply.request_id)
    assert [event.seq for event in again] == list(range(len(again)))
    assert again[-1] == live[-1]


async def test_whoever_comes_while_a_run_goes_on_hears_what_they_missed_and_the_rest(
    client: Client, office: Office
) -> None:
    gate = office.gate()
    run = await client.start_run(CLERK, turns([gate.call], "three"))
    async with aclosing(client.follow(run)) as events:
        first = await anext(events)
    assert first.seq == 0
    assert not journal(office, run)[-1].ended
    gate.open()
    rest = await heard(client, run, after=first.seq)
    assert [event.seq for event in rest] == list(range(1, len(rest) + 1))
    assert rest[-1].reply is not None
    assert rest[-1].reply.content == "three"


async def test_a_run_that_is_no_longer_heard_is_cancelled_and_tells_so(client: Client) -> None:
    async with aclosing(client.stream_run(CAREFUL, turns([SUM], "late"))) as events:
        created = await anext(events)
    run = str((created.item or {})["id"])
    with pytest.raises(RequestRefused) as refused:
        await asyncio.wait_for(heard(client, run), PATIENCE_S)
    assert refused.value.refusal.reason is Reason.CANCELLED


async def test_a_run_is_cancelled_by_its_id(client: Client) -> None:
    run = await client.start_run(CAREFUL, turns([SUM], "late"))
    await client.cancel(run)
    said: list[RunEvent] = []
    with pytest.raises(RequestRefused) as refused:
        await gather(client.follow(run), said)
    assert refused.value.refusal.reason is Reason.CANCELLED
    assert said[-1].is_end
    assert (said[-1].item or {})["status"] == "cancelled"


async def test_a_run_that_does_not_begin_is_told_like_any_other(client: Client) -> None:
    said: list[RunEvent] = []
    with pytest.raises(RequestRefused, match=r"there is no endpoint main\.agents\.gone"):
        await gather(client.stream_run(LOST, "hello"), said)
    assert [event.kind for event in said] == ["response.created", "response.failed"]
    with pytest.raises(RequestRefused, match=r"main\.agents\.nobody"):
        await client.start_run("main.agents.nobody", "hello")


async def test_a_run_that_told_nothing_is_answered_still(client: Client) -> None:
    reply = await client.run(CLERK, turns("once"))
    [end] = await heard(client, reply.request_id)
    assert (end.kind, end.item, end.reply) == ("response.completed", None, reply)


async def test_a_caller_says_how_tokens_are_drawn(client: Client, office: Office) -> None:
    reply = await client.run(CLERK, turns([SUM], "once"), sampling=Sampling(temperature=0.25))
    routed = office.bus.events(INFERENCE_ROUTED.member("played"))
    asked = {each.request.request_id: each.request for each in routed}
    own = [each for name, each in asked.items() if root_of(name) == reply.request_id]
    assert [each.sampling.temperature for each in own] == [0.25, 0.25]


async def test_a_run_that_nobody_knows_is_named(client: Client) -> None:
    with pytest.raises(RunUnknown, match="nothing of a run nothing"):
        await asyncio.wait_for(heard(client, "nothing"), PATIENCE_S)


async def test_runs_are_heard_side_by_side(client: Client) -> None:
    async def content(text: str) -> str:
        events = [event async for event in client.stream_run(CLERK, turns([SUM], text))]
        return events[-1].reply.content if events[-1].reply else ""

    texts = [f"run {number}" for number in range(8)]
    assert await asyncio.gather(*map(content, texts)) == texts
