"""Calls of tools: their arguments, what they come to, and when they are sent again."""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.settings import ToolsSettings
from schemas.kinds import FunctionVersionSpec
from tests.seed import changed, view_of
from workers.providers.tools import Sending
from workers.tools import Call, Fault, ToolFailed
from workers.tools.arguments import CHECK_S, read_arguments
from workers.tools.calls import (
    MOST_RESULT_BYTES,
    Wanted,
    called,
    failed,
    returned,
    version_of,
    wanted,
)
from workers.tools.executor import openings
from workers.tools.journal import Entry, State

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "pattern": "^[A-Z]"}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
DIALECT = "https://json-schema.org/draft/2020-12/schema"
# Each part asks for the next one twice.
TWICE: dict[str, Any] = {
    str(number): {"allOf": [{"$ref": f"#/$defs/{number + 1}"}] * 2} for number in range(60)
}
TWICE["60"] = {}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def call(arguments: dict[str, Any], **changes: Any) -> Call:
    values = {
        "call_id": "r1//acme//3//acme",
        "function": "main.tools.pay",
        "version": 2,
        "spec": FunctionVersionSpec(language="python", source="def pay(): pass"),
        "arguments": arguments,
        "tenant": "acme",
        "principal": "ann",
        "deadline": datetime(2030, 1, 1, tzinfo=UTC),
    }
    return Call(**{**values, **changes})


def fault(texts: tuple[str, ...], parameters: dict[str, Any]) -> tuple[Fault, str]:
    with pytest.raises(ToolFailed) as found:
        read_arguments(texts, parameters)
    return found.value.fault, found.value.message


def test_arguments_that_fit_are_read() -> None:
    assert read_arguments(('{"city": "Rome", "days": 2}',), CITY) == {"city": "Rome", "days": 2}
    assert read_arguments(("{}",), {}) == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"city": 7}', 'at $.city: type is "string"'),
        ('{"city": "rome"}', "at $.city: pattern is"),
        ("{}", 'at $: required is ["city"]'),
        ('{"city": "Rome", "zip": 1}', "at $: additionalProperties is false"),
        ("[]", "no JSON object"),
        ("{", "no JSON"),
        ('{"city": NaN}', "no JSON"),
        ('{"city": 1e999}', "no JSON"),
        ('{"city": "\\ud800"}', "no JSON"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_arguments_that_do_not_fit_are_told_where_and_what_is_asked_for(
    text: str, says: str
) -> None:
    kind, message = fault((text,), CITY)
    assert kind is Fault.ARGUMENTS
    assert says in message


def test_arguments_come_as_one_text() -> None:
    assert fault((), CITY)[0] is fault(("{}", "{}"), CITY)[0] is Fault.ARGUMENTS


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "objekt"},
        {"$ref": "http://127.0.0.1:9/schema"},
        {"$ref": "#/nowhere"},
        {"properties": {"city": {"pattern": "("}}},
        {"properties": {"city": {"pattern": "^(a|a|aa)+$"}}},
        {"$defs": TWICE, "$ref": "#/$defs/0"},
        {"$defs": TWICE, "allOf": [{"$schema": DIALECT, "$ref": "#/$defs/0"}]},
    ],
)
def test_parameters_that_cannot_be_checked_by_are_the_functions_fault_and_take_a_moment(
    parameters: dict[str, Any],
) -> None:
    began = time.monotonic()
    kind, _ = fault((json.dumps({"city": "a" * 40 + "!"}),), parameters)
    assert kind is Fault.SOURCE
    assert time.monotonic() - began < 60 * CHECK_S


@given(JSON)
def test_what_a_call_returns_comes_out_as_it_went_in(value: object) -> None:
    assert json.loads(returned(value)) == {"result": value}


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        ("x" * MOST_RESULT_BYTES, Fault.LIMIT),
        (math.nan, Fault.RAISED),
        ("\ud800", Fault.RAISED),
        ({1, 2}, Fault.RAISED),
    ],
)
def test_what_no_call_may_return_is_a_failure(result: object, kind: Fault) -> None:
    with pytest.raises(ToolFailed) as found:
        returned(result)
    assert found.value.fault is kind


def test_a_failure_says_its_kind_and_its_words() -> None:
    said = json.loads(failed(ToolFailed(Fault.FORBIDDEN, "no network")))
    assert said == {"error": {"kind": "forbidden", "message": "no network"}}


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_a_call_comes_out_of_the_queue_as_it_went_in(arguments: dict[str, Any]) -> None:
    sent = call(arguments)
    carried = Wanted.model_validate_json(wanted(sent, 7).model_dump_json())
    assert called(carried, sent.spec) == sent
    assert carried.digest == wanted(sent, 8).digest


def test_the_order_of_arguments_makes_no_other_call() -> None:
    one, other = call({"a": 1, "b": [1, 2]}), call({"b": [1, 2], "a": 1})
    assert wanted(one, 1).digest == wanted(other, 1).digest


@pytest.mark.parametrize(
    "changes",
    [
        {"function": "main.tools.refund"},
        {"principal": "bob"},
        {"tenant": "other"},
        {"version": 3},
    ],
)
def test_whatever_else_is_called_or_with_what_makes_another_call(changes: dict[str, Any]) -> None:
    assert wanted(call({"a": 1}), 1).digest != wanted(call({"a": 1}, **changes), 1).digest
    assert wanted(call({"a": 1}), 1).digest != wanted(call({"a": 2}), 1).digest


def test_a_function_is_found_by_its_version_and_nothing_else_is() -> None:
    spec = {"language": "python", "source": "def pay(): pass"}
    documents = [
        {"kind": "function", "name": "main.tools.pay", "versions": [{"spec": spec}]},
        {"kind": "model", "name": "main.tools.model", "versions": [{"spec": {"uri": "file:/m"}}]},
    ]
    view = view_of(documents)
    assert version_of(view, "main.tools.pay", 1).source == "def pay(): pass"
    view.apply(changed("version", "main.tools.pay@2", '{"odd": true}'))
    for name, number in (("pay", 2), ("pay", 3), ("model", 1), ("other", 1)):
        with pytest.raises(ToolFailed) as found:
            version_of(view, f"main.tools.{name}", number)
        assert found.value.fault is Fault.SOURCE


def test_a_language_that_nothing_runs_is_named() -> None:
    settings = ToolsSettings(runners={"cobol": "workers.tools.cobol:open_cobol"})
    with pytest.raises(LookupError, match="open_cobol, which runs cobol"):
        openings(settings)


def entry(state: State, attempt: int = 1, *, over: bool = False) -> Entry:
    return Entry(digest="", state=state, attempt=attempt, over=over, outcome=None)


def test_a_call_is_sent_at_once_and_again_ever_more_seldom() -> None:
    sending = Sending(10)
    assert [at for at in range(200) if sending.due(None, at)] == [0, 10, 30, 70, 150]
    assert sending.attempt == 1


def test_a_call_that_runs_is_not_sent_and_one_that_was_lost_is_sent_at_once() -> None:
    sending = Sending(10)
    assert sending.due(None, 0)
    assert not sending.due(entry(State.STARTED), 100)
    assert sending.due(entry(State.STARTED, over=True), 101)
    assert sending.attempt == 2
    assert not sending.due(entry(State.STARTED, over=True), 102)
    assert not sending.due(entry(State.STARTED, 2), 103)
    assert sending.due(entry(State.STARTED, 2, over=True), 104)
    assert sending.due(entry(State.OPEN, 3), 105)
