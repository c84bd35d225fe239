"""How long rules may look that can take for ever: meanwhile nobody else is served."""

from __future__ import annotations

import time

from streams.guards.found import Hit, Within

# Of the processor, for each rule and request or answer.
SECONDS = 0.2
# What each character adds that is looked at: long texts take longer, and may.
SECONDS_A_CHARACTER = 1e-6


class Patience:
    """The time of the processor that the rules of one request or answer have left, each its own."""

    def __init__(self) -> None:
        self._left: dict[str, float] = {}

    def lost(self, rule: str) -> bool:
        """Returns whether a rule has taken its time, so that it is not asked again."""
        return self._left.get(rule, SECONDS) <= 0

    def look(self, rule: str, within: Within, text: str, begin: int) -> list[Hit]:
        """Returns what a rule finds.

        Raises:
            TimeoutError: It takes too long.
        """
        left = self._left.get(rule, SECONDS) + len(text) * SECONDS_A_CHARACTER
        began = time.thread_time()
        try:
            hits = list(within(text, begin, left))
        except TimeoutError:
            self._left[rule] = 0
            raise
        self._left[rule] = left - (time.thread_time() - began)
        return hits
