"""Calls of tools: which go, which wait, and what the model is told that they came to."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from schemas.agents import Reachable
from schemas.events import ApprovalWanted, Message, Reason, Role, Task, ToolCall
from schemas.search import Hit
from streams.agents.calls import MOST_CALLS
from streams.agents.causes import Decided, caused
from streams.agents.results import MOST_CHARACTERS
from tests.unit.agents import (
    ADD,
    AGENT,
    BOOKS,
    EXPERT,
    HOUR,
    NOON,
    QUERY,
    SECOND,
    TOOLS,
    WIPE,
    added,
    after,
    answered,
    asked,
    calls,
    definition,
    emitted,
    error,
    found,
    limits,
    refusal,
    result,
    results,
    said,
    started,
)

HIT = Hit(key={"isbn": 7}, text="Call me Ishmael.", position=2, source="main.tests.b", version="9")


def test_a_function_is_asked_for_in_the_name_of_the_caller() -> None:
    step = after(started().run, answered(0, calls(added("one"))))
    [call] = asked(step)
    assert (call.request_id, call.tenant, call.principal) == ("request//acme//1", "acme", "ann")
    assert (call.task, call.endpoint, call.version) == (Task.TOOL, ADD, "3")
    assert json.loads(call.inputs[0]) == {"a": 1, "b": 2}
    assert call.reply_to == "reply.v1.agents"
    assert call.tags == {"team": "blue", "agent": AGENT}
    assert call.requested_at == NOON + SECOND


def test_an_index_is_searched_with_the_filters_of_the_model() -> None:
    wanted = {"query": "whales", "k": 3, "filters": {"year": "1851"}}
    [call] = asked(after(started().run, answered(0, calls(("one", "books", wanted)))))
    assert (call.task, call.endpoint, call.query) == (Task.SEARCH, BOOKS, "whales")
    assert json.loads(call.search or "") == {"k": 3, "filters": {"year": "1851"}}


def test_another_agent_is_sent_a_message() -> None:
    step = after(started().run, answered(0, calls(("one", "expert", {"message": "Why?"}))))
    [call] = asked(step)
    assert (call.task, call.endpoint) == (Task.AGENT, EXPERT)
    assert call.messages == (Message(role=Role.USER, content="Why?"),)


def test_a_run_has_time_left_when_a_tool_has_none() -> None:
    run = started(definition(limits=limits(time="100s"))).run
    [call] = asked(after(run, answered(0, calls(added("one")))))
    assert call.deadline == NOON + timedelta(milliseconds=1000 + 89_100)
    assert call.deadline < run.deadline


def test_calls_of_one_turn_go_at_once_and_their_results_are_bound_to_their_ids() -> None:
    step = after(started().run, answered(0, calls(added("one"), added("two"), added("three"))))
    assert [call.request_id[-1] for call in asked(step)] == ["1", "2", "3"]
    step = after(step.run, answered(3, result("C")), answered(1, result("A")))
    assert asked(step) == []
    step = after(step.run, answered(2, result("B")))
    assert results(step) == {
        "one": '{"result": "A"}',
        "two": '{"result": "B"}',
        "three": '{"result": "C"}',
    }


def test_others_wait_while_as_many_are_under_way_as_may_be() -> None:
    known = definition(limits=limits(parallel=2))
    step = after(started(known).run, answered(0, calls(*map(added, "abcd"))))
    assert [call.request_id[-1] for call in asked(step)] == ["1", "2"]
    step = after(step.run, answered(2, result(0)))
    assert [call.request_id[-1] for call in asked(step)] == ["3"]
    assert step.run.under_way == 2


def test_an_answer_that_comes_twice_counts_once() -> None:
    run = after(started().run, answered(0, calls(added("one"), added("two")))).run
    once = after(run, answered(1, result("A")))
    again = after(
        once.run, answered(1, result("B")), answered(0, said("no")), answered(9, said(""))
    )
    assert (again.run, again.outgoing) == (once.run, ())


def test_calls_under_one_id_are_told_apart() -> None:
    step = after(started().run, answered(0, calls(added("x"), added("x"), added(""))))
    numbers = {call.number: call.tool_call_id for call in step.run.calls}
    assert numbers == {1: "x", 2: "x_2", 3: "call_3"}
    step = after(step.run, *(answered(number, result(number)) for number in numbers))
    assert results(step) == {name: dump for name, dump in _bound(numbers).items()}


def _bound(numbers: dict[int, str]) -> dict[str, str]:
    return {name: json.dumps({"result": number}) for number, name in numbers.items()}


def test_no_arguments_are_an_empty_object() -> None:
    tools = {
        "now": Reachable(name="now", kind="function", target=ADD, parameters={"type": "object"})
    }
    [call] = asked(
        after(started(definition(tools=tools)).run, answered(0, calls(("x", "now", " "))))
    )
    assert (call.inputs, call.version) == (("{}",), None)


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("fly", {}, "there is no tool 'fly'; there are: add, wipe, books, expert"),
        ("add", "{a: 1", "no JSON object"),
        ("add", "[1, 2]", "no JSON object"),
        ("add", '{"a": NaN, "b": 1}', "no JSON object"),
        ("add", {"a": "one", "b": 2}, "$.a breaks type"),
        ("add", {"a": 1}, "$ breaks required"),
        ("add", {"a": 1, "b": 2, "c": 3}, "$ breaks additionalProperties"),
        ("books", {"query": "whales", "k": 21}, "$.k breaks maximum of the schema: 20"),
    ],
)
def test_the_model_is_told_what_is_wrong_with_a_call(
    name: str, arguments: object, why: str
) -> None:
    step = after(started().run, answered(0, calls(("one", name, arguments))))
    kind, message = error(results(step)["one"])
    assert kind == "arguments"
    assert why in message


SEND = Reachable(
    name="send",
    kind="function",
    target=WIPE,
    parameters={"type": "object", "properties": {"to": {"type": "string"}}},
    pure=False,
)


@pytest.mark.parametrize(
    ("to", "pure", "sent"),
    [
        ("<EMAIL_ADDRESS_1>", False, False),
        ("<email_address_1>", False, False),
        (r"<EMAIL\_ADDRESS\_1>", False, False),
        ("<EMAIL_ADDRESS_1>", True, True),
        ("<EMAIL_ADDRESS_2>", False, True),
        ("the boss", False, True),
    ],
)
def test_no_tool_acts_on_what_stands_for_something_else(to: str, *, pure: bool, sent: bool) -> None:
    tools = {"send": SEND.model_copy(update={"pure": pure})}
    asks = (Message(role=Role.USER, content="Write to <EMAIL_ADDRESS_1> and to <B>me</B>."),)
    run = started(definition(tools=tools), messages=asks).run
    step = after(run, answered(0, calls(("one", "send", {"to": to}))))
    [next_] = asked(step)
    assert (next_.task is Task.TOOL) is sent
    if not sent:
        assert "<EMAIL_ADDRESS_1> stands for what a policy withholds" in results(step)["one"]


def test_a_wrong_call_is_told_again_in_a_form_that_providers_take() -> None:
    step = after(started().run, answered(0, calls(("one", "no such.name", "{a: 1"))))
    [turn] = asked(step)
    assert turn.messages[-2].tool_calls == (ToolCall(id="one", name="unknown", arguments="{}"),)


def test_a_wrong_call_stops_no_right_one() -> None:
    step = after(started().run, answered(0, calls(added("one"), ("two", "fly", {}))))
    [call] = asked(step)
    assert call.request_id == "request//acme//1"
    step = after(step.run, answered(1, result(3)))
    assert list(results(step)) == ["one", "two"]


@pytest.mark.parametrize("reason", [Reason.PRIVILEGE_MISSING, Reason.RATE_LIMITED])
def test_the_model_is_told_why_a_call_was_refused(reason: Reason) -> None:
    run = after(started().run, answered(0, calls(added("one")))).run
    step = after(run, answered(1, refusal(reason, "ann may not")))
    assert error(results(step)["one"]) == (reason, "ann may not")


def test_a_tools_own_error_is_told_as_it_is() -> None:
    own = json.dumps({"error": {"kind": "raised", "message": "ZeroDivisionError"}})
    run = after(started().run, answered(0, calls(added("one")))).run
    assert results(after(run, answered(1, said(own))))["one"] == own


def test_a_long_result_is_cut_and_says_so() -> None:
    run = after(started().run, answered(0, calls(added("one")))).run
    told = results(after(run, answered(1, said("x" * (MOST_CHARACTERS + 7)))))["one"]
    assert told == "x" * MOST_CHARACTERS + "\n[7 more characters are left out]"


def test_passages_are_numbered_and_kept_for_citations() -> None:
    run = after(started().run, answered(0, calls(("one", "books", {"query": "whales"})))).run
    step = after(run, answered(1, found(HIT, replace_text(HIT, "Towards thee I roll."))))
    told = results(step)["one"]
    assert told.startswith('[1.1] Call me Ishmael.\n{"isbn": 7}\n\n[1.2] Towards thee I roll.')
    [first, second] = step.run.citations
    assert (first.mark, second.mark) == ("1.1", "1.2")
    assert (first.index, first.key, first.version, first.position) == (BOOKS, '{"isbn": 7}', "9", 2)


def test_citations_stand_in_the_order_of_calls_whoever_answers_first() -> None:
    turn = calls(("one", "books", {"query": "a"}), ("two", "books", {"query": "b"}))
    run = after(started().run, answered(0, turn)).run
    step = after(run, answered(2, found(HIT, HIT)), answered(1, found(HIT)))
    assert [each.mark for each in step.run.citations] == ["1.1", "2.1", "2.2"]


def replace_text(hit: Hit, text: str) -> Hit:
    return hit.model_copy(update={"text": text})


def test_long_passages_share_the_room_that_there_is() -> None:
    run = after(started().run, answered(0, calls(("one", "books", {"query": "whales"})))).run
    hits = [replace_text(HIT, "x" * MOST_CHARACTERS)] * 4
    told = results(after(run, answered(1, found(*hits))))["one"]
    assert len(told) < MOST_CHARACTERS + 100
    assert "[1.4]" in told


@pytest.mark.parametrize(
    ("came", "told"),
    [(found(), "Nothing was found."), (said("", found="{"), "what came back cannot be read")],
)
def test_a_search_that_finds_nothing_says_so(came: object, told: str) -> None:
    run = after(started().run, answered(0, calls(("one", "books", {"query": "whales"})))).run
    assert told in results(after(run, answered(1, came)))["one"]  # type: ignore[arg-type]


def test_a_call_that_needs_a_person_waits_for_one() -> None:
    step = after(started().run, answered(0, calls(("one", "wipe", {}), added("two"))))
    assert [call.endpoint for call in asked(step)] == [ADD]
    [wanted] = emitted(step, ApprovalWanted)
    assert (wanted.request_id, wanted.principal) == ("request//acme//1", "ann")
    assert wanted.endpoint == WIPE
    assert wanted.deciders == (WIPE, AGENT)
    assert wanted.until == step.run.deadline
    assert (wanted.held, wanted.reply_to) == (None, "reply.v1.agents")


def test_a_call_that_waits_for_a_person_takes_no_place() -> None:
    known = definition(limits=limits(parallel=1))
    turn = calls(("one", "wipe", {}), added("two"), added("three"))
    step = after(started(known).run, answered(0, turn))
    assert [call.request_id[-1] for call in asked(step)] == ["2"]
    step = after(step.run, Decided(number=1, granted=True))
    assert asked(step) == []
    step = after(step.run, answered(2, result(0)))
    assert [call.request_id[-1] for call in asked(step)] == ["1"]


def test_a_granted_call_goes_once() -> None:
    run = after(started().run, answered(0, calls(("one", "wipe", {})))).run
    granted = after(run, Decided(number=1, granted=True, principal="bob"))
    [call] = asked(granted)
    assert (call.endpoint, call.request_id) == (WIPE, "request//acme//1")
    again = after(granted.run, Decided(number=1, granted=False), Decided(number=1, granted=True))
    assert (again.run, again.outgoing) == (granted.run, ())


@pytest.mark.parametrize(
    ("decision", "told"),
    [
        (Decided(number=1, granted=False, principal="bob", reason="no"), "bob denied it: no"),
        (Decided(number=1, granted=False, principal="bob"), "bob denied it"),
        (Decided(number=1, granted=False), "nobody approved in time"),
    ],
)
def test_the_model_is_told_that_a_call_was_denied(decision: Decided, told: str) -> None:
    run = after(started().run, answered(0, calls(("one", "wipe", {})))).run
    assert error(results(after(run, decision))["one"]) == (Reason.APPROVAL_DENIED, told)


def test_an_answer_to_a_call_that_waits_for_a_person_is_nobodys() -> None:
    run = after(started().run, answered(0, calls(("one", "wipe", {})))).run
    step = after(run, answered(1, result("forged")))
    assert (step.run, step.outgoing) == (run, ())


def test_a_run_is_told_a_decision_by_a_reply() -> None:
    told = json.dumps({"granted": True, "principal": "bob", "reason": "fine"})
    replied = replace(answered(4, said("")).replied, completion=None, result=told)
    assert caused(replied) == Decided(number=4, granted=True, principal="bob", reason="fine")


def test_replies_that_say_nothing_to_a_run_are_known() -> None:
    part = replace(answered(4, said("")).replied, completion=None)
    assert caused(part) is None
    assert caused(replace(part, result="[]")) is None
    assert caused(replace(answered(4, said("")).replied, request_id="request")) is None
    assert caused(answered(4, said("yes")).replied) == answered(4, said("yes"))


def test_of_more_calls_than_a_turn_may_ask_for_none_is_made_and_the_model_is_told_so() -> None:
    turn = calls(*(added(f"call{number}") for number in range(MOST_CALLS + 1)))
    step = after(started(definition(limits=limits(parallel=64))).run, answered(0, turn))
    [again] = asked(step)
    assert again.task is Task.CHAT
    assert f"{MOST_CALLS} calls" in again.messages[-1].content
    assert [call.kind for call in step.run.calls] == ["model"]


def test_a_turn_of_the_model_takes_no_place_of_a_tool() -> None:
    assert started().run.under_way == 0


def test_tools_are_offered_as_the_definition_has_them() -> None:
    [turn] = asked(started())
    assert [tool.name for tool in turn.tools] == list(TOOLS)
    assert json.loads(turn.tools[2].parameters) == QUERY
    assert turn.deadline < NOON + HOUR
