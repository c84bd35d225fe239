"""Personal data: how much of it is found, how much of what is found is any, and what it costs.

python -m tests.bench pii            quality beside plain Presidio's, and times
python -m tests.bench pii quality    the first alone
python -m tests.bench pii times      the second alone

Plain Presidio runs all of its recognisers on a blank spaCy pipeline: without a model, as here, and
so without names of people. What it finds of other kinds (URLs, driving licences) is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from time import perf_counter
from typing import Any

import spacy
import tldextract
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import SpacyNlpEngine

from streams.guards.pii import find, load
from streams.guards.pii.finding import KINDS
from tests.pii.scores import Found, Scores, scored
from tests.pii.sentences import judged

# What Presidio calls the kinds, where it has other names for them.
AS_PRESIDIO_SAYS = {
    "DATE_TIME": "DATE_OF_BIRTH",
    "IT_PASSPORT": "PASSPORT",
    "IT_VAT_CODE": "VAT_NUMBER",
    "UK_PASSPORT": "PASSPORT",
    "US_PASSPORT": "PASSPORT",
}
PLAIN = (
    "Please summarise the following report for the board of directors in three short paragraphs. "
    "Keep the tone neutral, avoid jargon, and list the main risks at the end. The audience knows "
    "the product but has not read the earlier version of it."
)
MESSAGES = {
    "nothing in it": PLAIN,
    "a few numbers": f"In 2026 we plan 3 releases and 12 fixes. {PLAIN[:199]}",
    "one mail": f"{PLAIN[:205]} Write to ada@example.com by noon.",
    "a name and a phone": f"{PLAIN[:199]} Tell Ada Lovelace or call +49 30 1234567.",
}
ENTITIES = frozenset(KINDS)


class Blank(SpacyNlpEngine):
    """A pipeline that splits words and knows no more."""

    nlp: Any

    def load(self) -> None:
        self.nlp = {"en": spacy.blank("en")}


def presidio() -> AnalyzerEngine:
    """Returns Presidio's engine with all that it has for English, offline."""
    # It would fetch the list of public suffixes.
    suffixes: Any = tldextract
    suffixes.extract = tldextract.TLDExtract(None, ())
    engine = Blank()
    engine.load()
    return AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])


def run(part: str = "all") -> None:
    """Prints the figures."""
    load()
    plain = presidio()
    if part in {"all", "quality"}:
        _quality(plain)
    if part in {"all", "times"}:
        _times(plain)


def _ours(text: str) -> Found:
    return [(span.start, span.end, span.entity) for span in find(text, ENTITIES)]


def _theirs(plain: AnalyzerEngine, text: str) -> Found:
    found = []
    for each in plain.analyze(text, language="en"):
        kind = AS_PRESIDIO_SAYS.get(each.entity_type, each.entity_type)
        if kind in KINDS:
            found.append((each.start, each.end, kind))
    return found


def _quality(plain: AnalyzerEngine) -> None:
    sentences = judged()
    ours = scored(sentences, _ours)
    theirs = scored(sentences, lambda text: _theirs(plain, text))
    nothing = sum(1 for sentence in sentences if not sentence.labels)
    print(f"{len(sentences)} sentences, {ours.labels.total()} values, {nothing} without any\n")
    print(f"{'':<16}{'values':>7}   {'ours: recall':>12} {'precision':>9} {'exact':>6}", end="")
    print(f"   {'Presidio: recall':>16} {'precision':>9}")
    for kind in KINDS:
        _row(kind, ours, theirs, kind)
    _row("all but PERSON", ours, theirs, *(kind for kind in KINDS if kind != "PERSON"))
    _row("all", ours, theirs, *KINDS)


def _row(name: str, ours: Scores, theirs: Scores, *kinds: str) -> None:
    labels = sum(ours.labels[kind] for kind in kinds)
    exact = sum(ours.exact[kind] for kind in kinds) / labels
    print(
        f"{name:<16}{labels:>7}   {ours.recall(*kinds):>12.3f} {ours.precision(*kinds):>9.3f}",
        end="",
    )
    print(f" {exact:>6.3f}   {theirs.recall(*kinds):>16.3f} {theirs.precision(*kinds):>9.3f}")


def _times(plain: AnalyzerEngine) -> None:
    print("\nmicroseconds a message, all kinds together")
    for name, text in MESSAGES.items():
        ours = _least(partial(find, text, ENTITIES), 2000)
        theirs = _least(partial(plain.analyze, text, "en"), 10)
        print(
            f"{name:<20} {len(text)} characters {ours * 1e6:>8.1f}   Presidio {theirs * 1e6:>8.0f}"
        )
    print("\nlong texts with a mail in every 200 characters")
    spent = {}
    for mails in (2500, 5000, 10_000):
        text = _long(mails)
        spent[mails] = _least(partial(find, text, ENTITIES), 3)
        print(f"{mails:>6} mails {len(text):>8} characters {spent[mails]:>6.3f} s")
    print(f"twice the text takes {spent[10_000] / spent[5000]:.2f} times as long")


def _long(mails: int) -> str:
    filler = (
        "and then some more text that fills the line, as it were, for the rest of it is plain. " * 2
    )
    return " ".join(
        f"user{at} wrote to user{at}@example{at % 97}.com {filler}".strip() for at in range(mails)
    )


def _least(work: Callable[[], Collection[object]], times: int) -> float:
    best = float("inf")
    for _ in range(5):
        began = perf_counter()
        for _ in range(max(1, times // 5)):
            work()
        best = min(best, (perf_counter() - began) / max(1, times // 5))
    return best
