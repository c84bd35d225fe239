"""JSON inside texts: where it ends, where its strings are, and how a text goes into one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

# Numbers stay texts: one of many digits takes long to convert.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)
_TOKEN = re.compile(
    r"""(?P<string>"[^"\\]*(?:\\.[^"\\]*)*")(?P<key>\s*:)?|(?P<open>[{\[])|(?P<close>[}\]])"""
    r"""|(?P<literal>[^\s{}\[\]:,"]+)"""
)
_SPECIAL = re.compile(r'["\\{}\[\]]')
# One character of a string: a pair of surrogates, an escape, or itself.
_UNIT = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|[^\\]", re.S
)
# Under these a schema holds what a model reads; the rest of it is form.
_PROSE = frozenset({"$comment", "const", "default", "description", "enum", "examples", "title"})


class Literal(NamedTuple):
    """A string, number or word of a JSON text, where it stands.

    Attributes:
        start: Its first character, a quote where it is a string.
        end: Behind its last character.
        key: Whether it is a key.
        prose: Whether it is something that a schema says to whoever reads it.
    """

    start: int
    end: int
    key: bool
    prose: bool


def begins(text: str) -> bool:
    """Returns whether a text begins as an object or a list does."""
    return text.lstrip()[:1] in ("{", "[")


def end_of(text: str) -> int:
    """Returns where the object or list ends that a text begins with; 0 if it begins with none."""
    if not begins(text):
        return 0
    try:
        return _DECODER.raw_decode(text, len(text) - len(text.lstrip()))[1]
    except (RecursionError, ValueError):
        return 0


def literals(text: str, end: int) -> Iterator[Literal]:
    """Yields the literals of a JSON text that ends somewhere."""
    prose = [False]
    below = False
    for token in _TOKEN.finditer(text, 0, end):
        if token["open"]:
            prose.append(prose[-1] or below)
            below = False
        elif token["close"]:
            prose.pop()
            below = False
        elif token["key"]:
            start, stop = token.span("string")
            below = text[start + 1 : stop - 1] in _PROSE
            yield Literal(start, stop, True, prose[-1])
        else:
            yield Literal(token.start(), token.end(), False, prose[-1] or below)
            below = False


def decoded(string: str) -> str:
    """Returns what a string of JSON says, given with its quotes."""
    return str(json.loads(string)) if "\\" in string else string[1:-1]


def places(string: str) -> list[int]:
    """Returns where each character of what a string says stands in it, and where the last ends."""
    starts = [unit.start() for unit in _UNIT.finditer(string, 1, len(string) - 1)]
    return [*starts, len(string) - 1]


def escaped(text: str) -> str:
    """Returns a text as it stands inside a string of JSON."""
    # A half of a surrogate pair can be escaped, but not be written.
    paired = text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text)
    return json.dumps(text, ensure_ascii=not paired)[1:-1]


class Balance:
    """Tells where an object or list ends in a text that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        # Place of the character that a backslash deprives of its meaning, in the next piece.
        self._skipped = -1

    def end_in(self, piece: str) -> int | None:
        """Returns where in the next piece it ends, or None if it does not yet."""
        skipped = self._skipped
        for match in _SPECIAL.finditer(piece):
            place, character = match.start(), match[0]
            if place == skipped:
                continue
            if character == "\\":
                skipped = place + 1 if self._in_string else -1
            elif character == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += 1 if character in "{[" else -1
                if self._depth <= 0:
                    return place + 1
        self._skipped = skipped - len(piece) if skipped >= len(piece) else -1
        return None
