"""Agents and functions, asked as endpoints are: who may, what is refused, where it goes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from schemas import topics
from schemas.events import (
    Completion,
    FinishReason,
    InferenceCompleted,
    InferenceRequested,
    InferenceRouted,
    Reason,
    Refusal,
    Task,
    Usage,
)
from streams.gateway.access import disguised
from streams.gateway.admit import admit as admit_at
from streams.gateway.checks import first_refusal
from streams.gateway.desk import Desk
from streams.guards import Released, guard_completion
from tests.seed import changed, view_of
from tests.unit.asking import CATALOG, LIMITS, NOON, ask, asked, only
from tests.unit.deciding import admit, release
from tests.unit.guarding import ADA, BOB, MASK, RESTORE, SEAL, passed, pii, policies

AGENT, FUNCTION, INDEX = "main.tests.agent", "main.tests.weather", "main.tests.index"
DENIED, EMPTY = "main.tests.denied", "main.tests.empty"
CODE = {"spec": {"language": "python", "source": "def run(city): return city"}}
DOCUMENTS: list[dict[str, Any]] = [
    *CATALOG,
    {
        "kind": "agent",
        "name": AGENT,
        "spec": {"endpoint": "main.tests.plain"},
        "grants": {"ann": ["EXECUTE"]},
    },
    {
        "kind": "function",
        "name": FUNCTION,
        "versions": [CODE] * 3,
        "aliases": {"prod": 2, "lost": 7},
        "grants": {"ann": ["EXECUTE"]},
    },
    {"kind": "function", "name": EMPTY, "grants": {"ann": ["EXECUTE"]}},
    {"kind": "function", "name": DENIED, "versions": [CODE]},
    {"kind": "index", "name": INDEX, "spec": {"text": "body"}},
    {"kind": "catalog", "name": "hidden"},
    {"kind": "schema", "name": "hidden.away"},
    {"kind": "agent", "name": "hidden.away.agent", "spec": {"endpoint": "main.tests.plain"}},
    {"kind": "function", "name": "hidden.away.weather", "versions": [CODE]},
]
VIEW = view_of(DOCUMENTS, LIMITS)


def call(*inputs: str, **more: Any) -> InferenceRequested:
    plain = {"task": Task.TOOL, "endpoint": FUNCTION, "messages": ()}
    return ask(**{**plain, "inputs": inputs or ('{"city": "Ulm"}',), **more})


def run(**more: Any) -> InferenceRequested:
    return ask(**{"task": Task.AGENT, "endpoint": AGENT, **more})


def refusal_of(request: InferenceRequested) -> Refusal:
    refusal = first_refusal(asked(request), VIEW, NOON)
    assert refusal is not None
    return refusal


# What is refused: the request, the reason, the field, and a word that says what to do.
REFUSED: dict[str, tuple[InferenceRequested, Reason, str, str]] = {
    "a call of a function that nobody granted": (
        call(endpoint=DENIED),
        Reason.PRIVILEGE_MISSING,
        "endpoint",
        f"ann may not execute {DENIED}: EXECUTE on {DENIED} is missing",
    ),
    "a call of a function without a version": (
        call(endpoint=EMPTY),
        Reason.ENDPOINT_UNKNOWN,
        "endpoint",
        "has no version yet",
    ),
    "a call of an agent": (
        call(endpoint=AGENT),
        Reason.REQUEST_INVALID,
        "task",
        "is an agent: give it messages with task AGENT",
    ),
    "a call of an endpoint": (
        call(endpoint="main.tests.plain"),
        Reason.REQUEST_INVALID,
        "endpoint",
        "name a function for tool",
    ),
    "a call of an index": (
        call(endpoint=INDEX),
        Reason.REQUEST_INVALID,
        "task",
        "search it, or ask a function for tool",
    ),
    "a call of nothing": (
        call(endpoint="main.tests.none"),
        Reason.ENDPOINT_UNKNOWN,
        "endpoint",
        "there is no function 'main.tests.none'",
    ),
    "a call with a list": (call("[]"), Reason.REQUEST_INVALID, "inputs", "JSON object"),
    "a call with a number that is none": (
        call('{"a": NaN}'),
        Reason.REQUEST_INVALID,
        "inputs",
        "JSON object",
    ),
    "a call with messages": (
        call(messages=ask().messages),
        Reason.REQUEST_INVALID,
        "messages",
        "takes no messages",
    ),
    "a call with no JSON": (call("city=Ulm"), Reason.REQUEST_INVALID, "inputs", "JSON object"),
    "a call with two objects": (call("{}", "{}"), Reason.REQUEST_INVALID, "inputs", "exactly one"),
    "a call without arguments": (call(inputs=()), Reason.REQUEST_INVALID, "inputs", "needs it"),
    "a chat with a function": (
        ask(endpoint=FUNCTION),
        Reason.REQUEST_INVALID,
        "task",
        "is a function: call it with task TOOL, or ask an endpoint for chat",
    ),
    "a chat with a version": (
        ask(version="1"),
        Reason.REQUEST_INVALID,
        "version",
        "takes no version",
    ),
    "a chat with an agent": (
        ask(endpoint=AGENT),
        Reason.REQUEST_INVALID,
        "task",
        "or ask an endpoint for chat",
    ),
    "a run of an agent by one who may not": (
        run(principal="acme"),
        Reason.PRIVILEGE_MISSING,
        "endpoint",
        f"acme may not execute {AGENT}",
    ),
    "a run of an agent in a version": (
        run(version="1"),
        Reason.REQUEST_INVALID,
        "version",
        "only functions",
    ),
    "a run of an endpoint": (
        run(endpoint="main.tests.plain"),
        Reason.REQUEST_INVALID,
        "endpoint",
        "name an agent for agent",
    ),
    "a run of no agent": (
        run(endpoint="main.tests.none"),
        Reason.ENDPOINT_UNKNOWN,
        "endpoint",
        "there is no agent 'main.tests.none'",
    ),
    "a run with inputs": (run(inputs=("{}",)), Reason.REQUEST_INVALID, "inputs", "takes no inputs"),
    "a run without messages": (
        run(messages=()),
        Reason.REQUEST_INVALID,
        "messages",
        "messages is empty",
    ),
    "a search of a function": (
        ask(task=Task.SEARCH, endpoint=FUNCTION, messages=(), query="a", search="{}"),
        Reason.REQUEST_INVALID,
        "task",
        "or ask an index for search",
    ),
    "a version by an alias of none": (
        call(version="lost"),
        Reason.NOT_FOUND,
        "version",
        "has no version 'lost'",
    ),
    "a version that there is not": (
        call(version="4"),
        Reason.NOT_FOUND,
        "version",
        "without one, it runs in its newest, 3",
    ),
    "a version without a name": (call(version=""), Reason.NOT_FOUND, "version", "no version ''"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_agents_and_functions_cannot_be_asked_is_refused_with_what_to_do(what: str) -> None:
    request, reason, field, word = REFUSED[what]
    refusal = refusal_of(request)
    assert (refusal.reason, refusal.field) == (reason, field)
    assert word in refusal.message


@pytest.mark.parametrize("task", [Task.AGENT, Task.TOOL])
def test_what_is_hidden_and_what_is_not_there_sound_the_same(task: Task) -> None:
    said = set()
    for name in ("agent", "weather", "none"):
        request = (run if task is Task.AGENT else call)(endpoint=f"hidden.away.{name}")
        refusal = refusal_of(request)
        assert refusal.reason is Reason.PRIVILEGE_MISSING
        assert "ask its owner for EXECUTE" in refusal.message
        said.add(refusal.message.replace(request.endpoint, "it"))
    assert len(said) == 1


def routed(request: InferenceRequested) -> InferenceRouted:
    [sent] = admit(asked(request), VIEW, NOON)
    assert isinstance(sent.event, InferenceRouted)
    assert sent.topic.name == f"inference.routed.v1.{sent.event.route.pool}"
    return sent.event


@pytest.mark.parametrize(
    ("version", "number"), [(None, 3), ("1", 1), ("2", 2), ("prod", 2), ("3", 3)]
)
def test_a_call_goes_to_those_who_run_functions_in_the_version_that_it_names(
    version: str | None, number: int
) -> None:
    event = routed(call(version=version))
    assert (event.route.pool, event.route.model) == ("tools", FUNCTION)
    assert event.route.entity == f"{FUNCTION}@{number}"
    assert (event.fallbacks, event.cache_key, event.access) == ((), "", None)
    assert event.request == call(version=version)


def test_a_run_goes_to_those_who_run_agents() -> None:
    event = routed(run())
    assert (event.route.pool, event.route.model, event.route.entity) == ("agents", AGENT, "")
    assert (event.fallbacks, event.cache_key, event.access) == ((), "", None)


def failed(event: InferenceRouted) -> InferenceCompleted:
    instant = NOON + timedelta(seconds=1)
    refusal = Refusal(reason=Reason.PROVIDER_FAILED, message="it broke")
    return InferenceCompleted(routed=event, refusal=refusal, started_at=NOON, completed_at=instant)


@pytest.mark.parametrize("request_", [call(), run()])
def test_what_failed_is_never_tried_again_for_it_may_have_had_its_effect(
    request_: InferenceRequested,
) -> None:
    outgoing = list(release(failed(routed(request_)), VIEW, NOON))
    assert only(outgoing, topics.INFERENCE_ROUTED) == []
    [replied] = only(outgoing, topics.REPLY)
    assert replied.refusal.reason is Reason.PROVIDER_FAILED


@pytest.mark.parametrize("request_", [call(), run()])
def test_a_function_or_an_agent_that_fails_time_after_time_is_still_asked(
    request_: InferenceRequested,
) -> None:
    desk = Desk()
    for _ in range(100):
        [sent] = admit_at(asked(request_), VIEW, NOON, desk)
        assert isinstance(sent.event, InferenceRouted)
        desk.health.sent(sent.event, NOON)
        desk.health.observe(failed(sent.event), VIEW, NOON + timedelta(seconds=1))


def test_a_version_that_goes_while_a_call_waits_is_refused() -> None:
    view = view_of(DOCUMENTS, LIMITS)
    assert first_refusal(asked(call(version="2")), view, NOON) is None
    view.apply(changed("version", f"{FUNCTION}@2", None))
    [replied] = only(admit(asked(call(version="2")), view, NOON), topics.REPLY)
    assert (replied.refusal.reason, replied.refusal.field) == (Reason.NOT_FOUND, "version")


def answer(content: str) -> Completion:
    return Completion(
        model=FUNCTION, content=content, finish_reason=FinishReason.STOP, usage=Usage()
    )


def test_the_row_of_a_call_has_its_arguments_its_version_and_what_it_came_to() -> None:
    event, said = routed(call(version="prod")), '{"result": "sunny"}'
    done = InferenceCompleted(
        routed=event, completion=answer(said), started_at=NOON, completed_at=NOON
    )
    [row] = only(release(done, VIEW, NOON), topics.INFERENCE_RECORDED)
    assert json.loads(row.request) == {"model": FUNCTION, "arguments": {"city": "Ulm"}}
    assert json.loads(row.response)["choices"][0]["message"]["content"] == said
    assert (row.entity, row.cost, row.prompt_tokens) == (f"{FUNCTION}@2", 0, 0)


@pytest.mark.parametrize("cost", [Decimal("0.25"), None])
def test_a_run_costs_its_caller_what_it_asked_and_its_row_nothing(cost: Decimal | None) -> None:
    done = InferenceCompleted(
        routed=routed(run()),
        completion=answer("sunny"),
        started_at=NOON,
        completed_at=NOON,
        cost_usd=cost,
    )
    outgoing = list(release(done, VIEW, NOON))
    [replied], [row] = only(outgoing, topics.REPLY), only(outgoing, topics.INFERENCE_RECORDED)
    assert (replied.cost_usd, row.cost) == (cost, 0)


def test_a_call_costs_nothing_whatever_its_worker_says() -> None:
    done = InferenceCompleted(
        routed=routed(call()),
        completion=answer("sunny"),
        started_at=NOON,
        completed_at=NOON,
        cost_usd=Decimal(7),
    )
    [replied] = only(release(done, VIEW, NOON), topics.REPLY)
    assert replied.cost_usd == 0


def test_an_auditor_is_told_what_it_was_that_somebody_may_not() -> None:
    for request, kind in ((call(endpoint=DENIED), "function"), (run(principal="acme"), "agent")):
        [audit] = only(admit(asked(request), VIEW, NOON), topics.AUDIT_RECORDED)
        assert audit.kind == kind


ODD = f'{{"to": "{ADA}", "{ADA}": 1, "card": 4111111111111111, "text": "say \\"hi\\" to {ADA}"}}'


def test_arguments_are_masked_as_the_json_that_they_are() -> None:
    [masked] = passed(call(ODD), MASK).request.inputs
    assert json.loads(masked) == {
        "to": "<EMAIL_ADDRESS_1>",
        ADA: 1,
        "card": "<CREDIT_CARD_1>",
        "text": 'say "hi" to <EMAIL_ADDRESS_1>',
    }


@pytest.mark.parametrize(
    ("effect", "refused"), [("pure", False), ("idempotent", True), (None, True)]
)
def test_what_has_an_effect_is_not_called_with_what_a_policy_left_of_its_arguments(
    effect: str | None, *, refused: bool
) -> None:
    spec = {**CODE["spec"], **({"effect": effect} if effect else {})}
    view = view_of([*CATALOG, {"kind": "function", "name": FUNCTION, "versions": [{"spec": spec}]}])
    before = call(ODD)
    after = passed(before, MASK).request
    route = routed(call()).route
    route = replace(route, entity=f"{FUNCTION}@1")
    refusal = disguised(before, after, route, view)
    assert (refusal is not None) is refused
    assert refusal is None or refusal.reason is Reason.POLICY_DENIED
    assert disguised(before, before, route, view) is None


@pytest.mark.parametrize(("on", "masks"), [("input", True), ("tools", True), ("output", False)])
def test_arguments_are_asked_and_are_a_calls_so_rules_on_either_look_at_them(
    on: str, *, masks: bool
) -> None:
    held = policies({**pii(EMAIL_ADDRESS="mask"), "on": [on]})
    guarded = passed(call(ODD), held)
    assert (guarded.request.inputs != (ODD,)) is masks
    [embedded] = passed(call(ODD, task=Task.EMBEDDING), held).request.inputs
    assert (embedded != ODD) is (on == "input")


def test_what_a_tool_answers_stays_json_where_it_is_masked_and_where_it_is_restored() -> None:
    quoted = '"Ada" <ada@example.com>'
    guarded = passed(call(json.dumps({"to": ADA})), RESTORE)
    [arguments] = guarded.request.inputs
    told = json.loads(arguments)["to"]
    event = routed(call())
    event = InferenceRouted(
        request=event.request,
        route=event.route,
        routed_at=NOON,
        sealed=SEAL.seal("acme", "request", {told: quoted}),
    )
    said = answer(json.dumps({"result": {"sent": told, BOB: 1}}))
    released = guard_completion(said, event, MASK, SEAL)
    assert isinstance(released, Released)
    assert json.loads(released.reply.content) == {"result": {"sent": quoted, "[EMAIL_ADDRESS]": 1}}
