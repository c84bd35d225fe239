"""Strict replays of runs, and what is said where a journal is not whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.events import AgentJournaled, InferenceRouted, Reason, Refusal
from streams.agents import folding
from streams.agents.folding import JournalUnsound, emitted, given_up
from streams.runs.journals import Journals
from streams.runs.replaying import replayed
from streams.runs_command import begun_by
from tests.unit.agents import added, answered, calls, result, said
from tests.unit.test_run_trees import READER, RUN, journal

ENTRIES = journal(answered(0, calls(added("one"))), answered(1, result(3)), answered(2, said("3.")))


def taken(*entries: AgentJournaled) -> Journals:
    journals = Journals()
    for entry in entries:
        journals.take(entry)
    return journals


async def test_a_run_is_the_same_to_the_byte() -> None:
    found = await replayed(ENTRIES, READER)
    assert (found.entries, found.differing, found.ended) == (4, (), True)
    assert found.events == sum(len(each.emitted) for each in ENTRIES)
    assert "the same to the byte" in found.to_words()
    assert "goes on" not in found.to_words()
    part = await replayed(ENTRIES[:2], READER)
    assert part.to_words().endswith("the same to the byte; it goes on")


async def test_an_entry_that_led_to_something_else_is_named() -> None:
    said_else = replace(ENTRIES[1], emitted=ENTRIES[1].emitted[:-1])
    with pytest.raises(JournalUnsound, match="entry 1"):
        await replayed([ENTRIES[0], said_else, *ENTRIES[2:]], READER)


async def test_what_another_release_wrote_in_another_form_is_told() -> None:
    [first, *more] = ENTRIES[1].emitted
    older = replace(first, digest=bytes(32), form="older")
    entries = [ENTRIES[0], replace(ENTRIES[1], emitted=(older, *more)), *ENTRIES[2:]]
    found = await replayed(entries, READER)
    assert found.differing == (1,)
    assert "entry 1" in found.to_words()


async def test_a_run_that_was_given_up_is_over() -> None:
    refusal = Refusal(reason=Reason.PROVIDER_FAILED, message="it cannot go on")
    last = replace(ENTRIES[1], refusal=refusal, ended=True)
    routed = await READER.read(ENTRIES[0].cause, InferenceRouted)
    outgoing = given_up(folding.begun_by(routed, ENTRIES[0]), ENTRIES[0], last)
    found = await replayed([ENTRIES[0], replace(last, emitted=emitted(outgoing))], READER)
    assert (found.ended, found.differing) == (True, ())


def test_a_journal_that_lacks_an_entry_is_told() -> None:
    whole, lacking = taken(*ENTRIES), taken(ENTRIES[0], *ENTRIES[2:])
    assert (whole.broken, len(whole[RUN])) == (set(), 4)
    assert (lacking.broken, len(lacking[RUN])) == ({RUN}, 1)
    # Its beginning is no longer kept.
    assert taken(*ENTRIES[1:]).broken == {RUN}
    # Of two with one number the first counts, and what comes behind the end is nobody's.
    assert taken(*ENTRIES, ENTRIES[1], replace(ENTRIES[3], seq=9)).broken == set()


def test_a_run_is_meant_by_its_request_or_its_own_id_with_those_that_it_began() -> None:
    own, other, child, strange = "r//acme", "r//blue", "r//acme//2//acme", "s//acme"
    known = {strange, child, other, own}
    assert begun_by("r//acme", known) == [own, child]
    assert sorted(begun_by("r", known)) == sorted([own, other, child])
    assert begun_by("r//acme//2", known) == [child]
    assert begun_by("r//acme//3", known) == []
