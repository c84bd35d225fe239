"""Checking what a model says: right, wrong, and not for ever."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from streams.agents.checking import wrong_answer, wrong_arguments

TWICE: dict[str, Any] = {
    "$defs": {
        f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]}
        for n in range(18)
    }
    | {"d18": {}},
    "$ref": "#/$defs/d0",
}
LISTS: dict[str, Any] = {"type": "array", "items": {"$ref": "#"}}


@pytest.mark.parametrize("content", ["7", '"seven"', "null", '{"a": [1.5]}'])
def test_json_satisfies_an_empty_schema(content: str) -> None:
    assert wrong_answer(content, {}) is None


@pytest.mark.parametrize("content", ["", "seven", "{'a': 1}", "NaN", '"\\ud800"', "[" * 200])
def test_what_not_every_reader_takes_is_no_json(content: str) -> None:
    wrong = wrong_answer(content, {})
    assert wrong is not None
    assert wrong.named == "no JSON"


@pytest.mark.parametrize("levels", [101, 1_000, 100_000])
def test_arguments_that_are_nested_too_deep_can_be_mended(levels: int) -> None:
    wrong = wrong_arguments('{"a":' * levels + "1" + "}" * levels, {})
    assert wrong is not None
    assert "deeper than 100" in wrong.said


def test_the_place_is_for_the_model_alone() -> None:
    wrong = wrong_answer('{"secret": 1}', {"additionalProperties": {"type": "string"}})
    assert wrong is not None
    assert wrong.said == '$.secret breaks type of the schema: "string"'
    assert wrong.named == "breaks type of the schema"


def test_what_nobody_asked_for_is_told_with_what_there_is() -> None:
    filters = {"properties": {"year": {}, "place": {}}, "additionalProperties": False}
    schema = {"properties": {"filters": filters}}
    wrong = wrong_arguments('{"filters": {"secret": 1, "year": 2}}', schema)
    assert wrong is not None
    assert wrong.said == (
        "$.filters breaks additionalProperties of the schema: "
        'it has ["secret"], takes ["year", "place"]'
    )
    assert wrong.named == "breaks additionalProperties of the schema"


def test_a_schema_whose_parts_double_is_not_followed_for_ever() -> None:
    began = time.thread_time()
    wrong = wrong_answer("1", TWICE)
    assert wrong is not None
    assert wrong.named == "too much to check"
    assert time.thread_time() - began < 5


def test_a_dialect_named_within_a_schema_lets_nothing_by() -> None:
    named = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    parts = {name: {**part, **named} for name, part in TWICE["$defs"].items()}
    wrong = wrong_answer("1", {**TWICE, "$defs": parts})
    assert wrong is not None
    assert wrong.named == "too much to check"


def test_a_property_may_have_the_name_of_a_dialect() -> None:
    schema = {"properties": {"$schema": {"type": "string"}}}
    assert wrong_answer('{"$schema": "x"}', schema) is None
    assert wrong_answer('{"$schema": 1}', schema) is not None


def test_a_pattern_keeps_nobody_busy() -> None:
    began = time.thread_time()
    assert wrong_answer(json.dumps("a" * 40 + "!"), {"pattern": "^(a+)+$"}) is None
    assert time.thread_time() - began < 1


def test_a_reference_to_itself_ends() -> None:
    wrong = wrong_answer("1", {"$ref": "#"})
    assert wrong is not None
    assert wrong.named == "too much to check"


def test_deep_lists_are_followed_as_far_as_it_is_safe() -> None:
    assert wrong_answer("[" * 20 + "]" * 20, LISTS) is None
    wrong = wrong_answer("[" * 90 + "]" * 90, LISTS)
    assert wrong is not None
    assert wrong.named == "too much to check"


def test_many_items_are_checked_all() -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    assert wrong_answer(json.dumps(list(range(30_000))), schema) is None
    assert wrong_answer(json.dumps([*range(30_000), 1]), schema) is not None


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ("1" + "0" * 400, {"multipleOf": 0.5}),
        ("1" + "0" * 400, {"maximum": 1.5}),
        ('{"a": {"b": 1}}', {"properties": {"a": {"$ref": "#/required"}}, "required": ["a"]}),
        ('{"a": {"b": 1}}', {"properties": {"a": {"$ref": "#/type"}}, "type": "object"}),
        ("1", {"$ref": "#/nowhere"}),
        ("1", {"$ref": "#nowhere"}),
        ("1", {"not": {"type": "integer"}}),
    ],
)
def test_no_value_makes_a_check_raise(value: str, schema: dict[str, Any]) -> None:
    assert wrong_answer(value, schema) is not None


def test_arguments_are_an_object() -> None:
    assert wrong_arguments("[]", {}) is not None
    assert wrong_arguments("{}", {}) is None
    wrong = wrong_arguments("{}", {"required": ["a"]})
    assert wrong is not None
    assert wrong.said == '$ breaks required of the schema: ["a"]'
