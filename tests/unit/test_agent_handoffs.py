"""An agent that hands the conversation over to another."""

from __future__ import annotations

import json

import pytest

from schemas.agents import Definition
from schemas.events import (
    AgentTold,
    Completion,
    FinishReason,
    InferenceRequested,
    Message,
    Reason,
    Role,
    Task,
)
from schemas.search import Hit
from streams.agents.causes import Decided
from streams.agents.definition import resolve
from streams.agents.progress import Step
from tests.seed import view_of
from tests.unit.agents import (
    ADD,
    AGENT,
    CATALOG,
    DESK,
    EXPERT,
    TOOLS,
    added,
    after,
    an_object,
    answered,
    asked,
    calls,
    definition,
    emitted,
    error,
    found,
    limits,
    refusal,
    request,
    result,
    results,
    said,
    spec,
    started,
)

HAND_OVER = calls(("x", "transfer_to_desk", {}))


def over(known: Definition | None = None) -> Step:
    """Returns the step that asks the other agent; it waits for call 1."""
    return after(started(known).run, answered(0, HAND_OVER))


def ended(step: Step) -> Completion:
    assert step.ended is not None
    assert step.ended.completion is not None
    return step.ended.completion


def test_an_agent_is_offered_by_the_name_that_models_know() -> None:
    known = resolve(AGENT, spec(agents=[EXPERT], handoffs=[EXPERT]), view_of(CATALOG))
    assert isinstance(known, Definition)
    tool = known.tools["transfer_to_expert"]
    assert (tool.kind, tool.target, known.tools["expert"].kind) == ("handoff", EXPERT, "agent")
    assert EXPERT in tool.description
    missing = resolve(AGENT, spec(handoffs=[ADD]), view_of(CATALOG))
    assert f"there is no agent {ADD}" in str(missing)


def test_the_other_agent_is_told_what_was_said_and_not_how_to_be() -> None:
    step = after(started().run, answered(0, calls(added("one"))), answered(1, result(3)))
    [handed] = asked(after(step.run, answered(2, HAND_OVER)))
    assert (handed.task, handed.endpoint, handed.request_id) == (
        Task.AGENT,
        DESK,
        "request//acme//3",
    )
    assert (handed.tenant, handed.principal, handed.tools) == ("acme", "ann", ())
    assert handed.sampling == request().sampling
    assert handed.messages == asked(step)[0].messages[1:]
    assert [each.role for each in handed.messages] == [Role.USER, Role.ASSISTANT, Role.TOOL]


def test_without_instructions_all_that_was_said_is_handed_over() -> None:
    [handed] = asked(over(definition(instructions="")))
    assert handed.messages == request().messages


def test_its_answer_is_the_answer_of_the_run() -> None:
    step = after(over().run, answered(1, said("I can.")))
    completion = ended(step)
    assert (completion.content, completion.finish_reason) == ("I can.", FinishReason.STOP)
    assert asked(step) == []
    assert step.run.transcript[-1] == Message(role=Role.ASSISTANT, content="I can.")
    items = [json.loads(each.item or "") for each in emitted(step, AgentTold)]
    message, response = items[-2:]
    assert message["content"][0]["text"] == "I can."
    assert response["output"] == [message]
    assert len({each["id"] for each in items[:-1]}) == 3


def test_what_it_cites_is_not_what_this_run_found() -> None:
    books = calls(("one", "books", {"query": "x"}))
    passages = found(Hit(key={"id": 1}, text="Seven."))
    run = after(started().run, answered(0, books), answered(1, passages)).run
    step = after(run, answered(2, HAND_OVER), answered(3, said("Eight. [1.1]")))
    *_, message, _ = [json.loads(each.item or "") for each in emitted(step, AgentTold)]
    assert message["content"][0]["annotations"] == []
    assert [each.mark for each in step.run.citations] == ["1.1"]


def test_an_answer_that_was_cut_ends_the_run_as_cut() -> None:
    cut = said("I ca", finish_reason=FinishReason.LENGTH)
    assert ended(after(over().run, answered(1, cut))).finish_reason is FinishReason.LENGTH


def test_a_model_whose_conversation_nobody_takes_goes_on_itself() -> None:
    step = after(over().run, answered(1, refusal(Reason.PRIVILEGE_MISSING, "you may not")))
    assert error(results(step)["x"]) == (Reason.PRIVILEGE_MISSING, "you may not")
    assert ended(after(step.run, answered(2, said("Then I say it.")))).content == "Then I say it."


def test_an_answer_that_is_not_what_the_agent_promises_is_not_taken() -> None:
    known = definition(output=an_object(["n"], n={"type": "integer"}))
    run = over(known).run
    kind, why = error(results(after(run, answered(1, said("seven"))))["x"])
    assert (kind, why) == (Reason.ANSWER_UNKEPT, "the answer is no JSON")
    assert ended(after(run, answered(1, said('{"n": 7}')))).content == '{"n": 7}'


@pytest.mark.parametrize("beside", [added("one"), ("one", "transfer_to_desk", {})])
def test_a_conversation_is_handed_over_alone(beside: tuple[str, str, object]) -> None:
    turn = calls(("x", "transfer_to_desk", {}), beside)
    step = after(started(definition(limits=limits(parallel=1))).run, answered(0, turn))
    assert [each for each in asked(step) if each.task is Task.AGENT] == []
    while not any(each.task is Task.CHAT for each in asked(step)):
        step = after(step.run, answered(2, result(3)))
    kind, why = error(results(step)["x"])
    assert kind == "arguments"
    assert "by itself" in why


def test_a_person_may_have_to_let_it_go() -> None:
    tools = {
        **TOOLS,
        "transfer_to_desk": TOOLS["transfer_to_desk"].model_copy(update={"approval": True}),
    }
    step = over(definition(tools=tools))
    assert asked(step) == []
    [handed] = emitted(after(step.run, Decided(number=1, granted=True)), InferenceRequested)
    assert handed.messages == request().messages
