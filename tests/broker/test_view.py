"""The view on a real broker: complete before work is taken, never behind, and never silently so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from infra.catalog import CatalogView
from infra.follow import CatalogLost, follow
from infra.provision import provision
from infra.registry import Reader, Registry
from infra.stack.local import LocalStack
from infra.telemetry import now
from schemas.events import CatalogChanged, InferenceRequested, Message, Reason, Role, Sampling
from schemas.kinds import Grant, Privilege
from schemas.topics import (
    AUDIT_RECORDED,
    CATALOG_CHANGED,
    INFERENCE_REFUSED,
    INFERENCE_REQUESTED,
    INFERENCE_ROUTED,
    REPLY,
    REQUEST_CANCELLED,
    Topic,
)
from streams.client import Client, RequestRefused
from tests.conftest import CATALOG
from tests.conftest import running as running_stack
from tests.harness import (
    PATIENCE_S,
    READY_S,
    Bus,
    Process,
    eventually,
    running,
    soon,
    unique,
)
from tests.seed import LIMITS, changed, changes, publish, seed

pytestmark = pytest.mark.stack

ECHO = "main.tests.echo"
GATEWAY = ["-m", "streams", "gateway"]
# Five seconds, on a machine that does nothing else.
REVOKED_S = 60.0

# The broker's cleaner looks every fifteen seconds.
COMPACT = {
    "max.compaction.lag.ms": "100",
    "min.cleanable.dirty.ratio": "0.01",
    "min.compaction.lag.ms": "0",
    "segment.bytes": "1048576",
    "segment.ms": "100",
}


@pytest.fixture(scope="module")
def own() -> Iterator[Bus]:
    """A bus whose catalog topic these tests may break."""
    with running_stack(["kafka", "registry"]) as stack:
        yield own_bus(stack)


def own_bus(stack: LocalStack) -> Bus:
    bus = Bus(stack)
    provision(bus.kafka, bus.registry_settings)
    return bus


def gone(bus: Bus, topic: Topic[Any]) -> None:
    """Deletes a topic."""
    bus.admin.delete_topics([topic.name])[topic.name].result(30)
    eventually(lambda: topic.name not in bus.admin.list_topics(timeout=30).topics)


@pytest.fixture
def fresh(own: Bus) -> Bus:
    """The bus with nothing in its catalog but what the tests' file says."""
    if CATALOG_CHANGED.name in own.admin.list_topics(timeout=30).topics:
        gone(own, CATALOG_CHANGED)
    seed(own, CATALOG)
    return own


class Followed:
    """A view in this process, and what ended it."""

    def __init__(self) -> None:
        self.view = CatalogView(LIMITS)
        self.errors: list[BaseException] = []
        self.applied: list[CatalogChanged] = []

    async def until(self, condition: Callable[[], object], what: str) -> None:
        async def holds() -> object:
            return condition()

        await soon(holds, what=what)


@asynccontextmanager
async def followed(bus: Bus) -> AsyncIterator[Followed]:
    """Follows the catalog for a block."""
    it = Followed()
    reader = Reader(bus.codec, Registry(bus.registry_settings))
    following = await follow(
        bus.kafka, reader, it.view, unique("view"), it.errors.append, it.applied.append
    )
    try:
        yield it
    finally:
        await following.close()


def contents(view: CatalogView) -> list[tuple[str, str, int, str]]:
    return sorted(view.entries())


def last_of_each(published: list[CatalogChanged]) -> CatalogView:
    view = CatalogView(LIMITS)
    for change in {(each.kind, each.name): each for each in published}.values():
        view.apply(change)
    return view


def request(endpoint: str = ECHO) -> InferenceRequested:
    instant = now()
    return InferenceRequested(
        request_id=unique("request"),
        tenant="client",
        endpoint=endpoint,
        messages=(Message(role=Role.USER, content="hello"),),
        sampling=Sampling(),
        reply_to=REPLY.member("client").name,
        requested_at=instant,
        deadline=instant + timedelta(minutes=5),
    )


def test_no_work_is_taken_before_the_view_is_complete(fresh: Bus, tmp_path: Path) -> None:
    many = [
        {"kind": "table", "name": f"main.tests.table{number}", "spec": {"location": "lake:t"}}
        for number in range(20_000)
    ]
    route = {"name": "only", "pool": "last", "model": "last"}
    last = {"kind": "endpoint", "name": "main.tests.last", "spec": {"routes": [route]}}
    seed(fresh, [*many, last])
    asked = [request("main.tests.last") for _ in range(20)]
    fresh.send(INFERENCE_REQUESTED, *asked)
    with running(fresh, GATEWAY, tmp_path):
        routed = INFERENCE_ROUTED.member("last")
        eventually(lambda: len(fresh.records(routed.name)) >= len(asked), what="the routed")
    ids = {each.request_id for each in asked}
    assert {each.request.request_id for each in fresh.events(routed)} == ids
    assert not ids & {each.request.request_id for each in fresh.events(INFERENCE_REFUSED)}


async def test_a_change_is_applied_soon(fresh: Bus) -> None:
    bob = {"kind": "user", "name": "bob", "spec": {"tenant": "acme"}}
    seed(fresh, [bob])
    async with followed(fresh) as it:
        assert it.view.access.may("bob", Privilege.QUERY, ECHO)
        revoked = changed("grant", "main.tests/everyone", Grant(allow=(Privilege.USE,)))
        began = time.monotonic()
        fresh.send(CATALOG_CHANGED, revoked)
        await it.until(lambda: not it.view.access.may("bob", Privilege.QUERY, ECHO), "the change")
        assert time.monotonic() - began < REVOKED_S
        assert it.applied[-1] == revoked
        assert not it.errors


async def test_a_revoked_grant_counts_soon_at_the_gateway(fresh: Bus, tmp_path: Path) -> None:
    echo = ["-m", "workers", "inference", "--provider", "echo", "--pool", "echo"]
    with running(fresh, GATEWAY, tmp_path), running(fresh, echo, tmp_path):
        async with Client(
            tenant="client", kafka=fresh.kafka, registry=fresh.registry_settings
        ) as client:
            assert (await client.chat(ECHO, "hello")).content == "hello"
            publish(fresh, changed("grant", "main.tests/everyone", None))
            began = time.monotonic()
            assert await refused(client) is Reason.PRIVILEGE_MISSING
            assert time.monotonic() - began < REVOKED_S


async def refused(client: Client) -> Reason:
    """Asks until it is refused; returns why."""
    while True:
        try:
            await client.chat(ECHO, "hello")
        except RequestRefused as problem:
            return problem.refusal.reason


def compacted(bus: Bus) -> None:
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in COMPACT.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, CATALOG_CHANGED.name, incremental_configs=entries)
    bus.admin.incremental_alter_configs([resource])[resource].result(30)


async def test_a_view_is_what_was_published_after_compaction_and_restart(fresh: Bus) -> None:
    compacted(fresh)
    models = [
        {
            "kind": "model",
            "name": f"main.tests.m{number}",
            "owner": f"owner{turn}",
            "versions": [{"spec": {"uri": f"file:/{turn}"}}],
            "aliases": {"best": 1},
        }
        for turn in range(60)
        for number in range(20)
    ]
    made = [*changes(CATALOG), *changes(models)]
    made += [changed("model", f"main.tests.m{number}", None) for number in range(0, 20, 2)]
    async with followed(fresh) as it:
        for at in range(0, len(made), 200):
            publish(fresh, *made[at : at + 200])
        expected = last_of_each(made)

        def is_compacted() -> bool:
            # The newest segment is never cleaned: each record makes the ones before it eligible.
            made.append(changed("catalog", "filler", None))
            publish(fresh, made[-1])
            return len(fresh.records(CATALOG_CHANGED.name)) < len(made) // 2

        await asyncio.to_thread(eventually, is_compacted, 300, "the compaction")
        expected = last_of_each(made)
        await it.until(lambda: it.view.position == expected.position, "the last change")
        assert contents(it.view) == contents(expected)
        async with followed(fresh) as later:
            assert len(later.applied) < len(made) // 2
            assert contents(later.view) == contents(expected)
            assert later.view.endpoints == expected.endpoints
            assert later.view.position == expected.position
        assert not it.errors


async def test_only_what_is_committed_is_in_the_view_and_nothing_else_is_waited_for(
    fresh: Bus,
) -> None:
    tenants = changes({"kind": "tenant", "name": name} for name in ("kept", "void", "open", "late"))
    kept, void, pending, late = tenants
    producers = [fresh.transaction() for _ in range(3)]
    for producer, change in zip(producers, (kept, void, pending), strict=True):
        key = CATALOG_CHANGED.key(change).encode()
        producer.produce(CATALOG_CHANGED.name, fresh.codec.encode(change), key)
        assert producer.flush(PATIENCE_S) == 0
    committed, aborted, undecided = producers
    committed.commit_transaction(PATIENCE_S)
    aborted.abort_transaction(PATIENCE_S)
    async with followed(fresh) as it:
        # The broker marks a commit on the topic a moment after it has taken it.
        await it.until(lambda: "kept" in it.view.tenants, "what was committed")
        assert not {"void", "open"} & set(it.view.tenants)
        publish(fresh, late)
        await asyncio.to_thread(undecided.commit_transaction, PATIENCE_S)
        await it.until(lambda: "late" in it.view.tenants, "what lies behind the open transaction")
        assert "open" in it.view.tenants
    async with followed(fresh) as again:
        assert "void" not in again.view.tenants
        assert again.view.position == late.position


def ended(process: Process) -> str:
    """Returns what a process says that ends by itself, non-zero."""
    assert process.child.wait(READY_S) == 1
    return process.log(most=10**8)


def test_a_topic_made_anew_under_a_view_ends_the_process(fresh: Bus, tmp_path: Path) -> None:
    with running(fresh, GATEWAY, tmp_path) as gateway:
        gone(fresh, CATALOG_CHANGED)
        # More than before, so that no offset tells.
        seed(fresh, [*CATALOG, *CATALOG, *CATALOG])
        assert "gateway: catalog.changed.v1" in ended(gateway)


def test_a_topic_that_is_gone_under_a_view_ends_the_process(fresh: Bus, tmp_path: Path) -> None:
    with running(fresh, GATEWAY, tmp_path) as gateway:
        gone(fresh, CATALOG_CHANGED)
        assert "gateway: catalog.changed.v1" in ended(gateway)


@pytest.mark.parametrize("value", [b"garbage", b"", None], ids=["garbage", "empty", "tombstone"])
def test_a_record_that_is_no_change_ends_the_process_and_is_named(
    fresh: Bus, tmp_path: Path, value: bytes | None
) -> None:
    with running(fresh, GATEWAY, tmp_path) as gateway:
        offset = len(fresh.records(CATALOG_CHANGED.name))
        fresh.put(CATALOG_CHANGED.name, b"tenant/acme", value)
        fresh.settle()
        said = f"gateway: catalog.changed.v1 at offset {offset} is no change of the catalog"
        assert said in ended(gateway)
        # Nor does it start on what it cannot trust.
        gateway.start()
        assert said in ended(gateway)


async def test_a_change_under_the_key_of_another_ends_the_view(fresh: Bus) -> None:
    async with followed(fresh) as it:
        change = changed("tenant", "acme", None)
        fresh.put(CATALOG_CHANGED.name, b"tenant/other", fresh.codec.encode(change))
        fresh.settle()
        await it.until(lambda: it.errors, "the error")
        [error] = it.errors
        assert isinstance(error, CatalogLost)
        assert "does not lie under its key" in str(error)
        assert "acme" in it.view.tenants


async def test_a_group_that_cannot_be_read_ends_the_view(fresh: Bus) -> None:
    async with followed(fresh) as it:
        publish(fresh, changed("group", "team", '{"shape": "new"}'))
        await it.until(lambda: it.errors, "the error")
        [error] = it.errors
        assert isinstance(error, CatalogLost)
        assert "the members of group team cannot be read" in str(error)


def test_a_broker_that_lacks_topics_is_said_at_start(fresh: Bus, tmp_path: Path) -> None:
    gone(fresh, AUDIT_RECORDED)
    early = Process(GATEWAY, fresh.environment, tmp_path / "log")
    said = ended(early)
    provision(fresh.kafka, fresh.registry_settings)
    assert "gateway: the broker lacks audit.recorded.v1: run python -m infra.provision" in said


def test_the_recorder_decides_nothing_and_needs_no_catalog(fresh: Bus, tmp_path: Path) -> None:
    gone(fresh, CATALOG_CHANGED)
    with running(fresh, ["-m", "streams", "recorder"], tmp_path) as recorder:
        assert recorder.stop() == 0
    process = Process(
        ["-m", "streams", "tests.broker.steps_for_tests:open_copying", "--name", unique("own")],
        {**fresh.environment, "TESTS_TOPIC": REQUEST_CANCELLED.name},
        tmp_path / "log",
    )
    assert "there is no topic catalog.changed.v1: run provisioning first" in ended(process)
