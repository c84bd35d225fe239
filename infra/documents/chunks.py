"""Texts cut into pieces of a bounded number of tokens, by tokens, sentences or headings.

A text has the same pieces whenever it is cut. Knows nothing of rows, ids or vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import regex

from infra.documents.headings import sections
from infra.documents.sentences import sentences
from infra.tokens import count, head, tail
from schemas.indexes import Chunking

# As a user sees them: with their marks, or several joined into one picture.
CHARACTER = regex.compile(r"\X")
PATH = " > "  # between headings
BEHIND_PATH = "\n\n"
WIDTH = 8  # characters to look at for each token that is wanted; more where that is too few


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a text.

    Attributes:
        lead: What it repeats: the end of the piece before, or the headings above it.
        body: What is new in it; all bodies joined are the text.
    """

    lead: str
    body: str

    @property
    def text(self) -> str:
        """What is embedded."""
        return self.lead + self.body


def pieces(text: str, chunking: Chunking) -> Iterator[Piece]:
    """Yields the pieces of a text, none of more than ``chunking.size`` tokens if it is cut at all.

    Tokens are those of ``infra.tokens.count``. Takes time in proportion to the text.

    >>> by_tokens = Chunking(by="tokens", size=16, overlap=4)
    >>> [piece.lead for piece in pieces("one two three four five " * 5, by_tokens)]
    ['', ' three four five one']
    """
    yield from CUTS[chunking.by](text, chunking)


def most_overlap(chunking: Chunking) -> int:
    """Returns how many tokens pieces may share: beyond half of them, little would be new."""
    return chunking.size // 2


def _uncut(text: str, chunking: Chunking) -> Iterator[Piece]:
    if text:
        yield Piece("", text)


def _by_tokens(text: str, chunking: Chunking) -> Iterator[Piece]:
    start, lead = 0, ""
    while start < len(text):
        end = _end(lead, text, start, chunking.size)
        piece = Piece(lead, text[start:end])
        yield piece
        lead = _overlap(piece.text, min(chunking.overlap, most_overlap(chunking)))
        start = end


def _by_sentences(text: str, chunking: Chunking) -> Iterator[Piece]:
    yield from _packed("", text, chunking.size)


def _by_headings(text: str, chunking: Chunking) -> Iterator[Piece]:
    for section in sections(text):
        path = PATH.join(filter(None, section.path))
        path = path[: head(path, chunking.size // 2 - 1)]
        yield from _packed(path and path + BEHIND_PATH, section.text, chunking.size)


CUTS: dict[str, Callable[[str, Chunking], Iterator[Piece]]] = {
    "heading": _by_headings,
    "none": _uncut,
    "sentence": _by_sentences,
    "tokens": _by_tokens,
}


def _packed(lead: str, text: str, size: int) -> Iterator[Piece]:
    """Yields as many sentences in each piece as have room in it."""
    room = size - count(lead)
    held: list[str] = []
    weight = 0
    for part in _parts(lead, text, size):
        tokens = count(part)
        if held and weight + tokens > room:
            yield from _fitted(lead, held, size)
            held, weight = [], 0
        held.append(part)
        weight += tokens
    if held:
        yield from _fitted(lead, held, size)


def _parts(lead: str, text: str, size: int) -> Iterator[str]:
    """Yields sentences, those that are too long for a piece cut by tokens."""
    for sentence in sentences(text):
        if count(lead + sentence) <= size:
            yield sentence
            continue
        start = 0
        while start < len(sentence):
            end = _end(lead, sentence, start, size)
            yield sentence[start:end]
            start = end


def _fitted(lead: str, parts: list[str], size: int) -> Iterator[Piece]:
    # Parts can be more tokens joined than each for itself, though they hardly ever are.
    body = "".join(parts)
    if len(parts) == 1 or count(lead + body) <= size:
        yield Piece(lead, body)
    else:
        middle = len(parts) // 2
        yield from _fitted(lead, parts[:middle], size)
        yield from _fitted(lead, parts[middle:], size)


def _end(lead: str, text: str, start: int, size: int) -> int:
    """Returns where a piece ends that begins with ``lead`` and goes on at a place of the text."""
    width = size * WIDTH
    seen = lead + text[start : start + width]
    while head(seen, size) == len(seen) and start + width < len(text):
        width *= 2
        seen = lead + text[start : start + width]
    for tokens in range(size, 0, -1):
        end = start + head(seen, tokens) - len(lead)
        whole = _border(text, start, end)
        # What is cut off can be other tokens, and more, than it was within the text.
        if whole > start and count(lead + text[start:whole]) <= size:
            return whole
    return start + 1


def _border(text: str, start: int, end: int) -> int:
    """Returns where the last whole character up to a place ends; the place if there is none."""
    if end <= start or end >= len(text):
        return end
    if text[end - 1 : end + 1].isascii() and text[end - 1 : end + 1] != "\r\n":
        return end
    # A copy, since flags are told apart by looking back over all that the text has before them.
    ends = [start + character.end() for character in CHARACTER.finditer(text[start : end + 1])]
    return next((border for border in reversed(ends) if border <= end), end)


def _overlap(text: str, tokens: int) -> str:
    start = len(text) - tail(text, tokens) if tokens else len(text)
    lead = text[_border(text, 0, start) :]
    # A character of many marks may be more than all tokens that are wanted.
    return lead if count(lead) <= tokens + WIDTH else ""
