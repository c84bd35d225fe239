"""A gateway like any other, save that looking for personal data breaks where a text says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from schemas.policies import PiiRule
from schemas.topics import Topic
from streams import gateway
from streams.guards.found import Detector, Hit
from streams.guards.kinds import GUARDS
from streams.guards.kinds.personal import personal
from streams.steps import Fail, Runtime, Work

# A text with these words in it makes the guard raise an error that quotes the text.
RAISES = "break the guard"
TIMES_OUT = "tire the guard"
ERRORS: dict[str, type[Exception]] = {RAISES: RuntimeError, TIMES_OUT: TimeoutError}


def breakable(rule: PiiRule) -> Detector:
    """Returns what finds personal data, until it breaks."""
    detector = personal(rule)

    def find(text: str, begin: int) -> Iterable[Hit]:
        for words, error in ERRORS.items():
            if words in text:
                raise error(f"cannot read {text!r}")
        return detector.find(text, begin)

    return replace(detector, find=find)


def open_gateway(runtime: Runtime, fail: Fail) -> Mapping[Topic[Any], Work]:
    """Returns the gateway's work, with a guard that can break."""
    GUARDS["pii"] = breakable
    return gateway.open_gateway(runtime, fail)
