"""Where records go that cannot be read or processed: whole, with the reason, never lost."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256

import structlog

from infra.bus import Record
from infra.telemetry import RECORDS, now
from schemas.events import DeadLetterCause, Header, RecordDeadLettered
from schemas.topics import DEAD_LETTERS, MAX_LETTER_BYTES, Outgoing

log = structlog.get_logger()

# More is only said to have been there: its hash names it, and the source topic still has it.
MAX_VALUE_BYTES = MAX_LETTER_BYTES // 2
MAX_ASIDE_BYTES = MAX_LETTER_BYTES // 16


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
    key, value, headers = record.key, record.value, record.headers
    if value and len(value) > MAX_VALUE_BYTES:
        message += f"; only the beginning of {len(value)} bytes, sha256 {sha256(value).hexdigest()}"
        value = value[:MAX_VALUE_BYTES]
    if key and len(key) > MAX_ASIDE_BYTES:
        message += f"; only the beginning of a key of {len(key)} bytes"
        key = key[:MAX_ASIDE_BYTES]
    if sum(len(name) + len(content or b"") for name, content in headers) > MAX_ASIDE_BYTES:
        message += f"; without its {len(headers)} headers, which are too large"
        headers = ()
    return Outgoing(
        DEAD_LETTERS,
        RecordDeadLettered(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=key,
            value=value,
            headers=tuple(Header(key=name, value=content) for name, content in headers),
            processor=processor,
            cause=cause,
            message=message,
            dead_lettered_at=now,
        ),
    )


def bury(record: Record, processor: str, cause: DeadLetterCause, message: str) -> Outgoing:
    """Returns the dead letter of a record that is given up now; counts it and logs where it lay."""
    RECORDS.labels("dead").inc()
    log.warning(
        "record buried",
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        cause=cause,
    )
    return dead_letter(record, processor, cause, message, now())
