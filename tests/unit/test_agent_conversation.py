"""Conversations: what a run leaves, and how another goes on with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.events import Message, Reason, Refusal, Role
from schemas.search import Hit
from streams.agents.causes import Cancelled
from streams.agents.conversation import NOTHING_SAID, Conversation, said_in
from streams.agents.progress import Step
from streams.agents.run import Run
from streams.agents.step import begin
from streams.agents.trimming import MOST_SAID, size
from streams.guards.placeholders import past, past_in_json
from tests.unit.agents import (
    NOON,
    added,
    after,
    answered,
    asked,
    begun,
    calls,
    definition,
    found,
    request,
    result,
    said,
    started,
)

WHALE = Hit(key={"isbn": "7"}, text="A whale.")


def ended() -> Run:
    """Returns a run of three turns: two calls at once, a search, and the answer."""
    return after(
        started().run,
        answered(0, calls(added("a"), added("b", 3, 4))),
        answered(1, result(3)),
        answered(2, result(7)),
        answered(3, calls(("c", "books", {"query": "whales"}))),
        answered(4, found(WHALE)),
        answered(5, said("A whale [4.1].")),
    ).run


def going_on(earlier: Conversation, text: str = "And now?") -> Step:
    """Returns the first step of a run that goes on with a conversation."""
    told = request(messages=(Message(role=Role.USER, content=text),))
    return begin(replace(begun(told), earlier=earlier), definition(), NOON)


def roles(messages: tuple[Message, ...]) -> str:
    """Returns who speaks, a letter each."""
    return "".join(each.role[0] for each in messages)


def test_what_is_kept_is_all_but_the_instructions_and_the_same_as_text() -> None:
    conversation = said_in(ended())
    assert roles(conversation.messages) == "UATTATA"
    assert conversation.turns == 3
    assert Conversation.from_json(conversation.to_json()) == conversation


def test_a_run_goes_on_behind_what_was_said_under_its_own_instructions() -> None:
    [turn] = asked(going_on(said_in(ended())))
    assert roles(turn.messages) == "SUATTATAU"
    assert turn.messages[-1].content == "And now?"


def test_a_passage_that_was_found_before_is_cited_and_a_new_one_is_told_from_it() -> None:
    step = going_on(said_in(ended()))
    first = step.run.first_number
    step = after(step.run, answered(first, calls(("d", "books", {"query": "ships"}))))
    step = after(step.run, answered(first + 1, found(Hit(key={"isbn": "8"}, text="A ship."))))
    step = after(step.run, answered(first + 2, said(f"[4.1] and [{first + 1}.1]")))
    assert [each.mark for each in step.run.citations] == ["4.1", f"{first + 1}.1"]
    assert step.run.citations[0].key == '{"isbn": "7"}'


def test_an_answer_that_names_no_passage_rests_on_none_of_earlier_runs() -> None:
    step = going_on(said_in(ended()))
    step = after(step.run, answered(step.run.first_number, said("Nothing.")))
    told = "".join(event.item or "" for _, event in step.outgoing if hasattr(event, "item"))
    assert '"annotations": []' in told


@pytest.mark.parametrize(
    ("turns", "left"), [(None, "UATTATA"), (1, "UATT"), (2, "UATTAT"), (3, "UATTATA")]
)
def test_a_fork_stands_behind_a_turn_and_all_that_it_called_for(
    turns: int | None, left: str
) -> None:
    forked = said_in(ended()).after(turns)
    assert isinstance(forked, Conversation)
    assert roles(forked.messages) == left


@pytest.mark.parametrize("turns", [-1, 0, 4])
def test_a_fork_behind_a_turn_that_there_is_not_is_refused(turns: int) -> None:
    refusal = said_in(ended()).after(turns)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.field) == (Reason.REQUEST_INVALID, "previous_turns")
    assert "has 3 turns" in refusal.message


def test_calls_that_came_to_nothing_are_not_kept() -> None:
    run = after(started().run, answered(0, calls(added("a"))), answered(1, result(3))).run
    run = after(run, answered(2, calls(added("b"), added("c"))), answered(3, result(3))).run
    assert roles(said_in(after(run, Cancelled()).run).messages) == "UAT"


def test_of_a_conversation_that_outgrew_a_request_the_oldest_is_left_out() -> None:
    step = started(messages=tuple(Message(role=Role.USER, content="x" * MOST_SAID) for _ in "ab"))
    conversation = said_in(after(step.run, answered(0, said("Long."))).run)
    assert size(conversation.messages) <= MOST_SAID + len("Long.")
    assert roles(conversation.messages).startswith("U")


def long_talk(*texts: str) -> Conversation:
    """Returns what is left of a conversation in which the model answered each of these texts."""
    conversation = NOTHING_SAID
    for text in texts:
        step = going_on(conversation, text)
        step = after(step.run, answered(step.run.first_number, said(f"To {text[-1]}.")))
        conversation = said_in(step.run)
    return conversation


def test_a_turn_has_the_same_number_when_older_ones_are_left_out() -> None:
    half = "x" * (MOST_SAID // 2)
    conversation = long_talk("1", f"{half}2", f"{half}3", "4")
    assert (conversation.gone, conversation.turns) == (1, 4)
    assert Conversation.from_json(conversation.to_json()) == conversation
    forked = conversation.after(3)
    assert isinstance(forked, Conversation)
    assert forked.messages[-1].content == "To 3."
    assert forked.turns == 3


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_a_fork_behind_a_turn_that_is_left_out_is_refused_and_says_so(turns: int) -> None:
    half = "x" * (MOST_SAID // 2)
    refusal = long_talk("1", f"{half}2", f"{half}3", "4").after(turns)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.field) == (Reason.REQUEST_INVALID, "previous_turns")
    assert ("the first 1 are left out" in refusal.message) is (turns == 1)


def test_what_a_model_cannot_read_any_more_counts_as_turns_of_its_own() -> None:
    step = going_on(long_talk(*("x" * 900 + str(n) for n in range(4))))
    too_long = Refusal(reason=Reason.CONTEXT_EXCEEDED, message="too long")
    first = step.run.first_number
    step = after(step.run, answered(first, too_long), answered(first + 1, said("To this.")))
    conversation = said_in(step.run)
    assert conversation.gone > 0
    assert conversation.turns == 5


def test_what_was_withheld_from_a_run_is_restored_by_no_later_one() -> None:
    step = after(
        started(messages=(Message(role=Role.USER, content="I am <EMAIL_ADDRESS_1>"),)).run,
        answered(0, calls(("a", "books", {"query": "<PERSON_2>"}))),
        answered(1, found()),
        answered(2, said("Hello <EMAIL_ADDRESS_1>")),
    )
    kept = said_in(step.run).to_json()
    assert "<" not in kept
    assert "[EMAIL_ADDRESS_1]" in kept
    assert "[PERSON_2]" in kept


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<PERSON>", "[PERSON]"),
        ("<person_1>", "[person_1]"),
        (r"<Email\_Address\_12>", r"[Email\_Address\_12]"),
        ("<b>1 < 2 > 1</b> <h1>", "<b>1 < 2 > 1</b> <h1>"),
    ],
)
def test_only_what_looks_like_a_placeholder_is_past(text: str, left: str) -> None:
    assert past(text) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"to": "\\u003cEMAIL_ADDRESS_1\\u003e"}', '{"to": "[EMAIL_ADDRESS_1]"}'),
        (r'{"<A_1>": [true, "<EMAIL\\_ADDRESS_1>"]}', r'{"[A_1]": [true, "[EMAIL\\_ADDRESS_1]"]}'),
        ("{<EMAIL_ADDRESS_1>", "{[EMAIL_ADDRESS_1]"),
    ],
)
def test_a_placeholder_is_past_however_json_writes_it(text: str, left: str) -> None:
    assert past_in_json(text) == left
