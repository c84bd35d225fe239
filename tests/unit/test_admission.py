"""What admission remembers of signed records, against a model that forgets nothing."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.bus import Publisher, Record
from infra.registry import Registry
from infra.settings import HealthSettings, KafkaSettings, LakeSettings, RegistrySettings
from infra.signing import Signer, claimed, generate, is_genuine
from infra.telemetry import now
from schemas.codec import Codec
from schemas.topics import INFERENCE_REQUESTED
from streams.gateway.admission import KEPT_S, Admission, Mark, Marks, Memory, marked, marks
from streams.gateway.asked import Asked
from streams.gateway.limits.ledger import Ledger
from streams.steps import MOVED, Runtime, Taken
from tests.seed import view_of
from tests.unit.asking import CATALOG, LIMITS, ask
from tests.unit.deciding import admit

SIGNER, STRANGER = Signer(generate()), Signer(generate())
KEY = {"public_key": base64.b64encode(SIGNER.public_key).decode()}
ALICE = {"kind": "user", "name": "alice", "spec": {"tenant": "acme"}, "keys": [KEY]}
VIEW = view_of([*CATALOG, ALICE], LIMITS)
TOPIC = INFERENCE_REQUESTED.name


@cache
def soon() -> datetime:
    """One deadline for all; not from when the tests were collected, which may be long ago."""
    return datetime.now(UTC) + timedelta(minutes=5)


def record(number: int, offset: int, *, moved: bytes | None = None, signed: bool = True) -> Record:
    value = f"value {number}".encode()
    headers = list(SIGNER.headers(TOPIC, b"acme", soon(), value)) if signed else []
    headers += [(MOVED, moved)] if moved else []
    return Record(TOPIC, 0, offset, b"acme", value, headers)


@dataclass
class Log:
    """One partition as the broker has it; stands where the reading of it does."""

    records: list[Record] = field(default_factory=list)
    read: list[tuple[int, int]] = field(default_factory=list)

    def append(self, number: int, **more: Any) -> Record:
        self.records.append(record(number, len(self.records), **more))
        return self.records[-1]

    def recall(self, kafka: KafkaSettings, until: Record, since_ms: int, known: int) -> Marks:
        self.read.append((known, until.offset))
        assert since_ms < (now().timestamp() - KEPT_S) * 1000
        return list(marked(self.records[known : until.offset]))


class Gateway:
    """A gateway's admission, fed by hand."""

    def __init__(self, log: Log) -> None:
        runtime = Runtime(
            name="gateway",
            kafka=KafkaSettings(),
            health=HealthSettings(),
            lake=LakeSettings(root=Path()),
            registry=Registry(RegistrySettings()),
            codec=Codec({}),
            view=VIEW,
            publisher=cast(Publisher, None),
        )
        ledger = Ledger(runtime, _raise)
        self._admission = Admission(INFERENCE_REQUESTED, admit, runtime, _raise, ledger, log.recall)

    def takes(self, each: Record, generation: int = 1) -> Asked:
        taken = Taken(each, ask(), each.headers, lambda: None, generation)
        return asyncio.run(self._admission._given(taken))

    @property
    def remembers(self) -> int:
        return sum(len(each) for each in self._admission._memories.values())

    def replayed(self, each: Record, generation: int = 1) -> bool:
        return self.takes(each, generation).replayed


def _raise(error: BaseException) -> None:
    raise error


def test_what_is_asked_says_what_its_record_tells() -> None:
    log = Log()
    trace = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    each = log.append(1)
    given = Gateway(log).takes(replace(each, headers=[trace, *each.headers]))
    assert given.request == ask()
    assert given.signed == claimed(each.headers, each.value or b"")
    assert (given.topic, given.place, given.size) == (TOPIC, f"{TOPIC}/0/0", 7)
    assert given.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert (given.replayed, given.moved_again) == (False, False)
    assert Gateway(log).takes(log.append(2, signed=False)).signed is None


def test_a_copy_is_known_and_a_redelivery_is_none() -> None:
    log = Log()
    gateway = Gateway(log)
    first = log.append(1)
    assert not gateway.replayed(first)
    assert gateway.replayed(log.append(1))
    assert not gateway.replayed(first), "the same record again"
    assert not gateway.replayed(log.append(2))


def test_a_new_process_knows_what_lies_before_its_first_record() -> None:
    log = Log()
    original = log.append(1)
    copy = log.append(1)
    assert not Gateway(log).replayed(original), "what comes later makes no copy of it"
    assert Gateway(log).replayed(copy)


def test_after_a_rebalance_only_what_others_took_is_read() -> None:
    log = Log()
    gateway = Gateway(log)
    for number in range(3):
        gateway.takes(log.append(number))
    assert log.read == [(0, 0)]
    elsewhere = log.append(7)
    assert gateway.replayed(log.append(7), generation=3), f"{elsewhere} was another process's"
    assert log.read == [(0, 0), (3, 4)]
    assert gateway.replayed(log.append(1), generation=3)
    assert log.read == [(0, 0), (3, 4)]


def test_unsigned_records_neither_cost_a_reading_nor_hide_one() -> None:
    log = Log()
    gateway = Gateway(log)
    gateway.takes(log.append(0, signed=False))
    assert log.read == []
    log.append(1)
    gateway.takes(log.append(2, signed=False), generation=2)
    assert gateway.replayed(log.append(1), generation=2)


def test_a_gap_within_a_generation_costs_no_reading() -> None:
    log = Log()
    gateway = Gateway(log)
    gateway.takes(log.append(1))
    log.append(2, signed=False)
    gateway.takes(log.append(3))
    assert log.read == [(0, 0)]


def test_a_record_that_was_moved_twice_is_told_from_a_copy_that_was_moved() -> None:
    log = Log()
    gateway = Gateway(log)
    assert not gateway.replayed(log.append(1, moved=b"3/17"))
    again = gateway.takes(log.append(1, moved=b"3/17"))
    assert again.moved_again
    copy = gateway.takes(log.append(1, moved=b"4/2"))
    assert (copy.replayed, copy.moved_again) == (True, False)
    assert gateway.takes(log.append(1)).replayed


def test_a_copy_under_another_key_is_no_copy_yet() -> None:
    log = Log()
    gateway = Gateway(log)
    under_another = replace(log.append(1), key=b"another")
    log.records[0] = under_another
    assert not gateway.replayed(under_another)
    assert not gateway.replayed(log.append(1, moved=b"0/0")), "moved to its own key"
    assert gateway.replayed(log.append(1))


# A step of a gateway's life: a new record, a copy of an earlier one, a rebalance, a kill.
STEPS = st.lists(
    st.tuples(st.sampled_from(["new", "copy", "junk", "rebalance", "kill"]), st.integers(0, 50)),
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(steps=STEPS)
def test_whatever_happens_the_first_of_its_copies_is_taken_and_no_other(
    steps: list[tuple[str, int]],
) -> None:
    log, generation, at = Log(), 1, 0
    gateway = Gateway(log)
    numbers: list[int] = []
    for step, chance in steps:
        if step == "new" or (step == "copy" and not numbers):
            numbers.append(len(numbers))
            log.append(numbers[-1])
        elif step == "copy":
            log.append(numbers[chance % len(numbers)])
        elif step == "junk":
            log.append(chance, signed=False)
        else:
            # What was not committed comes again.
            at = max(0, at - chance % 5)
            generation += 1
            gateway = Gateway(log) if step == "kill" else gateway
        # Sometimes another process takes the records of a while.
        at = len(log.records) if step == "rebalance" and chance % 2 else at
        while at < len(log.records):
            each = log.records[at]
            signed = [one for one in log.records if one.headers and one.value == each.value]
            copied = bool(each.headers) and signed[0].offset < each.offset
            assert gateway.replayed(each, generation) == copied
            at += 1


def test_memory_ends_a_little_after_the_deadline() -> None:
    memory = Memory()
    assert [memory.first(Mark(b"a", 100), offset) for offset in (5, 7, 3, 9)] == [5, 5, 3, 3]
    memory.first(Mark(b"b", 101), 8)
    memory.sweep(100)
    assert len(memory) == 2
    memory.sweep(101)
    assert len(memory) == 1
    assert memory.first(Mark(b"a", 100), 9) == 9


@pytest.mark.parametrize("ahead", [timedelta(minutes=22), timedelta(minutes=-2)])
def test_what_cannot_be_admitted_for_its_deadline_takes_no_memory(ahead: timedelta) -> None:
    log = Log()
    gateway = Gateway(log)
    each = with_deadline(ahead)
    assert not gateway.replayed(each)
    assert not gateway.replayed(replace(each, offset=1))


def with_deadline(ahead: timedelta) -> Record:
    value = b"value"
    headers = SIGNER.headers(TOPIC, b"acme", datetime.now(UTC) + ahead, value)
    return Record(TOPIC, 0, 0, b"acme", value, headers)


def test_what_was_refused_for_a_deadline_too_far_ahead_is_known_when_it_would_fit() -> None:
    gateway = Gateway(Log())
    each = with_deadline(timedelta(minutes=15))
    assert not gateway.replayed(each)
    assert gateway.replayed(replace(each, offset=1))


def test_a_signature_that_is_not_genuine_takes_no_memory() -> None:
    log = Log()
    gateway = Gateway(log)
    forged = replace(log.append(1), value=b"another")
    assert not gateway.replayed(forged)
    assert not gateway.replayed(replace(forged, offset=1))
    assert gateway.remembers == 0


def test_what_a_key_unknown_has_signed_takes_a_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.gateway.admission.MOST_DOUBTFUL", 1)
    gateway = Gateway(Log())
    for offset in range(3):
        value = f"value {offset}".encode()
        headers = STRANGER.headers(TOPIC, b"acme", soon(), value)
        gateway.takes(Record(TOPIC, 0, offset, b"acme", value, headers))
    assert gateway.remembers == 1
    assert not gateway.replayed(record(7, 3))
    assert gateway.replayed(record(7, 4)), "what is genuine is remembered all the same"


def test_a_record_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    is_genuine.cache_clear()
    given = Gateway(Log()).takes(record(1, 0))
    list(admit(given, VIEW, now()))
    assert is_genuine.cache_info().misses == 1


def test_a_mark_outlives_its_deadline() -> None:
    each = record(1, 0)
    signed = claimed(each.headers, each.value or b"")
    assert signed is not None
    [mark] = marks(each, signed)
    assert mark.until == int(soon().timestamp()) + KEPT_S
