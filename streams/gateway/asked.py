"""A request with what its record tells of who sent it.

What is not proven to be its tenant's is refused without harm to a request that it may be a forgery
of: recorded under an id of its own (``Asked.refused_id``), and replied to with the claim of the
refused record, by which a client tells whether its own is meant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from uuid import NAMESPACE_URL, uuid5

from infra.identity import Sender
from infra.signing import REMEMBERED, Signature
from schemas.events import InferenceRequested
from schemas.topics import INFERENCE_REQUESTED
from streams.gateway.limits.counters import Counters


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request and what its record tells of who sent it.

    Attributes:
        request: What is asked.
        signed: The signature in the record's headers.
        topic: Topic that the record lies on.
        place: Where it lies: topic/partition/offset.
        size: Bytes of its value.
        trace_id: W3C trace id in its headers.
        replayed: Whether a copy of it was taken before.
        moved_again: Whether it was put here twice, since a process ended amid moving it.
        counters: What its tenant uses, where a limit holds for it.
    """

    request: InferenceRequested
    signed: Signature | None = None
    topic: str = INFERENCE_REQUESTED.name
    place: str
    size: int = 0
    trace_id: str | None = None
    replayed: bool = False
    moved_again: bool = False
    counters: Counters = field(default_factory=Counters)

    @property
    def charge_id(self) -> str:
        """Names the decision on this record, in the ledger and in its row, and no other."""
        return self.refused_id

    @property
    def refused_id(self) -> str:
        """Names the refusal of this record, and no other, however often it is read."""
        return _id_of(self.place)

    @property
    def sender(self) -> Sender:
        """Who it says that it is from, and what it brings to prove it."""
        request = self.request
        return Sender(
            tenant=request.tenant,
            principal=request.principal,
            deadline=request.deadline,
            topic=self.topic,
            signed=self.signed,
            replayed=self.replayed,
            for_others=True,
        )


# Asked for several times of the record in hand.
@lru_cache(maxsize=REMEMBERED)
def _id_of(place: str) -> str:
    return str(uuid5(NAMESPACE_URL, place))
