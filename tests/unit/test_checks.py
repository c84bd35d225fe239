"""What a request must satisfy to be admitted, case by case."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from schemas import topics
from schemas.events import (
    InferenceRecorded,
    InferenceRefused,
    InferenceReplied,
    InferenceRequested,
    Message,
    Reason,
    Refusal,
    Role,
    Sampling,
    Task,
    Tool,
    ToolCall,
)
from streams.gateway.checks import first_refusal
from streams.gateway.checks.form import MAX_INPUTS
from streams.gateway.rows import record_refusal
from tests.seed import view_of
from tests.unit.asking import (
    CATALOG,
    LIMITS,
    MINUTE,
    NOON,
    VIEW,
    ask,
    asked,
    only,
    route_of,
)
from tests.unit.deciding import admit

MS = timedelta(milliseconds=1)
NAN, INFINITY = float("nan"), float("inf")
# Deeper than what Python's own parser takes, and as deep as it just takes.
TOO_DEEP, DEEP = ('{"a":' * depth + "1" + "}" * depth for depth in (100_000, 900))
TOOL = Tool(name="weather", parameters="{}")


def sampling(**values: Any) -> InferenceRequested:
    return ask(sampling=Sampling(**values))


def offering(*tools: Tool, choice: str = "auto") -> InferenceRequested:
    return ask(tools=tools, tool_choice=choice)


def saying(*messages: Message) -> InferenceRequested:
    return ask(messages=messages)


def embedding(*inputs: str, **more: Any) -> InferenceRequested:
    return ask(**{"task": Task.EMBEDDING, "messages": (), "inputs": inputs, **more})


def ranking(query: str | None, *inputs: str) -> InferenceRequested:
    return embedding(*inputs, task=Task.RERANK, query=query)


# What is refused: the request, the reason, and the field at fault.
REFUSED: dict[str, tuple[InferenceRequested, Reason, str]] = {
    "a deadline a millisecond too far": (
        ask(deadline=NOON + 10 * MINUTE + MS),
        Reason.REQUEST_INVALID,
        "deadline",
    ),
    "a deadline now": (ask(deadline=NOON), Reason.DEADLINE_EXPIRED, "deadline"),
    "a deadline that passed": (ask(deadline=NOON - MS), Reason.DEADLINE_EXPIRED, "deadline"),
    "a foreign address": (
        ask(reply_to="reply.v1.other"),
        Reason.REPLY_ADDRESS_FORBIDDEN,
        "reply_to",
    ),
    "a huge name": (ask(endpoint="x" * 1000), Reason.REQUEST_TOO_LARGE, "messages"),
    "a json_schema of half a surrogate pair": (
        ask(json_schema=r'{"a": "\ud800"}'),
        Reason.REQUEST_INVALID,
        "json_schema",
    ),
    "a json_schema that is a list": (ask(json_schema="[]"), Reason.REQUEST_INVALID, "json_schema"),
    "a json_schema that is no JSON": (ask(json_schema="{"), Reason.REQUEST_INVALID, "json_schema"),
    "a json_schema with NaN": (
        ask(json_schema='{"a": NaN}'),
        Reason.REQUEST_INVALID,
        "json_schema",
    ),
    "a json_schema with a number beyond all": (
        ask(json_schema='{"a": 1e999}'),
        Reason.REQUEST_INVALID,
        "json_schema",
    ),
    "a message of an unknown role": (
        saying(Message(role=Role.USER), Message(role=Role.UNKNOWN)),
        Reason.REQUEST_INVALID,
        "messages",
    ),
    "a stop that is empty": (sampling(stop=("a", "")), Reason.REQUEST_INVALID, "sampling.stop"),
    "a tool answer to no call": (
        saying(Message(role=Role.TOOL, content="12 degrees")),
        Reason.REQUEST_INVALID,
        "messages",
    ),
    "a tool choice among no tools": (
        ask(tool_choice="weather"),
        Reason.REQUEST_INVALID,
        "tool_choice",
    ),
    "a tool choice that is not offered": (
        offering(TOOL, choice="news"),
        Reason.REQUEST_INVALID,
        "tool_choice",
    ),
    "a tool required and none offered": (
        ask(tool_choice="required"),
        Reason.REQUEST_INVALID,
        "tool_choice",
    ),
    "a tool whose parameters are no object": (
        offering(Tool(name="weather", parameters="3")),
        Reason.REQUEST_INVALID,
        "tools",
    ),
    "a tool without a name": (
        offering(Tool(name="", parameters="{}")),
        Reason.REQUEST_INVALID,
        "tools",
    ),
    "an address outside the family": (
        ask(reply_to="inference.requested.v1"),
        Reason.REPLY_ADDRESS_FORBIDDEN,
        "reply_to",
    ),
    "an empty address": (ask(reply_to=""), Reason.REPLY_ADDRESS_FORBIDDEN, "reply_to"),
    "an unknown endpoint": (
        ask(endpoint="main.tests.nowhere"),
        Reason.ENDPOINT_UNKNOWN,
        "endpoint",
    ),
    "documents and nothing to rank them by": (
        ranking(None, "a"),
        Reason.REQUEST_INVALID,
        "query",
    ),
    "documents and an empty query": (ranking("", "a"), Reason.REQUEST_INVALID, "query"),
    "no messages": (saying(), Reason.REQUEST_INVALID, "messages"),
    "nothing to embed": (embedding(), Reason.REQUEST_INVALID, "inputs"),
    "nothing to rank": (ranking("sea"), Reason.REQUEST_INVALID, "inputs"),
    "a chat with documents": (ask(inputs=("a",)), Reason.REQUEST_INVALID, "inputs"),
    "a chat with a query": (ask(query=""), Reason.REQUEST_INVALID, "query"),
    "messages to embed": (
        embedding("a", messages=ask().messages),
        Reason.REQUEST_INVALID,
        "messages",
    ),
    "a task that is not known": (ask(task=Task.UNKNOWN), Reason.REQUEST_INVALID, "task"),
    "no tool choice": (ask(tool_choice=""), Reason.REQUEST_INVALID, "tool_choice"),
    "seventeen stops": (
        sampling(stop=tuple(map(str, range(17)))),
        Reason.REQUEST_INVALID,
        "sampling.stop",
    ),
    "two tools of one name": (offering(TOOL, TOOL), Reason.REQUEST_INVALID, "tools"),
}

ADMITTED: dict[str, InferenceRequested] = {
    "a deadline a millisecond ahead": ask(deadline=NOON + MS),
    "a json_schema": ask(json_schema='{"type": "object"}'),
    "a required tool": offering(TOOL, choice="required"),
    "a tool answer": saying(Message(role=Role.TOOL, content="12", tool_call_id="call")),
    "a tool by its name": offering(TOOL, choice="weather"),
    "another address of the tenant": ask(reply_to="reply.v1.acme2"),
    "documents to rank": ranking("sea", "hill", "sea"),
    "no tools, and none wanted": ask(tool_choice="none"),
    "sixteen stops": sampling(stop=tuple(map(str, range(16)))),
    "texts to embed": embedding("a", "b"),
    "the furthest deadline": ask(deadline=NOON + 10 * MINUTE),
}

# Each sampling bound: what is just inside, and what is just outside.
BOUNDS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "frequency_penalty": ((-2, 0, 2), (-2.01, 2.01, NAN, INFINITY, -INFINITY)),
    "max_tokens": ((1, 2**31 - 1), (0, -1)),
    "presence_penalty": ((-2, 0, 2), (-2.01, 2.01, NAN, INFINITY, -INFINITY)),
    "temperature": ((0, 1, 2), (-0.01, 2.01, NAN, INFINITY, -INFINITY)),
    "top_k": ((-1, 0, 40), (-2,)),
    "top_logprobs": ((0, 20), (-1, 21)),
    "top_p": ((0.01, 1), (0, -0.5, 1.01, NAN, INFINITY)),
}


def refusal_of(request: InferenceRequested) -> Refusal:
    """Returns why a request is refused; it must be said to the log and to the caller alike."""
    outgoing = list(admit(asked(request), VIEW, NOON))
    [refused] = only(outgoing, topics.INFERENCE_REFUSED)
    [replied] = only(outgoing, topics.REPLY)
    assert len(outgoing) == 2
    assert isinstance(refused, InferenceRefused)
    assert isinstance(replied, InferenceReplied)
    assert refused.refusal == replied.refusal
    assert replied.request_id == request.request_id
    assert replied.completion is None
    assert replied.delta is None
    return refused.refusal


@pytest.mark.parametrize("what", REFUSED)
def test_a_request_is_refused_for(what: str) -> None:
    request, reason, field = REFUSED[what]
    refusal = refusal_of(request)
    assert (refusal.reason, refusal.field) == (reason, field)
    assert refusal.message


@pytest.mark.parametrize("what", ADMITTED)
def test_a_request_is_admitted_with(what: str) -> None:
    assert route_of(ADMITTED[what]).request == ADMITTED[what]


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, (good, _) in BOUNDS.items() for value in good]
)
def test_a_sampling_parameter_within_its_bounds_is_admitted(field: str, value: float) -> None:
    assert route_of(sampling(**{field: value}))


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, (_, bad) in BOUNDS.items() for value in bad]
)
def test_a_sampling_parameter_outside_its_bounds_is_refused(field: str, value: float) -> None:
    refusal = refusal_of(sampling(**{field: value}))
    assert (refusal.reason, refusal.field) == (Reason.REQUEST_INVALID, f"sampling.{field}")
    assert field in refusal.message


def test_a_schema_nested_beyond_all_need_is_refused() -> None:
    view = view_of(CATALOG, replace(LIMITS, max_request_bytes=1_000_000))
    for text in (TOO_DEEP, DEEP):
        for request in (ask(json_schema=text), offering(Tool(name="deep", parameters=text))):
            outgoing = list(admit(asked(request), view, NOON))
            [refused] = only(outgoing, topics.INFERENCE_REFUSED)
            assert refused.refusal.reason is Reason.REQUEST_INVALID
            [row] = record_refusal(refused, view, NOON)
            assert isinstance(row.event, InferenceRecorded)


LARGE = "ü" * 501
TOO_LARGE: dict[str, InferenceRequested] = {
    "a call's arguments": saying(
        Message(role=Role.ASSISTANT, tool_calls=(ToolCall(id="", name="", arguments=LARGE),))
    ),
    "a call's name": saying(
        Message(role=Role.ASSISTANT, tool_calls=(ToolCall(id="", name=LARGE, arguments=""),))
    ),
    "a great many empty messages": saying(*[Message(role=Role.USER)] * 1000),
    "a json_schema": ask(json_schema=LARGE),
    "a name": saying(Message(role=Role.USER, name=LARGE)),
    "a principal": ask(principal=LARGE),
    "a stop": sampling(stop=(LARGE,)),
    "a tag": ask(tags={"a": LARGE}),
    "a tag's name": ask(tags={LARGE: "a"}),
    "a tool": offering(Tool(name="a", description=LARGE, parameters="{}")),
    "a tool choice": ask(tool_choice=LARGE),
    "a tool's name": offering(Tool(name=LARGE, parameters="{}")),
    "an unknown tenant's text": replace(
        saying(Message(role=Role.USER, content=LARGE)), tenant="nobody"
    ),
    "several texts together": saying(*[Message(role=Role.USER, content="x" * 300)] * 4),
    "text": saying(Message(role=Role.USER, content=LARGE)),
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_what_is_too_large_is_refused_and_not_kept(what: str) -> None:
    request = TOO_LARGE[what]
    [refused] = only(admit(asked(request), VIEW, NOON), topics.INFERENCE_REFUSED)
    assert refused.refusal.reason is Reason.REQUEST_TOO_LARGE
    assert "1000" in refused.refusal.message
    kept = refused.request
    assert (kept.messages, kept.tools, kept.json_schema, kept.tags) == ((), (), None, {})
    assert kept.request_id in {request.request_id, asked(request).refused_id}
    assert kept.tenant == request.tenant
    assert LARGE not in str(refused)


@pytest.mark.parametrize(
    "request_", [ranking(LARGE, "a"), ranking("sea", "hill", LARGE), embedding("a", LARGE)]
)
def test_what_is_to_be_embedded_or_ranked_counts_as_text(request_: InferenceRequested) -> None:
    refusal = first_refusal(asked(request_), VIEW, NOON)
    assert refusal is not None
    assert refusal.reason is Reason.REQUEST_TOO_LARGE


def test_as_many_texts_are_taken_at_once_as_providers_take() -> None:
    roomy = view_of(CATALOG, replace(LIMITS, max_request_bytes=1_000_000))
    assert first_refusal(asked(embedding(*["a"] * MAX_INPUTS)), roomy, NOON) is None
    refusal = first_refusal(asked(embedding(*["a"] * (MAX_INPUTS + 1))), roomy, NOON)
    assert refusal is not None
    assert (refusal.reason, refusal.field) == (Reason.REQUEST_INVALID, "inputs")
    assert str(MAX_INPUTS) in refusal.message


def test_text_of_just_the_limit_is_admitted() -> None:
    request = ask(messages=(Message(role=Role.USER, content=""),))
    low, high = 1, 1000
    while low < high:
        size = (low + high + 1) // 2
        bigger = replace(request, messages=(Message(role=Role.USER, content="x" * size),))
        low, high = (size, high) if only_routed(bigger) else (low, size - 1)
    assert 500 < low <= 1000
    exact = replace(request, messages=(Message(role=Role.USER, content="ü" * (low // 2)),))
    assert only_routed(exact)


def only_routed(request: InferenceRequested) -> bool:
    return bool(only(admit(asked(request), VIEW, NOON), topics.INFERENCE_ROUTED))


def test_a_refusal_quotes_a_name_only_in_part() -> None:
    view = view_of(CATALOG, replace(LIMITS, max_request_bytes=1_000_000))
    long = "\x00" * 100_000
    for request in (ask(tenant=long), ask(endpoint=long), ask(reply_to=long)):
        [refused] = only(admit(asked(request), view, NOON), topics.INFERENCE_REFUSED)
        assert len(refused.refusal.message) < 1000


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("json_schema", ask(json_schema=json.dumps({"title": "x" * 40_000}))),
        ("tools", ask(tools=(Tool(name="t", parameters=json.dumps({"title": "x" * 40_000})),))),
    ],
)
def test_a_schema_the_size_of_a_book_is_refused(field: str, request_: InferenceRequested) -> None:
    roomy = view_of(CATALOG, replace(LIMITS, max_request_bytes=1_000_000))
    refusal = first_refusal(asked(request_), roomy, NOON)
    assert refusal is not None
    assert (refusal.reason, refusal.field) == (Reason.REQUEST_INVALID, field)
