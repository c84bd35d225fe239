"""Every topic of ours: its name, its event, its key, and how the broker keeps it.

A topic's name is written here and nowhere else. A family has one last segment more for each member
that the catalog knows (``inference.routed.v1.smollm2``); CDC topics stay as Debezium names them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar

from schemas.events import (
    AgentJournaled,
    AgentsSnapshotted,
    AgentTold,
    ApprovalDecided,
    ApprovalGiven,
    ApprovalWanted,
    AuditRecorded,
    CatalogChanged,
    CatalogWanted,
    CompletionCached,
    Event,
    IndexReconciled,
    IndexReported,
    InferenceAttempted,
    InferenceCompleted,
    InferenceHeld,
    InferenceJudged,
    InferencePart,
    InferenceRecorded,
    InferenceRefused,
    InferenceReplied,
    InferenceRequested,
    InferenceRouted,
    InferenceWeighed,
    LineageRecorded,
    RecordDeadLettered,
    RequestCancelled,
    SourceReported,
    UsageCounted,
    UsageSummed,
)

E = TypeVar("E", bound=Event)

HOUR_MS = 60 * 60 * 1000
DAY_MS = 24 * HOUR_MS

# How far ahead a deadline may lie at most: workers remember cancellations for as long.
LONGEST_DEADLINE_MS = HOUR_MS

# Requests are held to half of it, so that what tells of one (a refusal, a dead letter) fits too.
MAX_RECORD_BYTES = 16 * 1024 * 1024
# Limits hold for compressed batches, so a record can be larger here than it was on its topic.
MAX_LETTER_BYTES = 4 * MAX_RECORD_BYTES


@dataclass(frozen=True, kw_only=True)
class Topic(Generic[E]):
    """A topic, or the family that its members are named after.

    Attributes:
        name: Name on the broker.
        event: The one event that it carries.
        key: Key of an event; records with one key keep their order.
        partitions: How many the topic is made with.
        retention_ms: How long records stay.
        family: Whether only members exist on the broker, each with one last segment more.
        placed: Whether a consumer keeps state by key, so that a record on another partition than
            its key's must be moved before it counts.
        compacted: Whether the broker keeps the last record of each key, however old.
    """

    name: str
    event: type[E]
    key: Callable[[E], str]
    partitions: int = 6
    retention_ms: int = 7 * DAY_MS
    family: bool = False
    placed: bool = False
    compacted: bool = False
    max_bytes: int = MAX_RECORD_BYTES

    @property
    def subject(self) -> str:
        """The registry subject of the topic's values (TopicNameStrategy)."""
        return f"{self.name}-value"

    def member(self, last: str) -> Topic[E]:
        """Returns the member of a family with this last segment."""
        return _of_family(self, f"{self.name}.{last}")

    def at(self, address: str) -> Topic[E]:
        """Returns the member of a family with this full name.

        Raises:
            ValueError: The address is none of the family's.
        """
        if not address.startswith(f"{self.name}."):
            raise ValueError(f"{address} is no member of {self.name}")
        return _of_family(self, address)


def captured(table: str, location: str) -> str:
    """Returns the topic that Debezium puts the changes of a table on.

    Args:
        table: Three-level name of the table; no two connectors share it.
        location: ``schema.table`` in its database.
    """
    return f"{capture_prefix(table)}.{location}"


def capture_prefix(table: str) -> str:
    """Returns what the topics of a table's connector begin with."""
    return f"cdc.{table}"


@lru_cache(maxsize=4096)
def _of_family(family: Topic[Any], name: str) -> Topic[Any]:
    return replace(family, name=name, family=False)


class Outgoing(NamedTuple):
    """An event on its way to a topic."""

    topic: Topic[Any]
    event: Event


def told_beside(address: str) -> Topic[AgentTold]:
    """Returns where runs tell how they go on, for who is answered on a reply topic."""
    return AGENT_TOLD.member(address.removeprefix(f"{REPLY.name}."))


# Between the parts of an id that tells whose it is: no caller's own id has it.
BEHIND = "//"


def root_of(request_id: str) -> str:
    """Returns the first part of a request's id; of nearly all, the whole.

    What a run of an agent asks for has the run's id and more behind it: all of that lies on one
    partition, for whoever goes on with the run.
    """
    return request_id.partition(BEHIND)[0]


AGENT_JOURNALED = Topic(
    name="agent.journaled.v1",
    event=AgentJournaled,
    key=lambda journaled: root_of(journaled.run_id),
    retention_ms=30 * DAY_MS,
)
# One partition, so that a snapshot's parts lie in their order.
AGENT_SNAPSHOTTED = Topic(
    name="agent.snapshotted.v1",
    event=AgentsSnapshotted,
    key=lambda taken: f"{taken.partition}/{taken.part}" if taken.part else str(taken.partition),
    partitions=1,
    compacted=True,
)
AGENT_TOLD = Topic(
    name="agent.told.v1",
    event=AgentTold,
    key=lambda told: root_of(told.request_id),
    retention_ms=DAY_MS,
    family=True,
)
# Who decides does so where the tenant belongs whose request waits.
APPROVAL_DECIDED = Topic(
    name="approval.decided.v1",
    event=ApprovalDecided,
    key=lambda decided: decided.tenant,
    placed=True,
)
APPROVAL_GIVEN = Topic(
    name="approval.given.v1",
    event=ApprovalGiven,
    key=lambda given: given.tenant,
    placed=True,
    max_bytes=MAX_RECORD_BYTES // 2,
)
APPROVAL_WANTED = Topic(
    name="approval.wanted.v1",
    event=ApprovalWanted,
    key=lambda wanted: wanted.tenant,
)
AUDIT_RECORDED = Topic(
    name="audit.recorded.v1",
    event=AuditRecorded,
    key=lambda recorded: recorded.audit_id,
    retention_ms=30 * DAY_MS,
)
# One partition, so that the order of changes is the order of records.
CATALOG_CHANGED = Topic(
    name="catalog.changed.v1",
    event=CatalogChanged,
    key=lambda changed: f"{changed.kind}/{changed.name}",
    partitions=1,
    compacted=True,
)
CATALOG_WANTED = Topic(
    name="catalog.wanted.v1",
    event=CatalogWanted,
    key=lambda wanted: wanted.tenant,
    partitions=1,
    max_bytes=MAX_RECORD_BYTES // 2,
)
DEAD_LETTERS = Topic(
    name="ops.dead-letters.v1",
    event=RecordDeadLettered,
    key=lambda letter: f"{letter.topic}/{letter.partition}",
    retention_ms=30 * DAY_MS,
    max_bytes=MAX_LETTER_BYTES,
)
COMPLETION_CACHED = Topic(
    name="inference.cached.v1",
    event=CompletionCached,
    key=lambda cached: cached.tenant,
    retention_ms=DAY_MS,
)
INDEX_RECONCILED = Topic(
    name="index.reconciled.v1",
    event=IndexReconciled,
    key=lambda reconciled: reconciled.index,
    partitions=1,
    compacted=True,
)
INDEX_REPORTED = Topic(
    name="index.reported.v1",
    event=IndexReported,
    key=lambda reported: reported.index,
    partitions=1,
    compacted=True,
)
INFERENCE_ATTEMPTED = Topic(
    name="inference.attempted.v1",
    event=InferenceAttempted,
    key=lambda attempted: attempted.request_id,
    retention_ms=30 * DAY_MS,
)
INFERENCE_COMPLETED = Topic(
    name="inference.completed.v1",
    event=InferenceCompleted,
    key=lambda completed: completed.routed.request.tenant,
)
INFERENCE_HELD = Topic(
    name="inference.held.v1",
    event=InferenceHeld,
    key=lambda held: held.tenant,
)
INFERENCE_JUDGED = Topic(
    name="inference.judged.v1",
    event=InferenceJudged,
    key=lambda judged: judged.tenant,
    placed=True,
)
INFERENCE_PARTS = Topic(
    name="inference.parts.v1",
    event=InferencePart,
    key=lambda part: part.request_id,
    retention_ms=HOUR_MS,
)
INFERENCE_RECORDED = Topic(
    name="inference.recorded.v1",
    event=InferenceRecorded,
    key=lambda recorded: recorded.request_id,
    retention_ms=30 * DAY_MS,
)
INFERENCE_REFUSED = Topic(
    name="inference.refused.v1",
    event=InferenceRefused,
    key=lambda refused: refused.request.tenant,
)
INFERENCE_REQUESTED = Topic(
    name="inference.requested.v1",
    event=InferenceRequested,
    key=lambda request: request.tenant,
    placed=True,
    max_bytes=MAX_RECORD_BYTES // 2,
)
INFERENCE_ROUTED = Topic(
    name="inference.routed.v1",
    event=InferenceRouted,
    key=lambda routed: root_of(routed.request.request_id),
    family=True,
)
# Keyed by where the first limit that is left is counted.
INFERENCE_WEIGHED = Topic(
    name="inference.weighed.v1",
    event=InferenceWeighed,
    key=lambda weighed: weighed.asks[0].home,
    placed=True,
)
LINEAGE_RECORDED = Topic(
    name="lineage.recorded.v1",
    event=LineageRecorded,
    key=lambda recorded: recorded.cause_id,
    retention_ms=30 * DAY_MS,
)
REPLY = Topic(
    name="reply.v1",
    event=InferenceReplied,
    key=lambda replied: root_of(replied.request_id),
    retention_ms=DAY_MS,
    family=True,
)
REQUEST_CANCELLED = Topic(
    name="ops.control.v1",
    event=RequestCancelled,
    key=lambda cancelled: cancelled.request_id,
    partitions=1,
    retention_ms=DAY_MS,
)
SOURCE_REPORTED = Topic(
    name="source.reported.v1",
    event=SourceReported,
    key=lambda reported: reported.table,
    partitions=1,
    compacted=True,
)
# As many partitions as the topics whose records it counts: each ledger has one home.
USAGE_COUNTED = Topic(
    name="usage.counted.v1",
    event=UsageCounted,
    key=lambda counted: counted.home,
    retention_ms=2 * DAY_MS,
)
USAGE_SUMMED = Topic(
    name="usage.summed.v1",
    event=UsageSummed,
    key=lambda summed: summed.counter,
    partitions=1,
    compacted=True,
)

TOPICS: tuple[Topic[Any], ...] = (
    AGENT_JOURNALED,
    AGENT_SNAPSHOTTED,
    AGENT_TOLD,
    APPROVAL_DECIDED,
    APPROVAL_GIVEN,
    APPROVAL_WANTED,
    AUDIT_RECORDED,
    CATALOG_CHANGED,
    CATALOG_WANTED,
    COMPLETION_CACHED,
    DEAD_LETTERS,
    INDEX_RECONCILED,
    INDEX_REPORTED,
    INFERENCE_ATTEMPTED,
    INFERENCE_COMPLETED,
    INFERENCE_HELD,
    INFERENCE_JUDGED,
    INFERENCE_PARTS,
    INFERENCE_RECORDED,
    INFERENCE_REFUSED,
    INFERENCE_REQUESTED,
    INFERENCE_ROUTED,
    INFERENCE_WEIGHED,
    LINEAGE_RECORDED,
    REPLY,
    REQUEST_CANCELLED,
    SOURCE_REPORTED,
    USAGE_COUNTED,
    USAGE_SUMMED,
)
