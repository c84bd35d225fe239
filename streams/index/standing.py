"""How the keeping of a generation stands, as this process knows it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from infra.asker import NoReply, RequestRefused
from infra.bus import BusUnreachable
from infra.changes.source import Unfit
from infra.embedding import VectorsUnfit
from infra.registry import RegistryUnreachable
from infra.telemetry import now
from infra.vectors import DimensionsWrong, PlaceUnknown, VectorsRefused, VectorsUnreachable
from schemas.events import IndexState


class GroupHeld(Exception):
    """A consumer group must begin anew, but has members."""


# What is waited for, since it passes by itself or when somebody mends it; and how.
REMEDIES: dict[type[Exception], str] = {
    BusUnreachable: "see that the broker runs; it is asked again",
    DimensionsWrong: "build the index anew (raise its generation), or name the former endpoint",
    GroupHeld: "nothing, if it passes; else stop the index processes, then start one",
    NoReply: "see that the workers of the embedding endpoint run; it is asked again",
    PlaceUnknown: "nothing: what the store has lost is made anew from the source",
    RegistryUnreachable: "see that the schema registry runs; it is asked again",
    RequestRefused: "mend what the endpoint's refusal says; it is asked again",
    VectorsRefused: "see the log of the vector store; it is tried again",
    VectorsUnfit: "name an endpoint whose model embeds, with vectors as long as the index says",
    VectorsUnreachable: "see that the vector store runs; it is tried again",
}
LACKS: tuple[type[Exception], ...] = (Unfit, *REMEDIES)
# These are the definition's fault, or nobody can answer for it.
FAULTS = (DimensionsWrong, Unfit, VectorsUnfit)


@dataclass(slots=True)
class Standing:
    """What is wrong, where something is, and what has been done.

    Attributes:
        state: READY unless something is wrong.
        reason: What is wrong.
        remedy: What to do about it.
        embedded: Texts that were embedded.
        freshness_ms: From the commit of the latest change to the moment at which it could be found.
        lost: Whether the store has lost the place, which must be made anew.
        anew: Whether it was made here, and does not hold all yet.
        shaken_at: When the store last fell silent, so that what it holds is to be looked at.
    """

    state: IndexState = IndexState.READY
    reason: str | None = None
    remedy: str | None = None
    embedded: int = 0
    freshness_ms: int | None = None
    lost: bool = False
    anew: bool = False
    shaken_at: datetime | None = None

    def well(self) -> None:
        """Notes that nothing is wrong any more."""
        self.state, self.reason, self.remedy = IndexState.READY, None, None

    def complain(self, lack: Exception) -> None:
        """Notes what is wrong: one of ``LACKS``."""
        self.state = IndexState.FAILED if isinstance(lack, FAULTS) else IndexState.DEGRADED
        self.reason = str(lack) or type(lack).__name__
        remedies = (remedy for kind, remedy in REMEDIES.items() if isinstance(lack, kind))
        self.remedy = lack.remedy if isinstance(lack, Unfit) else next(remedies, None)
        self.lost |= isinstance(lack, PlaceUnknown)
        if isinstance(lack, VectorsUnreachable):
            self.shaken_at = now()
