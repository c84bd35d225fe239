"""Steps: decisions as pure functions, and the work of running them on what a processor takes up."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, Protocol

import structlog
from aiokafka.partitioner import murmur2

from infra.bus import Encoded, Publisher, PublishFailed, Record, RecordTooLarge
from infra.catalog import CatalogView
from infra.deadletters import bury, dead_letter
from infra.registry import Registry
from infra.settings import HealthSettings, KafkaSettings, LakeSettings
from infra.telemetry import RECORDS, Headers, consuming, described, now
from schemas.codec import Codec
from schemas.events import DeadLetterCause, Event
from schemas.topics import MAX_LETTER_BYTES, MAX_RECORD_BYTES, Outgoing, Topic

log = structlog.get_logger()

# Set on a record each time that it is put where its key belongs: where it lay before.
MOVED = "tessera-moved"
# Processes may differ for a while in how many partitions they know of, but not for ever.
MOST_MOVES = 3

# Bytes of a record's key and headers: a record that is moved has them again.
MOST_ASIDE_BYTES = MAX_RECORD_BYTES // 16
# Of a record's key and value: with the headers that it is given, no producer takes more.
MOST_PUBLISHED_BYTES = MAX_LETTER_BYTES - 2 * MOST_ASIDE_BYTES

DECIDED = RECORDS.labels("decided")

# A step that fails is tried once more before its record becomes a dead letter.
TRIES = 2

Step = Callable[[Any, CatalogView, datetime], Iterable[Outgoing]]


@dataclass(slots=True, frozen=True)
class Taken:
    """A record that the processor has taken up; ``settle`` it when its effects are durable.

    Within one generation of the group, records of a partition come without gaps. One that comes
    ``again`` was settled before this process took its partition over.
    """

    record: Record
    event: Event
    headers: Headers
    settle: Callable[[], None]
    generation: int = 0
    again: bool = False


async def vital(work: Coroutine[Any, Any, None], fail: Fail) -> None:
    """Does work without which its process is of no use: another must go on where it fails."""
    try:
        await work
    # Whoever waits for it would wait in vain from now on.
    except Exception as error:  # noqa: BLE001
        fail(error)


class Work(Protocol):
    """What a processor does with the records of one topic."""

    async def take(self, taken: Taken) -> None:
        """Takes a record up; it may return before the record is settled.

        Records come in the order of their partition. Waiting here holds the topic back.
        """

    async def close(self) -> None:
        """Settles what is taken up, as far as it can be."""


# Ends the process with what went wrong.
Fail = Callable[[BaseException], None]


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What a process has at hand.

    Attributes:
        name: Its group, its process and its log field.
        seal: Reference to the secret that seals what is masked; empty for one of its own.
    """

    name: str
    kafka: KafkaSettings
    health: HealthSettings
    lake: LakeSettings
    registry: Registry
    codec: Codec
    view: CatalogView
    publisher: Publisher
    seal: str = ""


class Steps:
    """Work that decides: runs a step and publishes what it says."""

    def __init__(self, topic: Topic[Any], step: Step, runtime: Runtime, fail: Fail) -> None:
        self._topic = topic
        self._step = step
        self._runtime = runtime
        self._fail = fail

    async def take(self, taken: Taken) -> None:
        """Publishes what the step says of the event; settles when that lies on the log."""
        await self._runtime.publisher.room()
        if await self._misplaced(taken):
            self._move(taken)
            return
        given = await self._given(taken)
        with consuming(self._runtime.name, taken.record.topic, taken.headers) as headers:
            self._put(taken, self._decide(taken, given), headers)

    async def close(self) -> None:
        """Holds nothing back, so has nothing to settle."""

    # `Any`: what a step decides on is between it and its topic.
    async def _given(self, taken: Taken) -> Any:
        """Returns what the step decides on."""
        return taken.event

    def _decide(self, taken: Taken, given: Any) -> list[Encoded]:
        instant, publisher = now(), self._runtime.publisher
        for _ in range(TRIES):
            try:
                decided = publisher.encode(self._outgoing(given, instant))
            # Whatever a step raises, the record must leave as an event and the partition go on.
            except Exception as error:  # noqa: BLE001
                said = described(error)
            else:
                large = unpublishable(decided)
                if large is None:
                    DECIDED.inc()
                    return decided
                said = large
                break
        RECORDS.labels("dead").inc()
        log.warning("step failed", error=said, topic=taken.record.topic)
        cause = DeadLetterCause.STEP_FAILED
        return publisher.encode(
            [dead_letter(taken.record, self._runtime.name, cause, said, instant)]
        )

    def _outgoing(self, given: Any, instant: datetime) -> Iterable[Outgoing]:
        """Returns what the step says."""
        return self._step(given, self._runtime.view, instant)

    def _put(self, taken: Taken, decided: list[Encoded], headers: Headers) -> None:
        """Publishes what was decided."""
        self._post(taken, decided, headers)

    async def _misplaced(self, taken: Taken) -> bool:
        if not self._topic.placed:
            return False
        # What is much too large to be served need not be moved, and might not fit.
        if len(taken.record.value or b"") > self._topic.max_bytes // 2:
            return False
        key = self._topic.key(taken.event).encode()
        home = home_of(key, await self._runtime.publisher.partitions(self._topic.name))
        return taken.record.key != key or taken.record.partition != home

    def _move(self, taken: Taken) -> None:
        """Puts a record where its key belongs, unless it was moved too often to be believed."""
        record, runtime = taken.record, self._runtime
        if sum(name == MOVED for name, _ in taken.headers) >= MOST_MOVES:
            cause = DeadLetterCause.WRONG_PARTITION
            letter = bury(record, runtime.name, cause, f"moved {MOST_MOVES} times in vain")
            self._post(taken, runtime.publisher.encode([letter]), ())
            return
        RECORDS.labels("moved").inc()
        moved = Encoded(record.topic, self._topic.key(taken.event).encode(), record.value)
        place = f"{record.partition}/{record.offset}".encode()
        self._post(taken, [moved], [*taken.headers, (MOVED, place)])

    def _post(self, taken: Taken, records: list[Encoded], headers: Headers) -> None:
        def done(failed: PublishFailed | None) -> None:
            if isinstance(failed, RecordTooLarge):
                self._bury(taken, failed)
            else:
                self._settled(taken, failed)

        self._runtime.publisher.post(records, headers, done)

    def _bury(self, taken: Taken, failed: RecordTooLarge) -> None:
        """Gives a record up of whose decision the broker takes a part not, and would never."""
        runtime, cause = self._runtime, DeadLetterCause.STEP_FAILED
        letter = bury(taken.record, runtime.name, cause, f"what was decided is too large: {failed}")
        records = runtime.publisher.encode([letter])
        runtime.publisher.post(records, (), partial(self._settled, taken))

    def _settled(self, taken: Taken, failed: PublishFailed | None) -> None:
        if failed is None:
            taken.settle()
        else:
            self._fail(failed)


def too_large(record: Record) -> str | None:
    """Returns why a record is too large to be decided on; None where it is not.

    The broker's limits hold for compressed batches, so what comes from it can be of any size; what
    would come of that, no topic could hold.
    """
    size = len(record.value or b"")
    if size > MAX_RECORD_BYTES:
        return f"the value has {size} bytes; at most {MAX_RECORD_BYTES} are decided on"
    aside = sum(len(name) + len(content or b"") for name, content in record.headers)
    aside += len(record.key or b"")
    if aside > MOST_ASIDE_BYTES:
        return f"key and headers have {aside} bytes; at most {MOST_ASIDE_BYTES} are decided on"
    return None


def unpublishable(decided: Iterable[Encoded]) -> str | None:
    """Returns why what was decided cannot be published; None where it can.

    What the broker takes of the rest, once it is compressed, only the broker knows.
    """
    for topic, key, value in decided:
        size = len(key or b"") + len(value or b"")
        if size > MOST_PUBLISHED_BYTES:
            return f"what was decided has {size} bytes for {topic}; no topic takes so many"
    return None


def steps(
    table: Mapping[Topic[Any], Step], runtime: Runtime, fail: Fail
) -> Mapping[Topic[Any], Work]:
    """Returns the work of a processor that decides, given the step of each topic."""
    return {topic: Steps(topic, step, runtime, fail) for topic, step in table.items()}


@lru_cache(maxsize=65536)
def home_of(key: bytes, partitions: int) -> int:
    """Returns the partition that Kafka's default partitioner gives a key."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
