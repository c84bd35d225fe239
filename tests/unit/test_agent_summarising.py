"""What a model is told of a conversation that it cannot read at once any more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from schemas.events import Completion, Message, Reason, Refusal, Role, Task, Usage
from streams.agents.progress import Step
from streams.agents.run import Run
from streams.agents.summarising import ASKED, MOST_CHARACTERS, TOLD, with_summary
from streams.agents.trimming import LEFT_OUT
from tests.unit.agents import (
    MODEL,
    NOON,
    added,
    after,
    answered,
    asked,
    calls,
    definition,
    limits,
    refusal,
    request,
    said,
    started,
)

EXCEEDED = refusal(Reason.CONTEXT_EXCEEDED)
QUESTION = request().messages[0]
OLD = (
    Message(role=Role.USER, content="Hello, I am Ann." * 9),
    Message(role=Role.ASSISTANT, content="Hello, Ann." * 9),
)


def told(content: str) -> Message:
    return Message(role=Role.USER, content=f"{TOLD}\n{content}")


def exceeded(**changes: Any) -> Step:
    """Returns the step with which a turn is too long that follows on a long result."""
    known = definition(**{"summarise": True, **changes})
    run = started(known, messages=(*OLD, QUESTION)).run
    long = said("the weight is 7 kg " * 99)
    run = after(run, answered(0, calls(added("one"))), answered(1, long)).run
    return after(run, answered(2, EXCEEDED))


def summed_up(run: Run, came: Completion | Refusal) -> tuple[Message, ...]:
    """Returns what the model is told after its answer to what it is to sum up."""
    [turn] = asked(after(run, answered(3, came)))
    assert turn.tools
    return turn.messages


def test_a_model_is_asked_to_sum_up_what_it_is_not_told_any_more() -> None:
    [question] = asked(exceeded())
    assert (question.task, question.endpoint, question.tools) == (Task.CHAT, MODEL, ())
    assert (question.request_id, question.principal) == ("request//acme//3", "ann")
    [rules, gone] = question.messages
    assert rules == Message(role=Role.SYSTEM, content=ASKED)
    assert gone.content.startswith("tool: the weight is 7 kg")
    assert question.deadline == NOON + timedelta(minutes=9, seconds=0.1)


def test_its_summary_stands_where_the_conversation_begins() -> None:
    step = exceeded()
    messages = summed_up(step.run, said(" It weighs 7 kg. "))
    assert messages[0].role is Role.SYSTEM
    assert messages[1:4] == (told("It weighs 7 kg."), *OLD)
    assert messages[-1].content == LEFT_OUT
    run = after(step.run, answered(3, said("It weighs 7 kg."))).run
    assert run.usage == Usage(prompt_tokens=20, completion_tokens=10)
    assert run.turns == 4


def test_a_summary_is_summed_up_with_what_came_after_it() -> None:
    run = after(exceeded().run, answered(3, said("It weighs 7 kg."))).run
    [question] = asked(after(run, answered(4, EXCEEDED)))
    gone = question.messages[1].content
    assert gone.startswith(f"user: {TOLD}\nIt weighs 7 kg.")
    step = after(run, answered(4, EXCEEDED), answered(5, said("Ann wants a weight.")))
    messages = asked(step)[0].messages
    assert told("Ann wants a weight.") in messages
    assert told("It weighs 7 kg.") not in messages


@pytest.mark.parametrize("came", [refusal(Reason.PROVIDER_FAILED), EXCEEDED, said(" ")])
def test_without_a_summary_the_rest_is_left_out_all_the_same(came: Completion | Refusal) -> None:
    messages = summed_up(exceeded().run, came)
    assert messages[1:3] == OLD
    assert messages[-1].content == LEFT_OUT


@pytest.mark.parametrize("changes", [{"summarise": False}, {"limits": limits(turns=3)}])
def test_nothing_is_summed_up_unasked_or_with_the_last_turn(changes: dict[str, Any]) -> None:
    [turn] = asked(exceeded(**changes))
    assert turn.messages[-1].content == LEFT_OUT


@pytest.mark.parametrize(("gone", "most"), [(100, 50), (100_000, MOST_CHARACTERS)])
def test_a_summary_is_shorter_than_what_it_sums_up(gone: int, most: int) -> None:
    left = with_summary((), [Message(role=Role.USER, content="x" * gone)], "y" * 10_000)
    assert left == (told("y" * most),)
