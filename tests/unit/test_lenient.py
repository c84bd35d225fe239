"""Header names that are not text: read by aiokafka all the same, and nothing else changes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import (
    DefaultRecordBatch,
    _DefaultRecordBatchBuilderPy,
)
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from streams.lenient import LenientRecords, read_leniently

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
ATTRIBUTES = struct.calcsize(">qiibI")
TRANSACTIONAL, CONTROL = 0x10, 0x20
ABORT_MARKER = b"\x00\x00\x00\x00"
BYTES = b"\xff\x00"


class Odd(str):
    """A name that is written as bytes that are not UTF-8."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"a\xff\xfe"


ODD = r"a\xff\xfe"


def value(offset: int) -> bytes:
    """Returns the value of a record: worth compressing."""
    return b"%d " % offset * 50


def batch(
    *names: str, at: int = 0, codec: int = 0, by: int = -1, key: bytes = b"k", flags: int = 0
) -> bytes:
    """Returns a batch that starts at an offset, with one record for each header name."""
    transactional = int(bool(flags & TRANSACTIONAL))
    builder = _DefaultRecordBatchBuilderPy(2, codec, transactional, by, 0, 0, 1 << 20)
    for number, name in enumerate(names):
        headers = [("before", None), (name, BYTES), ("after", b"")]
        assert builder.append(number, 1000, key, value(at + number), headers)
    raw = builder.build()
    raw[:8] = at.to_bytes(8, "big")
    assert raw[ATTRIBUTES + 1] == codec | (flags & TRANSACTIONAL)
    raw[ATTRIBUTES + 1] |= flags
    return bytes(raw)


def partition(
    raw: bytes, *, since: int = 0, aborted: Sequence[tuple[int, int]] = (), crcs: bool = True
) -> Iterator[Any]:
    """Reads as a consumer does that starts at an offset and sees only what is committed."""
    place = TopicPartition("t", 0)
    records = fetcher.MemoryRecords(raw)
    level = fetcher.READ_COMMITTED
    found: Iterator[Any] = fetcher.PartitionRecords(
        place, records, aborted, since, None, None, crcs, level
    )
    return found


@pytest.fixture(autouse=True)
def _leniently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "MemoryRecords", MemoryRecords)
    read_leniently()


def names(found: Iterator[Any]) -> list[tuple[int, str]]:
    """Returns offset and header name of each record; all else must be as it was written."""
    result = []
    for record in found:
        before, (name, content), after = record.headers
        assert (before, content, after) == (("before", None), BYTES, ("after", b""))
        assert (record.key, record.value) == (b"k", value(record.offset))
        result.append((record.offset, name))
    return result


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_names_that_are_no_text_come_escaped_and_no_record_is_lost_or_doubled(codec: int) -> None:
    before = batch("a", "b", codec=codec)
    odd = batch("c", Odd(), "é", Odd(), "f", at=2, codec=codec)
    behind = batch("g", at=7, codec=codec)
    written = list(enumerate(["a", "b", "c", ODD, "é", ODD, "f", "g"]))
    assert names(partition(before + odd + behind)) == written
    assert names(partition(odd + behind, since=4)) == written[4:]


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_a_batch_of_plain_names_is_read_by_the_fast_reader(codec: int) -> None:
    raw = batch("a", "é", "c", codec=codec)
    found = list(LenientRecords(raw).next_batch())
    assert {type(record) for record in found} == {type(next(iter(DefaultRecordBatch(raw))))}


def test_what_was_aborted_and_control_records_are_still_passed_over() -> None:
    raw = (
        batch("a", Odd(), by=7, flags=TRANSACTIONAL)
        + batch("b", Odd(), at=2, by=8, flags=TRANSACTIONAL)
        + batch("c", at=4, by=7, key=ABORT_MARKER, flags=TRANSACTIONAL | CONTROL)
        + batch(Odd(), at=5, by=7, flags=TRANSACTIONAL)
        + batch("d", at=6, by=7, key=b"\x00\x00\x00\x01", flags=TRANSACTIONAL | CONTROL)
        + batch("e", at=7)
    )
    found = names(partition(raw, aborted=[(7, 0)], crcs=False))
    assert found == [(2, "b"), (3, ODD), (5, ODD), (7, "e")]


def test_batches_of_the_format_without_headers_are_read() -> None:
    builder = LegacyRecordBatchBuilder(1, 0, 1 << 10)
    builder.append(0, 1000, b"k", b"v")
    [record] = partition(bytes(builder.build()))
    assert (record.key, record.value, record.headers) == (b"k", b"v", ())


def test_a_damaged_batch_is_still_refused() -> None:
    damaged = batch(Odd())[:-1] + b"\x04"
    with pytest.raises(CorruptRecordException, match="CRC"):
        next(partition(damaged))
    # The last byte is the length of the last header's value.
    with pytest.raises(CorruptRecordException, match="record"):
        next(partition(damaged, crcs=False))


def test_an_aiokafka_that_reads_otherwise_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetcher, "MemoryRecords", object)
    with pytest.raises(RuntimeError, match=r"streams/lenient\.py"):
        read_leniently()


def test_reading_leniently_twice_is_as_good_as_once() -> None:
    read_leniently()
    assert fetcher.MemoryRecords is LenientRecords
