"""What guards find, and what a kind of guard is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from schemas.events import Role

Deal = Literal["ask", "deny", "mask", "restore"]

# A word, an address or a token may not be told before its end: none of these is broken.
_UNBROKEN = frozenset(map(chr, range(ord("!"), ord("~") + 1)))


class Hit(NamedTuple):
    """One place in a text, and what is to become of it.

    Attributes:
        start: Its first character.
        end: Behind its last character.
        kind: What it is: EMAIL_ADDRESS, SECRET.
        deal: What becomes of it: the whole text is refused, or refused until somebody approves, or
            it is masked, or masked and restored for the caller.
    """

    start: int
    end: int
    kind: str
    deal: Deal


# Given a text and where to begin, returns what it finds from there on, in order. It may look at
# what stands before.
Find = Callable[[str, int], Iterable[Hit]]


def nothing(text: str, begin: int) -> Iterable[Hit]:
    """Returns that there is nothing."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """What a kind of rule looks for.

    A text that still grows is looked at again with each part. What is found in it holds for good
    once ``reach`` more characters have come, and once the run of characters without a space that
    stands there has ended or is longer than ``token``.

    Attributes:
        find: Looks at one text. It raises whatever it likes; that counts as no judgement.
        says: What it finds, in words that come behind "it holds"; the kinds of hits when empty.
        todo: What the caller can do about it.
        reach: Characters that a hit may have, with those behind it that it depends on.
        token: Most characters of a run without spaces that one hit may be in.
        whole: Whether it can judge nothing but a whole text, as it was said.
        most: Most characters that all texts of a stage may have together.
        skips: Roles whose messages it does not look at.
        follows: Whether what it found at one place is looked for at all others, too.
        remote: Whether somebody else is to be asked.
    """

    find: Find = nothing
    says: str = ""
    todo: str = "leave that out and ask again"
    reach: int = 0
    token: int = 0
    whole: bool = False
    most: int | None = None
    skips: frozenset[Role] = frozenset()
    follows: bool = False
    remote: bool = False

    @property
    def idle(self) -> bool:
        """Returns whether it looks for nothing at all."""
        return self.find is nothing and self.most is None and not self.remote

    def held_from(self, text: str) -> int:
        """Returns from where on what it finds in a text that still grows does not hold yet."""
        place = max(0, len(text) - self.reach)
        last = max(0, place - self.token)
        while place > last and text[place - 1] in _UNBROKEN:
            place -= 1
        return place
