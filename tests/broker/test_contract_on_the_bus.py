"""The contract on a real broker: topics and schemas are made, kept, and grow."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from infra.provision import members_of, provision
from infra.registry import Reader, Registry, RegistryUnreachable, SchemaMissing, SchemaRefused
from infra.settings import RegistrySettings
from infra.telemetry import now
from schemas.avro import whole
from schemas.codec import FRAME, Codec
from schemas.events import RequestCancelled
from schemas.topics import INFERENCE_ROUTED, REPLY, REQUEST_CANCELLED, TOPICS, Topic
from tests.broker.speaking import Newer, run
from tests.harness import PATIENCE_S, Bus, eventually, free_port, unique
from tests.seed import view_of

pytestmark = pytest.mark.stack


class Small:
    """A catalog of one tenant and one pool that no other test knows."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        name = unique("small")
        self.reply = REPLY.member(name)
        self.routed = INFERENCE_ROUTED.member(name)
        route = {"name": "only", "pool": name, "model": "echo"}
        view = view_of(
            [
                {"kind": "endpoint", "name": "main.tests.small", "spec": {"routes": [route]}},
                {"kind": "tenant", "name": name},
            ]
        )
        self.members = list(members_of(view))

    def provision(self) -> None:
        provision(self._bus.kafka, self._bus.registry_settings, self.members)

    def partitions(self, topic: Topic[Any]) -> int:
        """Returns how many partitions a topic has; 0 where there is none."""
        found = self._bus.admin.list_topics(timeout=30).topics.get(topic.name)
        return len(found.partitions) if found else 0

    def retention(self, topic: Topic[Any]) -> int:
        resource = ConfigResource(ResourceType.TOPIC, topic.name)
        entries = self._bus.admin.describe_configs([resource])[resource].result(30)
        return int(entries["retention.ms"].value)

    def create(self, topic: Topic[Any], partitions: int) -> None:
        self._bus.admin.create_topics([NewTopic(topic.name, partitions)])[topic.name].result(30)
        eventually(lambda: self.partitions(topic) == partitions)


@pytest.fixture
def small(bus: Bus) -> Small:
    return Small(bus)


def versions(bus: Bus, topic: Topic[Any]) -> list[int]:
    with SchemaRegistryClient({"url": bus.registry_settings.url}) as client:
        found: list[int] = client.get_versions(topic.subject)
        return found


def test_provisioning_again_changes_nothing(bus: Bus, small: Small) -> None:
    def state() -> object:
        return (
            Registry(bus.registry_settings).ids(),
            [versions(bus, topic) for topic in (*TOPICS, small.reply, small.routed)],
            [small.partitions(topic) for topic in (*TOPICS, small.reply, small.routed)],
        )

    small.provision()
    eventually(lambda: small.partitions(small.reply) and small.partitions(small.routed))
    first = state()
    small.provision()
    assert state() == first
    assert versions(bus, small.reply) == [1]
    assert small.partitions(small.routed) == small.routed.partitions


def test_provisioning_makes_again_what_was_deleted(bus: Bus, small: Small) -> None:
    small.provision()
    bus.admin.delete_topics([small.reply.name])[small.reply.name].result(30)
    eventually(lambda: small.partitions(small.reply) == 0)
    small.provision()
    eventually(lambda: small.partitions(small.reply) == small.reply.partitions)


def test_provisioning_sets_what_was_changed(bus: Bus, small: Small) -> None:
    small.provision()
    entry = ConfigEntry("retention.ms", "1234", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, small.reply.name, incremental_configs=[entry])
    bus.admin.incremental_alter_configs([resource])[resource].result(30)
    eventually(lambda: small.retention(small.reply) == 1234)
    small.provision()
    eventually(lambda: small.retention(small.reply) == small.reply.retention_ms)


def test_provisioning_adds_partitions_and_takes_none_away(small: Small) -> None:
    small.create(small.reply, 2)
    small.create(small.routed, small.routed.partitions + 2)
    small.provision()
    eventually(lambda: small.partitions(small.reply) == small.reply.partitions)
    assert small.partitions(small.routed) == small.routed.partitions + 2


def test_provisionings_at_the_same_time_are_all_content(small: Small) -> None:
    small.create(small.reply, 2)
    with ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(small.provision) for _ in range(4)]:
            each.result(PATIENCE_S)
    eventually(lambda: small.partitions(small.reply) == small.reply.partitions)
    eventually(lambda: small.partitions(small.routed) == small.routed.partitions)


CANCELLED = REQUEST_CANCELLED.event.SCHEMA


def test_an_incompatible_schema_is_refused_and_the_difference_is_shown(bus: Bus) -> None:
    topic = replace(REQUEST_CANCELLED, name=unique("test.refused"))
    older = whole(CANCELLED)
    # A reader of the older version could not do without it.
    older["fields"] = [*_fields(older), {"name": "approved_by", "type": "string"}]
    with SchemaRegistryClient({"url": bus.registry_settings.url}) as client:
        client.register_schema(topic.subject, Schema(json.dumps(older), "AVRO"))
    with pytest.raises(SchemaRefused) as refused:
        Registry(bus.registry_settings).register(topic)
    message = str(refused.value)
    assert message.startswith(f"{topic.subject}: this schema is not FULL_TRANSITIVE")
    removed = [line for line in message.splitlines() if line.startswith("-")]
    assert any("approved_by" in line for line in removed)
    assert versions(bus, topic) == [1]


def test_a_schema_of_another_event_is_refused(bus: Bus) -> None:
    name = unique("test.mixed")
    registry = Registry(bus.registry_settings)
    registry.register(replace(REQUEST_CANCELLED, name=name))
    with pytest.raises(SchemaRefused, match="InferenceReplied"):
        registry.register(replace(REPLY, name=name))


def _fields(schema: dict[str, object]) -> list[object]:
    found = schema["fields"]
    assert isinstance(found, list)
    return found


@pytest.fixture(scope="module")
def newer(bus: Bus, tmp_path_factory: pytest.TempPathFactory) -> Newer:
    return Newer(bus, tmp_path_factory.mktemp("newer"))


def test_a_process_whose_schemas_are_not_provisioned_does_not_start(newer: Newer) -> None:
    ran = newer.run("-m", "streams", "gateway", status=1)
    assert f"gateway: {CANCELLED} is not registered as it stands here: run provisioning" in (
        ran.stderr
    )
    assert "Traceback" not in ran.stderr


def test_a_worker_whose_topic_is_not_provisioned_does_not_start(bus: Bus) -> None:
    pool = unique("nobody")
    command = ("-m", "workers", "inference", "--provider", "echo", "--pool", pool)
    ran = run(bus.environment, *command, status=1)
    topic = INFERENCE_ROUTED.member(pool).name
    assert f"there is no topic {topic}: run provisioning first" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_process_that_finds_no_registry_does_not_start(bus: Bus) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ran = run(bus.environment, "-m", "streams", "recorder", status=1, REGISTRY_URL=url)
    assert f"recorder: the schema registry at {url} does not answer" in ran.stderr
    assert "Traceback" not in ran.stderr


async def test_a_schema_id_that_nobody_registered_is_refused(bus: Bus) -> None:
    reader = Reader(bus.codec, Registry(bus.registry_settings))
    for _ in range(2):
        with pytest.raises(SchemaMissing, match="knows no schema 123456789"):
            await reader.read(FRAME.pack(0, 123456789) + b"x", RequestCancelled)


def test_a_registry_that_does_not_answer_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(RegistryUnreachable, match=f"{url} does not answer"):
        Registry(RegistrySettings(url=url)).ids()


# What code with the newer contract does: registers it, writes, and reads what lies on a topic.
NEWER = """
import asyncio, json, sys
from dataclasses import replace
from datetime import timedelta
from infra.registry import Reader, Registry
from infra.settings import RegistrySettings
from infra.telemetry import now
from schemas.codec import Codec
from schemas.events import RequestCancelled
from schemas.topics import REQUEST_CANCELLED

name, path = sys.argv[1:]
registry = Registry(RegistrySettings())
number = registry.register(replace(REQUEST_CANCELLED, name=name))
codec = Codec({RequestCancelled.SCHEMA: number})

async def read(values):
    reader = Reader(codec, registry)
    return [await reader.read(bytes.fromhex(value), RequestCancelled) for value in values]

if path == "write":
    written = [
        RequestCancelled(
            request_id=f"new-{i}", tenant="acme", cancelled_at=now(),
            deadline=now() + timedelta(seconds=1), note=f"note {i}",
        )
        for i in range(10)
    ]
    print(json.dumps({"id": number, "values": [codec.encode(each).hex() for each in written]}))
else:
    events = asyncio.run(read(json.load(open(path))))
    print(json.dumps([[each.request_id, each.note] for each in events]))
"""


def cancelled(name: str) -> RequestCancelled:
    instant = now()
    return RequestCancelled(
        request_id=name,
        tenant="acme",
        cancelled_at=instant,
        deadline=instant + timedelta(seconds=1),
    )


@pytest.fixture
def older_producer(bus: Bus) -> Iterator[tuple[Topic[RequestCancelled], int]]:
    """A topic that code with today's contract writes to all the time, and today's schema id."""
    topic = replace(REQUEST_CANCELLED, name=unique("test.cancelled"))
    bus.make(topic)
    number = Registry(bus.registry_settings).register(topic)
    codec = Codec({CANCELLED: number})
    stop = threading.Event()

    def write() -> None:
        count = 0
        while not stop.wait(0.005):
            event = cancelled(f"old-{count}")
            bus.put(topic.name, event.request_id.encode(), codec.encode(event))
            count += 1

    thread = threading.Thread(target=write)
    thread.start()
    yield topic, number
    stop.set()
    thread.join()
    bus.settle()


async def test_a_newer_schema_comes_while_an_older_producer_runs_and_all_read_all(
    bus: Bus,
    newer: Newer,
    older_producer: tuple[Topic[RequestCancelled], int],
    tmp_path: Path,
) -> None:
    topic, old_id = older_producer
    eventually(lambda: len(bus.records(topic.name)) > 10)
    said = json.loads(newer.run("-c", NEWER, topic.name, "write").stdout)
    new_id = said["id"]
    assert new_id != old_id
    for value in said["values"]:
        bus.put(topic.name, b"new", bytes.fromhex(value))
    eventually(
        lambda: [record.key for record in bus.records(topic.name)].count(b"new") == 10,
        what="the newer records",
    )
    before = len(bus.records(topic.name))
    eventually(lambda: len(bus.records(topic.name)) > before + 20, what="the older producer")

    records = bus.records(topic.name)
    reader = Reader(Codec({CANCELLED: old_id}), Registry(bus.registry_settings))
    seen = [await reader.read(record.value, RequestCancelled) for record in records]
    names = [event.request_id for event in seen]
    assert len(set(names)) == len(names)
    assert sum(name.startswith("new-") for name in names) == 10
    for record, name in zip(records, names, strict=True):
        assert record.value is not None
        writer = old_id if name.startswith("old-") else new_id
        assert FRAME.unpack_from(record.value) == (0, writer)

    lines = tmp_path / "values.json"
    lines.write_text(json.dumps([(record.value or b"").hex() for record in records]))
    read = json.loads(newer.run("-c", NEWER, topic.name, str(lines)).stdout)
    assert [name for name, _ in read] == names
    assert all(note == name.replace("new-", "note ") for name, note in read if note)
    assert sum(bool(note) for _, note in read) == 10
