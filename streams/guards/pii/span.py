"""Where something stands in a text, and which of several claims to a place wins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text.

    Attributes:
        start: Index of its first character, as Python counts them.
        end: Index behind its last.
        entity: What it is, as ``schemas.policies.Entity`` has it.
        score: How sure that is, from 0 to 1.
    """

    start: int
    end: int
    entity: str
    score: float


def disjoint(spans: Iterable[Span]) -> list[Span]:
    """Returns spans that do not overlap, in order: the surest of those that do, then the longest.

    What the loser covers beyond the winner goes to the winner, so that nothing of either is left
    to be read.
    """
    settled: list[Span] = []
    for span in sorted(spans, key=lambda each: (each.start, -each.end)):
        if settled and span.start < settled[-1].end:
            settled[-1] = _joined(settled[-1], span)
        else:
            settled.append(span)
    return settled


def closed_up(text: str) -> tuple[str, list[int]]:
    """Returns the letters and digits of a text, and where each of them stands in it."""
    at = [index for index, letter in enumerate(text) if letter.isalnum()]
    return "".join(text[index] for index in at), at


def _joined(one: Span, other: Span) -> Span:
    best = max(one, other, key=lambda each: (each.score, each.end - each.start))
    end = max(one.end, other.end)
    return Span(min(one.start, other.start), end, best.entity, best.score)
