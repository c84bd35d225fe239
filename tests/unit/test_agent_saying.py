"""What a run said in one form, and another release or another key says in another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from infra.bus import Publisher, Record
from infra.settings import KafkaSettings
from infra.signing import Signer, generate
from schemas.codec import Codec
from schemas.events import (
    EVENTS,
    AgentJournaled,
    InferenceReplied,
    InferenceRequested,
    Reason,
    Refusal,
)
from schemas.topics import AGENT_JOURNALED, Outgoing
from streams.agents.causes import Answered
from streams.agents.folding import fold
from streams.agents.kept import Kept
from streams.agents.saying import (
    Ready,
    Saying,
    claiming,
    is_meant,
    lost,
    renewed,
    said_before,
)
from tests.unit.agents import NOON
from tests.unit.test_run_trees import READER, journal

NOWHERE = KafkaSettings(bootstrap_servers="127.0.0.1:1")
# The registry's first id.
FIRST = {"a key": 0, "a release": 0, "another release": 1}
KEYS = {"a key": generate(), "another key": generate()}
OTHERS = ["another key", "another release"]


@asynccontextmanager
async def saying(form: str) -> AsyncIterator[Saying]:
    """Gives who says what runs lead to in a form of its own."""
    codec = Codec({name: at for at, name in enumerate(EVENTS, FIRST.get(form, 0))})
    publisher = Publisher(NOWHERE, codec, "agents")
    try:
        yield Saying(publisher, Signer(KEYS.get(form, KEYS["a key"])))
    finally:
        await publisher.close()


async def in_form(form: str) -> list[Ready]:
    """Returns what the first entry of a run leads to: it tells its caller, and asks its model."""
    async with saying(form) as says:
        return says.ready(await led_to())


async def led_to() -> tuple[Outgoing, ...]:
    return (await fold(None, journal()[0], READER)).outgoing


def kept(*entries: AgentJournaled) -> Kept:
    known = Kept()
    for offset, entry in enumerate(entries):
        assert known.take(entry, Record(AGENT_JOURNALED.name, 0, offset, None, b"", ()))
    return known


def request(ready: list[Ready]) -> Ready:
    [found] = [each for each in ready if each.request_id]
    return found


def answers(known: Kept, claim: str) -> bool:
    """Returns whether a run takes an answer under a claim for its own."""
    replied = InferenceReplied(
        request_id="request//acme//0",
        refusal=Refusal(reason=Reason.NOT_FOUND, message="no"),
        claim=claim,
        replied_at=NOON,
    )
    return is_meant(known, replied, Answered(number=0, replied=replied))


async def test_what_is_said_in_the_same_form_is_said_again_and_leaves_no_entry() -> None:
    once = await in_form("a key")
    entry = claiming(journal()[0], once)
    again = said_before(await in_form("a key"), entry, kept(entry))
    assert [each.changed for each in again] == [False] * len(again)
    assert [each.sent for each in lost(again, set(), set())] == [each.sent for each in once]
    assert renewed(entry, again, again, 1, NOON) is None


@pytest.mark.parametrize("form", OTHERS)
async def test_what_never_came_to_the_log_is_said_in_another_form_and_answered(form: str) -> None:
    once = await in_form("a key")
    entry = claiming(journal()[0], once)
    known = kept(entry)
    ready = said_before(await in_form(form), entry, known)
    asked = request(ready)
    assert asked.changed
    assert not answers(known, asked.claim)
    again = lost(ready, {asked.request_id}, set())
    assert again == ready
    new = renewed(entry, ready, again, 1, NOON)
    assert new is not None
    known = kept(entry, new)
    assert answers(known, asked.claim)
    assert answers(known, request(once).claim)
    assert not answers(known, "0" * 64)
    assert not answers(known, "")


@pytest.mark.parametrize("form", OTHERS)
async def test_what_lies_on_the_log_is_not_said_in_another_form(form: str) -> None:
    once = await in_form("a key")
    entry = claiming(journal()[0], once)
    ready = said_before(await in_form(form), entry, kept(entry))
    asked = request(ready)
    again = lost(ready, {asked.request_id}, {request(once).claim})
    assert again == [each for each in ready if each is not asked]
    assert renewed(entry, ready, again, 1, NOON) is None


@pytest.mark.parametrize("form", OTHERS)
async def test_what_a_run_does_not_wait_for_is_not_said_in_another_form(form: str) -> None:
    entry = claiming(journal()[0], await in_form("a key"))
    ready = said_before(await in_form(form), entry, kept(entry))
    assert request(ready) not in lost(ready, {"another"}, set())


@pytest.mark.parametrize("form", OTHERS)
async def test_a_form_that_the_journal_knows_leaves_no_second_entry(form: str) -> None:
    first = journal()[0]
    entry = claiming(first, await in_form("a key"))
    ready = said_before(await in_form(form), entry, kept(entry))
    asked = request(ready)
    new = renewed(entry, ready, ready, 1, NOON)
    assert new is not None
    for who in (form, "a key"):
        ready = said_before(await in_form(who), entry, kept(entry, new))
        # Whoever says it: if either lies there, neither is said; and if none does, one is.
        assert request(ready) not in lost(ready, {asked.request_id}, {asked.claim})
        again = lost(ready, {asked.request_id}, set())
        assert request(ready) in again
        assert renewed(entry, ready, again, 2, NOON) is None


async def test_an_entry_that_has_only_claims_changes_no_run() -> None:
    first = journal()[0]
    entry = claiming(first, await in_form("a key"))
    ready = said_before(await in_form("another key"), entry, kept(entry))
    new = renewed(entry, ready, ready, 1, NOON)
    assert new is not None
    before = await fold(None, entry, READER)
    after = await fold(before.folded, new, READER)
    assert after.folded == replace(before.folded, entries=2)
    assert (after.outgoing, after.ended) == ((), False)


async def test_claims_of_one_entry_are_none_of_another() -> None:
    entry = claiming(journal()[0], await in_form("a key"))
    ready = said_before(await in_form("another key"), entry, kept(entry))
    new = renewed(entry, ready, ready, 1, NOON)
    assert new is not None
    other = replace(entry, seq=0, cause_id=f"{entry.cause_id}0")
    known = kept(entry, new)
    ready = said_before(await in_form("a key"), other, known)
    assert [each.changed for each in ready] == [False] * len(ready)


async def test_a_request_of_before_there_were_claims_is_said_again_as_ever() -> None:
    entry = journal()[0]
    ready = said_before(await in_form("a key"), entry, kept(entry))
    assert isinstance(request(ready).said.event, InferenceRequested)
    assert lost(ready, set(), set()) == ready
    assert renewed(entry, ready, ready, 1, NOON) is None
