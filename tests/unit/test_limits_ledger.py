"""What a process does with decisions: nothing follows from one before it stands on the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from infra.bus import Encoded, Publisher, Record
from infra.registry import Registry
from infra.settings import HealthSettings, KafkaSettings, LakeSettings, RegistrySettings
from schemas.codec import Codec
from schemas.events import Entry, UsageCounted
from schemas.topics import INFERENCE_REQUESTED, USAGE_COUNTED, Outgoing
from streams.gateway.limits import ledger as ledgers
from streams.gateway.limits.counters import Counters
from streams.gateway.limits.follow import LedgerLost
from streams.gateway.limits.ledger import Ledger, Page
from streams.steps import Runtime
from tests.unit.asking import NOON
from tests.unit.limiting import view_with
from tests.unit.test_counters_ledger import REQUESTS, entry

RECORD = Record(INFERENCE_REQUESTED.name, 0, 7, b"acme", b"", ())


@dataclass
class Log:
    """The ledger as the broker has it, and the publisher that writes it."""

    entries: list[UsageCounted] = field(default_factory=list)

    def encode(self, outgoing: Iterable[Outgoing]) -> list[Encoded]:
        self.entries += [event for _, event in outgoing if isinstance(event, UsageCounted)]
        return []

    def post(self, records: Sequence[Encoded], *more: Any) -> None:
        """Takes what is encoded already."""

    async def publish(self, records: Sequence[Encoded], *more: Any) -> None:
        """Takes what is encoded already."""

    async def partitions(self, topic: str) -> int:
        return 6

    def recover(self, kafka: object, codec: object, registry: object, takeover: Any) -> Counters:
        counters = Counters(place=takeover.place)
        for offset, each in enumerate(self.entries):
            counters.apply(each, offset)
        return counters


class Followed:
    """A follower that begins at once."""

    def __init__(self, *what: object) -> None:
        pass

    def follow(self, partition: int, offset: int, begun: Callable[[], None]) -> None:
        begun()

    def leave(self, partition: int) -> None:
        """Holds nothing."""

    async def close(self) -> None:
        """Holds nothing."""


class Process:
    """A gateway with its ledger; the test delivers what lies on the log."""

    def __init__(self, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ledgers, "recover", log.recover)
        monkeypatch.setattr(ledgers, "Follower", Followed)
        self.log = log
        self.failed: list[BaseException] = []
        self.followed: list[str] = []
        runtime = Runtime(
            name="gateway",
            kafka=KafkaSettings(),
            health=HealthSettings(),
            lake=LakeSettings(root=Path()),
            registry=Registry(RegistrySettings()),
            codec=Codec({}),
            view=view_with(),
            publisher=cast(Publisher, log),
        )
        self.ledger = Ledger(runtime, self.failed.append)

    async def page(self, generation: int = 1) -> Page:
        return await self.ledger.page(RECORD, generation, shared=False)

    async def decides(self, name: str, generation: int = 1) -> Page:
        page = await self.page(generation)
        decision = entry(name, charges=(REQUESTS,), fence=page.fence, place=7)
        self.log.entries.append(decision)
        encoded = Encoded(USAGE_COUNTED.name, None, None)
        self.ledger.journal(page, decision, encoded, (), lambda: self.followed.append(name))
        return page

    def hears(self, page: Page) -> None:
        for offset in range(page.counters.offset, len(self.log.entries)):
            self.ledger._apply(page, self.log.entries[offset], offset)


async def test_what_follows_from_a_decision_follows_when_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = Process(Log(), monkeypatch)
    page = await process.decides("a")
    assert page.counters.used(REQUESTS, NOON) == 1, "it counts at once"
    assert process.followed == []
    process.hears(page)
    process.hears(page)
    assert process.followed == ["a"]
    assert page.counters.used(REQUESTS, NOON) == 1
    assert process.failed == []
    await process.ledger.close()


async def test_from_a_decision_behind_another_takeover_nothing_follows_and_its_process_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log()
    sleeper, other = Process(log, monkeypatch), Process(log, monkeypatch)
    page = await sleeper.page()
    its = await other.decides("b", generation=2)
    await sleeper.decides("a")
    sleeper.hears(page)
    other.hears(its)
    assert sleeper.followed == []
    assert isinstance(sleeper.failed[0], LedgerLost)
    with pytest.raises(LedgerLost):
        await sleeper.page()
    assert (other.followed, other.failed) == (["b"], [])
    assert its.counters.used(REQUESTS, NOON) == 1


async def test_a_partition_that_another_took_over_is_let_go_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log()
    before, after = Process(log, monkeypatch), Process(log, monkeypatch)
    page = await before.decides("a")
    before.hears(page)
    await after.page(generation=2)
    before.hears(page)
    assert page.lost
    assert before.failed == []
    # And taken over again, when it comes back.
    again = await before.page(generation=3)
    assert again.counters.used(REQUESTS, NOON) == 1
    assert again.counters.earlier("a") is not None


async def test_where_many_decisions_are_on_their_way_the_next_record_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledgers, "MOST_WAITING", 2)
    process = Process(Log(), monkeypatch)
    await process.decides("a")
    page = await process.decides("b")
    assert not page.room.is_set()
    process.hears(page)
    assert page.room.is_set()
    assert process.followed == ["a", "b"]


async def test_a_settlement_is_nobodys_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(Log(), monkeypatch)
    page = await process.decides("a")
    process.hears(page)
    settled = entry("a", Entry.SETTLED, charges=(replace(REQUESTS, amount=0),))
    process.log.entries.append(settled)
    process.hears(page)
    assert page.counters.used(REQUESTS, NOON) == 0
    assert (process.followed, process.failed) == (["a"], [])
