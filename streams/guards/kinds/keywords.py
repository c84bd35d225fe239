"""Words that must not be said."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.policies import KeywordsRule
from streams.guards.found import Detector, Hit
from streams.guards.phrases import Phrases


def keywords(rule: KeywordsRule) -> Detector:
    """Returns what finds words and phrases, whatever their case."""
    phrases = Phrases((word, "KEYWORD") for word in rule.words)

    def find(text: str, begin: int) -> Iterator[Hit]:
        for start, end, kind in phrases.find(text, begin):
            yield Hit(start, end, kind, rule.action)

    return Detector(find=find, says="words that are not allowed here", held_from=phrases.held_from)
