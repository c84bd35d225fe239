"""Where records go that cannot be read or processed: whole, with the reason, never lost."""

from __future__ import annotations

from datetime import datetime

from infra.bus import Record
from schemas.events import DeadLetterCause, Header, RecordDeadLettered
from schemas.topics import DEAD_LETTERS, Outgoing


def dead_letter(
    record: Record, processor: str, cause: DeadLetterCause, message: str, now: datetime
) -> Outgoing:
    """Returns the dead letter of a record.

    Args:
        record: The record, byte for byte.
        processor: Consumer group that gives it up.
        cause: The kind of failure.
        message: The failure in words that quote nothing of the record.
        now: When.
    """
    return Outgoing(
        DEAD_LETTERS,
        RecordDeadLettered(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            value=record.value,
            headers=tuple(Header(key=key, value=value) for key, value in record.headers),
            processor=processor,
            cause=cause,
            message=message,
            dead_lettered_at=now,
        ),
    )
