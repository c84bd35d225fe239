"""Placeholders: what stands for a text that a model must not see, ``<EMAIL_ADDRESS_1>``.

What a request holds is numbered. What only an answer holds has no number, and stands in brackets
of its own, ``[EMAIL_ADDRESS]``: nothing was withheld there that it could be restored to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from schemas.openai import parsed

# As people and models write them; one without a number only as it is, for the rest may be markup.
_PAST = re.compile(r"<((?i:[A-Z]+(?:\\?_[A-Z]+)*\\?_[0-9]+)|[A-Z]+(?:_[A-Z]+)*)>", re.ASCII)
_PLACEHOLDER = re.compile(r"<([A-Z]+(?:_[A-Z]+)*)(?:_([1-9][0-9]*))?>")


def placeholder(kind: str, number: int) -> str:
    """Returns what stands for the text of a kind with a number."""
    return f"<{kind}_{number}>"


def bare(kind: str) -> str:
    """Returns a placeholder that a model has left the number out of."""
    return f"<{kind}>"


def unnumbered(name: str) -> bool:
    """Returns whether a placeholder has no number."""
    match = _PLACEHOLDER.fullmatch(name)
    return match is not None and match[2] is None


def unrestorable(kind: str) -> str:
    """Returns what stands for a text of an answer."""
    return f"[{kind}]"


def withheld(text: str) -> set[str]:
    """Returns what may stand in a text for something that its reader must not see."""
    return {match[0] for match in _PLACEHOLDER.finditer(text) if match[2]}


def past(text: str) -> str:
    """Returns a text whose placeholders stand for nothing any more: another request has its own."""
    return _PAST.sub(lambda match: unrestorable(match[1]), text)


def past_in_json(text: str) -> str:
    """Returns a JSON text with all its strings ``past``; one that is none as any other text."""
    value = parsed(text)
    return past(text) if value is text else json.dumps(_past_in(value), ensure_ascii=False)


def _past_in(value: object) -> object:
    if isinstance(value, str):
        return past(value)
    if isinstance(value, list):
        return [_past_in(each) for each in value]
    if isinstance(value, dict):
        return {past(name): _past_in(each) for name, each in value.items()}
    return value


def kinds_of(placeholders: Iterable[str]) -> set[str]:
    """Returns the kinds that placeholders are of."""
    return {match[1] for each in placeholders if (match := _PLACEHOLDER.fullmatch(each))}


def written(kinds: Iterable[str]) -> re.Pattern[str]:
    """Returns a pattern of how placeholders of some kinds are written, by people and by models.

    Case does not count, and an underscore may be escaped as Markdown has it.
    """
    spelled = "|".join(sorted((_spelled(kind) for kind in kinds), key=len, reverse=True))
    return re.compile(rf"<(?:{spelled})(?:\\?_[0-9]+)?>", re.ASCII | re.IGNORECASE)


def plain(found: str) -> str:
    """Returns a placeholder as it is when nobody has written it in another way."""
    return found.replace("\\", "").upper()


def longest(placeholders: Mapping[str, str]) -> int:
    """Returns the most characters that one of some placeholders is written in."""
    return max((len(each) + each.count("_") for each in placeholders), default=0)


def _spelled(kind: str) -> str:
    return re.escape(kind).replace("_", r"\\?_")
