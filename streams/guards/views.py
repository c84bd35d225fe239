"""A text as guards see it: what it says, without the quotes, brackets and escapes of JSON.

Each value of JSON stands behind its key there, on a line of its own: a key often says what the
value is. Every hit is told back to where it stands in the text, and the rest of the text stays as
it was, to the byte.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from streams.guards import jsontext
from streams.guards.found import Deal, Hit
from streams.guards.texts import Form

_NUMBERS = frozenset("-0123456789")


class _Cut(NamedTuple):
    """A stretch of what guards see, and where it stands in the text."""

    start: int
    end: int
    at: int
    until: int
    form: Literal["fixed", "number", "string", "text"]


class Place(NamedTuple):
    """What of a text is hit.

    Attributes:
        start: Its first character in the text.
        end: Behind its last character there.
        said: What it says.
        kind: Kind of the hit.
        deal: What is to become of it.
        quoted: Whether what stands for it needs quotes: it is a number of JSON.
    """

    start: int
    end: int
    said: str
    kind: str
    deal: Deal
    quoted: bool


@dataclass(frozen=True, slots=True)
class View:
    """A text as guards see it.

    Attributes:
        text: The text.
        seen: What guards see of it.
    """

    text: str
    seen: str
    _cuts: tuple[_Cut, ...]

    @classmethod
    def rest(cls, text: str, begin: int = 0) -> View:
        """Returns a plain text from a place on; guards see what is before it, too."""
        return cls(text[begin:], text, (_Cut(begin, len(text), 0, len(text) - begin, "text"),))

    def places(self, hits: Iterable[Hit]) -> Iterator[Place]:
        """Yields where hits that do not overlap are in the text, in order.

        A hit that spans two values is two; what must stay as it is has none.
        """
        starts = [cut.start for cut in self._cuts]
        # A number is hit once, however many hits lie in it.
        behind = -1
        for hit in hits:
            first = max(0, bisect_right(starts, hit.start) - 1)
            for cut in self._cuts[first : bisect_right(starts, hit.end - 1)]:
                start, end = max(hit.start, cut.start), min(hit.end, cut.end)
                if start < end and cut.form != "fixed" and start > behind:
                    yield self._place(cut, start, end, hit)
                    behind = cut.end - 1 if cut.form == "number" else end - 1

    def _place(self, cut: _Cut, start: int, end: int, hit: Hit) -> Place:
        if cut.form == "number":
            number = self.seen[cut.start : cut.end]
            return Place(cut.at, cut.until, number, hit.kind, hit.deal, True)
        first, last = start - cut.start, end - cut.start
        if cut.form == "string" and cut.until - cut.at != cut.end - cut.start + 2:
            at = jsontext.places(self.text[cut.at : cut.until])
            first, last = at[first], at[last]
        elif cut.form == "string":
            first, last = first + 1, last + 1
        said = self.seen[start:end]
        return Place(cut.at + first, cut.at + last, said, hit.kind, hit.deal, False)


def view(text: str, form: Form = "prose") -> View:
    """Returns a text as guards see it.

    Args:
        text: What is said. JSON that it begins with is read as such, and what is behind as text.
        form: What is a text in it, as ``Passage`` has it.
    """
    end = 0 if form == "name" else jsontext.end_of(text)
    if not end:
        return View.rest(text)
    seen: list[str] = []
    cuts: list[_Cut] = []
    length = 0

    def show(part: str, behind: str, literal: tuple[int, int] | None, kind: str) -> None:
        nonlocal length
        if literal:
            cuts.append(_Cut(length, length + len(part), *literal, kind))  # type: ignore[arg-type]
        seen.extend((part, behind))
        length += len(part) + len(behind)

    for literal in jsontext.literals(text, end):
        if form == "schema" and (literal.key or not literal.prose):
            continue
        raw = text[literal.start : literal.end]
        where = (literal.start, literal.end)
        if literal.key:
            show(jsontext.decoded(raw), ": ", where, "string" if form == "prose" else "fixed")
        elif raw[0] == '"':
            show(jsontext.decoded(raw), "\n", where, "string")
        else:
            show(raw, "\n", where, "number" if raw[0] in _NUMBERS else "fixed")
    show(text[end:], "", (end, len(text)), "text")
    return View(text, "".join(seen), tuple(cuts))
