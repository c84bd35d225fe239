"""Laws of finding personal data, whatever the text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.guards.pii import Span, disjoint, find
from streams.guards.pii.finding import KINDS
from streams.guards.pii.presidio import holds
from tests.pii.values import VALUES

ALL = frozenset(KINDS)
# Texts near to what is looked for, and any others.
PIECES = st.sampled_from(
    ("4111", " 1111", "-", "@", "example.com", "DE89", "Ada ", "Smith", "+49", "30", ":", "::",
     ".", "1", "\u0301", "🙂", "passport ", "born ", "VAT ", "bc1", "0x", "<", "%40", "\\n", "\n")
)  # fmt: skip
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=30).map("".join))
SPANS = st.builds(
    lambda start, length, entity, score: Span(start, start + length, entity, score),
    st.integers(0, 40),
    st.integers(1, 15),
    st.sampled_from(sorted(KINDS)),
    st.sampled_from((0.5, 0.7, 1.0)),
)


@given(TEXTS)
@example("::%0")
def test_spans_lie_in_the_text_in_order_and_apart(text: str) -> None:
    spans = find(text, ALL)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert all(0 < span.score <= 1 for span in spans)
    assert all(one.end <= other.start for one, other in pairwise(spans))


@given(TEXTS)
def test_the_same_text_gives_the_same(text: str) -> None:
    assert find(text, ALL) == find(text, sorted(ALL, reverse=True))


@given(st.text(st.characters(exclude_characters="@", exclude_categories=("Lu", "Lt", "Nd"))))
def test_a_text_without_digits_at_signs_and_capitals_has_none(text: str) -> None:
    assert find(text, ALL) == []


@given(st.lists(SPANS, max_size=12))
def test_what_any_span_covers_stays_covered_and_nothing_else(spans: list[Span]) -> None:
    settled = disjoint(spans)
    assert {at for span in spans for at in range(span.start, span.end)} == {
        at for span in settled for at in range(span.start, span.end)
    }


@given(st.sampled_from(sorted(VALUES)), st.integers(0, 10_000), TEXTS, TEXTS)
def test_what_stands_around_does_not_change_a_find(
    kind: str, seed: int, before: str, behind: str
) -> None:
    value = VALUES[kind](Random(seed))
    # What must be said of it is said next to it.
    said = {"DATE_OF_BIRTH": "born", "PASSPORT": "passport", "PHONE_NUMBER": "tel"}.get(kind, "see")
    start = len(f"{before}\n\n{said}: ")
    text = f"{before}\n\n{said}: {value}\n\n{behind}"
    spans = [span for span in find(text, {kind}) if span.start <= start < span.end]
    assert [(span.start, span.end) for span in spans] == [(start, start + len(value))]


@pytest.mark.parametrize("count", [100, 200])
def test_a_card_more_is_judged_once_more(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: Counter[str] = Counter()

    def counted(entity: str, candidate: str) -> bool:
        judged[entity] += 1
        return holds(entity, candidate)

    monkeypatch.setattr("streams.guards.pii.money.holds", counted)
    text = " ".join(["4111 1111 1111 1111 and ada@example.com"] * count)
    assert len(find(text, ALL)) == 2 * count
    assert judged == {"CREDIT_CARD": count}


def test_nothing_is_looked_for_where_its_sign_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(_: str) -> Iterator[Span]:
        raise AssertionError("looked for")

    for entity, kind in KINDS.items():
        monkeypatch.setitem(KINDS, entity, type(kind)(kind.signs, looked))
    assert find("an ordinary prompt, nothing to see: please go on", ALL) == []
