"""One text of an answer, the content or the arguments of one call, from the model to the caller.

Guards look at what the model said; then what placeholders stand for is put in. So what the caller
wrote is never taken for something that the model gave away.

A text that begins as JSON does is looked at once its JSON is whole, as JSON: masks must leave it
JSON, and who reads JSON waits for its end anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schemas.events import Refusal
from streams.guards import jsontext
from streams.guards.findings import Findings
from streams.guards.found import nothing
from streams.guards.placeholders import unnumbered
from streams.guards.restoring import Restorer
from streams.guards.rules import Guard
from streams.guards.screen import Screen, Shown
from streams.guards.texts import Form


class Channel:
    """A text of an answer that comes in pieces, one or more.

    Args:
        guards: Guards that look at it.
        stage: Their stage: output or tools.
        values: What placeholders stand for.
        findings: Counts what is found.
        form: What of JSON in it is text, as ``Passage`` has it.
    """

    def __init__(
        self,
        guards: Sequence[Guard],
        stage: str,
        values: Mapping[str, str],
        findings: Findings,
        form: Form,
    ) -> None:
        self._guards = guards
        self._stage = stage
        self._findings = findings
        self._form = form
        self._last_to_look = [guard for guard in guards if guard.detector.whole]
        lookers = [
            guard
            for guard in guards
            if not guard.detector.whole
            and (guard.detector.within or guard.detector.find is not nothing)
        ]
        self._looked_at = bool(lookers)
        known = {said: name for name, said in values.items() if not unnumbered(name)}
        self._screen = Screen(lookers, stage, known, findings)
        self._json = Restorer(values, json=True)
        self._text = Restorer(values)
        self._restorer: Restorer | None = None
        self._balance: jsontext.Balance | None = None
        self._held: list[str] = []

    def feed(self, piece: str) -> Shown | Refusal:
        """Returns what the next piece lets show, or why nothing more may be."""
        for guard in self._guards:
            if refusal := self._findings.grown(guard, self._stage, len(piece)):
                return refusal
        if self._last_to_look:
            self._held.append(piece)
            return Shown()
        return self._take(piece)

    def finish(self) -> Shown | Refusal:
        """Returns the rest: there comes no more."""
        before: Shown | Refusal = Shown()
        if self._last_to_look:
            text, self._held = "".join(self._held), []
            if refusal := self._look_last(text):
                return refusal
            before = self._take(text)
        if isinstance(before, Refusal):
            return before
        rest = self._end()
        return rest if isinstance(rest, Refusal) else before.then(rest)

    def whole(self, text: str) -> Shown | Refusal:
        """Returns a whole text as it comes out, or why it may not."""
        self._screen.wait()
        first = self.feed(text)
        if isinstance(first, Refusal):
            return first
        last = self.finish()
        return last if isinstance(last, Refusal) else first.then(last)

    def _look_last(self, text: str) -> Refusal | None:
        for guard in self._last_to_look:
            hits = guard.look(text, 0, self._stage, self._findings.patience)
            if isinstance(hits, Refusal):
                return hits
            if refusal := self._findings.looked(guard, self._stage, hits):
                return refusal
        return None

    def _take(self, piece: str) -> Shown | Refusal:
        if self._restorer is None:
            piece = "".join((*self._held, piece))
            if not piece.strip():
                self._held = [piece]
                return Shown()
            self._held = []
            json = jsontext.begins(piece)
            self._restorer = self._json if json else self._text
            self._balance = jsontext.Balance() if json else None
        if self._balance is None:
            return self._through(self._screen.feed(piece))
        return self._grow_json(self._balance, piece)

    def _grow_json(self, balance: jsontext.Balance, piece: str) -> Shown | Refusal:
        """Returns what the next piece of a text that began as JSON lets show."""
        end = balance.end_in(piece)
        if self._looked_at:
            self._held.append(piece)
            if end is None:
                return Shown()
            text, self._held = "".join(self._held), []
            piece, end = text, len(text) - len(piece) + end
            self._balance = None
            if jsontext.end_of(text[:end]) != end:
                # No JSON, after all.
                return self._through(self._screen.feed(text))
            shown = self._through(self._screen.json(text[:end], self._form))
        else:
            shown = self._through(Shown(piece[:end], piece[:end]))
        if end is None or isinstance(shown, Refusal):
            return shown
        self._balance = None
        shown = shown.then(Shown("", self._json.finish()))
        self._restorer = self._text
        rest = self._take(piece[end:])
        return rest if isinstance(rest, Refusal) else shown.then(rest)

    def _end(self) -> Shown | Refusal:
        first = self._screen.feed("".join(self._held))
        if isinstance(first, Refusal):
            return first
        last = self._screen.finish()
        if isinstance(last, Refusal):
            return last
        both = self._through(first.then(last))
        if isinstance(both, Refusal) or self._restorer is None:
            return both
        return both.then(Shown("", self._restorer.finish()))

    def _through(self, shown: Shown | Refusal) -> Shown | Refusal:
        """Returns what may be shown with the caller's own texts in it."""
        if isinstance(shown, Refusal) or self._restorer is None:
            return shown
        return shown._replace(reply=self._restorer.feed(shown.reply))
