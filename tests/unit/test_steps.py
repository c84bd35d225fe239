"""What a processor decides on at all: no record so large that nothing could be said of it."""

from __future__ import annotations

from infra.bus import Record
from schemas.topics import INFERENCE_REQUESTED, MAX_RECORD_BYTES
from streams.steps import MOST_ASIDE_BYTES, too_large


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
