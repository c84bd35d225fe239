"""What is read once more of the log: what lies before a record, and nothing that is known."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from infra.bus import BusUnreachable, Record
from infra.past import before
from infra.settings import KafkaSettings
from schemas.topics import REQUEST_CANCELLED
from tests.harness import Bus, eventually, unique

pytestmark = pytest.mark.stack

RECORDS = 8
EVER = 0
NEVER = 2**41 * 1000


def written(bus: Bus) -> str:
    topic = replace(REQUEST_CANCELLED, name=unique("past"))
    bus.make(topic)
    for number in range(RECORDS):
        bus.put(topic.name, b"key", str(number).encode())
    bus.settle()
    return topic.name


def at(topic: str, offset: int) -> Record:
    return Record(topic, 0, offset, b"key", b"", ())


@pytest.mark.parametrize(
    ("offset", "since_ms", "known", "expected"),
    [
        (6, EVER, 0, [0, 1, 2, 3, 4, 5]),
        (6, EVER, 4, [4, 5]),
        (6, EVER, 6, []),
        (0, EVER, 0, []),
        (6, NEVER, 0, []),
    ],
)
def test_what_lies_before_a_record_is_read_from_where_it_is_not_known(
    bus: Bus, offset: int, since_ms: int, known: int, expected: list[int]
) -> None:
    topic = written(bus)
    with closing(before(bus.kafka, at(topic, offset), since_ms, known)) as records:
        assert [each.offset for each in records] == expected


def threads() -> set[str]:
    return {each.name for each in Path("/proc/self/task").iterdir()}


def test_whoever_stops_midway_leaves_no_reader_open(bus: Bus) -> None:
    others = threads()
    with closing(before(bus.kafka, at(written(bus), RECORDS - 1), EVER, 0)) as records:
        assert next(records).value == b"0"
        opened = threads() - others
    assert opened
    eventually(lambda: not opened & threads(), what="the end of the reader")


def test_a_silent_broker_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.past.TRANSFER_S", 0.5)
    with pytest.raises(BusUnreachable, match="no broker answers"):
        list(before(KafkaSettings(bootstrap_servers="127.0.0.1:1"), at("nothing", 1), EVER, 0))
