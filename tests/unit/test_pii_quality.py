"""How well personal data is found on a part of the labelled set; the bench ``pii`` takes all."""

from __future__ import annotations

import pytest

from streams.guards.pii import find
from streams.guards.pii.finding import KINDS
from tests.pii.scores import Scores, scored
from tests.pii.sentences import Labelled, judged, tuned

ALL = frozenset(KINDS)


@pytest.fixture(scope="module")
def scores() -> Scores:
    return scored(
        judged(900), lambda text: [(span.start, span.end, span.entity) for span in find(text, ALL)]
    )


def test_a_set_is_the_same_each_time_and_its_labels_are_true() -> None:
    assert judged(200) == judged(200)
    assert {kind for each in judged() for _, _, kind in each.labels} == ALL
    for sentence in (*judged(200), *tuned(200)):
        assert _is_true(sentence)


def _is_true(sentence: Labelled) -> bool:
    spans = [(start, end) for start, end, _ in sentence.labels]
    return spans == sorted(spans) and all(
        start < end <= len(sentence.text) and sentence.text[start:end].strip()
        for start, end in spans
    )


@pytest.mark.parametrize("kind", sorted(ALL))
def test_of_each_kind_nearly_all_is_found(kind: str, scores: Scores) -> None:
    assert scores.labels[kind] > 30
    assert scores.recall(kind) >= 0.95, [text for said, text in scores.missed if said == kind]


@pytest.mark.parametrize("kind", sorted(ALL - {"PERSON"}))
def test_what_is_found_by_its_form_is_what_it_is_said_to_be(kind: str, scores: Scores) -> None:
    assert scores.precision(kind) >= 0.95, [each for each in scores.wrong if each[0] == kind]


def test_names_of_people_are_mostly_that(scores: Scores) -> None:
    assert scores.precision("PERSON") >= 0.88
