"""Patterns of regular expressions.

They are those of Python. ``regex`` reads them the same way as ``re`` and can be stopped: some
patterns take for ever over some texts, and meanwhile nobody else would be served.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import regex as patterns

from schemas.policies import RegexRule
from streams.guards.found import Detector, Hit

# Characters of a growing text that are held back for patterns. A match that goes on at the end of
# what has come is held besides, so only a match that begins to be one later is found late: when
# the answer is whole.
REACH = 256


def regex(rule: RegexRule) -> Detector:
    """Returns what finds the patterns."""
    compiled = [patterns.compile(pattern, patterns.VERSION0) for pattern in rule.patterns]

    def within(text: str, begin: int, seconds: float) -> Iterator[Hit]:
        end = time.thread_time() + seconds
        for pattern in compiled:
            left = end - time.thread_time()
            if left <= 0:
                raise TimeoutError
            for match in pattern.finditer(text, begin, timeout=left):
                if match.end() > match.start():
                    yield Hit(match.start(), match.end(), "PATTERN", rule.action)

    return Detector(within=within, says="something that is not allowed here", held_from=_held_from)


def _held_from(text: str) -> int:
    return max(0, len(text) - REACH)
