"""What the model says in a run, heard as it says it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import AgentTold, Delta, InferenceReplied, Reason
from streams.agents.causes import Cause
from streams.agents.step import begin
from streams.client.told import InOrder, RunEvent
from tests.unit.agents import (
    NOON,
    added,
    answered,
    begun,
    calls,
    definition,
    refusal,
    result,
    said,
)
from tests.unit.test_agent_openai import strangers
from tests.unit.test_agent_told import heard, told_in

TOOLS: list[Cause] = [answered(0, calls(added("one"))), answered(1, result(3))]
ANSWER = "It is three."


def parts(*texts: str, turn: int = 2, attempt: int = 1, epoch: int = 7) -> list[InferenceReplied]:
    """Returns what a model says in a turn, in parts."""
    return [
        InferenceReplied(
            request_id=f"request//acme//{turn}",
            attempt=attempt,
            epoch=epoch,
            seq=seq,
            delta=Delta(content=text),
            replied_at=NOON,
        )
        for seq, text in enumerate(texts)
    ]


SPOKEN = parts("It ", "is ", "three.")


def run(*came: Iterable[AgentTold | InferenceReplied]) -> list[RunEvent]:
    """Returns what is heard of a run, of what comes in this order."""
    return [*_run(each for several in came for each in several)]


def _run(came: Iterable[AgentTold | InferenceReplied]) -> Iterator[RunEvent]:
    order = InOrder("request")
    for each in came:
        yield from order.take(each) if isinstance(each, AgentTold) else order.hear(each)


def split() -> tuple[list[AgentTold], list[AgentTold]]:
    """Returns what is told before the turn that answers, and the rest."""
    before = heard(*TOOLS)
    return before, heard(*TOOLS, answered(2, said(ANSWER)))[len(before) :]


def kinds(events: Iterable[RunEvent]) -> list[str]:
    return [each.kind.removeprefix("response.") for each in events]


def deltas(events: Iterable[RunEvent]) -> str:
    return "".join(each.delta for each in events)


def test_a_message_comes_as_it_grows_and_then_whole() -> None:
    before, rest = split()
    events = run(before, SPOKEN, rest)[len(before) :]
    assert kinds(events) == [
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 3,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert deltas(events) == ANSWER
    assert {each.output_index for each in events[:-1]} == {2}
    assert [each.told for each in events] == [False] * 5 + [True] * 4
    last = before[-1].seq
    assert [each.seq for each in events] == [last] * 5 + [last + 1, last + 1, last + 2, last + 3]


def test_each_event_of_a_message_is_as_the_models_of_openai_say() -> None:
    before, rest = split()
    for event in run(before, SPOKEN, rest):
        assert strangers(event) == set(), event.to_openai()


def test_what_comes_once_a_message_was_told_whole_adds_nothing() -> None:
    before, rest = split()
    assert run(before, rest[:2], SPOKEN, rest[2:]) == run(before, rest)
    assert run(before, rest, SPOKEN) == run(before, rest)


def test_a_message_whose_beginning_was_missed_comes_whole() -> None:
    before, rest = split()
    assert run(before, SPOKEN[1:], rest) == run(before, rest)
    # Nor is anything heard of a run that has told nothing yet.
    assert run(SPOKEN, before, rest) == run(before, rest)


@pytest.mark.parametrize("missing", [1, 2])
def test_behind_a_gap_nothing_more_is_heard_of_a_message(missing: int) -> None:
    before, rest = split()
    lacking = SPOKEN[:missing] + SPOKEN[missing + 1 :]
    events = run(before, lacking, rest)
    assert deltas(events) == "".join(["It ", "is ", "three."][:missing])
    whole = next(each for each in events if each.kind.endswith("output_text.done"))
    assert (whole.item or {})["content"][0]["text"] == ANSWER


def test_another_try_at_a_message_is_not_heard_beside_the_first() -> None:
    before, rest = split()
    again = parts("Three ", "it ", "is.", epoch=8)
    assert deltas(run(before, SPOKEN[:1], again, rest)) == "It "
    assert deltas(run(before, SPOKEN, again, rest)) == ANSWER


def test_a_message_that_was_no_answer_is_ended_before_the_next() -> None:
    [opening] = told_in(begin(begun(), definition(), NOON))
    before = parts("No ", "JSON", turn=0)
    after = parts("{}", turn=1)
    events = run([opening], before, after)
    assert kinds(events[5:]) == [
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
    ]
    broken = events[7].item or {}
    assert (broken["status"], broken["content"][0]["text"]) == ("incomplete", "No JSON")
    # What is said of it again, by a worker that was cut off, is late.
    assert run([opening], before, after, parts("No ", turn=0, epoch=9)) == events
    for event in events:
        assert strangers(event) == set(), event.to_openai()


def test_a_message_is_ended_before_the_end_of_a_run_that_failed() -> None:
    told = heard(answered(0, refusal(Reason.BUDGET_EXCEEDED)))
    events = run(told[:1], parts("Well", turn=0), told[1:])
    assert kinds(events)[-4:] == [
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "failed",
    ]


def test_what_was_asked_before_a_message_may_be_told_late() -> None:
    before, rest = split()
    events = run(before[:-2], SPOKEN[:2], before[-2:], SPOKEN[2:], rest)
    assert deltas(events) == ANSWER
    added_at = [each for each in events if each.kind.endswith("item.added")]
    assert [(each.item or {})["type"] for each in added_at] == [
        "function_call",
        "message",
        "function_call_output",
    ]


def test_nothing_is_heard_of_a_message_behind_which_more_was_asked() -> None:
    before, rest = split()
    assert run(before, parts("No JSON", turn=0), rest) == run(before, rest)


def test_what_other_runs_are_told_is_not_heard() -> None:
    before, rest = split()
    strange = [
        replace(each, request_id=name)
        for each in SPOKEN
        for name in ("request", "other//acme//2", "request//acme//1//acme//2", "request//acme//x")
    ]
    assert run(before, strange, rest) == run(before, rest)


@given(st.data())
def test_however_parts_come_what_is_told_whole_is_told_once(data: st.DataObject) -> None:
    before, rest = split()
    tries = SPOKEN + parts("Three ", "it is.", attempt=2) + parts("x", turn=0)
    came: list[AgentTold | InferenceReplied] = [*before, *rest]
    for part in data.draw(st.lists(st.sampled_from(tries), max_size=12)):
        came.insert(data.draw(st.integers(0, len(came))), part)
    events = run(came)
    ended = [each.item for each in events if each.kind.endswith("item.done")]
    whole = [each for each in ended if each and each.get("status") != "incomplete"]
    assert whole == [each.item for each in run(before, rest) if each.kind.endswith("item.done")]
    begun = [(each.item or {})["id"] for each in events if each.kind.endswith("item.added")]
    assert len(begun) == len(set(begun))
    told = [each.seq for each in events]
    assert told == sorted(told)
    assert len([each for each in events if each.is_end]) == 1
