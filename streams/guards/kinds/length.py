"""How much may be said."""

from __future__ import annotations

from schemas.policies import LengthRule
from streams.guards.found import Detector


def length(rule: LengthRule) -> Detector:
    """Returns a bound on the characters of all texts of a stage together."""
    return Detector(
        says=f"over {rule.most_characters} characters",
        todo="shorten it and ask again",
        most=rule.most_characters,
    )
