"""Ingest on a real broker and a real PostgreSQL: every edge that was told, whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from sqlalchemy import Engine, text

from catalog.lineage.edges import walk
from catalog.lineage.ingest import GROUP, SOURCES, Ingest
from catalog.lineage.lineage import Node
from catalog.lineage.walks import Walk
from catalog.store.store import Store
from infra.registry import Registry
from schemas.codec import FRAME
from schemas.events import CatalogChanged, DeadLetterCause, InferenceRecorded, Outcome
from schemas.kinds import Version
from schemas.topics import CATALOG_CHANGED, DEAD_LETTERS, INFERENCE_RECORDED, LINEAGE_RECORDED
from tests.catalog.lineage_graphs import NOON, edge, told
from tests.harness import Bus, eventually, unique

pytestmark = pytest.mark.stack


@contextmanager
def ingesting(bus: Bus, engine: Engine) -> Iterator[None]:
    """Runs one ingest for a block; what ended it early is raised at the end."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            Ingest(engine, bus.kafka, Registry(bus.registry_settings)).run(stop)
        except Exception as failure:  # noqa: BLE001 - raised below, in the test's thread
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert failures == []


def reaches(engine: Engine, start: Node) -> set[str]:
    with engine.connect() as connection:
        links = walk(connection, Walk(start=start)).links
    return {f"{link.relation} {link.upstream.kind} {link.upstream.name}" for link in links}


def count(engine: Engine, *names: str) -> int:
    """Returns how many edges begin at things of these names; other tests tell of others."""
    counted = text("SELECT count(*) FROM lineage_edge WHERE downstream = ANY(:names)")
    with engine.begin() as connection:
        return int(connection.scalar(counted, {"names": list(names)}) or 0)


def row(request: str, entity: str) -> InferenceRecorded:
    return InferenceRecorded(
        request_id=request,
        tenant="acme",
        endpoint="main.default.chat",
        route="first",
        entity=entity,
        outcome=Outcome.COMPLETED,
        request="{}",
        requested_at=NOON,
    )


def send(bus: Bus, request: str, entity: str) -> None:
    """Tells of one answer, over all three topics."""
    version = Version(
        kind="model",
        spec={"uri": "file:/w", "training_run": f"run-{request}"},
        created_at=NOON,
        created_by="alice",
    )
    change = CatalogChanged(
        position=1,
        kind="version",
        name=entity,
        body=version.model_dump_json(),
        changed_at=NOON,
    )
    bus.send(INFERENCE_RECORDED, row(request, entity))
    bus.send(CATALOG_CHANGED, change)
    snapshot = "snapshot lake:orders@version=3"
    bus.send(LINEAGE_RECORDED, told(edge(f"training_run run-{request}", "read", snapshot)))


THREAD = {
    "answered_by endpoint main.default.chat",
    "asked_by principal acme",
    "read snapshot lake:orders@version=3",
    "routed_by route main.default.chat/first",
    "stored_in file file:/w",
}


def whole(request: str, entity: str) -> set[str]:
    return {*THREAD, f"served_by model_version {entity}", f"trained_by training_run run-{request}"}


def caught_up(bus: Bus) -> bool:
    return all(bus.lag(GROUP, topic) == 0 for topic in SOURCES)


def test_rows_changes_and_what_others_tell_become_one_thread(bus: Bus, store: Store) -> None:
    request, entity = str(uuid4()), f"main.default.m-{uuid4().hex[:8]}@3"
    with ingesting(bus, store.engine):
        send(bus, request, entity)
        answer = Node("response", request)
        eventually(lambda: reaches(store.engine, answer) == whole(request, entity), 120)
        names = request, entity, f"run-{request}"
        before = count(store.engine, *names)
        assert before == len(whole(request, entity))
        send(bus, request, entity)
        eventually(lambda: caught_up(bus), 120)
        assert count(store.engine, *names) == before


def test_a_restored_database_is_caught_up_from_where_it_stood(bus: Bus, store: Store) -> None:
    first, second = str(uuid4()), str(uuid4())
    entity = f"main.default.m-{uuid4().hex[:8]}@3"
    with ingesting(bus, store.engine):
        send(bus, first, entity)
        eventually(lambda: caught_up(bus), 120)
        backup = saved(store.engine)
        send(bus, second, entity)
        eventually(lambda: reaches(store.engine, Node("response", second)), 120)
        eventually(lambda: caught_up(bus), 120)
    restore(store.engine, backup, lose=second)
    assert not reaches(store.engine, Node("response", second))
    with ingesting(bus, store.engine):
        eventually(lambda: reaches(store.engine, Node("response", second)), 120)


def saved(engine: Engine) -> list[dict[str, object]]:
    with engine.begin() as connection:
        rows = connection.execute(text("SELECT topic, partition, next FROM lineage_position"))
        return [dict(each) for each in rows.mappings()]


def restore(engine: Engine, positions: list[dict[str, object]], lose: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM lineage_position"))
        connection.execute(
            text("INSERT INTO lineage_position VALUES (:topic, :partition, :next)"), positions
        )
        connection.execute(
            text("DELETE FROM lineage_edge WHERE downstream IN (:lost, 'run-' || :lost)"),
            {"lost": lose},
        )


def test_two_members_share_the_work_and_tell_all_of_it(bus: Bus, store: Store) -> None:
    requests = [str(uuid4()) for _ in range(200)]
    entity = f"main.default.m-{uuid4().hex[:8]}@3"
    with ingesting(bus, store.engine), ingesting(bus, store.engine):
        bus.send(INFERENCE_RECORDED, *(row(each, entity) for each in requests))
        version = Node("model_version", entity)

        def answers() -> int:
            with store.engine.connect() as connection:
                return len(walk(connection, Walk(start=version, downstream=True)).links)

        eventually(lambda: answers() == len(requests), 120)


def stranger_of(bus: Bus) -> Producer:
    """Returns a producer in a transaction that the broker ends later than anybody here waits."""
    settings = {
        "bootstrap.servers": bus.kafka.bootstrap_servers,
        "transactional.id": unique("stranger"),
        "transaction.timeout.ms": 600_000,
        "log_level": 0,
    }
    producer = Producer(settings)
    producer.init_transactions(60)
    producer.begin_transaction()
    return producer


def test_a_transaction_left_open_holds_nothing_up(bus: Bus, store: Store) -> None:
    request, entity = str(uuid4()), f"main.default.m-{uuid4().hex[:8]}@3"
    stranger = stranger_of(bus)
    stranger.produce(INFERENCE_RECORDED.name, b"no frame", request.encode())
    assert stranger.flush(30) == 0
    with ingesting(bus, store.engine):
        bus.send(INFERENCE_RECORDED, row(request, entity))
        eventually(lambda: reaches(store.engine, Node("response", request)), 120)
    stranger.abort_transaction(30)


def test_what_cannot_be_read_or_kept_is_buried_whole_and_the_rest_goes_on(
    bus: Bus, store: Store
) -> None:
    lost, kept = f"run-{uuid4()}", f"run-{uuid4()}"
    half = told(
        edge(f"training_run {lost}", "read", "file good"),
        edge(f"training_run {lost}", "read", "file \0"),
        cause=lost,
    )
    unknown = FRAME.pack(0, 999_999) + b"what"
    with ingesting(bus, store.engine):
        bus.put(LINEAGE_RECORDED.name, lost.encode(), b"no frame")
        bus.put(LINEAGE_RECORDED.name, lost.encode(), unknown)
        bus.send(LINEAGE_RECORDED, half)
        bus.send(LINEAGE_RECORDED, told(edge(f"training_run {kept}", "read", "file good")))

        def letters() -> set[DeadLetterCause]:
            return {
                letter.cause
                for letter in bus.events(DEAD_LETTERS)
                if letter.processor == GROUP and letter.key == lost.encode()
            }

        eventually(lambda: reaches(store.engine, Node("training_run", kept)), 120)
        eventually(lambda: len(letters()) == 3, 120)
    assert letters() == {
        DeadLetterCause.SCHEMA_UNKNOWN,
        DeadLetterCause.STEP_FAILED,
        DeadLetterCause.UNREADABLE,
    }
    assert not reaches(store.engine, Node("training_run", lost))
