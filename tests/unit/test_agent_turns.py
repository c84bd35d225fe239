"""Turns of the model: what it is asked, what it may mend, and where a run ends."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from schemas.events import (
    Completion,
    FinishReason,
    InferenceRequested,
    Message,
    Reason,
    Refusal,
    RequestCancelled,
    Role,
    Task,
    Usage,
)
from streams.agents.causes import Cancelled, Cause, Decided, Expired
from streams.agents.progress import Step
from streams.agents.run import Run
from streams.agents.step import advance, begin
from streams.agents.trimming import LEFT_OUT, MOST_SAID
from streams.agents.turns import MOST_TRIMMED
from tests.unit.agents import (
    AGENT,
    HOUR,
    MODEL,
    NOON,
    SECOND,
    added,
    after,
    an_object,
    answered,
    asked,
    begun,
    calls,
    definition,
    emitted,
    found,
    limits,
    refusal,
    request,
    result,
    said,
    started,
)

COUNT = an_object(["count"], count={"type": "integer"})
FLY = calls(("x", "fly", {}))


def refused(step: Step) -> Refusal:
    assert step.ended is not None
    assert step.ended.refusal is not None
    assert asked(step) == []
    return step.ended.refusal


def completed(step: Step) -> Completion:
    assert step.ended is not None
    assert step.ended.completion is not None
    assert asked(step) == []
    return step.ended.completion


def turns(run: Run, *came: Completion | Refusal) -> Step:
    """Returns the last step of a run whose turns come to this, one after the other."""
    step = Step(run=run)
    for each in came:
        [model] = [call.number for call in step.run.calls if call.kind == "model"]
        step = after(step.run, answered(model, each))
    return step


def test_the_model_is_asked_in_the_name_of_the_caller() -> None:
    [turn] = asked(started(definition(output=COUNT)))
    assert (turn.request_id, turn.tenant, turn.principal) == ("request//acme//0", "acme", "ann")
    assert (turn.task, turn.endpoint) == (Task.CHAT, MODEL)
    assert turn.messages == (
        Message(role=Role.SYSTEM, content="Be brief."),
        Message(role=Role.USER, content="How many?"),
    )
    assert turn.sampling == request().sampling
    assert json.loads(turn.json_schema or "") == COUNT
    assert (turn.requested_at, turn.deadline) == (NOON, NOON + timedelta(minutes=10))
    assert turn.tags == {"team": "blue", "agent": AGENT}


def test_what_the_model_says_goes_to_a_caller_who_wants_parts_and_may_see_them() -> None:
    def parts(*, stream: bool, quiet: bool) -> tuple[bool, str | None]:
        step = begin(begun(request(stream=stream), quiet=quiet), definition(), NOON)
        [turn] = asked(step)
        return turn.stream, turn.parts_to

    assert parts(stream=True, quiet=False) == (True, "reply.v1.acme")
    assert parts(stream=True, quiet=True) == (False, None)
    assert parts(stream=False, quiet=False) == (False, None)


def test_without_instructions_the_caller_speaks_first() -> None:
    [turn] = asked(started(definition(instructions="")))
    assert turn.messages == request().messages


def test_an_answer_ends_a_run_and_costs_nothing_itself() -> None:
    step = turns(started().run, said("Seven."))
    completion = completed(step)
    assert (completion.content, completion.usage) == ("Seven.", Usage())
    assert completion.finish_reason is FinishReason.STOP
    assert step.run.ended
    assert step.run.usage == Usage(prompt_tokens=10, completion_tokens=5)


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.CONTENT_FILTER])
def test_an_answer_that_is_cut_says_so(reason: FinishReason) -> None:
    completion = completed(turns(started().run, said("Sev", finish_reason=reason)))
    assert completion.finish_reason is reason


def test_the_next_turn_has_all_that_was_said() -> None:
    step = after(started().run, answered(0, calls(added("one"))), answered(1, result(3)))
    [turn] = asked(step)
    assert turn.request_id == "request//acme//2"
    [call, told] = turn.messages[-2:]
    assert [each.id for each in call.tool_calls] == ["one"]
    assert told == Message(role=Role.TOOL, content='{"result": 3}', tool_call_id="one")


def test_a_model_that_calls_nothing_right_ends_the_run_after_its_repairs() -> None:
    step = turns(started(definition(repairs=2)).run, FLY, FLY)
    assert step.ended is None
    refusal = refused(turns(step.run, calls(("x", "add", {"a": "secret"}))))
    assert refusal.reason is Reason.ANSWER_UNKEPT
    assert "3 times in a row" in refusal.message
    assert "the arguments of add: breaks type of the schema" in refusal.message
    assert "secret" not in refusal.message


def test_a_name_that_the_model_made_up_is_not_told_the_caller() -> None:
    refusal = refused(turns(started(definition(repairs=0)).run, calls(("x", "my secret", {}))))
    assert "a tool that is not offered" in refusal.message
    assert "secret" not in refusal.message


def test_a_right_call_gives_all_repairs_back() -> None:
    run = turns(started(definition(repairs=1)).run, FLY).run
    step = after(run, answered(2, calls(added("one"), ("two", "fly", {}))), answered(3, result(3)))
    assert step.run.repairs == 0
    assert turns(step.run, FLY).ended is None
    assert turns(step.run, FLY, FLY).ended is not None


def test_an_answer_that_breaks_the_schema_is_mended() -> None:
    step = turns(started(definition(output=COUNT)).run, said('{"count": "seven"}'))
    [turn] = asked(step)
    [wrong, note] = turn.messages[-2:]
    assert wrong == Message(role=Role.ASSISTANT, content='{"count": "seven"}')
    assert note.role is Role.USER
    assert "$.count breaks type of the schema" in note.content
    assert completed(turns(step.run, said('{"count": 7}'))).content == '{"count": 7}'


def test_an_answer_that_is_not_mended_ends_the_run() -> None:
    run = started(definition(output=COUNT, repairs=1)).run
    refusal = refused(turns(run, said("seven"), said("eight")))
    assert refusal.reason is Reason.ANSWER_UNKEPT
    assert "the answer: no JSON" in refusal.message
    assert "eight" not in refusal.message


def test_an_answer_that_was_not_kept_where_it_was_made_is_mended_too() -> None:
    unkept = refusal(Reason.ANSWER_UNKEPT, "the arguments of add: no JSON")
    step = turns(started(definition(repairs=1)).run, unkept)
    [turn] = asked(step)
    assert "the arguments of add: no JSON" in turn.messages[-1].content
    assert refused(turns(step.run, unkept)).reason is Reason.ANSWER_UNKEPT


@pytest.mark.parametrize(
    "reason",
    [
        Reason.PROVIDER_FAILED,
        Reason.PROVIDER_TIMEOUT,
        Reason.PROVIDER_UNAVAILABLE,
        Reason.RATE_LIMITED,
    ],
)
def test_a_failure_that_may_pass_is_asked_again_once_a_turn(reason: Reason) -> None:
    run, failure = started().run, refusal(reason)
    step = turns(run, failure)
    [again] = asked(step)
    assert again.request_id == "request//acme//1"
    assert refused(turns(step.run, failure)) == failure
    step = after(step.run, answered(1, calls(added("one"))), answered(2, result(3)))
    assert turns(step.run, failure).ended is None


@pytest.mark.parametrize("reason", [Reason.BUDGET_EXCEEDED, Reason.PRIVILEGE_MISSING])
def test_a_refused_turn_ends_the_run_with_its_refusal(reason: Reason) -> None:
    assert refused(turns(started().run, refusal(reason))) == refusal(reason)


def test_a_plan_is_called_before_the_model_is_free() -> None:
    step = started(definition(plan=("add", "books")))
    assert [each.tool_choice for each in asked(step)] == ["add"]
    step = after(step.run, answered(0, calls(added("one"))), answered(1, result(3)))
    assert [each.tool_choice for each in asked(step)] == ["books"]
    books = calls(("two", "books", {"query": "x"}))
    step = after(step.run, answered(2, books), answered(3, found()))
    assert [each.tool_choice for each in asked(step)] == ["auto"]
    assert completed(turns(step.run, said("Three."))).content == "Three."


@pytest.mark.parametrize(
    "came",
    [
        calls(("x", "add", {"a": "one"})),
        refusal(Reason.ANSWER_UNKEPT),
        refusal(Reason.PROVIDER_FAILED),
        said("Seven."),
    ],
)
def test_what_a_plan_names_is_asked_for_until_it_is_called_right(
    came: Completion | Refusal,
) -> None:
    step = turns(started(definition(plan=("add",))).run, came)
    assert [each.tool_choice for each in asked(step)] == ["add"]


def test_a_model_that_does_not_keep_to_the_plan_ends_after_its_repairs() -> None:
    run = started(definition(plan=("add",), repairs=1)).run
    refusal = refused(turns(run, said("Seven."), said("Seven.")))
    assert refusal.reason is Reason.ANSWER_UNKEPT
    assert "add is to be called" in refusal.message


def test_a_model_that_loops_ends_at_the_turns_that_it_may_take() -> None:
    step = started(definition(limits=limits(turns=3)))
    for number in (0, 2, 4):
        step = after(step.run, answered(number, calls(added("x"))))
        step = after(step.run, answered(number + 1, result(0)))
    refusal = refused(step)
    assert (refusal.reason, refusal.limit, refusal.used) == (Reason.LIMIT_EXCEEDED, "3", "3")
    assert "limits.turns" in refusal.message


def test_a_run_asks_no_more_when_its_tokens_are_used() -> None:
    run = started(definition(limits=limits(tokens=15))).run
    refusal = refused(after(run, answered(0, calls(added("x"))), answered(1, result(0))))
    assert (refusal.reason, refusal.limit, refusal.used) == (Reason.LIMIT_EXCEEDED, "15", "15")
    assert "limits.tokens" in refusal.message
    assert completed(turns(run, said("Seven."))).content == "Seven."


def test_a_run_asks_no_more_when_it_cost_what_it_may() -> None:
    run = started(definition(limits=limits(cost="0.5"))).run
    run = after(run, answered(0, calls(added("x"), ("y", "expert", {"message": "?"})), "0.2")).run
    cheap = after(run, answered(1, result(0), "0"), answered(2, said("Yes."), "0.299999999999"))
    assert len(asked(cheap)) == 1
    step = after(run, answered(1, result(0), "0"), answered(2, said("Yes."), "0.30"))
    refusal = refused(step)
    assert (refusal.reason, refusal.limit, refusal.used) == (Reason.LIMIT_EXCEEDED, "0.5", "0.50")
    assert "limits.cost" in refusal.message
    assert step.ended is not None
    assert step.ended.cost == Decimal("0.5")


def test_a_run_whose_cost_is_bounded_asks_no_more_of_what_has_no_price() -> None:
    run = started(definition(limits=limits(cost="0.5"))).run
    step = after(run, answered(0, calls(added("x"))), answered(1, result(0), "0"))
    refusal = refused(step)
    assert refusal.reason is Reason.PRICE_UNKNOWN
    assert "set one on the model" in refusal.message
    assert step.ended is not None
    assert step.ended.cost is None


def test_what_was_refused_costs_nothing_unless_it_says_so() -> None:
    run = started().run
    step = after(run, answered(0, refusal(Reason.RATE_LIMITED)), answered(1, said("Seven."), "0.5"))
    assert step.ended is not None
    assert step.ended.cost == Decimal("0.5")
    step = after(run, answered(0, refusal(Reason.ANSWER_UNKEPT), "1"))
    assert step.run.cost == 1


@pytest.mark.parametrize(
    ("time", "named"),
    [("100s", "limits.time"), ("2h", "the deadline of the request"), ("9999999d", "the deadline")],
)
def test_a_run_ends_when_its_time_is_over(time: str, named: str) -> None:
    run = started(definition(limits=limits(time=time))).run
    before = advance(run, Expired(), run.deadline - SECOND)
    assert (before.run, before.outgoing) == (run, ())
    for cause in (Expired(), answered(0, said("late"))):
        refusal = refused(advance(run, cause, run.deadline))
        assert refusal.reason is Reason.DEADLINE_EXPIRED
        assert named in refusal.message


def test_a_cancelled_run_calls_off_what_it_waits_for() -> None:
    turn = calls(added("one"), added("two"), ("three", "wipe", {}))
    run = after(started().run, answered(0, turn), answered(1, result(3))).run
    step = advance(run, Cancelled(), NOON + SECOND)
    assert refused(step).reason is Reason.CANCELLED
    called_off = emitted(step, RequestCancelled)
    assert [each.request_id for each in called_off] == ["request//acme//2", "request//acme//3"]
    assert {each.tenant for each in called_off} == {"acme"}


@pytest.mark.parametrize(
    "cause",
    [
        Cancelled(),
        Decided(number=1, granted=True),
        Expired(),
        answered(0, said("again")),
        answered(0, refusal(Reason.PROVIDER_FAILED)),
    ],
)
@pytest.mark.parametrize("wait", [SECOND, HOUR])
def test_nothing_comes_after_the_end(cause: Cause, wait: timedelta) -> None:
    run = turns(started().run, said("Seven.")).run
    assert advance(run, cause, NOON + wait) == Step(run=run)


def test_an_agent_that_cannot_run_is_refused() -> None:
    why = refusal(Reason.NOT_FOUND, "there is no function")
    step = begin(begun(), why, NOON)
    assert refused(step) == why
    assert step.run.ended


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"deadline": NOON}, Reason.DEADLINE_EXPIRED),
        ({"request_id": "r" + "//acme//1" * 9}, Reason.LIMIT_EXCEEDED),
    ],
)
def test_what_is_too_late_or_too_deep_does_not_begin(
    changes: dict[str, Any], reason: Reason
) -> None:
    assert refused(started(**changes)).reason is reason


@pytest.mark.parametrize("reason", [Reason.CONTEXT_EXCEEDED, Reason.REQUEST_TOO_LARGE])
def test_a_conversation_that_is_too_long_is_shortened_a_few_times_a_turn(reason: Reason) -> None:
    exceeded = refusal(reason)
    run = after(started().run, answered(0, calls(added("one"))), answered(1, said("x" * 999))).run
    step = turns(run, exceeded)
    [turn] = asked(step)
    assert turn.messages[:2] == asked(started())[0].messages
    assert turn.messages[-1].content == LEFT_OUT
    for _ in range(MOST_TRIMMED):
        if step.ended is None:
            step = turns(step.run, exceeded)
    assert refused(step) == exceeded


def test_no_more_is_said_than_a_request_can_carry() -> None:
    turn = calls(*(added(f"call{number}") for number in range(60)))
    run = after(started(definition(limits=limits(parallel=64))).run, answered(0, turn)).run
    step = after(run, *(answered(number, said("x" * 15_000)) for number in range(1, 61)))
    [turn_after] = asked(step)
    lengths = [len(message.content) for message in turn_after.messages[-60:]]
    assert sum(lengths) < MOST_SAID
    assert lengths == sorted(lengths)
    assert lengths[-1] == 15_000


def test_a_request_that_was_taken_before_its_copy_is_still_to_be_answered() -> None:
    run = started().run
    step = turns(run, refusal(Reason.SIGNATURE_REPLAYED))
    assert (step.run, step.outgoing) == (run, ())


def test_a_conversation_of_which_nothing_can_go_is_too_long() -> None:
    exceeded = refusal(Reason.CONTEXT_EXCEEDED)
    assert refused(turns(started().run, exceeded)) == exceeded


def test_a_run_is_kept_without_what_it_has_twice() -> None:
    run = started().run
    assert run.request.messages == ()
    assert isinstance(run.request, InferenceRequested)
    assert Run.from_json(run.to_json()) == run
