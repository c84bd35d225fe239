"""Restoring: what the caller's placeholders stood for, back in its place, in a text that grows.

A placeholder is known whatever its case and however Markdown escapes it. One that stands for
nothing, or could stand for several texts, stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from streams.guards import jsontext
from streams.guards.placeholders import kinds_of, longest, plain, written

_QUOTE = '"'
# A character as JSON has it: escaped, begun to be so where the text ends, or itself.
_UNIT = re.compile(
    r"(?P<code>\\u[0-9a-fA-F]{4})|(?P<half>\\(?:u[0-9a-fA-F]{0,3})?\Z)|(?P<mark>\\.)|[^\\]", re.S
)
# What no placeholder has, for what need not be told apart.
_OTHER = "\0"


class Restorer:
    """Restores one text that comes in pieces.

    What may be the beginning of a placeholder is held back until it is one or none; never more
    than the longest placeholder has characters.

    Args:
        values: What placeholders stand for.
        json: Whether the text is JSON: placeholders may be escaped in it, and what they stand for
            is, where it stands in a string.
    """

    def __init__(self, values: Mapping[str, str], *, json: bool = False) -> None:
        self._values = values
        self._json = json
        self._held = ""
        self._in_string = False
        if values:
            kinds = kinds_of(values)
            self._pattern = written(kinds)
            self._longest = longest(values)
            self._heads = tuple(f"<{kind}_" for kind in kinds)

    def feed(self, piece: str) -> str:
        """Returns what is certain of the text now and was not before."""
        return self._certain(piece, last=False) if self._values else piece

    def finish(self) -> str:
        """Returns the rest: there comes no more."""
        return self._certain("", last=True) if self._held else ""

    def _certain(self, piece: str, *, last: bool) -> str:
        raw = self._held + piece
        said, starts = self._read(raw, last=last)
        until = len(said) if last else self._held_from(said)
        pieces: list[str] = []
        behind = 0
        for match in self._pattern.finditer(said, 0, until):
            value = self._values.get(plain(match[0]))
            if value is not None:
                self._pass(said, behind, match.start())
                pieces += (raw[starts[behind] : starts[match.start()]], self._put(value))
                behind = match.end()
        self._pass(said, behind, until)
        self._held = raw[starts[until] :]
        return "".join((*pieces, raw[starts[behind] : starts[until]]))

    def _read(self, raw: str, *, last: bool) -> tuple[str, Sequence[int]]:
        """Returns what a text says, as far as it is whole, and where each character stands."""
        if not self._json or "\\" not in raw:
            return raw, range(len(raw) + 1)
        said: list[str] = []
        starts: list[int] = []
        for unit in _UNIT.finditer(raw):
            if unit["half"] and not last:
                return "".join(said), [*starts, unit.start()]
            starts.append(unit.start())
            if unit["code"]:
                code = int(unit["code"][2:], 16)
                said.append(chr(code) if chr(code).isascii() and chr(code) != _QUOTE else _OTHER)
            elif unit["mark"]:
                said.append("\\" if unit[0] == "\\\\" else _OTHER)
            else:
                said.append(_OTHER if unit["half"] else unit[0])
        return "".join(said), [*starts, len(raw)]

    def _held_from(self, said: str) -> int:
        """Returns where a placeholder may have begun that is not whole yet."""
        start = said.rfind("<", max(0, len(said) - self._longest))
        begun = plain(said[start:]) if start >= 0 else ""
        for head in self._heads if begun else ():
            if head.startswith(begun) or (begun.startswith(head) and begun[len(head) :].isdigit()):
                return start
        return len(said)

    def _pass(self, said: str, start: int, end: int) -> None:
        if self._json and said.count(_QUOTE, start, end) % 2:
            self._in_string = not self._in_string

    def _put(self, value: str) -> str:
        if self._in_string:
            return jsontext.escaped(value)
        # Half of a surrogate pair, which only JSON can hold, is no text.
        return value.encode(errors="replace").decode()


def restored(text: str, values: Mapping[str, str], *, json: bool = False) -> str:
    """Returns a whole text with what its placeholders stood for."""
    restorer = Restorer(values, json=json)
    return restorer.feed(text) + restorer.finish()
