"""A text of an answer that grows, looked at by guards: what of it may be shown.

What guards find must be the same however the text is cut. So a stretch is let go only once what
they find there holds for good, however the text goes on (``Detector.held_from``), and they see a
piece of what went before. A hit at the end of what has come may go on, so it waits. Only a hit that
is longer than ``LONGEST_HIT`` is taken for what it is by then.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from schemas.events import Refusal
from streams.guards.findings import Findings
from streams.guards.found import Hit
from streams.guards.masking import joined, masked
from streams.guards.placeholders import unrestorable
from streams.guards.rules import Guard
from streams.guards.texts import Form
from streams.guards.views import Place, View, view

# Characters of what was let go that guards still see: words there tell what a number is.
BEHIND = 256
LONGEST_HIT = 8192
# What is held back is looked at again once it has grown by a part of itself.
STEPS = 8


class Shown(NamedTuple):
    """A stretch of an answer.

    Attributes:
        kept: As it may be recorded: masked.
        reply: As the caller gets it: with what only has to be masked for others.
        masked: Whether anything was masked in it.
    """

    kept: str = ""
    reply: str = ""
    masked: bool = False

    def then(self, other: Shown) -> Shown:
        """Returns this stretch and the next one as one."""
        return Shown(self.kept + other.kept, self.reply + other.reply, self.masked or other.masked)


class Screen:
    """Guards that look at one text of an answer.

    Args:
        guards: Guards of the text's stage that look for something in it.
        stage: The stage.
        known: Placeholders by the texts that they stand for.
        findings: Counts what is found.
    """

    def __init__(
        self,
        guards: Sequence[Guard],
        stage: str,
        known: Mapping[str, str],
        findings: Findings,
    ) -> None:
        self._guards = guards
        self._stage = stage
        self._known = known
        self._findings = findings
        self._text = ""
        self._begin = 0
        self._enough = 0

    def wait(self) -> None:
        """Looks at nothing before the text is whole: once is enough where nobody reads along."""
        self._enough = sys.maxsize

    def feed(self, piece: str) -> Shown | Refusal:
        """Returns what may be shown now, or why nothing more may be."""
        if not self._guards:
            return Shown(piece, piece)
        self._text += piece
        if len(self._text) < self._enough:
            return Shown()
        held = min(guard.detector.held_from(self._text) for guard in self._guards)
        shown = self._let_go(max(self._begin, held), last=False)
        # What is held is looked at again with each piece, so the pieces must grow with it.
        self._enough = len(self._text) + (len(self._text) - self._begin) // STEPS
        return shown

    def finish(self) -> Shown | Refusal:
        """Returns the rest: there comes no more."""
        return self._let_go(len(self._text), last=True) if self._guards else Shown()

    def json(self, text: str, form: Form) -> Shown | Refusal:
        """Returns what may be shown of a whole JSON text, in which nothing else is changed."""
        whole = view(text, form)
        found = self._look(whole.seen, 0)
        if isinstance(found, Refusal):
            return found
        return self._settle(whole, found, len(whole.seen))

    def _let_go(self, until: int, *, last: bool) -> Shown | Refusal:
        if until <= self._begin:
            return Shown()
        found = self._look(self._text, self._begin)
        if isinstance(found, Refusal):
            return found
        if not last:
            until = self._settled(found, until)
        text, begin = self._text, self._begin
        kept = max(0, until - BEHIND)
        self._text, self._begin = text[kept:], until - kept
        return self._settle(View.rest(text[:until], begin), found, until)

    def _look(self, text: str, begin: int) -> list[tuple[Guard, list[Hit] | None]] | Refusal:
        """Returns what each guard finds, or None for one that cannot judge."""
        found: list[tuple[Guard, list[Hit] | None]] = []
        for guard in self._guards:
            hits = guard.look(text, begin, self._stage, self._findings.patience)
            if isinstance(hits, Refusal):
                return hits
            found.append((guard, hits))
        return found

    def _settled(self, found: Sequence[tuple[Guard, list[Hit] | None]], until: int) -> int:
        """Returns up to where no hit can change any more."""
        end = len(self._text)
        for hit in joined(hit for _, hits in found for hit in hits or ()):
            open_end = hit.end == end and hit.end - hit.start < LONGEST_HIT
            if open_end or hit.start < until < hit.end:
                return min(until, hit.start)
        return until

    def _settle(
        self, here: View, found: Sequence[tuple[Guard, list[Hit] | None]], until: int
    ) -> Shown | Refusal:
        """Returns what may be shown of a stretch in which all that is found holds."""
        acting: list[Hit] = []
        for guard, hits in found:
            here_hits = None if hits is None else [hit for hit in hits if hit.start < until]
            if refusal := self._findings.looked(guard, self._stage, here_hits):
                return refusal
            if here_hits and not guard.rule.shadow:
                acting += here_hits
        one = joined(acting)
        hidden = [hit for hit in one if hit.deal != "restore"]
        return Shown(
            masked(here, one, self._stands_for), masked(here, hidden, self._stands_for), bool(one)
        )

    def _stands_for(self, place: Place) -> str:
        known = self._known.get(place.said) if place.deal == "restore" else None
        return known or unrestorable(place.kind)
