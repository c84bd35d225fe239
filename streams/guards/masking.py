"""Masking: placeholders instead of what must not be seen, numbered over a whole request.

Numbers follow from the texts alone, by first appearance. So a conversation that is sent again with
one turn more gets the same placeholders again, and nobody has to remember it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from streams.guards.found import Deal, Hit
from streams.guards.placeholders import bare, placeholder, plain, written
from streams.guards.views import Place, View

# What of two overlapping hits goes before: to give a text back is the least safe.
_STRICTEST: tuple[Deal, ...] = ("restore", "mask", "ask", "deny")


def joined(hits: Iterable[Hit]) -> list[Hit]:
    """Returns hits that do not overlap, in order; nothing that any of them covers is left over.

    Hits that overlap become one, which is what the strictest of them is, and of several the
    longest.
    """
    done: list[Hit] = []
    best: list[Hit] = []
    for hit in sorted(hits):
        if done and hit.start < done[-1].end:
            last = done[-1]
            best[-1] = max(best[-1], hit, key=_rank)
            end = max(last.end, hit.end)
            done[-1] = Hit(last.start, end, best[-1].kind, best[-1].deal)
        else:
            done.append(hit)
            best.append(hit)
    return done


def _rank(hit: Hit) -> tuple[int, int]:
    return _STRICTEST.index(hit.deal), hit.end - hit.start


class Names:
    """Placeholders of one request.

    Args:
        texts: All its texts: what looks like a placeholder in them stands for nothing.
        restored: Kinds that are restored for the caller.
    """

    def __init__(self, texts: Iterable[str], restored: Iterable[str]) -> None:
        kinds = frozenset(restored)
        self._taken: set[str] = set()
        if kinds:
            pattern = written(kinds)
            self._taken = {
                plain(found) for text in texts if "<" in text for found in pattern.findall(text)
            }
        self._numbers: dict[str, int] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._restored: dict[str, str] = {}

    def name(self, kind: str, said: str, *, restore: bool) -> str:
        """Returns what stands for a text of a kind; the same text gets the same each time."""
        known = self._names.get((kind, said))
        if known is None:
            known = self._names[kind, said] = self._next(kind)
        if restore:
            self._restored[known] = said
        return known

    def restorable(self) -> dict[str, str]:
        """Returns what placeholders stand for that are restored.

        A placeholder without a number is one of them where only one text can be meant by it.
        """
        alone: dict[str, list[str]] = {}
        for (kind, said), name in self._names.items():
            if name in self._restored:
                alone.setdefault(kind, []).append(said)
        bares = {
            bare(kind): said[0]
            for kind, said in alone.items()
            if len(said) == 1 and bare(kind) not in self._taken
        }
        return {**self._restored, **bares}

    def _next(self, kind: str) -> str:
        number = self._numbers.get(kind, 0) + 1
        while (name := placeholder(kind, number)) in self._taken:
            number += 1
        self._numbers[kind] = number
        return name


def masked(view: View, hits: Iterable[Hit], stands_for: Callable[[Place], str]) -> str:
    """Returns a text with something else at the places of hits, which do not overlap."""
    pieces: list[str] = []
    behind = 0
    for place in view.places(hits):
        stand_in = stands_for(place)
        pieces += (view.text[behind : place.start], f'"{stand_in}"' if place.quoted else stand_in)
        behind = place.end
    return "".join((*pieces, view.text[behind:])) if pieces else view.text
