"""The board: what waits for a person's approval, and what was decided.

Every gateway process has it whole, from the log. Of several decisions about one approval, the first
on the log counts, whoever wrote it; so a process that is late, or a crash, decides nothing twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from schemas.events import ApprovalDecided, ApprovalWanted

# How long it is known what was decided.
KNOWN = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The first decision about an approval, by which record it came, and where it lies."""

    granted: bool
    principal: str
    given_id: str
    decided_at: datetime
    partition: int
    offset: int


@dataclass(slots=True)
class Board:
    """Approvals that are wanted, and decisions about them.

    Attributes:
        wanted: What waits, by approval.
        decided: What was decided, by approval.
    """

    wanted: dict[str, ApprovalWanted] = field(default_factory=dict)
    decided: dict[str, Decision] = field(default_factory=dict)

    def want(self, wanted: ApprovalWanted) -> bool:
        """Notes that an approval is wanted; returns False where that was known or decided."""
        name = wanted.approval_id
        if name in self.decided or name in self.wanted:
            return False
        self.wanted[name] = wanted
        return True

    def decide(self, decided: ApprovalDecided, partition: int, offset: int) -> Decision:
        """Notes a decision; returns the first about that approval."""
        name = decided.approval_id
        self.wanted.pop(name, None)
        known = self.decided.get(name)
        # One partition has all about an approval, unless somebody put it elsewhere.
        if known is None or (known.partition == partition and offset < known.offset):
            known = self.decided[name] = Decision(
                granted=decided.granted,
                principal=decided.principal,
                given_id=decided.given.given_id if decided.given else "",
                decided_at=decided.decided_at,
                partition=partition,
                offset=offset,
            )
        return known

    def due(self, now: datetime) -> list[ApprovalWanted]:
        """Returns what nobody has decided in time."""
        return [wanted for wanted in self.wanted.values() if wanted.until <= now]

    def forget(self, now: datetime) -> None:
        """Forgets what was decided long ago."""
        old = [name for name, each in self.decided.items() if each.decided_at < now - KNOWN]
        for name in old:
            del self.decided[name]
