"""Dead letters: the record byte for byte, or as much of it as the log takes."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from infra.bus import Record
from infra.deadletters import MAX_VALUE_BYTES, dead_letter
from infra.telemetry import now
from schemas.events import DeadLetterCause, RecordDeadLettered


def letter_of(record: Record) -> RecordDeadLettered:
    outgoing = dead_letter(record, "tests", DeadLetterCause.UNREADABLE, "it is nonsense", now())
    assert isinstance(outgoing.event, RecordDeadLettered)
    return outgoing.event


@given(
    key=st.none() | st.binary(),
    value=st.none() | st.binary(),
    headers=st.lists(st.tuples(st.text(), st.none() | st.binary())),
)
def test_a_letter_holds_the_record_byte_for_byte(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    letter = letter_of(Record("some.topic", 3, 14, key, value, headers))
    assert (letter.topic, letter.partition, letter.offset) == ("some.topic", 3, 14)
    assert (letter.key, letter.value) == (key, value)
    assert [(header.key, header.value) for header in letter.headers] == headers
    assert letter.message == "it is nonsense"


def test_a_value_that_no_topic_would_take_is_cut_and_named_by_its_hash() -> None:
    value = b"x" * (MAX_VALUE_BYTES + 1)
    letter = letter_of(Record("some.topic", 0, 0, None, value, ()))
    assert letter.value == value[:MAX_VALUE_BYTES]
    assert sha256(value).hexdigest() in letter.message
    assert str(len(value)) in letter.message
