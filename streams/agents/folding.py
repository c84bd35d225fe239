"""Folding: a run out of its journal, and what each entry of that led to.

Whoever takes the same entries in comes to the same run, and to the same records to the byte. So
what a crash kept from the log is said once more, and an audit sees that nothing else was ever said.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from infra.registry import Reader
from schemas.agents import Definition
from schemas.events import (
    AgentJournaled,
    Emitted,
    InferenceCompleted,
    InferenceReplied,
    InferenceRouted,
)
from schemas.topics import INFERENCE_COMPLETED, Outgoing
from streams.agents.causes import Begun, Cancelled, Cause, Expired, caused
from streams.agents.run import Run
from streams.agents.step import Step, advance, begin

# What comes for a run without a record of its own, by the name that stands for it.
CANCELLED, CLOCK = "cancelled", "clock"
WITHOUT_RECORD: dict[str, Cause] = {CANCELLED: Cancelled(), CLOCK: Expired()}


class JournalUnsound(ValueError):
    """An entry says what no run of this kind can take in; the message names the entry."""


@dataclass(frozen=True, slots=True)
class Folded:
    """A run, what began it, and when.

    Attributes:
        run: As it is after the entries so far.
        begun: What began it.
        entries: How many those are.
        began: The first of them.
    """

    run: Run
    begun: Begun
    entries: int
    began: AgentJournaled


@dataclass(frozen=True, slots=True)
class Taken:
    """What an entry came to: the run after it, and all that it puts on the log, in order."""

    folded: Folded
    outgoing: tuple[Outgoing, ...]
    ended: bool

    def changes(self, before: Folded) -> bool:
        """Returns whether it is worth an entry: what changes nothing leaves no trace."""
        return bool(self.outgoing) or self.folded.run != before.run


async def fold(folded: Folded | None, entry: AgentJournaled, reader: Reader) -> Taken:
    """Returns what the next entry of a run's journal comes to; None stands before the first.

    Raises:
        JournalUnsound: It is none that can come next.
        SchemaMissing: The registry does not know how what came was written.
        Unreadable: What came cannot be read.
    """
    if folded is None:
        routed = await reader.read(entry.cause, InferenceRouted)
        begun = Begun(routed=routed, reply_to_agents=entry.reply_to or "")
        return begin_run(begun, definition_of(entry), entry)
    came = await reader.read(entry.cause, InferenceReplied) if entry.cause_topic else None
    return go_on(folded, _cause(entry, came), entry)


def begin_run(begun: Begun, definition: Definition, entry: AgentJournaled) -> Taken:
    """Returns what the first entry of a run comes to."""
    step = begin(begun, definition, entry.at)
    return _taken(step, begun, 1, entry, entry)


def go_on(folded: Folded, cause: Cause, entry: AgentJournaled) -> Taken:
    """Returns what the next entry of a run comes to."""
    step = advance(folded.run, cause, entry.at)
    return _taken(step, folded.begun, folded.entries + 1, folded.began, entry)


def emitted(outgoing: Iterable[Outgoing]) -> tuple[Emitted, ...]:
    """Returns what an entry says of the records that it led to."""
    return tuple(
        Emitted(topic=topic.name, key=topic.key(event), digest=sha256(event.to_bytes()).digest())
        for topic, event in outgoing
    )


def _taken(
    step: Step, begun: Begun, entries: int, began: AgentJournaled, entry: AgentJournaled
) -> Taken:
    outgoing = step.outgoing
    if step.ended is not None:
        completed = InferenceCompleted(
            routed=begun.routed,
            completion=step.ended.completion,
            refusal=step.ended.refusal,
            started_at=began.at,
            first_token_at=entry.at if step.ended.completion else None,
            completed_at=entry.at,
        )
        outgoing = (*outgoing, Outgoing(INFERENCE_COMPLETED, completed))
    folded = Folded(step.run, begun, entries, began)
    return Taken(folded, outgoing, ended=step.ended is not None)


def _cause(entry: AgentJournaled, came: InferenceReplied | None) -> Cause:
    if came is None:
        cause = WITHOUT_RECORD.get(entry.cause.decode(errors="replace"))
    else:
        cause = caused(came)
    if cause is None:
        raise JournalUnsound(f"entry {entry.seq} of {entry.run_id} holds nothing for a run")
    return cause


def definition_of(entry: AgentJournaled) -> Definition:
    """Returns the agent as the first entry of a run has it.

    Raises:
        JournalUnsound: It has none.
    """
    try:
        return Definition.model_validate_json(entry.definition or "")
    except ValueError:
        raise JournalUnsound(f"entry {entry.seq} of {entry.run_id} has no agent") from None
