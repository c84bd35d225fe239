"""What the caller of a run is told, in the form of the Responses API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.agents import Definition
from schemas.events import AgentTold, Completion, FinishReason, Reason, Refusal
from schemas.search import Hit
from schemas.topics import AGENT_TOLD
from streams.agents.causes import Cancelled, Cause, Decided, Expired
from streams.agents.progress import Step
from streams.agents.step import advance, begin
from tests.unit.agents import (
    AGENT,
    BOOKS,
    HOUR,
    NOON,
    SECOND,
    WIPE,
    added,
    answered,
    begun,
    calls,
    definition,
    found,
    limits,
    refusal,
    request,
    result,
    said,
)

Told = tuple[str, Any]


def heard(
    *came: Cause, quiet: bool = False, stream: bool = True, of: Definition | None = None
) -> list[AgentTold]:
    """Returns all that the caller hears of a run that takes this in."""
    step = begin(begun(request(stream=stream), quiet=quiet), of or definition(), NOON)
    steps = [step]
    for place, cause in enumerate(came, start=1):
        step = advance(step.run, cause, NOON + place * SECOND)
        steps.append(step)
    return [told for step in steps for told in told_in(step)]


def told_in(step: Step) -> list[AgentTold]:
    """Returns what a step tells."""
    told = [(topic, event) for topic, event in step.outgoing if isinstance(event, AgentTold)]
    assert {topic.name for topic, _ in told} <= {AGENT_TOLD.member("acme").name}
    return [event for _, event in told]


def items(*came: Cause, of: Definition | None = None) -> list[Told]:
    return [
        (told.kind.removeprefix("response."), json.loads(told.item or ""))
        for told in heard(*came, of=of)
    ]


def outline(*came: Cause) -> list[tuple[str, str]]:
    return [(kind, item.get("type", item.get("status"))) for kind, item in items(*came)]


def test_a_run_is_told_from_its_beginning_to_its_end_without_gaps() -> None:
    told = heard(answered(0, calls(added("one"))), answered(1, result(3)), answered(2, said("3.")))
    assert [each.seq for each in told] == list(range(len(told)))
    assert {(each.request_id, each.tenant) for each in told} == {("request", "acme")}
    assert outline(
        answered(0, calls(added("one"))), answered(1, result(3)), answered(2, said("3."))
    ) == [
        ("created", "in_progress"),
        ("output_item.added", "function_call"),
        ("output_item.done", "function_call"),
        ("output_item.added", "function_call_output"),
        ("output_item.done", "function_call_output"),
        ("output_item.added", "message"),
        ("output_item.done", "message"),
        ("completed", "completed"),
    ]


def test_a_call_is_told_with_what_it_came_to() -> None:
    told = items(answered(0, calls(added("one"))), answered(1, result(3)))
    [begins, done, _, output] = [item for _, item in told[1:]]
    assert begins == {
        "type": "function_call",
        "id": "request//acme//1",
        "call_id": "one",
        "name": "add",
        "arguments": '{"a": 1, "b": 2}',
        "status": "in_progress",
    }
    assert done == {**begins, "status": "completed"}
    assert (output["call_id"], output["output"]) == ("one", '{"result": 3}')


def test_the_end_has_the_answer_and_the_tokens_of_all_turns() -> None:
    came = (answered(0, calls(added("one"))), answered(1, result(3)), answered(2, said("3.")))
    _, response = items(*came)[-1]
    assert (response["id"], response["object"], response["model"]) == ("request", "response", AGENT)
    assert response["created_at"] == int((NOON - SECOND).timestamp())
    assert response["output"][0]["content"][0]["text"] == "3."
    assert response["usage"]["input_tokens"] == 20
    assert response["usage"]["total_tokens"] == 30


HIT = Hit(key={"isbn": 7}, text="Call me Ishmael.", position=2, source="main.tests.b", version="9")
SEARCHED = (answered(0, calls(("one", "books", {"query": "whales"}))), answered(1, found(HIT, HIT)))


@pytest.mark.parametrize(
    ("text", "where"),
    [("He said so [1.2].", [11]), ("[1.1][1.2][9.9]", [0, 5]), ("He said so.", [11, 11])],
)
def test_an_answer_cites_what_it_names_or_all_that_was_found(text: str, where: list[int]) -> None:
    [_, message] = items(*SEARCHED, answered(2, said(text)))[-2]
    annotations = message["content"][0]["annotations"]
    assert [each["index"] for each in annotations] == where
    assert annotations[0] == {
        "type": "file_citation",
        "index": where[0],
        "file_id": f'{BOOKS}/{{"isbn": 7}}',
        "filename": "main.tests.b",
        "key": {"isbn": 7},
        "version": "9",
        "position": 2,
    }


def test_a_text_beside_calls_is_told_before_them() -> None:
    asking = calls(added("one"))
    turn = said("Let me see.", tool_calls=asking.tool_calls)
    assert [each for _, each in outline(answered(0, turn))][1:4] == [
        "message",
        "message",
        "function_call",
    ]


def test_an_approval_is_told_as_one_for_a_tool() -> None:
    told = items(
        answered(0, calls(("one", "wipe", {}))),
        Decided(number=1, granted=False, principal="bob", reason="no"),
    )
    approvals = [(kind, item) for kind, item in told if "approval" in item.get("type", "")]
    assert [kind for kind, _ in approvals] == ["output_item.added", "output_item.done"] * 2
    wanted, decided = (item for kind, item in approvals if kind.endswith("done"))
    assert (wanted["type"], wanted["server_label"]) == ("mcp_approval_request", WIPE)
    assert decided["type"] == "mcp_approval_response"
    assert decided["approval_request_id"] == wanted["id"]
    assert (decided["approve"], decided["reason"]) == (False, "no")


@pytest.mark.parametrize(
    ("came", "kind", "incomplete", "code"),
    [
        (refusal(Reason.BUDGET_EXCEEDED), "failed", None, "BUDGET_EXCEEDED"),
        (said("Sev", finish_reason=FinishReason.LENGTH), "incomplete", "max_output_tokens", None),
        # A limit of somebody else's: the run has come to no bound of its own.
        (refusal(Reason.LIMIT_EXCEEDED), "failed", None, "LIMIT_EXCEEDED"),
    ],
)
def test_an_end_is_told_by_the_name_that_it_has(
    came: Completion | Refusal, kind: str, incomplete: str | None, code: str | None
) -> None:
    told, response = items(answered(0, came))[-1]
    assert told == response["status"] == kind
    assert (response["incomplete_details"] or {}).get("reason") == incomplete
    assert (response["error"] or {}).get("code") == code


def test_a_run_that_has_no_turn_left_is_told_so() -> None:
    known = definition(limits=limits(turns=1))
    told, response = items(answered(0, calls(added("one"))), answered(1, said("3")), of=known)[-1]
    assert (told, response["incomplete_details"]) == ("incomplete", {"reason": "max_steps"})


def test_a_cancelled_run_is_told_so() -> None:
    assert outline(Cancelled())[-1] == ("failed", "cancelled")


def test_a_run_that_is_late_is_told_so() -> None:
    known = definition(limits=limits(time="1s"))
    step = advance(begin(begun(), known, NOON).run, Expired(), NOON + HOUR)
    assert [told.kind for told in told_in(step)] == ["response.incomplete"]


def test_what_a_policy_may_hold_back_is_not_told() -> None:
    told = heard(*SEARCHED, answered(2, said("He is Ishmael.")), quiet=True)
    assert [each.item for each in told if "item" in each.kind] == [None] * 6
    # How it ends is told once the policy has looked.
    assert not any(each.kind == "response.completed" for each in told)
    assert "Ishmael" not in "".join(each.item or "" for each in told)


def test_whoever_wants_no_parts_is_told_nothing() -> None:
    assert heard(answered(0, said("3.")), stream=False) == []
