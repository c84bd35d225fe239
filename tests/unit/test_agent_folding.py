"""Journals that are taken in again, by the release that wrote them and by a later one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from schemas.events import AgentJournaled
from streams.agents.folding import JournalUnsound, fold
from tests.unit.agents import answered, said
from tests.unit.test_run_trees import READER, journal


def changed(entry: AgentJournaled, **how: Any) -> AgentJournaled:
    """Returns an entry that says something else of all that it led to."""
    return replace(entry, emitted=tuple(replace(each, **how) for each in entry.emitted))


async def test_an_entry_that_led_to_other_bytes_is_unsound() -> None:
    [first, _] = journal(answered(0, said("It is 7.")))
    with pytest.raises(JournalUnsound, match="something else"):
        await fold(None, changed(first, digest=b"other"), READER)


async def test_a_run_goes_on_that_began_before_what_it_emits_had_one_field_more() -> None:
    entries = journal(answered(0, said("It is 7.")))
    folded = None
    for entry in entries:
        taken = await fold(folded, changed(entry, digest=b"other", form="earlier"), READER)
        folded = taken.folded
    assert taken.ended


async def test_what_goes_to_another_topic_is_something_else_whatever_its_schema() -> None:
    [first, _] = journal(answered(0, said("It is 7.")))
    with pytest.raises(JournalUnsound, match="something else"):
        await fold(None, changed(first, topic="elsewhere", form="earlier"), READER)
