"""What was committed is on the bus, in order, whatever is killed, fenced or lost on the way."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from catalog.relay.relay import TopicLost
from catalog.relay.told import TopicAhead
from catalog.relay.transactions import WriterLost
from catalog.store.store import CatalogRefused, Change, Store
from infra.bus import Record
from infra.settings import PostgresSettings
from infra.stack.local import LocalStack
from schemas.codec import FRAME
from schemas.events import CatalogChanged, LineageEdge, LineageRecorded
from schemas.topics import (
    AUDIT_RECORDED,
    CATALOG_CHANGED,
    INFERENCE_ROUTED,
    LINEAGE_RECORDED,
    REPLY,
)
from tests.catalog.acting import ACTOR, ENDPOINT, MODEL, NOON, begun, live, route
from tests.catalog.relaying import Running, anew, gone, on_topic, relaying
from tests.harness import Bus, Process, eventually, unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def _empty_topics(bus: Bus) -> None:
    anew(bus, AUDIT_RECORDED, CATALOG_CHANGED)


def refused_at_last(change: Change) -> None:
    """Changes something, and then wants what cannot be."""
    change.update("catalog", "main", comment="never")
    change.delete("catalog", "nowhere")


def is_told(bus: Bus, store: Store) -> None:
    """Returns when the topic says what the store says."""
    # What is committed can be read a moment later.
    eventually(lambda: on_topic(bus) == live(store), 120, "all of it on the topic")


def comment(store: Store, times: int, start: int = 0) -> None:
    """Changes the catalog so many times, in as many transactions."""
    for number in range(start, start + times):
        with store.change(ACTOR) as change:
            change.update("catalog", "main", comment=f"number {number}")


def test_what_is_committed_is_published_in_the_order_of_commits(bus: Bus, store: Store) -> None:
    begun(store)
    with relaying(bus, store):
        comment(store, 20)
        with store.change(ACTOR) as change:
            change.create("policy", "main.default.rules", owner="root")
            change.delete("policy", "main.default.rules")
        eventually(lambda: not store.waiting(), 120, "an empty outbox")
    is_told(bus, store)
    positions = [changed.position for changed in bus.events(CATALOG_CHANGED)]
    assert positions == list(range(1, 28))
    audited = {audit.audit_id for audit in bus.events(AUDIT_RECORDED)}
    assert audited == {f"catalog-{position}-r-1" for position in positions}


def test_what_is_told_beside_a_change_is_published_too(bus: Bus, store: Store) -> None:
    edge = LineageEdge(
        downstream_kind="endpoint",
        downstream=ENDPOINT,
        relation="served_by",
        upstream_kind="model_version",
        upstream=f"{MODEL}@1",
    )
    told = LineageRecorded(cause_id=unique("cause"), at=NOON, edges=(edge,))
    key = told.cause_id.encode()
    with relaying(bus, store), store.change(ACTOR) as change:
        change.tell(LINEAGE_RECORDED, told)

    def keyed() -> list[Record]:
        return [each for each in bus.records(LINEAGE_RECORDED.name) if each.key == key]

    with relaying(bus, store):
        eventually(keyed, 120, "what is told")
        assert [bus.codec.decode(each.value, LineageRecorded) for each in keyed()] == [told]


def test_nothing_is_published_of_what_was_rolled_back(bus: Bus, store: Store) -> None:
    begun(store)
    with relaying(bus, store):
        with pytest.raises(CatalogRefused), store.change(ACTOR) as change:
            refused_at_last(change)
        comment(store, 1)
        eventually(lambda: not store.waiting(), 120, "an empty outbox")
    is_told(bus, store)
    assert all("never" not in (changed.body or "") for changed in bus.events(CATALOG_CHANGED))


def test_topics_are_there_before_anybody_hears_of_their_tenant_or_pool(
    bus: Bus, store: Store
) -> None:
    begun(store)
    pool, tenant, second = unique("pool"), unique("tenant"), unique("second")
    with relaying(bus, store):
        with store.change(ACTOR) as change:
            change.create("tenant", tenant, owner="root", spec={"replies": [tenant, second]})
            change.create("endpoint", ENDPOINT, owner="root", spec=route(pool=pool))
        is_told(bus, store)
        known = bus.admin.list_topics(timeout=30).topics
    assert INFERENCE_ROUTED.member(pool).name in known
    assert {REPLY.member(tenant).name, REPLY.member(second).name} <= set(known)


def test_a_relay_killed_again_and_again_loses_nothing(
    bus: Bus, store: Store, postgres: PostgresSettings, tmp_path: Path
) -> None:
    begun(store)
    there = {
        f"POSTGRES_{name.upper()}": str(value) for name, value in postgres.model_dump().items()
    }
    process = Process(
        ["-m", "tests.catalog.relaying"], {**bus.environment, **there}, tmp_path / "relay.log"
    )
    dice = random.Random(7)
    done = threading.Event()

    def write() -> None:
        for lot in range(40):
            comment(store, 50, start=50 * lot)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(6):
            # In the middle of the work: something has just been taken from the outbox.
            eventually(moved(store, done), 120, "work")
            done.wait(dice.uniform(0, 0.05))
            process.kill()
            process.start()
        eventually(lambda: done.is_set() and not store.waiting(), 300, "an empty outbox")
    finally:
        writer.join()
        process.kill()
    is_told(bus, store)
    told = bus.events(CATALOG_CHANGED)
    assert {changed.position for changed in told} == set(range(1, told[-1].position + 1))
    audited = {audit.audit_id for audit in bus.events(AUDIT_RECORDED)}
    assert audited == {f"catalog-{changed.position}-r-1" for changed in told}


def moved(store: Store, done: threading.Event) -> Callable[[], bool]:
    """Returns whether the outbox has lost its first event since this call, or nothing comes."""

    def first() -> int:
        found = store.waiting()
        return found[0].id if found else 0

    before = first()
    return lambda: done.is_set() or first() != before


def test_a_relay_outlives_the_broker(
    stack: LocalStack, bus: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The broker may be away for longer than a lot may stay open.
    monkeypatch.setattr("catalog.relay.transactions.OPEN_MS", 10 * 60 * 1000)
    begun(store)
    with relaying(bus, store) as running:
        comment(store, 20)
        stack.kill("kafka")
        comment(store, 20, start=20)
        eventually(lambda: not store.waiting(), 300, "an empty outbox")
        assert running.failure is None
        stack.wait_ready(["kafka", "registry"])
    is_told(bus, store)


def test_of_two_relays_the_first_is_fenced_and_ends(bus: Bus, store: Store) -> None:
    begun(store)
    with relaying(bus, store) as first, relaying(bus, store) as second:
        comment(store, 50)

        # The second may have published all before the first saw any of it.
        def is_fenced() -> bool:
            comment(store, 1)
            return first.over

        eventually(is_fenced, 120, "the end of the first")
        assert isinstance(first.failure, WriterLost)
        eventually(lambda: not store.waiting(), 120, "an empty outbox")
        assert not second.over
    is_told(bus, store)


def test_a_deleted_topic_is_noticed_and_filled_at_the_next_start(bus: Bus, store: Store) -> None:
    begun(store)
    with relaying(bus, store) as running:
        gone(bus, CATALOG_CHANGED)
        eventually(lambda: running.over, 120, "the end of the relay")
        assert isinstance(running.failure, TopicLost)
    with relaying(bus, store):
        is_told(bus, store)


def test_a_topic_made_anew_is_noticed(bus: Bus, store: Store) -> None:
    begun(store)
    with relaying(bus, store) as running:
        anew(bus, CATALOG_CHANGED)
        eventually(lambda: running.over, 120, "the end of the relay")
        assert isinstance(running.failure, TopicLost)


def test_the_topic_is_filled_with_what_it_lacks_and_rid_of_what_is_gone(
    bus: Bus, store: Store
) -> None:
    begun(store)
    comment(store, 2)
    stale = CatalogChanged(position=3, kind="model", name=MODEL, body="{}", changed_at=NOON)
    older = CatalogChanged(position=4, kind="catalog", name="main", body="{}", changed_at=NOON)
    bus.send(CATALOG_CHANGED, stale, older)
    store.forget(1_000_000)
    with relaying(bus, store):
        is_told(bus, store)


def test_a_topic_that_is_as_it_should_be_is_left_alone(bus: Bus, store: Store) -> None:
    begun(store)
    with relaying(bus, store):
        is_told(bus, store)
        before = bus.events(CATALOG_CHANGED)
    with relaying(bus, store):
        assert bus.events(CATALOG_CHANGED) == before


def test_a_topic_of_another_history_is_not_written_to(bus: Bus, store: Store) -> None:
    begun(store)
    store.forget(1_000_000)
    ahead = CatalogChanged(position=999, kind="model", name=MODEL, body="{}", changed_at=NOON)
    bus.send(CATALOG_CHANGED, ahead)
    running = Running(bus, store)
    eventually(lambda: running.over, 120, "the end of the relay")
    assert isinstance(running.failure, TopicAhead)
    assert "delete the topic" in str(running.failure)
    assert len(bus.events(CATALOG_CHANGED)) == 1


def last_of_more(bus: Bus, before: int) -> Record:
    """Returns the last record of the topic, once there are more than before."""
    eventually(lambda: len(bus.records(CATALOG_CHANGED.name)) > before, 120, "another record")
    return bus.records(CATALOG_CHANGED.name)[-1]


def test_a_record_that_cannot_be_read_is_told_anew(bus: Bus, store: Store) -> None:
    begun(store)
    with relaying(bus, store):
        is_told(bus, store)
    bus.put(CATALOG_CHANGED.name, b"catalog/main", b"nonsense")
    bus.settle()
    before = len(bus.records(CATALOG_CHANGED.name))
    with relaying(bus, store):
        last = last_of_more(bus, before)
    assert last.key == b"catalog/main"
    changed = bus.codec.decode(last.value, CatalogChanged)
    assert (changed.position, changed.body) == live(store)[("catalog", "main")]


def foreign(bus: Bus) -> Iterator[bytes]:
    """Yields records under schemas that the relay does not know: of none, text, and no events."""
    yield FRAME.pack(0, 999_999) + b"what"
    with SchemaRegistryClient({"url": bus.registry_settings.url}) as client:
        for schema in (
            {"type": "string"},
            {"type": "record", "name": unique("Foreign").replace("-", "_"), "fields": []},
        ):
            schema_id = client.register_schema(unique("foreign"), Schema(json.dumps(schema)))
            yield FRAME.pack(0, schema_id) + b"what"


def test_a_record_of_a_foreign_schema_keeps_no_relay_from_starting(bus: Bus, store: Store) -> None:
    begun(store)
    with relaying(bus, store):
        is_told(bus, store)
    for value in foreign(bus):
        bus.put(CATALOG_CHANGED.name, b"catalog/main", value)
    bus.settle()
    before = len(bus.records(CATALOG_CHANGED.name))
    with relaying(bus, store):
        last = last_of_more(bus, before)
    changed = bus.codec.decode(last.value, CatalogChanged)
    assert (changed.position, changed.body) == live(store)[("catalog", "main")]


def test_an_entry_of_another_version_keeps_no_relay_from_publishing(bus: Bus, store: Store) -> None:
    begun(store)
    newer = CatalogChanged(position=9, kind="tenant", name="new", body="[]", changed_at=NOON)
    with relaying(bus, store) as running:
        with store.change(ACTOR) as change:
            change.tell(CATALOG_CHANGED, newer)
        eventually(lambda: not store.waiting(), 120, "an empty outbox")
        assert running.failure is None
    eventually(lambda: bus.events(CATALOG_CHANGED)[-1:] == [newer], 120, "the entry on the topic")
