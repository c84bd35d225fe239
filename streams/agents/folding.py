"""Folding: a run out of its journal, and what each entry of that led to.

Whoever takes the same entries in comes to the same run, and to the same records to the byte. So
what a crash kept from the log is said once more, and an audit sees that nothing else was ever said.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from infra.registry import Reader
from schemas.agents import Definition
from schemas.avro import fingerprint
from schemas.events import (
    AgentJournaled,
    Emitted,
    InferenceCompleted,
    InferenceReplied,
    InferenceRouted,
    Refusal,
)
from schemas.topics import INFERENCE_COMPLETED, Outgoing
from streams.agents.causes import Begun, Cancelled, Cause, Expired, caused
from streams.agents.conversation import NOTHING_SAID, Conversation
from streams.agents.progress import Ended
from streams.agents.run import Run
from streams.agents.step import Step, advance, begin

# What comes for a run without a record of its own, by the name that stands for it.
CANCELLED, CLOCK = "cancelled", "clock"
WITHOUT_RECORD: dict[str, Cause] = {CANCELLED: Cancelled(), CLOCK: Expired()}

# What stands for no cause at all: what an earlier entry led to was said again in another form.
SAID_AGAIN = b"said again"


class JournalUnsound(ValueError):
    """A run cannot be made of its journal; the message names the entry."""


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
        JournalUnsound: It is none that can come next, or came to something else when it was
            written.
        SchemaMissing: The registry does not know how what came was written.
        Unreadable: What came cannot be read.
    """
    if folded is not None and is_said_again(entry):
        return Taken(replace(folded, entries=folded.entries + 1), (), ended=False)
    taken = await _folded(folded, entry, reader)
    if not _same(emitted(taken.outgoing), entry.emitted):
        raise JournalUnsound(f"entry {entry.seq} of {entry.run_id} led to something else")
    return taken


def is_said_again(entry: AgentJournaled) -> bool:
    """Returns whether an entry has no more than what answers claim to what was said again."""
    return not entry.cause_topic and entry.cause == SAID_AGAIN


def begun_by(routed: InferenceRouted, entry: AgentJournaled) -> Begun:
    """Returns what began a run, as its first entry has it.

    Raises:
        JournalUnsound: The conversation that it goes on with cannot be read.
    """
    try:
        earlier = Conversation.from_json(entry.earlier) if entry.earlier else NOTHING_SAID
    except ValueError:
        raise JournalUnsound(f"entry {entry.seq} of {entry.run_id} has no conversation") from None
    return Begun(routed=routed, reply_to_agents=entry.reply_to or "", earlier=earlier)


def begin_run(begun: Begun, definition: Definition | Refusal, entry: AgentJournaled) -> Taken:
    """Returns what the first entry of a run comes to."""
    step = begin(begun, definition, entry.at)
    return _taken(step, begun, 1, entry, entry)


def go_on(folded: Folded, cause: Cause, entry: AgentJournaled) -> Taken:
    """Returns what the next entry of a run comes to."""
    step = advance(folded.run, cause, entry.at)
    return _taken(step, folded.begun, folded.entries + 1, folded.began, entry)


def given_up(begun: Begun, began: AgentJournaled, entry: AgentJournaled) -> tuple[Outgoing, ...]:
    """Returns what the last entry of a run comes to that could not go on."""
    return (_completed(begun, Ended(refusal=entry.refusal), began, entry),)


def definition_of(entry: AgentJournaled) -> Definition:
    """Returns the agent as the first entry of a run has it.

    Raises:
        JournalUnsound: It has none.
    """
    try:
        return Definition.model_validate_json(entry.definition or "")
    except ValueError:
        raise JournalUnsound(f"entry {entry.seq} of {entry.run_id} has no agent") from None


def emitted(outgoing: Iterable[Outgoing]) -> tuple[Emitted, ...]:
    """Returns what an entry says of the records that it led to."""
    return tuple(
        Emitted(
            topic=topic.name,
            key=topic.key(event),
            digest=sha256(event.to_bytes()).digest(),
            form=fingerprint(event.SCHEMA),
        )
        for topic, event in outgoing
    )


async def _folded(folded: Folded | None, entry: AgentJournaled, reader: Reader) -> Taken:
    if folded is None:
        routed = await reader.read(entry.cause, InferenceRouted)
        begun = begun_by(routed, entry)
        return begin_run(begun, entry.refusal or definition_of(entry), entry)
    if entry.refusal is not None:
        outgoing = given_up(folded.begun, folded.began, entry)
        return Taken(folded, outgoing, ended=True)
    came = await reader.read(entry.cause, InferenceReplied) if entry.cause_topic else None
    return go_on(folded, _cause(entry, came), entry)


def _same(now: Sequence[Emitted], then: Sequence[Emitted]) -> bool:
    """Returns whether an entry leads to what it led to when it was written.

    Where an event's schema has become another since, as it may between two releases, bytes tell
    nothing: then topic and key must do.
    """
    return len(now) == len(then) and all(
        (one.topic, one.key) == (other.topic, other.key)
        and (one.form != other.form or one.digest == other.digest)
        for one, other in zip(now, then, strict=True)
    )


def _taken(
    step: Step, begun: Begun, entries: int, began: AgentJournaled, entry: AgentJournaled
) -> Taken:
    outgoing = step.outgoing
    if step.ended is not None:
        outgoing = (*outgoing, _completed(begun, step.ended, began, entry))
    folded = Folded(step.run, begun, entries, began)
    return Taken(folded, outgoing, ended=step.ended is not None)


def _completed(
    begun: Begun, ended: Ended, began: AgentJournaled, entry: AgentJournaled
) -> Outgoing:
    completed = InferenceCompleted(
        routed=begun.routed,
        completion=ended.completion,
        refusal=ended.refusal,
        started_at=began.at,
        first_token_at=entry.at if ended.completion else None,
        completed_at=entry.at,
        cost_usd=ended.cost,
    )
    return Outgoing(INFERENCE_COMPLETED, completed)


def _cause(entry: AgentJournaled, came: InferenceReplied | None) -> Cause:
    if came is None:
        cause = WITHOUT_RECORD.get(entry.cause.decode(errors="replace"))
    else:
        cause = caused(came)
    if cause is None:
        raise JournalUnsound(f"entry {entry.seq} of {entry.run_id} holds nothing for a run")
    return cause
