"""Topics, each told by its phrases."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.policies import TopicsRule
from streams.guards.found import Detector, Hit
from streams.guards.phrases import Phrases


def topics(rule: TopicsRule) -> Detector:
    """Returns what finds the phrases of topics; each hit is of the topic's kind."""
    phrases = Phrases((phrase, topic) for topic, said in rule.topics.items() for phrase in said)

    def find(text: str, begin: int) -> Iterator[Hit]:
        for start, end, topic in phrases.find(text, begin):
            yield Hit(start, end, topic, rule.action)

    return Detector(find=find, says="a topic that is not allowed here", held_from=phrases.held_from)
