"""Requests that runs said in another form before: by an earlier release, or with another key."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import pytest

from infra.asker import Asker
from infra.bus import Publisher, Record
from infra.serving import AGENT_POOL
from infra.signing import Signer, claim, claimed, generate
from infra.telemetry import now
from schemas.agents import Definition, call_id, run_id
from schemas.events import AgentJournaled, InferenceRequested, InferenceRouted
from schemas.kinds import Key
from schemas.topics import (
    AGENT_JOURNALED,
    INFERENCE_REQUESTED,
    INFERENCE_ROUTED,
    REPLY,
    Outgoing,
    Topic,
)
from streams.agents.folding import begin_run, begun_by, emitted, is_said_again
from streams.agents.lying import Requests
from tests.agents.conftest import CLERK, PLATFORM, TENANT, Office, wanted
from tests.agents.test_kept import differences
from tests.agents.test_runs import journal, turns
from tests.broker.pools import PATIENCE_S
from tests.harness import Bus, eventually, unique
from tests.seed import SEEDED, changed, publish

pytestmark = pytest.mark.stack

LOOKS = 40
ROUTED: Topic[InferenceRouted] = INFERENCE_ROUTED.member(AGENT_POOL)


@contextmanager
def nobody(office: Office) -> Iterator[None]:
    """Has nobody run agents amid the block."""
    assert office.agents.stop() == 0
    try:
        yield
    finally:
        office.agents.start()
        office.agents.ready(PATIENCE_S)


def routed(office: Office, asked: InferenceRequested) -> list[Record]:
    """Returns what the gateway made of a request."""
    return [
        each
        for each in office.bus.records(ROUTED.name)
        if office.bus.codec.decode(each.value, InferenceRouted).request.request_id
        == asked.request_id
    ]


@dataclass(frozen=True, slots=True)
class Before:
    """A process of agents that ended, and signed with a key of its own."""

    office: Office
    signer: Signer

    def took_in(self, record: Record) -> Outgoing:
        """Puts the first entry of a run on the journal; returns what it asks its model."""
        codec = self.office.bus.codec
        event = codec.decode(record.value, InferenceRouted)
        definition = Definition(agent=CLERK, endpoint="main.agents.model")
        entry = AgentJournaled(
            run_id=run_id(event.request.request_id, TENANT),
            tenant=TENANT,
            agent=CLERK,
            seq=0,
            cause_id=f"{record.topic}/{record.partition}/{record.offset}",
            cause_topic=record.topic,
            cause=record.value or b"",
            definition=definition.model_dump_json(),
            reply_to=REPLY.member(PLATFORM).name,
            at=now(),
            until=event.request.deadline,
        )
        outgoing = begin_run(begun_by(event, entry), definition, entry).outgoing
        [asks] = [each for each in outgoing if isinstance(each.event, InferenceRequested)]
        value = codec.encode(asks.event)
        proof = claim(claimed(self.signed(asks), value))
        said = tuple(
            replace(each, claim=proof if each.topic == asks.topic.name else "")
            for each in emitted(outgoing)
        )
        self.office.bus.send(AGENT_JOURNALED, replace(entry, emitted=said))
        return asks

    def signed(self, asks: Outgoing) -> list[tuple[str, bytes]]:
        """Returns what proves that a request is its own."""
        assert isinstance(asks.event, InferenceRequested)
        value, key = self.office.bus.codec.encode(asks.event), asks.topic.key(asks.event).encode()
        headers = self.signer.headers(asks.topic.name, key, asks.event.deadline, value)
        return [(name, content or b"") for name, content in headers]

    def asked(self, asks: Outgoing) -> None:
        """Puts a request on the log."""
        bus = self.office.bus
        key = asks.topic.key(asks.event).encode()
        value = bus.codec.encode(asks.event)
        bus.put(asks.topic.name, key, value, headers=self.signed(asks))
        bus.settle()


@pytest.fixture
def before(office: Office) -> Before:
    """Who ran agents before; the catalog knows its key."""
    signer = Signer(generate())
    public = base64.b64encode(signer.public_key).decode()
    key = Key(principal="agents", public_key=public, not_before=SEEDED)
    publish(office.bus, changed("key", signer.key_id, key))
    return Before(office, signer)


def turns_asked(office: Office, asked: InferenceRequested) -> int:
    """Returns how often the run of a request asked for its first turn."""
    turn = call_id(run_id(asked.request_id, TENANT), 0)
    events = office.bus.events(INFERENCE_REQUESTED, TENANT)
    return sum(each.request_id == turn for each in events)


@pytest.mark.parametrize("lies", [False, True])
async def test_a_run_hears_its_answer_whoever_asked_with_whichever_key(
    office: Office, asker: Asker, before: Before, *, lies: bool
) -> None:
    asked = wanted(turns("it is 3"))
    with nobody(office):
        asking = asyncio.create_task(asker.completion(asked))
        came = partial(routed, office, asked)
        await asyncio.to_thread(eventually, came, PATIENCE_S, "a run that is to begin")
        asks = before.took_in(came()[0])
        if lies:
            before.asked(asks)
    answer = await asyncio.wait_for(asking, PATIENCE_S)
    assert answer is not None
    assert answer.content == "it is 3"
    assert turns_asked(office, asked) == 1
    entries = journal(office, asked.request_id)
    assert [is_said_again(each) for each in entries] == [False] + [True] * (not lies) + [False]
    assert await differences(office, entries) == []


async def test_of_many_who_look_for_requests_at_once_each_finds_those_that_lie_there(
    bus: Bus,
) -> None:
    topic = replace(INFERENCE_REQUESTED, name=unique("asked"))
    bus.make(topic)
    signer, claims = Signer(generate()), []
    for number in range(LOOKS):
        key, value = f"tenant-{number % 7}".encode(), f"request {number}".encode()
        headers = signer.headers(topic.name, key, now(), value)
        claims.append((key, claim(claimed(headers, value))))
        # Others are not on the log.
        if number % 2:
            bus.put(topic.name, key, value, headers=[*headers])
        # What is unsigned lies between.
        bus.put(topic.name, key, value)
    bus.settle()
    publisher = Publisher(bus.kafka, bus.codec, unique("agents"))
    requests = Requests(bus.kafka, publisher, unique("agents"))
    looks = (requests.lying([(topic.name, key)], [proof], now()) for key, proof in claims)
    found = await asyncio.gather(*looks)
    assert found == [{proof} if at % 2 else set() for at, (_, proof) in enumerate(claims)]
    # None of another topic, or of nobody.
    assert await requests.lying([], [claims[1][1]], now()) == set()
    await publisher.close()
