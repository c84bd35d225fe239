"""Makes the broker and the registry as the contract says: topics, settings, schemas.

    python -m infra.provision

Running it again changes nothing. A schema that the registry's compatibility rule refuses is shown
as a difference, and nothing after it is registered.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from infra.catalog import CatalogView, reply_topics
from infra.registry import Registry, RegistryUnreachable, SchemaRefused
from infra.serving import AGENT_POOL, POOLS, SEARCH_POOL, TOOL_POOL, Kind
from infra.settings import (
    KafkaSettings,
    RegistrySettings,
    SettingInvalid,
    TelemetrySettings,
)
from infra.telemetry import configure
from schemas.events import CatalogChanged
from schemas.kinds import Described, TenantSpec
from schemas.routing import EndpointSpec
from schemas.topics import INFERENCE_ROUTED, REPLY, TOPICS, USAGE_COUNTED, Topic, told_beside

log = structlog.get_logger()

TRANSFER_S = 30
POLL_S = 0.05
# How long a broker may take from knowing of a topic to serving it.
SERVED_S = 60

STATIC = tuple(topic for topic in TOPICS if not topic.family)
# Members that are there before the catalog names them: pools whose workers start with the stack,
# whatever its catalog has by then, and wait for their first request.
EARLY = tuple(
    map(INFERENCE_ROUTED.member, (AGENT_POOL, "embedding", "outside", SEARCH_POOL, TOOL_POOL))
)

# Another provisioning may run at the same time and be faster: then both are content.
DONE_ALREADY = frozenset({KafkaError.INVALID_PARTITIONS, KafkaError.TOPIC_ALREADY_EXISTS})

# Of a compacted topic: how soon a copy that nobody needs can go.
SEGMENT_MS = 10 * 60 * 1000


class ProvisioningFailed(RuntimeError):
    """The broker does not answer, or refuses a topic."""


UNFIT = (ProvisioningFailed, RegistryUnreachable, SchemaRefused, SettingInvalid)


def provision(
    kafka: KafkaSettings, registry: RegistrySettings, members: Iterable[Topic[Any]] = ()
) -> None:
    """Makes the topics that exist whatever the catalog says, and members of families.

    Every schema is registered, also those of families: there a process looks ids up.

    Raises:
        ProvisioningFailed: The broker does not answer or refuses; what is made already stays.
        SchemaRefused: A schema is not compatible with what is registered.
        RegistryUnreachable: The registry does not answer.
    """
    members = list(members)
    make_topics(AdminClient({"bootstrap.servers": kafka.bootstrap_servers}), [*STATIC, *members])
    Registry(registry).register_all([*TOPICS, *members])


def require(kafka: KafkaSettings) -> None:
    """Makes sure that the topics exist that every process relies on.

    Raises:
        ProvisioningFailed: The broker does not answer, or topics are missing.
    """
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    try:
        known = admin.list_topics(timeout=TRANSFER_S).topics
    except KafkaException as problem:
        raise ProvisioningFailed(f"the broker: {problem.args[0].str()}") from None
    missing = [topic.name for topic in STATIC if topic.name not in known]
    if missing:
        raise ProvisioningFailed(
            f"the broker lacks {', '.join(missing)}: run python -m infra.provision"
        )


def members_of(view: CatalogView) -> Iterator[Topic[Any]]:
    """Yields the members of families that the tenants and endpoints of a catalog need."""
    yield from (INFERENCE_ROUTED.member(pool) for pool in view.pools)
    for tenant in view.tenants.values():
        yield from _answering(tenant.reply_topics)


def members(changed: CatalogChanged) -> list[Topic[Any]]:
    """Returns the members of families that an entry of the catalog needs; most need none.

    Raises:
        ValidationError: Its body is not in the shape of its kind.
    """
    find = MEMBERS.get(changed.kind)
    if find is None or changed.body is None:
        return []
    return find(changed.name, Described.model_validate_json(changed.body).spec)


def _pools(name: str, spec: dict[str, Any]) -> list[Topic[Any]]:
    pools = {route.pool for route in EndpointSpec.model_validate(spec).routes}
    return [INFERENCE_ROUTED.member(pool) for pool in sorted(pools)]


def _pool_of(kind: Kind) -> Callable[[str, dict[str, Any]], list[Topic[Any]]]:
    """Returns what finds the members that something needs that is no endpoint."""
    return lambda name, spec: [INFERENCE_ROUTED.member(POOLS[kind])]


def _replies(name: str, spec: dict[str, Any]) -> list[Topic[Any]]:
    return list(_answering(reply_topics(name, TenantSpec.model_validate(spec))))


def _answering(addresses: Iterable[str]) -> Iterator[Topic[Any]]:
    """Yields the topics on which a tenant is answered, and beside each where runs tell of it."""
    for address in addresses:
        yield REPLY.at(address)
        yield told_beside(address)


MEMBERS: dict[str, Callable[[str, dict[str, Any]], list[Topic[Any]]]] = {
    "agent": _pool_of("agent"),
    "endpoint": _pools,
    "function": _pool_of("function"),
    "index": _pool_of("index"),
    "tenant": _replies,
}


def make_topics(admin: AdminClient, topics: list[Topic[Any]]) -> None:
    """Creates topics, adds partitions and sets what differs; never takes a partition away.

    Returns when the broker serves what is new, and not only knows of it.

    Raises:
        ProvisioningFailed: The broker does not answer or refuses.
    """
    try:
        known = admin.list_topics(timeout=TRANSFER_S).topics
        missing = [topic for topic in topics if topic.name not in known]
        present = [topic for topic in topics if topic.name in known]
        grown = [
            NewPartitions(topic.name, topic.partitions)
            for topic in present
            if len(known[topic.name].partitions) < topic.partitions
        ]
        if missing:
            _wait(admin.create_topics([_new(topic) for topic in missing]))
        if grown:
            _wait(admin.create_partitions(grown))
        if present:
            _wait(admin.incremental_alter_configs([_altered(topic) for topic in present]))
        if missing or grown:
            _await_leaders(admin, topics)
    except KafkaException as problem:
        raise ProvisioningFailed(f"the broker: {problem.args[0].str()}") from None
    log.info("topics provisioned", created=[topic.name for topic in missing], kept=len(present))


def _new(topic: Topic[Any]) -> NewTopic:
    return NewTopic(topic.name, topic.partitions, config=_settings(topic))


def _altered(topic: Topic[Any]) -> ConfigResource:
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in _settings(topic).items()
    ]
    return ConfigResource(ResourceType.TOPIC, topic.name, incremental_configs=entries)


def _settings(topic: Topic[Any]) -> dict[str, str]:
    settings = {"cleanup.policy": "delete", "max.message.bytes": str(topic.max_bytes)}
    if topic.placed or topic == USAGE_COUNTED:
        # State is rebuilt from a moment on, which must not be the producers' to choose.
        settings["message.timestamp.type"] = "LogAppendTime"
    if topic.compacted:
        # The broker leaves the segment that it writes to alone, however many copies lie there.
        return {**settings, "cleanup.policy": "compact", "segment.ms": str(SEGMENT_MS)}
    return {**settings, "retention.ms": str(topic.retention_ms)}


def _wait(futures: Mapping[Any, Future[Any]]) -> None:
    for future in futures.values():
        try:
            future.result(TRANSFER_S)
        except KafkaException as problem:
            if problem.args[0].code() not in DONE_ALREADY:
                raise


def _await_leaders(admin: AdminClient, topics: Iterable[Topic[Any]]) -> None:
    end = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    asked = {
        TopicPartition(topic.name, partition): end
        for topic in topics
        for partition in range(topic.partitions)
    }
    deadline = time.monotonic() + SERVED_S
    while True:
        try:
            # A client that looked too soon finds no leader ever after, unless it looks again.
            admin.list_topics(timeout=TRANSFER_S)
            _wait(admin.list_offsets(asked, request_timeout=TRANSFER_S))
        except KafkaException:
            if time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(POLL_S)


def main() -> int:
    """Provisions what the settings name; returns the exit code."""
    try:
        configure("provision", TelemetrySettings())
        provision(KafkaSettings(), RegistrySettings(), EARLY)
    except UNFIT as problem:
        print(f"provisioning: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
