"""Patterns of regular expressions."""

from __future__ import annotations

import re
from collections.abc import Iterator

from schemas.policies import RegexRule
from streams.guards.found import Detector, Hit

# Characters of a growing text that are held back for patterns. A match that goes on at the end of
# what has come is held besides, so only a match that begins to be one later is found late: when
# the answer is whole.
REACH = 256


def regex(rule: RegexRule) -> Detector:
    """Returns what finds the patterns."""
    patterns = [re.compile(pattern) for pattern in rule.patterns]

    def find(text: str, begin: int) -> Iterator[Hit]:
        for pattern in patterns:
            for match in pattern.finditer(text, begin):
                if match.end() > match.start():
                    yield Hit(match.start(), match.end(), "PATTERN", rule.action)

    return Detector(find=find, says="something that is not allowed here", held_from=_held_from)


def _held_from(text: str) -> int:
    return max(0, len(text) - REACH)
