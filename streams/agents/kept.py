"""What is known of a run: what came for it, and where on the journal that lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from infra.bus import Record
from infra.tail import BEGINNING
from infra.telemetry import now
from schemas.events import AgentJournaled
from schemas.topics import LONGEST_DEADLINE_MS

# How long a run can go on; and once more, what may still come for it.
KNOWN = timedelta(milliseconds=LONGEST_DEADLINE_MS)
# How far the clocks of broker and processes may lie apart.
SKEW = timedelta(seconds=60)
# How far back runs are of interest.
BACK = 2 * KNOWN + SKEW


@dataclass(slots=True)
class Kept:
    """What is known of a run.

    Attributes:
        partition: Where its entries lie.
        causes: By the name of what came: at which offset its entry lies, in their order.
        entries: The entries themselves; none of a run that is over.
        until: When it ends whatever happens.
        ended: Whether it is over.
        heard: When this process heard of it, or whoever wrote the snapshot that tells of it.
    """

    partition: int = 0
    causes: dict[str, int] = field(default_factory=dict)
    entries: list[AgentJournaled] = field(default_factory=list)
    until: datetime = BEGINNING
    ended: bool = False
    heard: datetime = field(default_factory=now)

    @property
    def goes_on(self) -> bool:
        """Whether it has begun and is not over."""
        return bool(self.entries)

    def is_past(self, instant: datetime) -> bool:
        """Returns whether its time was over by a moment, and it was heard of before that."""
        return max(self.until, self.heard) < instant

    def take(self, entry: AgentJournaled, record: Record) -> bool:
        """Takes an entry as it lies on the log; returns False where it is not the next one."""
        if self.ended or entry.seq != len(self.causes) or entry.cause_id in self.causes:
            return False
        if not self.causes:
            self.partition, self.until = record.partition, entry.until or BEGINNING
        self.causes[entry.cause_id] = record.offset
        self.entries.append(entry)
        self.ended = entry.ended
        if self.ended:
            self.entries.clear()
        return True
