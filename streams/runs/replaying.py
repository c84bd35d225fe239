"""Strict replay: a run made of its journal once more, without asking anybody.

What its model, its tools and people said is taken from the journal. What follows is held, to the
byte, against the digests of what the run put on the log, which its journal has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from infra.registry import Reader
from schemas.events import AgentJournaled
from streams.agents.folding import Folded, emitted, fold, is_said_again
from streams.agents.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A run made of its journal once more.

    Attributes:
        run: What it came to.
        entries: How many its journal has.
        events: How many it put on the log.
        ended: Whether it is over.
        differing: Numbers of the entries that say other than what they lead to now: another release
            wrote them, in another form.
    """

    run: Run
    entries: int
    events: int
    ended: bool
    differing: tuple[int, ...]

    def to_words(self) -> str:
        """Returns it as a line of text."""
        said = f"{self.run.run_id}: {self.entries} entries, {self.events} events"
        if self.differing:
            numbers = ", ".join(map(str, self.differing))
            return f"{said}; not the same, or in another release's form: those of entry {numbers}"
        return f"{said}, the same to the byte{'' if self.ended else '; it goes on'}"

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON object."""
        return {
            "run": self.run.run_id,
            "agent": self.run.definition.agent,
            "entries": self.entries,
            "events": self.events,
            "ended": self.ended,
            "differing": list(self.differing),
        }


async def replayed(entries: Iterable[AgentJournaled], reader: Reader) -> Replayed:
    """Returns what a run comes to whose entries are taken in once more.

    Args:
        entries: All of it, in order; one at least.
        reader: Reads what came for it.

    Raises:
        JournalUnsound: An entry led to something else when it was written, or is none that can come
            next.
        SchemaMissing: The registry does not know how what came was written.
        Unreadable: What came cannot be read.
    """
    folded: Folded | None = None
    differing: list[int] = []
    count = events = 0
    ended = False
    for entry in entries:
        taken = await fold(folded, entry, reader)
        folded = taken.folded
        # What it needs besides to know its answers again is not what it led to.
        said = tuple(replace(each, claim="") for each in entry.emitted)
        same = is_said_again(entry) or emitted(taken.outgoing) == said
        if not same or taken.ended != entry.ended:
            differing.append(entry.seq)
        count += 1
        events += len(taken.outgoing)
        ended = taken.ended
    assert folded is not None, "a run has a first entry"
    return Replayed(
        run=folded.run,
        entries=count,
        events=events,
        ended=ended,
        differing=tuple(differing),
    )
