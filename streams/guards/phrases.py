"""Words and phrases, looked up in a text: in time that grows with the text and not with them."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from itertools import pairwise

# Scripts that put no spaces between words: each of their characters stands for itself.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff"
_WORD = rf"[^\W{_UNSPACED}]+"
_TOKEN = re.compile(rf"({_WORD}|\S)")
_IN_WORD = re.compile(_WORD)

# Characters between two words of a phrase, at most.
WIDEST_GAP = 8
# Behind a word in a symbol: space follows it.
_SPACE = " "


class _Backwards:
    """Phrases, read from their last word to their first (Aho and Corasick, 1975).

    So the phrases that begin at each word of a text are known after one walk over it, whatever they
    say. A symbol is a word, with a space where one stands behind it; in the last word of a phrase
    it is left out. States are numbers; nothing has been read in state 0.
    """

    def __init__(self) -> None:
        self._next: list[dict[str, int]] = [{}]
        # The state of what is left when the last words of the text are forgotten.
        self._rest: list[int] = [0]
        # Words and kind of the longest phrase that begins where a state has come to.
        self._found: list[tuple[int, str] | None] = [None]

    def add(self, words: Sequence[str], spaced: Sequence[bool], kind: str) -> None:
        """Adds a phrase, unless it is there."""
        state = 0
        for word, space in zip(reversed(words), (False, *reversed(spaced)), strict=True):
            symbol = word + _SPACE if space else word
            after = self._next[state].get(symbol)
            if after is None:
                after = self._next[state][symbol] = len(self._next)
                self._next.append({})
                self._rest.append(0)
                self._found.append(None)
            state = after
        self._found[state] = self._found[state] or (len(words), kind)

    def link(self) -> None:
        """Makes it ready to walk; nothing is added after that."""
        states = deque(self._next[0].values())
        while states:
            state = states.popleft()
            for symbol, after in self._next[state].items():
                rest = self._rest[after] = self.walk(self._rest[state], symbol)
                self._found[after] = self._found[after] or self._found[rest]
                states.append(after)

    def ends(self, word: str) -> bool:
        """Returns whether a phrase ends with a word."""
        return word in self._next[0]

    def walk(self, state: int, symbol: str) -> int:
        """Returns the state behind the next symbol."""
        while state:
            if after := self._next[state].get(symbol):
                return after
            state = self._rest[state]
        return self._next[0].get(symbol.removesuffix(_SPACE), 0)

    def found(self, state: int) -> tuple[int, str] | None:
        """Returns words and kind of the longest phrase that begins here."""
        return self._found[state]


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
        self._backwards = _Backwards()
        longest: dict[str, int] = defaultdict(int)
        self._reach = 0
        for text, kind in phrases:
            tokens = list(_TOKEN.finditer(text))
            if tokens:
                spaced = [after.start() > one.end() for one, after in pairwise(tokens)]
                said = [fold(token[0]) for token in tokens]
                self._backwards.add(said, spaced, kind)
                longest[said[0]] = max(longest[said[0]], len(said))
                self._reach = max(self._reach, len(text) + WIDEST_GAP * sum(spaced) + 1)
        self._backwards.link()
        self._longest = dict(longest)

    def find(self, text: str, begin: int = 0) -> Iterator[tuple[int, int, str]]:
        """Yields start, end and kind of what is found from a place on; no two overlap."""
        begin = _behind_word(text, begin)
        said = set(_TOKEN.findall(text, begin))
        ends = {word for word in said if self._backwards.ends(self._fold(word))}
        if not ends:
            return
        spans = [token.span() for token in _TOKEN.finditer(text, begin)]
        for place, (words, kind) in reversed(list(self._beginning(text, spans, ends))):
            start = spans[place][0]
            if start >= begin:
                begin = spans[place + words - 1][1]
                yield start, begin, kind

    def _beginning(
        self, text: str, spans: Sequence[tuple[int, int]], ends: Set[str]
    ) -> Iterator[tuple[int, tuple[int, str]]]:
        """Yields which words begin phrases, the last one first, and the longest of each."""
        walk, found = self._backwards.walk, self._backwards.found
        state, behind = 0, len(text)
        for place in range(len(spans) - 1, -1, -1):
            start, end = spans[place]
            gap = behind - end
            behind = start
            word = text[start:end]
            if gap > WIDEST_GAP:
                state = 0
            if state or word in ends:
                symbol = self._fold(word)
                state = walk(state, symbol + _SPACE if gap else symbol)
                if here := found(state):
                    yield place, here

    def held_from(self, text: str) -> int:
        """Returns where in a growing text a phrase may have begun that is not whole yet."""
        begin = max(0, len(text) - self._reach)
        for match in _TOKEN.finditer(text, begin):
            # The last word may have more letters to come.
            lead = self._fold(match[0])
            if match.end() == len(text) or self._longest.get(lead, 1) > 1:
                return match.start()
        return len(text)


def _behind_word(text: str, begin: int) -> int:
    """Returns where the first word begins that is whole from a place on."""
    if begin and _IN_WORD.match(text, begin - 1) and (rest := _IN_WORD.match(text, begin)):
        return rest.end()
    return begin
