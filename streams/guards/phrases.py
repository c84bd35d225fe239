"""Words and phrases, looked up in a text: in time that grows with the text and not with them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

# Scripts that put no spaces between words: each of their characters stands for itself.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff"
_WORD = rf"[^\W{_UNSPACED}]+"
_TOKEN = re.compile(rf"({_WORD}|\S)")
_IN_WORD = re.compile(_WORD)

# Lengths of phrases that begin with a word that none begins with.
_ALONE = [1]

# Characters between two words of a phrase, at most.
WIDEST_GAP = 8
_NEXT = re.compile(rf"\s{{0,{WIDEST_GAP}}}({_WORD}|\S)")


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
            tokens = list(_TOKEN.finditer(text))
            if tokens:
                spaced = tuple(after.start() > one.end() for one, after in pairwise(tokens))
                said = tuple(fold(token[0]) for token in tokens)
                self._kinds[said].setdefault(spaced, kind)
                lengths[said[0]].add(len(said))
                self._reach = max(self._reach, len(text) + WIDEST_GAP * sum(spaced) + 1)
        self._lengths = {lead: sorted(some, reverse=True) for lead, some in lengths.items()}

    def find(self, text: str, begin: int = 0) -> Iterator[tuple[int, int, str]]:
        """Yields start, end and kind of what is found from a place on; no two overlap."""
        begin = _behind_word(text, begin)
        said = set(_TOKEN.findall(text, begin))
        leads = {word for word in said if self._fold(word) in self._lengths}
        if not leads:
            return
        for match in _TOKEN.finditer(text, begin):
            if match[0] in leads and match.start() >= begin:
                end, kind = self._at(text, match)
                if end:
                    yield match.start(), end, kind
                    begin = end

    def held_from(self, text: str) -> int:
        """Returns where in a growing text a phrase may have begun that is not whole yet."""
        begin = max(0, len(text) - self._reach)
        for match in _TOKEN.finditer(text, begin):
            # The last word may have more letters to come.
            lead = self._fold(match[0])
            if match.end() == len(text) or self._lengths.get(lead, _ALONE)[0] > 1:
                return match.start()
        return len(text)

    def _at(self, text: str, first: re.Match[str]) -> tuple[int, str]:
        """Returns the end and the kind of the longest phrase at a place; 0 if there is none."""
        lengths = self._lengths[self._fold(first[0])]
        here = [first]
        while len(here) < lengths[0] and (after := _NEXT.match(text, here[-1].end())):
            here.append(after)
        said = tuple(self._fold(each[1]) for each in here)
        gaps = [after.start(1) - one.end(1) for one, after in pairwise(here)]
        for length in (each for each in lengths if each <= len(here)):
            for spaced, kind in self._kinds.get(said[:length], {}).items():
                if all((gap > 0) is space for gap, space in zip(gaps, spaced, strict=False)):
                    return here[length - 1].end(1), kind
        return 0, ""


def _behind_word(text: str, begin: int) -> int:
    """Returns where the first word begins that is whole from a place on."""
    if begin and _IN_WORD.match(text, begin - 1) and (rest := _IN_WORD.match(text, begin)):
        return rest.end()
    return begin
