"""Admission: what comes in, with what its record tells of who sent it, and whether it came before.

A signature is good for one record. The memory of those that were taken needs no store of its own:
it is rebuilt from the log. Each request is decided on the partition where its tenant belongs, in
the order of offsets; so when a partition comes to this process, the records before the first are
read once more, back to where every deadline has passed, and what lies there was taken. The record
in hand is none of them, so one that is only delivered again is no copy.

What nobody could have been served for leaves no mark: one is kept for a signature that is genuine,
by a key that the catalog knows, whatever else the request is refused for. It may be refused today
and fit tomorrow, so a mark is kept up to twice the longest deadline. What is recalled is not
verified again, which would take a minute after a busy one; a mark more refuses nothing genuine.

Copies are told by record key and claim: whatever else of a record is changed, its claim changes,
and under another key it is moved before it counts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import structlog

from infra.bus import Record
from infra.past import before
from infra.settings import KafkaSettings
from infra.signing import Signature, claim, claimed, is_genuine
from infra.telemetry import Headers, trace_id
from schemas.events import InferenceRequested
from schemas.topics import Topic
from streams.gateway.asked import Asked
from streams.gateway.limits.counters import Counters
from streams.gateway.limits.journal import Journalled
from streams.gateway.limits.ledger import Ledger
from streams.gateway.limits.rules import limited
from streams.steps import MOVED, Fail, Runtime, Step, Taken

log = structlog.get_logger()

# How long a record is known after its deadline: a late copy must not spoil an answer under way.
KEPT_S = 60
# How far the clocks of broker and gateway may lie apart.
SKEW_S = 60
MARK_BYTES = 16
# Marks, on one partition. A key may come to be known after a record of it; up to so many in memory,
# what is signed by a key unknown is remembered for that.
MOST_DOUBTFUL = 100_000


class Mark(NamedTuple):
    """What a record is known by, until when in seconds since 1970, and which key it claims."""

    name: bytes
    until: int
    key_id: str = ""


# With the offset of the record that each is of.
Marks = Sequence[tuple[int, Mark]]


@dataclass(slots=True)
class Memory:
    """The signed records that were taken on one partition, until a little after their deadlines.

    Attributes:
        generation: Of the group, when what precedes was last read.
        end: Offset up to which all is known; None before anything is.
    """

    generation: int | None = None
    end: int | None = None
    _offsets: dict[int, dict[bytes, int]] = field(default_factory=dict)
    _swept_at: int = 0

    def __len__(self) -> int:
        return sum(len(offsets) for offsets in self._offsets.values())

    def first(self, mark: Mark, offset: int) -> int:
        """Returns the first offset at which a record was taken; this one, when it is new."""
        offsets = self._offsets.setdefault(mark.until, {})
        offsets[mark.name] = found = min(offset, offsets.get(mark.name, offset))
        return found

    def sweep(self, now_s: int) -> None:
        """Forgets what is known long enough; looks once a second at most."""
        if now_s > self._swept_at:
            self._swept_at = now_s
            for until in [each for each in self._offsets if each < now_s]:
                del self._offsets[until]


class Admission(Journalled):
    """Work that decides on requests: hands the step what is asked, and by whom as it is claimed.

    Where a limit holds for a request, it hands over what its tenant uses, too.

    Args:
        topic: Where requests come from.
        step: Decides on what was ``Asked``.
        runtime: What the process has at hand.
        fail: Ends the process.
        ledger: Keeps the counters of limits.
        read: Reads the marks of records on the log.
    """

    def __init__(  # noqa: PLR0917 - what it reads and decides with
        self,
        topic: Topic[Any],
        step: Step,
        runtime: Runtime,
        fail: Fail,
        ledger: Ledger,
        read: Callable[[KafkaSettings, Record, int, int], Marks] | None = None,
    ) -> None:
        super().__init__(topic, step, runtime, fail, ledger, shared=False)
        self._read = read or recall
        self._memories: dict[int, Memory] = {}

    async def _given(self, taken: Taken) -> Asked:
        record = taken.record
        value = record.value or b""
        signed = claimed(taken.headers, value)
        replayed = moved_again = False
        memory = self._memories.setdefault(record.partition, Memory())
        request: InferenceRequested = taken.event  # type: ignore[assignment]
        if signed is not None:
            if memory.generation != taken.generation:
                await self._recall(memory, record)
                memory.generation = taken.generation
            replayed, moved_again = self._seen(memory, record, signed, request.tenant)
        if memory.generation == taken.generation:
            memory.end = max(memory.end or 0, record.offset + 1)
        held = limited(request, self._runtime.view)
        return Asked(
            request=request,
            signed=signed,
            topic=record.topic,
            place=f"{record.topic}/{record.partition}/{record.offset}",
            size=len(value),
            trace_id=trace_id(taken.headers),
            replayed=replayed,
            moved_again=moved_again,
            counters=await self._opened(taken) if held else Counters(),
        )

    def _seen(
        self, memory: Memory, record: Record, signed: Signature, tenant: str
    ) -> tuple[bool, bool]:
        """Returns whether a record is a copy, and whether it is one of our own making."""
        now_s = int(time.time())
        # Also of partitions that others have now.
        for each in self._memories.values():
            each.sweep(now_s)
        if not self._believed(memory, signed, record.topic, tenant):
            return False, False
        firsts = [
            memory.first(mark, record.offset)
            for mark in marks(record, signed)
            if self._worth_keeping(mark, now_s)
        ]
        copied, *moved = (first < record.offset for first in firsts or [record.offset])
        return copied, copied and any(moved)

    def _believed(self, memory: Memory, signed: Signature, topic: str, tenant: str) -> bool:
        """Returns whether a record may be what it claims to be, so that a copy of it counts."""
        key = self._runtime.view.keys.get(signed.key_id)
        if key is None:
            return len(memory) < MOST_DOUBTFUL
        return is_genuine(signed, key.public_key, topic, tenant.encode())

    def _worth_keeping(self, mark: Mark, now_s: int) -> bool:
        """Returns whether a record may be taken, now or later; the bound keeps memory flat."""
        return now_s <= mark.until <= now_s + self._ahead_s() + KEPT_S

    def _ahead_s(self) -> int:
        """Returns for how many seconds ahead of a deadline its record is known.

        Twice as many as are served: what is refused for a deadline too far ahead is a copy later.
        """
        return 2 * (self._runtime.view.limits.max_deadline_ms // 1000 + 1)

    async def _recall(self, memory: Memory, record: Record) -> None:
        """Takes into memory what lies on the log before a record and is not known."""
        began, now_s = time.monotonic(), int(time.time())
        since = (now_s - self._ahead_s() - KEPT_S - SKEW_S) * 1000
        found = await asyncio.to_thread(
            self._read, self._runtime.kafka, record, since, memory.end or 0
        )
        count = 0
        keys = self._runtime.view.keys
        for offset, mark in found:
            known = mark.key_id in keys or len(memory) < MOST_DOUBTFUL
            if known and self._worth_keeping(mark, now_s):
                memory.first(mark, offset)
                count += 1
        log.info(
            "signed records recalled",
            partition=record.partition,
            records=count,
            elapsed_ms=int((time.monotonic() - began) * 1000),
        )


def marks(record: Record, signed: Signature) -> Iterator[Mark]:
    """Yields what a record is known by: what it is, then also whence it was moved, if it was."""
    until = signed.deadline_ms // 1000 + KEPT_S
    parts = [record.key or b"", claim(signed).encode()]
    yield Mark(_digest(parts), until, signed.key_id)
    if came_from := _came_from(record.headers):
        yield Mark(_digest([*parts, came_from]), until, signed.key_id)


def recall(kafka: KafkaSettings, record: Record, since_ms: int, known: int) -> Marks:
    """Returns offset and marks of the signed records before one on its partition; blocks.

    Args:
        kafka: Where the broker is.
        record: The first that is not of interest.
        since_ms: The first instant of interest, in milliseconds since 1970.
        known: The first offset of interest.

    Raises:
        BusUnreachable: No broker answers.
    """
    with closing(before(kafka, record, since_ms, known)) as records:
        return list(marked(records))


def marked(records: Iterable[Record]) -> Iterator[tuple[int, Mark]]:
    """Yields offset and marks of the signed ones among some records."""
    for record in records:
        signed = claimed(record.headers, record.value or b"")
        if signed is not None:
            yield from ((record.offset, mark) for mark in marks(record, signed))


def _came_from(headers: Headers) -> bytes | None:
    """Returns where a record lay before it was moved here."""
    return next((content for name, content in reversed(list(headers)) if name == MOVED), None)


def _digest(parts: list[bytes]) -> bytes:
    return blake2b(b"/".join(parts), digest_size=MARK_BYTES).digest()
