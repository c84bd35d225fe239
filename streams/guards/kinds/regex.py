"""Patterns of regular expressions.

They are those of Python. ``regex`` reads them the same way as ``re`` and can be stopped: some
patterns take for ever over some texts, and meanwhile nobody else would be served.
"""

from __future__ import annotations

from collections.abc import Iterator

import regex as patterns

from schemas.policies import RegexRule
from streams.guards.found import Detector, Hit

# Characters of a growing text that are held back for patterns. A match that goes on at the end of
# what has come is held besides, so only a match that begins to be one later is found late: when
# the answer is whole.
REACH = 256
# A pattern that is not through a text by then has no judgement of it.
LONGEST_SECONDS = 1.0


def regex(rule: RegexRule) -> Detector:
    """Returns what finds the patterns; it raises ``TimeoutError`` over one that takes for ever."""
    compiled = [patterns.compile(pattern) for pattern in rule.patterns]

    def find(text: str, begin: int) -> Iterator[Hit]:
        for pattern in compiled:
            for match in pattern.finditer(text, begin, timeout=LONGEST_SECONDS):
                if match.end() > match.start():
                    yield Hit(match.start(), match.end(), "PATTERN", rule.action)

    return Detector(find=find, says="something that is not allowed here", held_from=_held_from)


def _held_from(text: str) -> int:
    return max(0, len(text) - REACH)
