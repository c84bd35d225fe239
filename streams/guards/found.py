"""What guards find, and what a kind of guard is made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

Deal = Literal["ask", "deny", "mask", "restore"]

# A word, an address or a token cannot be told before its end. Scripts without spaces have none.
_RUN = re.compile(r"[^\s\u2e80-\ud7ff]+\Z")


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


# The same for so many seconds at most; it raises ``TimeoutError`` beyond.
Within = Callable[[str, int, float], Iterable[Hit]]


def nothing(text: str, begin: int) -> Iterable[Hit]:
    """Returns that there is nothing."""
    return ()


# Given a text that still grows, returns from where on what is found in it does not hold yet.
Held = Callable[[str], int]


def last_run(text: str, longest: int) -> int:
    """Returns where the run of characters without a space begins that a text ends with.

    Args:
        text: The text.
        longest: Characters of a run that are looked at.
    """
    run = _RUN.search(text, max(0, len(text) - longest))
    return run.start() if run else len(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """What a kind of rule looks for.

    Attributes:
        find: Looks at one text. It raises whatever it likes; that counts as no judgement.
        within: What looks instead where that may take for ever.
        says: What it finds, in words that come behind "it holds"; the kinds of hits when empty.
        todo: What the caller can do about it.
        held_from: How much of a growing text it must see before it can judge. A hit that reaches
            the end of what has come is held anyway. All that has come holds when left out.
        whole: Whether it can judge nothing but a whole text, as it was said.
        most: Most characters that all texts of a stage may have together.
        follows: Whether what it found at one place is looked for at all others, too.
        remote: Whether somebody else is to be asked.
    """

    find: Find = nothing
    within: Within | None = None
    says: str = ""
    todo: str = "leave that out and ask again"
    held_from: Held = len
    whole: bool = False
    most: int | None = None
    follows: bool = False
    remote: bool = False

    @property
    def idle(self) -> bool:
        """Returns whether it looks for nothing at all."""
        return (
            self.find is nothing and self.within is None and self.most is None and not self.remote
        )
