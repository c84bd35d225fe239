"""What a model says that is cut amid it: it is told as cut, to the model and to who asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.events import FinishReason, Reason
from tests.unit.agents import TOOLS, asked, calls, definition, error, results, said, started
from tests.unit.test_agent_turns import COUNT, completed, refused, turns


@pytest.mark.parametrize(
    ("reason", "mends", "helps"),
    [
        (FinishReason.LENGTH, "say it in fewer words", "raise max_tokens, or ask for less"),
        (FinishReason.CONTENT_FILTER, "say it in other words", "ask for something else"),
    ],
)
def test_an_answer_that_breaks_the_schema_for_it_was_cut_is_told_as_cut(
    reason: FinishReason, mends: str, helps: str
) -> None:
    cut = said('{"count": 7, "titles": ["a secr', finish_reason=reason)
    step = turns(started(definition(output=COUNT, repairs=1)).run, cut)
    [turn] = asked(step)
    assert "the answer is no JSON" in turn.messages[-1].content
    assert "cut" in turn.messages[-1].content
    assert mends in turn.messages[-1].content
    refusal = refused(turns(step.run, cut))
    assert refusal.reason is Reason.ANSWER_UNKEPT
    assert "at last: the answer: no JSON, and " in refusal.message
    assert refusal.message.endswith(helps)
    assert "secr" not in refusal.message


def test_an_answer_that_is_cut_behind_its_end_is_taken_as_it_is() -> None:
    cut = said('{"count": 7}  ', finish_reason=FinishReason.LENGTH)
    completion = completed(turns(started(definition(output=COUNT)).run, cut))
    assert (completion.content, completion.finish_reason) == (cut.content, FinishReason.LENGTH)


def test_an_answer_that_is_cut_before_the_plan_was_kept_to_is_told_as_cut() -> None:
    cut = said("Well, first of all", finish_reason=FinishReason.LENGTH)
    [turn] = asked(turns(started(definition(plan=("add",))).run, cut))
    assert "add is to be called" in turn.messages[-1].content
    assert "it was cut at the most tokens" in turn.messages[-1].content


def test_of_calls_that_are_cut_the_last_is_told_as_cut() -> None:
    cut = calls(("one", "fly", {}), ("two", "add", '{"a": 1, "b'))
    run = started(definition(repairs=1)).run
    step = turns(run, replace(cut, finish_reason=FinishReason.LENGTH))
    first, last = (error(each)[1] for each in results(step).values())
    assert "cut" not in first
    assert "no JSON object" in last
    assert "it was cut at the most tokens that it may have: say it in fewer words" in last
    refusal = refused(turns(step.run, replace(cut, finish_reason=FinishReason.LENGTH)))
    assert "of add: no JSON object, and it was cut" in refusal.message


def test_a_call_that_is_cut_before_its_arguments_is_not_made_without_them() -> None:
    known = definition(tools={**TOOLS, "ping": TOOLS["wipe"].model_copy(update={"name": "ping"})})
    turn = calls(("one", "wipe", ""), ("two", "ping", ""))
    whole = turns(started(known).run, turn)
    assert [call.state for call in whole.run.calls] == ["approval", "approval"]
    cut = turns(started(known).run, replace(turn, finish_reason=FinishReason.LENGTH))
    assert [call.state for call in cut.run.calls] == ["approval", "answered"]
    assert "it was cut" in error(cut.run.calls[1].result)[1]
