"""What guards take of the processor, and what rules are refused since nobody could bound them."""

from __future__ import annotations

import time

import pytest
from pydantic import ValidationError

from schemas.events import Reason, Refusal
from streams.guards import Guarded, guard_request
from streams.guards.phrases import Phrases
from tests.unit.guarding import SEAL, answer, policies, said, sealed, whole


def test_a_long_phrase_over_a_text_of_its_words_takes_no_longer_than_the_text() -> None:
    phrases = Phrases([("- " * 4_000 + "end", "K")])
    began = time.process_time()
    assert list(phrases.find("- " * 40_000)) == []
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/schema"},
        {"patternProperties": {"a": {}}},
        {"type": "strin"},
        {"items": {"pattern": "("}},
    ],
)
def test_a_schema_that_nobody_can_keep_to_is_refused(schema: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        policies({"type": "json_schema", "json_schema": schema})


def test_an_answer_is_not_checked_for_ever() -> None:
    twice: dict[str, object] = {
        f"d{at}": {"allOf": [{"$ref": f"#/$defs/d{at + 1}"}] * 2} for at in range(30)
    }
    named = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schemas = (
        {"pattern": "^(a|aa)+$"},
        {"$ref": "#/$defs/d0", "$defs": {**twice, "d30": {}}},
        {"allOf": [{**named, "$ref": "#/$defs/d0"}], "$defs": {**twice, "d30": {}}},
    )
    for schema in schemas:
        held_to = policies({"type": "json_schema", "json_schema": schema})
        began = time.process_time()
        refusal = whole(answer(f'"{"a" * 60}!"'), sealed({}), held_to)
        assert time.process_time() - began < 2
        assert isinstance(refusal, Refusal)
        assert refusal.reason is Reason.POLICY_FAILED


@pytest.mark.parametrize("let", [{}, {"shadow": True}, {"fail_open": True}])
def test_a_pattern_that_takes_for_ever_is_no_judgement(let: dict[str, bool]) -> None:
    held_to = policies({"type": "regex", "patterns": [r"(?:a|aa)+[cd]$"] * 5, **let})
    asked = said(*["a" * 60 + "cx"] * 200)
    began = time.process_time()
    verdict = guard_request(asked, held_to, SEAL)
    assert time.process_time() - began < 5
    if let:
        assert isinstance(verdict, Guarded)
        assert [each.found for each in verdict.judgements] == [{"FAILED": 1}]
    else:
        assert isinstance(verdict, Refusal)
        assert verdict.reason is Reason.POLICY_FAILED


@pytest.mark.parametrize(
    "pattern",
    [
        "(?:cat){e<=1}",
        "a{1<=e<=2}",
        "a{i}",
        r"\\{e<=1}",
        "[[:alpha:]]",
        "(?P<a>x)(?P=a)",
        "(",
        "x(?=y)",
    ],
)
def test_a_pattern_that_not_everybody_reads_the_same_way_is_none(pattern: str) -> None:
    with pytest.raises(ValidationError):
        policies({"type": "regex", "patterns": [pattern]})


def test_braces_and_counts_are_patterns() -> None:
    held_to = policies({"type": "regex", "patterns": [r"\{e\}", "x{2,3}y"]})
    assert isinstance(guard_request(said("{e}"), held_to, SEAL), Refusal)
    assert isinstance(guard_request(said("xxy"), held_to, SEAL), Refusal)
    assert isinstance(guard_request(said("xy"), held_to, SEAL), Guarded)
