"""What others have judged, once: a judge that is asked again after a crash may say something else.

The first that was said of something counts. Which that is comes from the log: when a partition
comes to this process, what precedes its first record is read once more, back to where nobody waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import structlog

from infra.bus import Record
from infra.past import before
from infra.settings import KafkaSettings
from infra.telemetry import now
from schemas.codec import Codec, Unreadable
from schemas.events import InferenceJudged
from schemas.topics import INFERENCE_JUDGED, Outgoing
from streams.steps import Fail, Runtime, Step, Steps, Taken

log = structlog.get_logger()

# How long after its deadline it is known that something was judged, and how far clocks lie apart.
KEPT_S = 120


class Mark(NamedTuple):
    """What was judged, and until when that is known, in seconds since 1970."""

    held_id: str
    until: float

    @classmethod
    def of(cls, judged: InferenceJudged) -> Mark:
        """Returns what an event is known by."""
        return cls(judged.held.held_id, judged.held.until.timestamp() + KEPT_S)


@dataclass(slots=True)
class Firsts:
    """What was judged first, on one partition: where it lies, and until when that is known.

    Attributes:
        generation: Of the group, when what precedes was last read.
        end: Offset up to which all is known; None before anything is.
    """

    generation: int | None = None
    end: int | None = None
    _offsets: dict[str, tuple[int, float]] = field(default_factory=dict)
    _swept_at: float = 0.0

    def first(self, judged: Mark, offset: int) -> int:
        """Returns the first offset at which something was judged; this one, when it is new."""
        found = min(offset, self._offsets.get(judged.held_id, (offset, 0.0))[0])
        self._offsets[judged.held_id] = (found, judged.until)
        return found

    def sweep(self, now_s: float) -> None:
        """Forgets what is known long enough; looks once a minute at most."""
        if now_s > self._swept_at + 60:
            self._swept_at = now_s
            old = [name for name, (_, until) in self._offsets.items() if until < now_s]
            for name in old:
                del self._offsets[name]


class Judging(Steps):
    """Work that acts on what was judged first of something, and on nothing that is said later.

    Args:
        step: Acts.
        runtime: What the process has at hand.
        fail: Ends the process.
    """

    def __init__(self, step: Step, runtime: Runtime, fail: Fail) -> None:
        super().__init__(INFERENCE_JUDGED, step, runtime, fail)
        self._firsts: dict[int, Firsts] = {}

    # `Any`: None where there is nothing to decide.
    async def _given(self, taken: Taken) -> Any:
        record, judged = taken.record, taken.event
        assert isinstance(judged, InferenceJudged)
        firsts = self._firsts.setdefault(record.partition, Firsts())
        firsts.sweep(now().timestamp())
        if firsts.generation != taken.generation:
            await self._recall(firsts, record)
            firsts.generation = taken.generation
        firsts.end = max(firsts.end or 0, record.offset + 1)
        return judged if firsts.first(Mark.of(judged), record.offset) == record.offset else None

    def _outgoing(self, given: Any, instant: datetime) -> Iterable[Outgoing]:
        return () if given is None else super()._outgoing(given, instant)

    async def _recall(self, firsts: Firsts, record: Record) -> None:
        began = time.monotonic()
        ahead_s = self._runtime.view.limits.max_deadline_ms / 1000 + KEPT_S
        since_ms = int((now().timestamp() - ahead_s) * 1000)
        judged = await asyncio.to_thread(
            recall, self._runtime.kafka, self._runtime.codec, record, since_ms, firsts.end or 0
        )
        for offset, mark in judged:
            firsts.first(mark, offset)
        log.info(
            "verdicts recalled",
            partition=record.partition,
            records=len(judged),
            elapsed_ms=int((time.monotonic() - began) * 1000),
        )


def recall(
    kafka: KafkaSettings, codec: Codec, record: Record, since_ms: int, known: int
) -> list[tuple[int, Mark]]:
    """Returns offset and mark of what was judged before a record on its partition; blocks.

    Args:
        kafka: Where the broker is.
        codec: Decodes; what it cannot is left out.
        record: The first that is not of interest.
        since_ms: The first instant of interest, in milliseconds since 1970.
        known: The first offset of interest.

    Raises:
        BusUnreachable: No broker answers.
    """
    with closing(before(kafka, record, since_ms, known)) as records:
        return list(_read(codec, records))


def _read(codec: Codec, records: Iterable[Record]) -> Iterator[tuple[int, Mark]]:
    for record in records:
        try:
            yield record.offset, Mark.of(codec.decode(record.value, InferenceJudged))
        # Of a schema that is not known yet: it comes by the way of all records, too.
        except (LookupError, Unreadable):
            continue
