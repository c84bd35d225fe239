"""What a processor decides on at all, and what becomes of decisions that no topic could hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import cast

from infra.bus import Encoded, Publisher, PublishFailed, Record, RecordTooLarge
from infra.catalog import CatalogView
from infra.registry import Registry
from infra.settings import HealthSettings, KafkaSettings, LakeSettings, RegistrySettings
from infra.telemetry import Headers
from schemas.codec import Codec
from schemas.events import EVENTS, InferenceRefused, Reason, RecordDeadLettered, Refusal
from schemas.topics import (
    DEAD_LETTERS,
    INFERENCE_REFUSED,
    INFERENCE_REQUESTED,
    MAX_LETTER_BYTES,
    MAX_RECORD_BYTES,
    Outgoing,
)
from streams.steps import MOST_ASIDE_BYTES, Runtime, Steps, Taken, too_large
from tests.unit.asking import NOON, VIEW, ask

CODEC = Codec({name: number for number, name in enumerate(EVENTS)})


def record(value: int, *, key: int = 0, headers: int = 0) -> Record:
    """Returns a record whose parts have so many bytes."""
    return Record(INFERENCE_REQUESTED.name, 0, 0, bytes(key), bytes(value), [("", bytes(headers))])


def test_a_record_as_large_as_its_topic_takes_is_decided_on() -> None:
    assert too_large(record(MAX_RECORD_BYTES)) is None
    assert too_large(record(0, key=MOST_ASIDE_BYTES // 2, headers=MOST_ASIDE_BYTES // 2)) is None
    assert too_large(Record("topic", 0, 0, None, None, [("none", None)])) is None


def test_a_record_that_unpacks_to_more_than_any_topic_takes_is_not() -> None:
    assert "the value has" in (too_large(record(MAX_RECORD_BYTES + 1)) or "")


def test_a_record_whose_key_or_headers_no_copy_could_hold_is_not() -> None:
    for large in (record(0, key=MOST_ASIDE_BYTES + 1), record(0, headers=MOST_ASIDE_BYTES + 1)):
        assert "key and headers" in (too_large(large) or "")


class Broker:
    """Stands where the publisher does; takes no record larger than a number of bytes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken: list[Encoded] = []

    async def room(self) -> None:
        """Has room."""

    def encode(self, outgoing: Iterable[Outgoing]) -> list[Encoded]:
        """Returns events as records."""
        return [
            Encoded(topic.name, topic.key(event).encode(), CODEC.encode(event))
            for topic, event in outgoing
        ]

    def post(
        self,
        records: Sequence[Encoded],
        headers: Headers,
        done: Callable[[PublishFailed | None], None],
    ) -> None:
        """Takes records, or says at once that one never will be."""
        large = [each for each in records if len(each.value or b"") > self.most]
        self.taken += [each for each in records if each not in large]
        done(RecordTooLarge("too large") if large else None)

    def letters(self) -> list[RecordDeadLettered]:
        """Returns the dead letters among what was taken."""
        kind = RecordDeadLettered
        dead = [each for each in self.taken if each.topic == DEAD_LETTERS.name]
        return [CODEC.decode(each.value or b"", kind) for each in dead]


def decided_as_large(size: int, broker: Broker) -> tuple[int, list[BaseException]]:
    """Returns how often a record was settled, and what ended the process, by a step that says much.

    Args:
        size: Bytes of what the step says.
        broker: Takes it or not.
    """
    settled: list[None] = []
    ended: list[BaseException] = []
    refusal = Refusal(reason=Reason.REQUEST_INVALID, message="no")
    event = InferenceRefused(request=ask(), refusal=refusal, refused_at=NOON)

    def much(given: InferenceRefused, view: CatalogView, now: datetime) -> list[Outgoing]:
        request = ask(request_id="x" * size)
        refused = InferenceRefused(request=request, refusal=refusal, refused_at=NOON)
        return [Outgoing(INFERENCE_REFUSED, refused)]

    async def take() -> None:
        runtime = Runtime(
            name="deciding",
            kafka=KafkaSettings(),
            health=HealthSettings(),
            lake=LakeSettings(root=Path()),
            registry=Registry(RegistrySettings()),
            codec=CODEC,
            view=VIEW,
            publisher=cast(Publisher, broker),
        )
        taken = Taken(record(10), event, (), lambda: settled.append(None))
        await Steps(INFERENCE_REFUSED, much, runtime, ended.append).take(taken)

    asyncio.run(take())
    return len(settled), ended


def test_a_decision_that_no_producer_takes_is_a_dead_letter_of_its_record() -> None:
    broker = Broker(most=MAX_LETTER_BYTES)
    assert decided_as_large(MAX_LETTER_BYTES, broker) == (1, [])
    [letter] = broker.letters()
    assert "no topic takes so many" in letter.message
    assert letter.value == bytes(10)
    assert len(broker.taken) == 1


def test_a_decision_that_the_broker_never_takes_is_a_dead_letter_of_its_record() -> None:
    broker = Broker(most=10_000)
    assert decided_as_large(20_000, broker) == (1, [])
    [letter] = broker.letters()
    assert "too large" in letter.message


def test_a_process_ends_where_not_even_a_dead_letter_is_taken() -> None:
    settled, ended = decided_as_large(20_000, Broker(most=1))
    assert settled == 0
    assert isinstance(ended[0], RecordTooLarge)
