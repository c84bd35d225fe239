"""Words and phrases, looked up in a text: in time that grows with the text and not with them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

# Scripts that put no spaces between words: each of their characters stands for itself.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff"
_WORD = rf"[^\W{_UNSPACED}]+"
_TOKEN = re.compile(rf"{_WORD}|\S")
_IN_WORD = re.compile(_WORD)

# Lengths of phrases that begin with a word that none begins with.
_ALONE = [1]

# Characters between two words of a phrase, at most.
WIDEST_GAP = 8


class _Token:
    """One token of a text, as it is compared."""

    __slots__ = ("end", "start", "text")

    def __init__(self, match: re.Match[str], fold: Callable[[str], str]) -> None:
        self.start, self.end = match.span()
        self.text = fold(match[0])


class Phrases:
    """Phrases that are found as whole words, with any space where they have some.

    Of those that begin at the same word the longest is found.

    Args:
        phrases: Phrases, each with the kind that it is found as.
        fold: What makes texts that count as the same equal: ``str.casefold``, or ``str`` where
            case counts.
    """

    def __init__(
        self, phrases: Iterable[tuple[str, str]], fold: Callable[[str], str] = str.casefold
    ) -> None:
        self._fold = fold
        # By what they say, the kind of each way in which its words are spaced.
        self._kinds: dict[tuple[str, ...], dict[tuple[bool, ...], str]] = defaultdict(dict)
        lengths: dict[str, set[int]] = defaultdict(set)
        self._reach = 0
        for text, kind in phrases:
            tokens = [_Token(match, fold) for match in _TOKEN.finditer(text)]
            if tokens:
                spaced = tuple(after.start > one.end for one, after in pairwise(tokens))
                said = tuple(token.text for token in tokens)
                self._kinds[said].setdefault(spaced, kind)
                lengths[said[0]].add(len(said))
                self._reach = max(self._reach, len(text) + WIDEST_GAP * sum(spaced) + 1)
        self._lengths = {lead: sorted(some, reverse=True) for lead, some in lengths.items()}

    def find(self, text: str, begin: int = 0) -> Iterator[tuple[int, int, str]]:
        """Yields start, end and kind of what is found from a place on; no two overlap."""
        begin = _behind_word(text, begin)
        said = set(map(self._fold, set(_TOKEN.findall(text, begin))))
        if said.isdisjoint(self._lengths):
            return
        tokens = [_Token(match, self._fold) for match in _TOKEN.finditer(text, begin)]
        place = 0
        while place < len(tokens):
            kind, length = self._at(tokens, place)
            if length:
                yield tokens[place].start, tokens[place + length - 1].end, kind
            place += length or 1

    def held_from(self, text: str) -> int:
        """Returns where in a growing text a phrase may have begun that is not whole yet."""
        begin = max(0, len(text) - self._reach)
        for match in _TOKEN.finditer(text, begin):
            # The last word may have more letters to come.
            lead = self._fold(match[0])
            if match.end() == len(text) or self._lengths.get(lead, _ALONE)[0] > 1:
                return match.start()
        return len(text)

    def _at(self, tokens: list[_Token], place: int) -> tuple[str, int]:
        """Returns the kind and the number of tokens of the phrase at a place; 0 without one."""
        for length in self._lengths.get(tokens[place].text, ()):
            here = tokens[place : place + length]
            for spaced, kind in self._kinds.get(tuple(each.text for each in here), {}).items():
                if all(
                    _fits(after.start - one.end, space)
                    for (one, after), space in zip(pairwise(here), spaced, strict=True)
                ):
                    return kind, length
        return "", 0


def _fits(gap: int, spaced: bool) -> bool:
    return 0 < gap <= WIDEST_GAP if spaced else gap == 0


def _behind_word(text: str, begin: int) -> int:
    """Returns where the first word begins that is whole from a place on."""
    if begin and _IN_WORD.match(text, begin - 1) and (rest := _IN_WORD.match(text, begin)):
        return rest.end()
    return begin
