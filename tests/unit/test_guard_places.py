"""Where a request holds texts: all of them are masked, and nothing else is changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.events import InferenceRequested, Message, Role, Sampling, Tool, ToolCall
from streams.guards import Guarded, guard_request, masked_request
from streams.guards.found import Detector
from streams.guards.kinds import GUARDS
from streams.guards.texts import changed, passages
from tests.unit.asking import ask
from tests.unit.events import events
from tests.unit.guarding import ADA, BOB, MASK, RESTORE, SEAL, breaking, passed, pii, policies

CARD = "4111 1111 1111 1111"
Asking = Callable[[str], InferenceRequested]


def by(role: Role, **changes: Any) -> InferenceRequested:
    message = Message(role=role, **changes)
    return ask(messages=(Message(role=Role.USER, content="x"), message))


def tooled(**changes: Any) -> InferenceRequested:
    return ask(tools=(Tool(**{"name": "send", "parameters": "{}", **changes}),))


def called(arguments: str) -> InferenceRequested:
    return by(Role.ASSISTANT, tool_calls=(ToolCall(id="call_1", name="send", arguments=arguments),))


def answering(content: str) -> InferenceRequested:
    return by(Role.TOOL, tool_call_id="call_1", content=content)


# Each place of a request that holds texts, filled with one.
PLACES: dict[str, Asking] = {
    "arguments of a call": lambda text: called(json.dumps({"to": [text]})),
    "arguments that are no JSON": called,
    "assistant": lambda text: by(Role.ASSISTANT, content=text),
    "default in parameters": lambda text: tooled(
        parameters=json.dumps({"properties": {"to": {"type": "string", "default": text}}})
    ),
    "description in a schema": lambda text: ask(
        json_schema=json.dumps({"type": "object", "description": text})
    ),
    "description in parameters": lambda text: tooled(
        parameters=json.dumps({"properties": {"to": {"description": f"like {text}"}}})
    ),
    "description of a tool": lambda text: tooled(description=f"send to {text}"),
    "documents": lambda text: ask(inputs=("x", text)),
    "enum in parameters": lambda text: tooled(
        parameters=json.dumps({"properties": {"to": {"enum": ["x", text]}}})
    ),
    "examples in a schema": lambda text: ask(json_schema=json.dumps({"examples": [{"a": text}]})),
    "name of a speaker": lambda text: by(Role.USER, content="x", name=text),
    "query": lambda text: ask(query=text),
    "result of a tool": answering,
    "result of a tool in JSON": lambda text: answering(json.dumps([{"mail": text}])),
    "stop": lambda text: ask(sampling=Sampling(stop=("x", text))),
    "system": lambda text: by(Role.SYSTEM, content=f"You are the mail of {text}."),
    "user": lambda text: by(Role.USER, content=f"https://example.com/?to={text}&x=1"),
    "user in JSON": lambda text: by(Role.USER, content=json.dumps({"a": {text: text}})),
}


def all_of(request: InferenceRequested) -> str:
    """Returns all that goes to a provider."""
    return repr(replace(request, tags={}))


@pytest.mark.parametrize("text", [ADA, CARD])
@pytest.mark.parametrize("place", PLACES)
def test_a_text_is_masked_wherever_it_stands(place: str, text: str) -> None:
    request = PLACES[place](text)
    assert text in all_of(request)
    after = passed(request, MASK).request
    assert text not in all_of(after)
    kind = "EMAIL_ADDRESS" if text == ADA else "CREDIT_CARD"
    assert all_of(after).count(f"{kind}_1") == all_of(request).count(text)


@pytest.mark.parametrize("place", PLACES)
def test_a_text_without_anything_in_it_is_the_same_to_the_byte(place: str) -> None:
    request = PLACES[place]('caf\u00e9 🙂 {"a" : 1.50, "b":"\\u00e9"}')
    assert passed(request, RESTORE).request == request


def test_only_strings_of_arguments_are_masked_and_all_else_is_as_it_was() -> None:
    arguments = (
        f'{{"{ADA}":1, "to" :["{ADA}", 1.50e3,null ], "note":"caf\\u00e9 \\ud83d\\ude00 ada\\u0040'
        f'example.com \\"{BOB}\\"" ,"card":4111111111111111}}'
    )
    [_, message] = passed(called(arguments), MASK).request.messages
    assert message.tool_calls[0].arguments == (
        f'{{"{ADA}":1, "to" :["<EMAIL_ADDRESS_1>", 1.50e3,null ], "note":"caf\\u00e9 \\ud83d\\ude00'
        ' <EMAIL_ADDRESS_1> \\"<EMAIL_ADDRESS_2>\\"" ,"card":"<CREDIT_CARD_1>"}'
    )


def test_ids_of_calls_stay_what_they_are() -> None:
    call = ToolCall(id=ADA, name="send", arguments="{}")
    request = ask(
        messages=(
            Message(role=Role.ASSISTANT, tool_calls=(call,)),
            Message(role=Role.TOOL, tool_call_id=ADA, content="done"),
        )
    )
    assert passed(request, MASK).request == request


def test_a_name_holds_no_angle_brackets() -> None:
    [_, message] = passed(by(Role.USER, content=ADA, name=ADA), MASK).request.messages
    assert (message.name, message.content) == ("EMAIL_ADDRESS_1", "<EMAIL_ADDRESS_1>")


def test_a_key_says_what_its_value_is() -> None:
    held_to = policies(pii(US_SSN="mask", PHONE_NUMBER="mask"))
    request = called('{"ssn": "078051120", "order": "078051120x"}')
    [_, message] = passed(request, held_to).request.messages
    assert message.tool_calls[0].arguments == '{"ssn": "<US_SSN_1>", "order": "078051120x"}'


def test_a_rule_looks_only_where_it_is_on() -> None:
    request = called(json.dumps({"to": ADA}))
    held_to = policies({**pii(EMAIL_ADDRESS="mask"), "on": ["input", "output"]})
    assert passed(request, held_to).request == request
    held_to = policies({**pii(EMAIL_ADDRESS="mask"), "on": ["tools"]})
    assert ADA not in all_of(passed(request, held_to).request)


# A number of more digits may be a card.
SCALARS = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(-1, 1, width=16)
WRITTEN = st.sampled_from(
    [ADA, CARD, f'"{BOB}"', "a\\b", "\n", "é🙂", "<EMAIL_ADDRESS_1>", "", "x"]
)
STRINGS = st.lists(WRITTEN, max_size=3).map(" ".join)
JSON = st.recursive(
    SCALARS | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=8,
).map(lambda value: {"value": value})


def shape(value: Any) -> Any:
    """Returns a value without what its strings say."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return "" if isinstance(value, str) else value


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [each for inner in value.values() for each in strings(inner)]
    if isinstance(value, list):
        return [each for inner in value for each in strings(inner)]
    return [value] if isinstance(value, str) else []


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=JSON, ascii_only=st.booleans(), indent=st.none() | st.just(2))
def test_json_stays_json_with_the_same_keys(
    value: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    arguments = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    after = passed(called(arguments), MASK).request.messages[1].tool_calls[0].arguments
    masked = json.loads(after)
    assert shape(masked) == shape(value)
    for text in strings(masked):
        assert not any(original in text for original in (ADA, BOB, CARD))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(request=events(InferenceRequested))
def test_any_request_passes_or_is_refused_the_same_each_time(request: InferenceRequested) -> None:
    first = guard_request(request, RESTORE, SEAL)
    assert first == guard_request(request, RESTORE, SEAL)
    assert isinstance(first, Guarded)
    assert changed(request, lambda passage: passage.text) == request
    assert len(passages(request)) == len(passages(first.request))


@pytest.mark.parametrize("place", PLACES)
def test_a_refused_request_is_recorded_masked(place: str) -> None:
    held_to = policies(pii(EMAIL_ADDRESS="block"))
    request = PLACES[place](ADA)
    assert ADA not in all_of(masked_request(request, held_to))


def test_what_a_refused_request_tells_once_is_masked_wherever_it_stands() -> None:
    request = ask(
        messages=(
            Message(role=Role.USER, content="My name is Mike."),
            Message(role=Role.USER, content="Mike! Yes, Mike."),
        )
    )
    assert "Mike" not in all_of(masked_request(request, policies(pii(PERSON="block"))))


def test_a_refused_request_is_recorded_without_texts_where_nobody_could_judge_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(GUARDS, "pii", lambda rule: Detector(find=breaking))
    request = PLACES["user"](ADA)
    assert ADA not in all_of(masked_request(request, policies(pii(EMAIL_ADDRESS="mask"))))


def test_what_looks_like_a_placeholder_anywhere_in_a_schema_stands_for_nothing() -> None:
    schema = json.dumps({"properties": {"<EMAIL_ADDRESS_1>": {"pattern": "<email_address_2>"}}})
    guarded = passed(tooled(parameters=schema, description=ADA))
    assert guarded.withheld["<EMAIL_ADDRESS_3>"] == ADA
