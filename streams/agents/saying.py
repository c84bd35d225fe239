"""Saying what runs lead to: requests are signed, and answers known by what they claim.

What is said again is the same to the byte, and counts once by its id. But another release may say
a request in other bytes, and another key signs it otherwise: to the gateway that is another request
under the same id, answered under another claim. So a request that was said in another form is said
only if its run still waits for it and the log has none of it; and the journal has the new claim
first, as it had the old one. Not covered: who said it first may be thought dead and say it later;
then it is served twice, and the first answer counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from infra.bus import Encoded, Publisher
from infra.signing import Signer, claim, claimed
from infra.telemetry import Headers
from schemas.events import (
    AgentJournaled,
    Event,
    InferenceCompleted,
    InferenceReplied,
    InferenceRequested,
    Reason,
)
from schemas.topics import Outgoing
from streams.agents.causes import Answered, Cause
from streams.agents.folding import SAID_AGAIN, emitted
from streams.agents.kept import Kept

# Behind the name of what came, and before a number: an entry that what it led to was said again.
AGAIN = "/said again/"


@dataclass(frozen=True, slots=True)
class Ready:
    """A record that can go out.

    Attributes:
        said: What it says, and where.
        sent: Its bytes.
        signed: What proves that it is ours, if it asks for something.
        before: Claims under which it was said before.
    """

    said: Outgoing
    sent: Encoded
    signed: Headers
    before: frozenset[str] = frozenset()

    @property
    def claim(self) -> str:
        """What its answer will claim; empty where it asks for nothing."""
        return claim(claimed(self.signed, self.sent.value or b""))

    @property
    def changed(self) -> bool:
        """Whether it was said in another form before."""
        return bool(self.before - {self.claim})

    @property
    def request_id(self) -> str:
        """Id of the request that it is; empty where it is none."""
        event = self.said.event
        return event.request_id if isinstance(event, InferenceRequested) else ""


class Saying:
    """Puts what runs lead to on the log.

    Args:
        publisher: Puts records on the log.
        signer: Signs what runs ask for.
    """

    def __init__(self, publisher: Publisher, signer: Signer) -> None:
        self._publisher = publisher
        self._signer = signer

    def ready(self, outgoing: Iterable[Outgoing]) -> list[Ready]:
        """Returns records, the same however often."""
        outgoing = list(outgoing)
        encoded = self._publisher.encode(outgoing)
        return [
            Ready(said, sent, self._signed(said.event, sent))
            for said, sent in zip(outgoing, encoded, strict=True)
        ]

    async def publish(self, ready: Sequence[Ready], headers: Headers) -> None:
        """Puts records on the log; what ends a run comes behind all that the run told."""
        for ends in (False, True):
            await asyncio.gather(
                *(
                    self._publisher.publish([each.sent], [*headers, *each.signed])
                    for each in ready
                    if isinstance(each.said.event, InferenceCompleted) is ends
                )
            )

    def _signed(self, event: Event, sent: Encoded) -> Headers:
        if not isinstance(event, InferenceRequested):
            return ()
        return self._signer.headers(sent.topic, sent.key or b"", event.deadline, sent.value or b"")


def claiming(entry: AgentJournaled, ready: Sequence[Ready]) -> AgentJournaled:
    """Returns an entry that says what it leads to, and what answers to that will claim."""
    said = emitted(each.said for each in ready)
    claims = [each.claim for each in ready]
    both = zip(said, claims, strict=True)
    return replace(entry, emitted=tuple(replace(each, claim=proof) for each, proof in both))


def said_before(ready: Sequence[Ready], entry: AgentJournaled, kept: Kept) -> list[Ready]:
    """Returns what an entry led to with the claims under which it was said before.

    Args:
        ready: What the entry leads to now.
        entry: The entry.
        kept: What is known of its run.
    """
    before: list[set[str]] = [{each.claim} for each in entry.emitted]
    again = f"{entry.cause_id}{AGAIN}"
    for later in kept.entries:
        if later.cause_id.startswith(again):
            for claims, each in zip(before, later.emitted, strict=True):
                claims.add(each.claim)
    return [
        replace(each, before=frozenset(claims - {""}))
        for each, claims in zip(ready, before, strict=True)
    ]


def lost(ready: Iterable[Ready], awaited: set[str], lying: set[str]) -> list[Ready]:
    """Returns what is to be said again.

    Args:
        ready: All that was said before.
        awaited: Ids of the requests to which an answer is still waited for.
        lying: Claims of requests that lie on the log.
    """
    return [
        each
        for each in ready
        if not each.changed or (each.request_id in awaited and not each.before & lying)
    ]


def renewed(
    entry: AgentJournaled, ready: Sequence[Ready], again: Sequence[Ready], seq: int, at: datetime
) -> AgentJournaled | None:
    """Returns the entry that has what answers will claim; None where the journal has it already.

    Args:
        entry: The entry that led to all this.
        ready: All that it led to.
        again: What of that is said again.
        seq: Number of the new entry.
        at: Its moment.
    """
    new = [each.changed and each in again and each.claim not in each.before for each in ready]
    if not any(new):
        return None
    said = zip(claiming(entry, ready).emitted, new, strict=True)
    return AgentJournaled(
        run_id=entry.run_id,
        tenant=entry.tenant,
        agent=entry.agent,
        seq=seq,
        cause_id=f"{entry.cause_id}{AGAIN}{seq}",
        cause=SAID_AGAIN,
        emitted=tuple(each if is_new else replace(each, claim="") for each, is_new in said),
        at=at,
    )


def is_meant(kept: Kept, replied: InferenceReplied, cause: Cause) -> bool:
    """Returns whether a reply is to what a run asked, and not to another record under its id."""
    if not isinstance(cause, Answered):
        return True
    refusal = replied.refusal
    if refusal is not None and refusal.reason is Reason.SIGNATURE_REPLAYED:
        return False
    return bool(replied.claim) and any(
        each.claim == replied.claim for entry in kept.entries for each in entry.emitted
    )
