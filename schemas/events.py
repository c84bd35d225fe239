"""The events of the bus, generated from avsc/ by schemas.generate: do not edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from schemas import binary


class IndexState(StrEnum):
    """How an index stands."""

    UNKNOWN = "UNKNOWN"
    BUILDING = "BUILDING"
    READY = "READY"
    PAUSED = "PAUSED"
    DEGRADED = "DEGRADED"
    FAILED = "FAILED"


_INDEXSTATE = binary.symbols(IndexState)

class SourceState(StrEnum):
    """How the capture of a table stands."""

    UNKNOWN = "UNKNOWN"
    STARTING = "STARTING"
    SNAPSHOT = "SNAPSHOT"
    STREAMING = "STREAMING"
    PAUSED = "PAUSED"
    DEGRADED = "DEGRADED"
    FAILED = "FAILED"
    REMOVED = "REMOVED"


_SOURCESTATE = binary.symbols(SourceState)

class Entry(StrEnum):
    """What happened to a charge."""

    UNKNOWN = "UNKNOWN"
    RESERVED = "RESERVED"
    REFUSED = "REFUSED"
    SETTLED = "SETTLED"
    TAKEN = "TAKEN"


_ENTRY = binary.symbols(Entry)

class FinishReason(StrEnum):
    """OpenAI finish reasons."""

    UNKNOWN = "UNKNOWN"
    STOP = "STOP"
    LENGTH = "LENGTH"
    TOOL_CALLS = "TOOL_CALLS"
    CONTENT_FILTER = "CONTENT_FILTER"


_FINISHREASON = binary.symbols(FinishReason)

class Outcome(StrEnum):
    """How a request ended."""

    UNKNOWN = "UNKNOWN"
    COMPLETED = "COMPLETED"
    REFUSED = "REFUSED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


_OUTCOME = binary.symbols(Outcome)

class Reason(StrEnum):
    """Kinds of refusal. UNKNOWN stands for kinds that a newer writer added."""

    UNKNOWN = "UNKNOWN"
    ENDPOINT_UNKNOWN = "ENDPOINT_UNKNOWN"
    TENANT_UNKNOWN = "TENANT_UNKNOWN"
    REPLY_ADDRESS_FORBIDDEN = "REPLY_ADDRESS_FORBIDDEN"
    REQUEST_INVALID = "REQUEST_INVALID"
    REQUEST_TOO_LARGE = "REQUEST_TOO_LARGE"
    CONTEXT_EXCEEDED = "CONTEXT_EXCEEDED"
    DEADLINE_EXPIRED = "DEADLINE_EXPIRED"
    CANCELLED = "CANCELLED"
    RATE_LIMITED = "RATE_LIMITED"
    PROVIDER_TIMEOUT = "PROVIDER_TIMEOUT"
    PROVIDER_UNAVAILABLE = "PROVIDER_UNAVAILABLE"
    PROVIDER_FAILED = "PROVIDER_FAILED"
    STREAM_CUT = "STREAM_CUT"
    SIGNATURE_MISSING = "SIGNATURE_MISSING"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    SIGNATURE_REPLAYED = "SIGNATURE_REPLAYED"
    KEY_UNKNOWN = "KEY_UNKNOWN"
    KEY_EXPIRED = "KEY_EXPIRED"
    KEY_REVOKED = "KEY_REVOKED"
    PRINCIPAL_FOREIGN = "PRINCIPAL_FOREIGN"
    PRIVILEGE_MISSING = "PRIVILEGE_MISSING"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    CONFLICT = "CONFLICT"
    REFERENCED = "REFERENCED"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    PRICE_UNKNOWN = "PRICE_UNKNOWN"
    POLICY_DENIED = "POLICY_DENIED"
    POLICY_FAILED = "POLICY_FAILED"
    APPROVAL_DENIED = "APPROVAL_DENIED"
    ROUTE_UNFIT = "ROUTE_UNFIT"
    ANSWER_UNKEPT = "ANSWER_UNKEPT"


_REASON = binary.symbols(Reason)

class Role(StrEnum):
    """Who speaks."""

    UNKNOWN = "UNKNOWN"
    SYSTEM = "SYSTEM"
    USER = "USER"
    ASSISTANT = "ASSISTANT"
    TOOL = "TOOL"


_ROLE = binary.symbols(Role)

class Task(StrEnum):
    """What a model, an index, an agent or a tool is asked for."""

    UNKNOWN = "UNKNOWN"
    CHAT = "CHAT"
    EMBEDDING = "EMBEDDING"
    RERANK = "RERANK"
    SEARCH = "SEARCH"
    WRITE = "WRITE"
    AGENT = "AGENT"
    TOOL = "TOOL"


_TASK = binary.symbols(Task)

class AuditOutcome(StrEnum):
    """How an audited action ended."""

    UNKNOWN = "UNKNOWN"
    DONE = "DONE"
    DENIED = "DENIED"
    FAILED = "FAILED"


_AUDITOUTCOME = binary.symbols(AuditOutcome)

class DeadLetterCause(StrEnum):
    """Why a record was given up."""

    UNKNOWN = "UNKNOWN"
    UNREADABLE = "UNREADABLE"
    SCHEMA_UNKNOWN = "SCHEMA_UNKNOWN"
    STEP_FAILED = "STEP_FAILED"
    WRONG_PARTITION = "WRONG_PARTITION"


_DEADLETTERCAUSE = binary.symbols(DeadLetterCause)

class Event:
    """A record of the bus: immutable, and able to go to and from Avro."""

    __slots__ = ()
    SCHEMA: ClassVar[str]

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        raise NotImplementedError

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        raise NotImplementedError

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Any:
        """Returns the event that fastavro read."""
        raise NotImplementedError


@dataclass(slots=True, frozen=True, kw_only=True)
class Refusal(Event):
    """Why there is no answer, in words that the caller can act on.

    Attributes:
        reason: The kind of refusal; stable, for programs.
        message: What was wrong and what to do about it; never carries the prompt or a secret.
        field: Field of the request that is at fault.
        retry_after_ms: When trying again makes sense.
        rule: Rule that refused: policy/rule.
        limit: The bound that the rule sets, as a decimal number.
        used: What of it was used already, as a decimal number.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.Refusal"

    reason: Reason
    message: str
    field: str | None = None
    retry_after_ms: int | None = None
    rule: str | None = None
    limit: str | None = None
    used: str | None = None

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            _REASON[self.reason],
            binary.text(self.message),
            binary.ABSENT if self.field is None else binary.PRESENT + binary.text(self.field),
            binary.ABSENT if self.retry_after_ms is None else binary.PRESENT + binary.long(self.retry_after_ms),
            binary.ABSENT if self.rule is None else binary.PRESENT + binary.text(self.rule),
            binary.ABSENT if self.limit is None else binary.PRESENT + binary.text(self.limit),
            binary.ABSENT if self.used is None else binary.PRESENT + binary.text(self.used),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "reason": self.reason,
            "message": self.message,
            "field": self.field,
            "retry_after_ms": self.retry_after_ms,
            "rule": self.rule,
            "limit": self.limit,
            "used": self.used,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Refusal:
        """Returns the event that fastavro read."""
        return cls(
            reason=Reason(record["reason"]),
            message=record["message"],
            field=record["field"],
            retry_after_ms=record["retry_after_ms"],
            rule=record["rule"],
            limit=record["limit"],
            used=record["used"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class Emitted(Event):
    """A record that a run put on the log.

    Attributes:
        topic: Topic.
        key: Its key.
        digest: SHA-256 of its event in Avro's binary encoding, 32 bytes: the same whoever takes
            the run's journal in again.
        claim: Of a request: what its reply must claim, in the form of infra/signing.py.
        form: Fingerprint of the schema that the digest is under (schemas/avro.py); under
            another, the same event has another digest.
    """

    SCHEMA: ClassVar[str] = "tessera.agents.Emitted"

    topic: str
    key: str
    digest: bytes
    claim: str = ''
    form: str = ''

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.topic),
            binary.text(self.key),
            binary.raw(self.digest),
            binary.text(self.claim),
            binary.text(self.form),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "topic": self.topic,
            "key": self.key,
            "digest": self.digest,
            "claim": self.claim,
            "form": self.form,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Emitted:
        """Returns the event that fastavro read."""
        return cls(
            topic=record["topic"],
            key=record["key"],
            digest=record["digest"],
            claim=record["claim"],
            form=record["form"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class AgentJournaled(Event):
    """A run of an agent took something in: what came, and what it led to. The state of a run is
    the fold of these.

    Attributes:
        run_id: The run: the id of its request, two slashes, its tenant. What stands before the
            first two slashes is the record key.
        tenant: Who pays for it.
        agent: Three-level name of the agent.
        seq: 0 for the beginning; each entry has one more than that before it.
        cause_id: Names what came: what comes with the name of an earlier entry was taken in
            before.
        cause_topic: Topic on which it came; empty for the clock.
        cause: The value of its record, as it lay on the topic; empty for the clock.
        definition: In the first entry: the agent as the catalog had it, with all that it may
            reach, as JSON text (schemas/agents.py: Definition).
        refusal: Why the run does not begin, or cannot go on: it ended with this.
        emitted: What it led to, in order.
        reply_to: In the first entry: topic on which the run itself is answered.
        earlier: In the first entry: the conversation that the run goes on with, as JSON text
            (streams/agents/conversation.py: Conversation).
        until: In the first entry: when the run ends whatever happens.
        ended: Whether the run ended with it.
        at: The moment by which it was decided.
    """

    SCHEMA: ClassVar[str] = "tessera.agents.AgentJournaled"

    run_id: str
    tenant: str
    agent: str
    seq: int
    cause_id: str
    cause_topic: str = ''
    cause: bytes
    definition: str | None = None
    refusal: Refusal | None = None
    emitted: tuple[Emitted, ...] = ()
    reply_to: str | None = None
    earlier: str | None = None
    until: datetime | None = None
    ended: bool = False
    at: datetime

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.run_id),
            binary.text(self.tenant),
            binary.text(self.agent),
            binary.long(self.seq),
            binary.text(self.cause_id),
            binary.text(self.cause_topic),
            binary.raw(self.cause),
            binary.ABSENT if self.definition is None else binary.PRESENT + binary.text(self.definition),
            binary.ABSENT if self.refusal is None else binary.PRESENT + self.refusal.to_bytes(),
            binary.items([item.to_bytes() for item in self.emitted]),
            binary.ABSENT if self.reply_to is None else binary.PRESENT + binary.text(self.reply_to),
            binary.ABSENT if self.earlier is None else binary.PRESENT + binary.text(self.earlier),
            binary.ABSENT if self.until is None else binary.PRESENT + binary.millis(self.until),
            binary.BOOLEANS[self.ended],
            binary.millis(self.at),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "run_id": self.run_id,
            "tenant": self.tenant,
            "agent": self.agent,
            "seq": self.seq,
            "cause_id": self.cause_id,
            "cause_topic": self.cause_topic,
            "cause": self.cause,
            "definition": self.definition,
            "refusal": None if self.refusal is None else self.refusal.to_avro(),
            "emitted": [item.to_avro() for item in self.emitted],
            "reply_to": self.reply_to,
            "earlier": self.earlier,
            "until": self.until,
            "ended": self.ended,
            "at": self.at,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> AgentJournaled:
        """Returns the event that fastavro read."""
        return cls(
            run_id=record["run_id"],
            tenant=record["tenant"],
            agent=record["agent"],
            seq=record["seq"],
            cause_id=record["cause_id"],
            cause_topic=record["cause_topic"],
            cause=record["cause"],
            definition=record["definition"],
            refusal=None if record["refusal"] is None else Refusal.from_avro(record["refusal"]),
            emitted=tuple([Emitted.from_avro(item) for item in record["emitted"]]),
            reply_to=record["reply_to"],
            earlier=record["earlier"],
            until=record["until"],
            ended=record["ended"],
            at=record["at"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class AgentTold(Event):
    """A run of an agent told its caller how it goes on.

    Attributes:
        request_id: The request that began the run. What stands before the first two slashes in
            it, if there are any, is the record key.
        tenant: Who pays for it.
        seq: 0, 1, 2 and so on within the run: whoever heard up to one goes on with the next.
        kind: What is told, by the name that the OpenAI Responses API has for it in a stream,
            such as response.output_item.done.
        item: The item as JSON text, in that API's form; null where a policy holds back what it
            says.
        told_at: When.
    """

    SCHEMA: ClassVar[str] = "tessera.agents.AgentTold"

    request_id: str
    tenant: str
    seq: int
    kind: str
    item: str | None = None
    told_at: datetime

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.request_id),
            binary.text(self.tenant),
            binary.long(self.seq),
            binary.text(self.kind),
            binary.ABSENT if self.item is None else binary.PRESENT + binary.text(self.item),
            binary.millis(self.told_at),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "request_id": self.request_id,
            "tenant": self.tenant,
            "seq": self.seq,
            "kind": self.kind,
            "item": self.item,
            "told_at": self.told_at,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> AgentTold:
        """Returns the event that fastavro read."""
        return cls(
            request_id=record["request_id"],
            tenant=record["tenant"],
            seq=record["seq"],
            kind=record["kind"],
            item=record["item"],
            told_at=record["told_at"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class KnownRun(Event):
    """A run, and where its entries lie.

    Attributes:
        run_id: The run.
        causes: What came for it, by name (AgentJournaled.cause_id), in the order of its
            entries.
        offsets: Where the entry of each lies.
        until: When it ends whatever happens.
        ended: Whether it is over.
        heard_at: When it was heard of.
    """

    SCHEMA: ClassVar[str] = "tessera.agents.KnownRun"

    run_id: str
    causes: tuple[str, ...]
    offsets: tuple[int, ...]
    until: datetime
    ended: bool
    heard_at: datetime

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.run_id),
            binary.items([binary.text(item) for item in self.causes]),
            binary.items([binary.long(item) for item in self.offsets]),
            binary.millis(self.until),
            binary.BOOLEANS[self.ended],
            binary.millis(self.heard_at),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "run_id": self.run_id,
            "causes": self.causes,
            "offsets": self.offsets,
            "until": self.until,
            "ended": self.ended,
            "heard_at": self.heard_at,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> KnownRun:
        """Returns the event that fastavro read."""
        return cls(
            run_id=record["run_id"],
            causes=tuple(record["causes"]),
            offsets=tuple(record["offsets"]),
            until=record["until"],
            ended=record["ended"],
            heard_at=record["heard_at"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class AgentsSnapshotted(Event):
    """What was known of all runs of a partition of the journal up to an offset, so that who
    starts need not read what lies before.

    Attributes:
        partition: Partition of the journal. Also the record key, with a slash and the number of
            the part behind it where that is not 0.
        snapshot_id: Names the snapshot, the same in all its parts.
        part: Which part of the snapshot this is, from 0.
        parts: How many it has; without one of them it says nothing.
        topic_id: What tells the journal's topic from a later one of the same name, as the
            broker has it.
        offset: Offset of the journal up to which all is known, exclusive.
        runs: The runs of this part.
        taken_at: When.
    """

    SCHEMA: ClassVar[str] = "tessera.agents.AgentsSnapshotted"

    partition: int
    snapshot_id: str
    part: int = 0
    parts: int = 1
    topic_id: str
    offset: int
    runs: tuple[KnownRun, ...] = ()
    taken_at: datetime

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.long(self.partition),
            binary.text(self.snapshot_id),
            binary.long(self.part),
            binary.long(self.parts),
            binary.text(self.topic_id),
            binary.long(self.offset),
            binary.items([item.to_bytes() for item in self.runs]),
            binary.millis(self.taken_at),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "partition": self.partition,
            "snapshot_id": self.snapshot_id,
            "part": self.part,
            "parts": self.parts,
            "topic_id": self.topic_id,
            "offset": self.offset,
            "runs": [item.to_avro() for item in self.runs],
            "taken_at": self.taken_at,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> AgentsSnapshotted:
        """Returns the event that fastavro read."""
        return cls(
            partition=record["partition"],
            snapshot_id=record["snapshot_id"],
            part=record["part"],
            parts=record["parts"],
            topic_id=record["topic_id"],
            offset=record["offset"],
            runs=tuple([KnownRun.from_avro(item) for item in record["runs"]]),
            taken_at=record["taken_at"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class CatalogChanged(Event):
    """An entry of the catalog is now so. The topic is compacted: its last record of each key is
    the entry.

    Attributes:
        position: Number of the change in commit order, from 1; of one entry, the highest wins.
        kind: Kind of the entry: endpoint, model, tenant, group, key, grant, version. With the
            name, the record key: kind/name.
        name: Full name: main.default.smollm2; of a version main.default.scorer@3; of a grant
            main.default.smollm2/alice.
        body: The entry as JSON text in the shape of its kind; null when it is gone.
        changed_at: When.
        changed_by: Principal who changed it.
    """

    SCHEMA: ClassVar[str] = "tessera.catalog.CatalogChanged"

    position: int
    kind: str
    name: str
    body: str | None = None
    changed_at: datetime
    changed_by: str = ''

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.long(self.position),
            binary.text(self.kind),
            binary.text(self.name),
            binary.ABSENT if self.body is None else binary.PRESENT + binary.text(self.body),
            binary.millis(self.changed_at),
            binary.text(self.changed_by),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "position": self.position,
            "kind": self.kind,
            "name": self.name,
            "body": self.body,
            "changed_at": self.changed_at,
            "changed_by": self.changed_by,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> CatalogChanged:
        """Returns the event that fastavro read."""
        return cls(
            position=record["position"],
            kind=record["kind"],
            name=record["name"],
            body=record["body"],
            changed_at=record["changed_at"],
            changed_by=record["changed_by"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class CatalogWanted(Event):
    """A command to the catalog, which may refuse it.

    Attributes:
        request_id: Unique id chosen by the caller; a command sent twice with the same id is
            done once.
        tenant: Who pays. Also the record key.
        principal: Who wants it; must be whose key signed the record.
        action: What: create, get, list, search, update, tag, delete, grant, deny, revoke,
            effective, key-create, key-rotate, key-revoke, apply, export, lineage.
        body: The action's arguments as a JSON object.
        reply_to: Reply topic of the tenant.
        requested_at: When the caller asked.
        deadline: When an answer stops being of use; nothing is done after it.
    """

    SCHEMA: ClassVar[str] = "tessera.catalog.CatalogWanted"

    request_id: str
    tenant: str
    principal: str
    action: str
    body: str
    reply_to: str
    requested_at: datetime
    deadline: datetime

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.request_id),
            binary.text(self.tenant),
            binary.text(self.principal),
            binary.text(self.action),
            binary.text(self.body),
            binary.text(self.reply_to),
            binary.millis(self.requested_at),
            binary.millis(self.deadline),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "request_id": self.request_id,
            "tenant": self.tenant,
            "principal": self.principal,
            "action": self.action,
            "body": self.body,
            "reply_to": self.reply_to,
            "requested_at": self.requested_at,
            "deadline": self.deadline,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> CatalogWanted:
        """Returns the event that fastavro read."""
        return cls(
            request_id=record["request_id"],
            tenant=record["tenant"],
            principal=record["principal"],
            action=record["action"],
            body=record["body"],
            reply_to=record["reply_to"],
            requested_at=record["requested_at"],
            deadline=record["deadline"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class LineageEdge(Event):
    """One thing came from another. Answers lie downstream, sources upstream.

    Attributes:
        downstream_kind: response, endpoint, model_version, training_run, snapshot, chunk,
            tool_call.
        downstream: Id or full name of what was made.
        relation: How it came from it, in the past tense: answered_by, served_by, trained_by,
            read, retrieved, called, decided_by.
        upstream_kind: endpoint, route, model_version, adapter, training_run, snapshot, row,
            file, chunk, function_version, policy.
        upstream: Id or full name of what it was made of.
        attributes: What else is known of the edge: schema id, offset range, row version,
            verdict.
    """

    SCHEMA: ClassVar[str] = "tessera.catalog.LineageEdge"

    downstream_kind: str
    downstream: str
    relation: str
    upstream_kind: str
    upstream: str
    attributes: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.downstream_kind),
            binary.text(self.downstream),
            binary.text(self.relation),
            binary.text(self.upstream_kind),
            binary.text(self.upstream),
            binary.items([binary.text(key) + (binary.text(item)) for key, item in self.attributes.items()]),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "downstream_kind": self.downstream_kind,
            "downstream": self.downstream,
            "relation": self.relation,
            "upstream_kind": self.upstream_kind,
            "upstream": self.upstream,
            "attributes": self.attributes,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> LineageEdge:
        """Returns the event that fastavro read."""
        return cls(
            downstream_kind=record["downstream_kind"],
            downstream=record["downstream"],
            relation=record["relation"],
            upstream_kind=record["upstream_kind"],
            upstream=record["upstream"],
            attributes=record["attributes"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class LineageRecorded(Event):
    """What something was made of, told by the process that knows it.

    Attributes:
        cause_id: Id of what made the edges known: a request, a run, a change. Also the record
            key; telling it again changes nothing.
        at: When it was so.
        edges: The edges.
    """

    SCHEMA: ClassVar[str] = "tessera.catalog.LineageRecorded"

    cause_id: str
    at: datetime
    edges: tuple[LineageEdge, ...]

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.cause_id),
            binary.millis(self.at),
            binary.items([item.to_bytes() for item in self.edges]),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "cause_id": self.cause_id,
            "at": self.at,
            "edges": [item.to_avro() for item in self.edges],
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> LineageRecorded:
        """Returns the event that fastavro read."""
        return cls(
            cause_id=record["cause_id"],
            at=record["at"],
            edges=tuple([LineageEdge.from_avro(item) for item in record["edges"]]),
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class SourceRecord(Event):
    """Where a record of the source lies.

    Attributes:
        partition: Partition of the source's topic.
        offset: Offset on it.
    """

    SCHEMA: ClassVar[str] = "tessera.index.SourceRecord"

    partition: int
    offset: int

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.long(self.partition),
            binary.long(self.offset),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "partition": self.partition,
            "offset": self.offset,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> SourceRecord:
        """Returns the event that fastavro read."""
        return cls(
            partition=record["partition"],
            offset=record["offset"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class IndexReconciled(Event):
    """An index was compared with its source; what differs, and what is to be stored once more.
    The last one told holds.

    Attributes:
        index: Three-level name of the index. Also the record key.
        generation: The generation that was compared: the one that queries see.
        reconcile: The last wish of the catalog for a comparison that was followed.
        compared: Rows that were compared by version.
        missing: Of them, rows that the index lacks.
        stale: Of them, rows that the index has as they were before.
        surplus: Rows that the index has and the source has no more.
        unreachable: Rows with chunks that are stored and that no search by vector finds.
        refused: Rows whose last record is a dead letter; they count as none of the above.
        missed: Rows of the table that never came through its capture, of those that were looked
            for; null where the source is a topic.
        table_rows: Rows of the table; null where the source is a topic.
        indexed_rows: Rows of the index.
        wanted: Records of the source that are to be taken in once more, at most 10,000; those
            of a row in their order.
        reconciled_at: When.
    """

    SCHEMA: ClassVar[str] = "tessera.index.IndexReconciled"

    index: str
    generation: int
    reconcile: int = 0
    compared: int = 0
    missing: int = 0
    stale: int = 0
    surplus: int = 0
    unreachable: int = 0
    refused: int = 0
    missed: int | None = None
    table_rows: int | None = None
    indexed_rows: int = 0
    wanted: tuple[SourceRecord, ...] = ()
    reconciled_at: datetime

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.index),
            binary.long(self.generation),
            binary.long(self.reconcile),
            binary.long(self.compared),
            binary.long(self.missing),
            binary.long(self.stale),
            binary.long(self.surplus),
            binary.long(self.unreachable),
            binary.long(self.refused),
            binary.ABSENT if self.missed is None else binary.PRESENT + binary.long(self.missed),
            binary.ABSENT if self.table_rows is None else binary.PRESENT + binary.long(self.table_rows),
            binary.long(self.indexed_rows),
            binary.items([item.to_bytes() for item in self.wanted]),
            binary.millis(self.reconciled_at),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "index": self.index,
            "generation": self.generation,
            "reconcile": self.reconcile,
            "compared": self.compared,
            "missing": self.missing,
            "stale": self.stale,
            "surplus": self.surplus,
            "unreachable": self.unreachable,
            "refused": self.refused,
            "missed": self.missed,
            "table_rows": self.table_rows,
            "indexed_rows": self.indexed_rows,
            "wanted": [item.to_avro() for item in self.wanted],
            "reconciled_at": self.reconciled_at,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> IndexReconciled:
        """Returns the event that fastavro read."""
        return cls(
            index=record["index"],
            generation=record["generation"],
            reconcile=record["reconcile"],
            compared=record["compared"],
            missing=record["missing"],
            stale=record["stale"],
            surplus=record["surplus"],
            unreachable=record["unreachable"],
            refused=record["refused"],
            missed=record["missed"],
            table_rows=record["table_rows"],
            indexed_rows=record["indexed_rows"],
            wanted=tuple([SourceRecord.from_avro(item) for item in record["wanted"]]),
            reconciled_at=record["reconciled_at"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class IndexReported(Event):
    """How an index stands, told by the process that keeps it; the last one told holds.

    Attributes:
        index: Three-level name of the index. Also the record key.
        generation: The generation that queries see; 0 while none is complete.
        building: The generation that is being built; null where none is.
        triggered: The last trigger of a triggered index that was followed to its end.
        state: How it stands.
        reason: What is wrong, where something is.
        remedy: What to do about it.
        rows: Rows of the source that are in the generation that queries see.
        chunks: Chunks of them.
        read: Records of the source that the generation being built has taken in, or else the
            one that queries see.
        waiting: Records of the source that it has yet to take in.
        embedded: Texts that were embedded since the process began; what was embedded before and
            is known counts not.
        freshness_ms: From the commit of the latest change to the moment at which it could be
            found.
        drift: Rows that the last reconciliation found missing, surplus, stale or out of reach;
            null before the first.
        reconciled_at: When source and index were last compared.
        reconcile: The last wish of the catalog for a comparison that was followed.
        shaken_at: When the vector store last fell silent amid the work: what it had said to
            hold, it may have lost.
        reported_at: When it was so.
    """

    SCHEMA: ClassVar[str] = "tessera.index.IndexReported"

    index: str
    generation: int = 0
    building: int | None = None
    triggered: int = 0
    state: IndexState
    reason: str | None = None
    remedy: str | None = None
    rows: int = 0
    chunks: int = 0
    read: int = 0
    waiting: int = 0
    embedded: int = 0
    freshness_ms: int | None = None
    drift: int | None = None
    reconciled_at: datetime | None = None
    reconcile: int = 0
    shaken_at: datetime | None = None
    reported_at: datetime

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.index),
            binary.long(self.generation),
            binary.ABSENT if self.building is None else binary.PRESENT + binary.long(self.building),
            binary.long(self.triggered),
            _INDEXSTATE[self.state],
            binary.ABSENT if self.reason is None else binary.PRESENT + binary.text(self.reason),
            binary.ABSENT if self.remedy is None else binary.PRESENT + binary.text(self.remedy),
            binary.long(self.rows),
            binary.long(self.chunks),
            binary.long(self.read),
            binary.long(self.waiting),
            binary.long(self.embedded),
            binary.ABSENT if self.freshness_ms is None else binary.PRESENT + binary.long(self.freshness_ms),
            binary.ABSENT if self.drift is None else binary.PRESENT + binary.long(self.drift),
            binary.ABSENT if self.reconciled_at is None else binary.PRESENT + binary.millis(self.reconciled_at),
            binary.long(self.reconcile),
            binary.ABSENT if self.shaken_at is None else binary.PRESENT + binary.millis(self.shaken_at),
            binary.millis(self.reported_at),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "index": self.index,
            "generation": self.generation,
            "building": self.building,
            "triggered": self.triggered,
            "state": self.state,
            "reason": self.reason,
            "remedy": self.remedy,
            "rows": self.rows,
            "chunks": self.chunks,
            "read": self.read,
            "waiting": self.waiting,
            "embedded": self.embedded,
            "freshness_ms": self.freshness_ms,
            "drift": self.drift,
            "reconciled_at": self.reconciled_at,
            "reconcile": self.reconcile,
            "shaken_at": self.shaken_at,
            "reported_at": self.reported_at,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> IndexReported:
        """Returns the event that fastavro read."""
        return cls(
            index=record["index"],
            generation=record["generation"],
            building=record["building"],
            triggered=record["triggered"],
            state=IndexState(record["state"]),
            reason=record["reason"],
            remedy=record["remedy"],
            rows=record["rows"],
            chunks=record["chunks"],
            read=record["read"],
            waiting=record["waiting"],
            embedded=record["embedded"],
            freshness_ms=record["freshness_ms"],
            drift=record["drift"],
            reconciled_at=record["reconciled_at"],
            reconcile=record["reconcile"],
            shaken_at=record["shaken_at"],
            reported_at=record["reported_at"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class SourceReported(Event):
    """How the capture of a table stands, told by the process that watches it; the last one told
    holds.

    Attributes:
        table: Three-level name of the table. Also the record key.
        state: How it stands.
        reason: What is wrong, where something is; never a row's content.
        remedy: What to do about it.
        topic: Topic that the changes lie on.
        connector: Name of its connector.
        slot: Name of its replication slot.
        confirmed_lsn: Up to where the database may forget its log: 0/16B3748.
        lag_bytes: How much of the database's log is written and not yet confirmed.
        retained_bytes: How much of its log the database keeps for the slot.
        resnapshots: The last request to read rows again that was carried out to its end.
        reported_at: When it was so.
    """

    SCHEMA: ClassVar[str] = "tessera.index.SourceReported"

    table: str
    state: SourceState
    reason: str | None = None
    remedy: str | None = None
    topic: str = ''
    connector: str = ''
    slot: str = ''
    confirmed_lsn: str | None = None
    lag_bytes: int | None = None
    retained_bytes: int | None = None
    resnapshots: int = 0
    reported_at: datetime

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.table),
            _SOURCESTATE[self.state],
            binary.ABSENT if self.reason is None else binary.PRESENT + binary.text(self.reason),
            binary.ABSENT if self.remedy is None else binary.PRESENT + binary.text(self.remedy),
            binary.text(self.topic),
            binary.text(self.connector),
            binary.text(self.slot),
            binary.ABSENT if self.confirmed_lsn is None else binary.PRESENT + binary.text(self.confirmed_lsn),
            binary.ABSENT if self.lag_bytes is None else binary.PRESENT + binary.long(self.lag_bytes),
            binary.ABSENT if self.retained_bytes is None else binary.PRESENT + binary.long(self.retained_bytes),
            binary.long(self.resnapshots),
            binary.millis(self.reported_at),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "table": self.table,
            "state": self.state,
            "reason": self.reason,
            "remedy": self.remedy,
            "topic": self.topic,
            "connector": self.connector,
            "slot": self.slot,
            "confirmed_lsn": self.confirmed_lsn,
            "lag_bytes": self.lag_bytes,
            "retained_bytes": self.retained_bytes,
            "resnapshots": self.resnapshots,
            "reported_at": self.reported_at,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> SourceReported:
        """Returns the event that fastavro read."""
        return cls(
            table=record["table"],
            state=SourceState(record["state"]),
            reason=record["reason"],
            remedy=record["remedy"],
            topic=record["topic"],
            connector=record["connector"],
            slot=record["slot"],
            confirmed_lsn=record["confirmed_lsn"],
            lag_bytes=record["lag_bytes"],
            retained_bytes=record["retained_bytes"],
            resnapshots=record["resnapshots"],
            reported_at=record["reported_at"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class Alternative(Event):
    """A token that could have been drawn.

    Attributes:
        token: The token as text.
        logprob: Natural logarithm of its probability.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.Alternative"

    token: str
    logprob: float

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.token),
            binary.double(self.logprob),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "token": self.token,
            "logprob": self.logprob,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Alternative:
        """Returns the event that fastavro read."""
        return cls(
            token=record["token"],
            logprob=record["logprob"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class Route(Event):
    """One way to serve an endpoint.

    Attributes:
        name: Name of the route inside its endpoint.
        pool: Worker pool: the last segment of the routed topic.
        model: Model as the provider names it.
        entity: Version of a catalog model that it serves: main.default.scorer@3; empty where
            the catalog knows none.
        adapter: Version of a catalog model whose adapter is put on top; empty for none.
        connection: Catalog connection that the worker calls; empty for a model of its own.
        first_token_ms: Longest wait for the first token.
        idle_ms: Longest silence between tokens.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.Route"

    name: str
    pool: str
    model: str
    entity: str = ''
    adapter: str = ''
    connection: str = ''
    first_token_ms: int | None = None
    idle_ms: int | None = None

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.name),
            binary.text(self.pool),
            binary.text(self.model),
            binary.text(self.entity),
            binary.text(self.adapter),
            binary.text(self.connection),
            binary.ABSENT if self.first_token_ms is None else binary.PRESENT + binary.long(self.first_token_ms),
            binary.ABSENT if self.idle_ms is None else binary.PRESENT + binary.long(self.idle_ms),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "name": self.name,
            "pool": self.pool,
            "model": self.model,
            "entity": self.entity,
            "adapter": self.adapter,
            "connection": self.connection,
            "first_token_ms": self.first_token_ms,
            "idle_ms": self.idle_ms,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Route:
        """Returns the event that fastavro read."""
        return cls(
            name=record["name"],
            pool=record["pool"],
            model=record["model"],
            entity=record["entity"],
            adapter=record["adapter"],
            connection=record["connection"],
            first_token_ms=record["first_token_ms"],
            idle_ms=record["idle_ms"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class Usage(Event):
    """Token counts as the provider reports them.

    Attributes:
        prompt_tokens: Tokens read, cached ones included.
        completion_tokens: Tokens produced, reasoning ones included.
        cached_tokens: Prompt tokens served from the provider's cache.
        reasoning_tokens: Completion tokens spent on hidden reasoning.
        cache_write_tokens: Prompt tokens written to the provider's cache, part of those read.
        estimated: Whether the platform counted, since the provider did not.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.Usage"

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0
    estimated: bool = False

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.long(self.prompt_tokens),
            binary.long(self.completion_tokens),
            binary.long(self.cached_tokens),
            binary.long(self.reasoning_tokens),
            binary.long(self.cache_write_tokens),
            binary.BOOLEANS[self.estimated],
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cached_tokens": self.cached_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "estimated": self.estimated,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Usage:
        """Returns the event that fastavro read."""
        return cls(
            prompt_tokens=record["prompt_tokens"],
            completion_tokens=record["completion_tokens"],
            cached_tokens=record["cached_tokens"],
            reasoning_tokens=record["reasoning_tokens"],
            cache_write_tokens=record["cache_write_tokens"],
            estimated=record["estimated"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class Attempt(Event):
    """One failed try of a route.

    Attributes:
        route: The route tried.
        refusal: Why it failed.
        usage: Tokens that it used all the same.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.Attempt"

    route: Route
    refusal: Refusal
    usage: Usage | None = None

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            self.route.to_bytes(),
            self.refusal.to_bytes(),
            binary.ABSENT if self.usage is None else binary.PRESENT + self.usage.to_bytes(),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "route": self.route.to_avro(),
            "refusal": self.refusal.to_avro(),
            "usage": None if self.usage is None else self.usage.to_avro(),
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Attempt:
        """Returns the event that fastavro read."""
        return cls(
            route=Route.from_avro(record["route"]),
            refusal=Refusal.from_avro(record["refusal"]),
            usage=None if record["usage"] is None else Usage.from_avro(record["usage"]),
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class Charge(Event):
    """An amount on one counter of a limit.

    Attributes:
        counter: The counter: policy/rule/unit/window/who.
        home: Whose partition keeps the counter: the tenant, or the counter itself where tenants
            share it.
        unit: requests, in_flight, total_tokens, input_tokens, output_tokens, cached_tokens or
            cost.
        window_ms: How far back use counts; 0 for what counts only while it goes on.
        amount: How much; cost in picodollars (10^-12 US dollars).
        refunds: Whether a failed request gets it back (requests only).
    """

    SCHEMA: ClassVar[str] = "tessera.inference.Charge"

    counter: str
    home: str
    unit: str
    window_ms: int = 0
    amount: int
    refunds: bool = False

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.counter),
            binary.text(self.home),
            binary.text(self.unit),
            binary.long(self.window_ms),
            binary.long(self.amount),
            binary.BOOLEANS[self.refunds],
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "counter": self.counter,
            "home": self.home,
            "unit": self.unit,
            "window_ms": self.window_ms,
            "amount": self.amount,
            "refunds": self.refunds,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Charge:
        """Returns the event that fastavro read."""
        return cls(
            counter=record["counter"],
            home=record["home"],
            unit=record["unit"],
            window_ms=record["window_ms"],
            amount=record["amount"],
            refunds=record["refunds"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class ToolCall(Event):
    """A model asks for a function to be called.

    Attributes:
        id: Id that the tool's answer must carry.
        name: Name of the function.
        arguments: Arguments as JSON text.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.ToolCall"

    id: str
    name: str
    arguments: str

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.id),
            binary.text(self.name),
            binary.text(self.arguments),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "id": self.id,
            "name": self.name,
            "arguments": self.arguments,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> ToolCall:
        """Returns the event that fastavro read."""
        return cls(
            id=record["id"],
            name=record["name"],
            arguments=record["arguments"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class TokenLogprob(Event):
    """Log probability of one produced token.

    Attributes:
        token: The token as text.
        logprob: Natural logarithm of its probability.
        top: The likeliest alternatives, best first.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.TokenLogprob"

    token: str
    logprob: float
    top: tuple[Alternative, ...] = ()

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.token),
            binary.double(self.logprob),
            binary.items([item.to_bytes() for item in self.top]),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "token": self.token,
            "logprob": self.logprob,
            "top": [item.to_avro() for item in self.top],
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> TokenLogprob:
        """Returns the event that fastavro read."""
        return cls(
            token=record["token"],
            logprob=record["logprob"],
            top=tuple([Alternative.from_avro(item) for item in record["top"]]),
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class Completion(Event):
    """What a model answered, whole.

    Attributes:
        model: Model that answered, as the provider reports it.
        content: The whole text.
        tool_calls: Functions that the model asks for.
        finish_reason: Why the model stopped.
        usage: Tokens billed.
        logprobs: One entry a token where the request asked for them.
        vectors: Embeddings, one for each input in their order.
        scores: Relevance, one for each input in their order; the higher the better.
        found: What an index answered, as JSON text (schemas/search.py: Found or Written).
    """

    SCHEMA: ClassVar[str] = "tessera.inference.Completion"

    model: str
    content: str = ''
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] = ()
    vectors: tuple[tuple[float, ...], ...] = ()
    scores: tuple[float, ...] = ()
    found: str | None = None

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.model),
            binary.text(self.content),
            binary.items([item.to_bytes() for item in self.tool_calls]),
            _FINISHREASON[self.finish_reason],
            self.usage.to_bytes(),
            binary.items([item.to_bytes() for item in self.logprobs]),
            binary.items([binary.items([binary.single(item) for item in item]) for item in self.vectors]),
            binary.items([binary.double(item) for item in self.scores]),
            binary.ABSENT if self.found is None else binary.PRESENT + binary.text(self.found),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "model": self.model,
            "content": self.content,
            "tool_calls": [item.to_avro() for item in self.tool_calls],
            "finish_reason": self.finish_reason,
            "usage": self.usage.to_avro(),
            "logprobs": [item.to_avro() for item in self.logprobs],
            "vectors": self.vectors,
            "scores": self.scores,
            "found": self.found,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Completion:
        """Returns the event that fastavro read."""
        return cls(
            model=record["model"],
            content=record["content"],
            tool_calls=tuple([ToolCall.from_avro(item) for item in record["tool_calls"]]),
            finish_reason=FinishReason(record["finish_reason"]),
            usage=Usage.from_avro(record["usage"]),
            logprobs=tuple([TokenLogprob.from_avro(item) for item in record["logprobs"]]),
            vectors=tuple([tuple(item) for item in record["vectors"]]),
            scores=tuple(record["scores"]),
            found=record["found"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class CompletionCached(Event):
    """An answer that is good for the same request of the same tenant again.

    Attributes:
        cache_key: Digest of everything that changes an answer.
        tenant: Whose. Also the record key.
        endpoint: What was asked.
        completion: The answer as the provider gave it, masked.
        cached_at: When it was given.
        until: How long it is good.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.CompletionCached"

    cache_key: str
    tenant: str
    endpoint: str
    completion: Completion
    cached_at: datetime
    until: datetime

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.cache_key),
            binary.text(self.tenant),
            binary.text(self.endpoint),
            self.completion.to_bytes(),
            binary.millis(self.cached_at),
            binary.millis(self.until),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "cache_key": self.cache_key,
            "tenant": self.tenant,
            "endpoint": self.endpoint,
            "completion": self.completion.to_avro(),
            "cached_at": self.cached_at,
            "until": self.until,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> CompletionCached:
        """Returns the event that fastavro read."""
        return cls(
            cache_key=record["cache_key"],
            tenant=record["tenant"],
            endpoint=record["endpoint"],
            completion=Completion.from_avro(record["completion"]),
            cached_at=record["cached_at"],
            until=record["until"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class ToolCallDelta(Event):
    """A piece of one tool call.

    Attributes:
        index: Which call of the completion it belongs to.
        id: Id of the call; only in its first piece.
        name: Name of the function; only in its first piece.
        arguments: JSON text to append.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.ToolCallDelta"

    index: int
    id: str = ''
    name: str = ''
    arguments: str = ''

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.long(self.index),
            binary.text(self.id),
            binary.text(self.name),
            binary.text(self.arguments),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "index": self.index,
            "id": self.id,
            "name": self.name,
            "arguments": self.arguments,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> ToolCallDelta:
        """Returns the event that fastavro read."""
        return cls(
            index=record["index"],
            id=record["id"],
            name=record["name"],
            arguments=record["arguments"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class Delta(Event):
    """What a completion grew by since the part before.

    Attributes:
        content: Text to append.
        tool_calls: Pieces of tool calls.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.Delta"

    content: str = ''
    tool_calls: tuple[ToolCallDelta, ...] = ()

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.content),
            binary.items([item.to_bytes() for item in self.tool_calls]),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "content": self.content,
            "tool_calls": [item.to_avro() for item in self.tool_calls],
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Delta:
        """Returns the event that fastavro read."""
        return cls(
            content=record["content"],
            tool_calls=tuple([ToolCallDelta.from_avro(item) for item in record["tool_calls"]]),
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class InferenceAttempted(Event):
    """One route was tried for a request, or got a copy of it. One row of the table of attempts.

    Attributes:
        attempt_id: Decision on the request (the request itself in rows older than decisions
            have ids), number of the attempt, and route where it is a copy. Unique in the table.
        request_id: The request. Also the record key.
        attempt: 0 for the first route tried.
        mirrored: Whether it was a copy that nobody heard (shadow traffic).
        tenant: Who pays.
        principal: Who acted.
        endpoint: What was asked.
        route: Route that was tried.
        connection: Outside provider.
        model: Model that was tried.
        outcome: How it ended.
        reason: Why there was no completion.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens produced.
        cached_tokens: Prompt tokens served from a cache.
        cache_write_tokens: Prompt tokens written to the provider's cache.
        reasoning_tokens: Completion tokens spent on hidden reasoning.
        usage_estimated: Whether the platform counted the tokens, since the provider did not.
        cost: US dollars; null where the price is unknown.
        started_at: When the worker took it up; its date (UTC) is the table's partition.
        first_token_ms: From there to the first token.
        elapsed_ms: From there to its end.
        tags: The caller's own labels.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.InferenceAttempted"

    attempt_id: str
    request_id: str
    attempt: int = 0
    mirrored: bool = False
    tenant: str
    principal: str = ''
    endpoint: str
    route: str
    connection: str | None = None
    model: str
    outcome: Outcome
    reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    usage_estimated: bool = False
    cost: Decimal | None = None
    started_at: datetime
    first_token_ms: int | None = None
    elapsed_ms: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.attempt_id),
            binary.text(self.request_id),
            binary.long(self.attempt),
            binary.BOOLEANS[self.mirrored],
            binary.text(self.tenant),
            binary.text(self.principal),
            binary.text(self.endpoint),
            binary.text(self.route),
            binary.ABSENT if self.connection is None else binary.PRESENT + binary.text(self.connection),
            binary.text(self.model),
            _OUTCOME[self.outcome],
            binary.ABSENT if self.reason is None else binary.PRESENT + binary.text(self.reason),
            binary.long(self.prompt_tokens),
            binary.long(self.completion_tokens),
            binary.long(self.cached_tokens),
            binary.long(self.cache_write_tokens),
            binary.long(self.reasoning_tokens),
            binary.BOOLEANS[self.usage_estimated],
            binary.ABSENT if self.cost is None else binary.PRESENT + binary.decimal(self.cost, 38, 12),
            binary.millis(self.started_at),
            binary.ABSENT if self.first_token_ms is None else binary.PRESENT + binary.long(self.first_token_ms),
            binary.long(self.elapsed_ms),
            binary.items([binary.text(key) + (binary.text(item)) for key, item in self.tags.items()]),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "attempt_id": self.attempt_id,
            "request_id": self.request_id,
            "attempt": self.attempt,
            "mirrored": self.mirrored,
            "tenant": self.tenant,
            "principal": self.principal,
            "endpoint": self.endpoint,
            "route": self.route,
            "connection": self.connection,
            "model": self.model,
            "outcome": self.outcome,
            "reason": self.reason,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cached_tokens": self.cached_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "usage_estimated": self.usage_estimated,
            "cost": self.cost,
            "started_at": self.started_at,
            "first_token_ms": self.first_token_ms,
            "elapsed_ms": self.elapsed_ms,
            "tags": self.tags,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> InferenceAttempted:
        """Returns the event that fastavro read."""
        return cls(
            attempt_id=record["attempt_id"],
            request_id=record["request_id"],
            attempt=record["attempt"],
            mirrored=record["mirrored"],
            tenant=record["tenant"],
            principal=record["principal"],
            endpoint=record["endpoint"],
            route=record["route"],
            connection=record["connection"],
            model=record["model"],
            outcome=Outcome(record["outcome"]),
            reason=record["reason"],
            prompt_tokens=record["prompt_tokens"],
            completion_tokens=record["completion_tokens"],
            cached_tokens=record["cached_tokens"],
            cache_write_tokens=record["cache_write_tokens"],
            reasoning_tokens=record["reasoning_tokens"],
            usage_estimated=record["usage_estimated"],
            cost=record["cost"],
            started_at=record["started_at"],
            first_token_ms=record["first_token_ms"],
            elapsed_ms=record["elapsed_ms"],
            tags=record["tags"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class Message(Event):
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        content: What is said.
        name: Name of the speaker, where several share a role.
        tool_calls: The calls that an assistant turn asked for.
        tool_call_id: The call that a tool turn answers.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.Message"

    role: Role
    content: str = ''
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            _ROLE[self.role],
            binary.text(self.content),
            binary.ABSENT if self.name is None else binary.PRESENT + binary.text(self.name),
            binary.items([item.to_bytes() for item in self.tool_calls]),
            binary.ABSENT if self.tool_call_id is None else binary.PRESENT + binary.text(self.tool_call_id),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "role": self.role,
            "content": self.content,
            "name": self.name,
            "tool_calls": [item.to_avro() for item in self.tool_calls],
            "tool_call_id": self.tool_call_id,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Message:
        """Returns the event that fastavro read."""
        return cls(
            role=Role(record["role"]),
            content=record["content"],
            name=record["name"],
            tool_calls=tuple([ToolCall.from_avro(item) for item in record["tool_calls"]]),
            tool_call_id=record["tool_call_id"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class Sampling(Event):
    """Sampling parameters under their OpenAI names; null means the provider's default.

    Attributes:
        temperature: 0 is greedy; at most 2.
        top_p: Nucleus mass, over 0 and at most 1.
        top_k: Candidates kept; -1 or 0 keeps all.
        max_tokens: Most tokens to produce.
        stop: Texts that end the completion; they are not part of it.
        seed: Makes drawing repeatable on the same provider and version.
        frequency_penalty: From -2 to 2.
        presence_penalty: From -2 to 2.
        top_logprobs: Return log probabilities, with this many alternatives a token.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.Sampling"

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    top_logprobs: int | None = None

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.ABSENT if self.temperature is None else binary.PRESENT + binary.double(self.temperature),
            binary.ABSENT if self.top_p is None else binary.PRESENT + binary.double(self.top_p),
            binary.ABSENT if self.top_k is None else binary.PRESENT + binary.long(self.top_k),
            binary.ABSENT if self.max_tokens is None else binary.PRESENT + binary.long(self.max_tokens),
            binary.items([binary.text(item) for item in self.stop]),
            binary.ABSENT if self.seed is None else binary.PRESENT + binary.long(self.seed),
            binary.ABSENT if self.frequency_penalty is None else binary.PRESENT + binary.double(self.frequency_penalty),
            binary.ABSENT if self.presence_penalty is None else binary.PRESENT + binary.double(self.presence_penalty),
            binary.ABSENT if self.top_logprobs is None else binary.PRESENT + binary.long(self.top_logprobs),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "max_tokens": self.max_tokens,
            "stop": self.stop,
            "seed": self.seed,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "top_logprobs": self.top_logprobs,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Sampling:
        """Returns the event that fastavro read."""
        return cls(
            temperature=record["temperature"],
            top_p=record["top_p"],
            top_k=record["top_k"],
            max_tokens=record["max_tokens"],
            stop=tuple(record["stop"]),
            seed=record["seed"],
            frequency_penalty=record["frequency_penalty"],
            presence_penalty=record["presence_penalty"],
            top_logprobs=record["top_logprobs"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class Tool(Event):
    """A function offered to the model.

    Attributes:
        name: Name of the function.
        description: What it is for, as the model reads it.
        parameters: JSON Schema text of its arguments.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.Tool"

    name: str
    description: str = ''
    parameters: str

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.name),
            binary.text(self.description),
            binary.text(self.parameters),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Tool:
        """Returns the event that fastavro read."""
        return cls(
            name=record["name"],
            description=record["description"],
            parameters=record["parameters"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class InferenceRequested(Event):
    """A caller asked an endpoint for a completion.

    Attributes:
        request_id: Id chosen by the caller, who matches replies by it and by their claim. A
            signed record that is sent again is refused as replayed; the same id on another
            record is another request, charged for itself and with a row of its own.
        tenant: Who pays. Also the record key.
        principal: Who acts for the tenant; empty for whoever signed, or the tenant itself. Only
            who holds MANAGE on the root may name somebody else than whose key signed.
        endpoint: What is asked: a three-level name such as main.default.smollm2.
        messages: The conversation so far, oldest first (OpenAI chat form).
        sampling: How tokens are drawn; null leaves the choice to the endpoint.
        json_schema: JSON Schema text that the completion must satisfy.
        tools: Functions that the model may ask for.
        tool_choice: auto, none, required, or the name of one tool.
        stream: Whether the caller wants parts before the terminal reply.
        reply_to: Reply topic; it must be one that the catalog gives the tenant of who signed.
        requested_at: When the caller asked.
        deadline: After this instant nobody waits for the answer and every stage refuses the
            work.
        tags: The caller's own labels, for cost, limits and search; the tag session names the
            conversation.
        task: What is asked for.
        inputs: Texts to embed, documents to rank, or the arguments of a tool as one JSON text.
        query: What documents are ranked by, or searched for.
        search: How an index is searched or written to, as JSON text (schemas/search.py: Search
            or Write).
        version: Number or alias of the version of a tool that is to run; null for the newest.
        previous: Of an agent: id of an earlier request of the same tenant and principal whose
            conversation is gone on with; null for a conversation of its own.
        previous_turns: After how many turns of the model that conversation is gone on with,
            counted from its beginning, with all that they called for; null for all of them.
        parts_to: Reply topic of the tenant that parts go to; null for that of the reply. What a
            run asks of its model has those of the run's caller here.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.InferenceRequested"

    request_id: str
    tenant: str
    principal: str = ''
    endpoint: str
    messages: tuple[Message, ...]
    sampling: Sampling
    json_schema: str | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str = 'auto'
    stream: bool = False
    reply_to: str
    requested_at: datetime
    deadline: datetime
    tags: Mapping[str, str] = field(default_factory=dict)
    task: Task = Task.CHAT
    inputs: tuple[str, ...] = ()
    query: str | None = None
    search: str | None = None
    version: str | None = None
    previous: str | None = None
    previous_turns: int | None = None
    parts_to: str | None = None

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.request_id),
            binary.text(self.tenant),
            binary.text(self.principal),
            binary.text(self.endpoint),
            binary.items([item.to_bytes() for item in self.messages]),
            self.sampling.to_bytes(),
            binary.ABSENT if self.json_schema is None else binary.PRESENT + binary.text(self.json_schema),
            binary.items([item.to_bytes() for item in self.tools]),
            binary.text(self.tool_choice),
            binary.BOOLEANS[self.stream],
            binary.text(self.reply_to),
            binary.millis(self.requested_at),
            binary.millis(self.deadline),
            binary.items([binary.text(key) + (binary.text(item)) for key, item in self.tags.items()]),
            _TASK[self.task],
            binary.items([binary.text(item) for item in self.inputs]),
            binary.ABSENT if self.query is None else binary.PRESENT + binary.text(self.query),
            binary.ABSENT if self.search is None else binary.PRESENT + binary.text(self.search),
            binary.ABSENT if self.version is None else binary.PRESENT + binary.text(self.version),
            binary.ABSENT if self.previous is None else binary.PRESENT + binary.text(self.previous),
            binary.ABSENT if self.previous_turns is None else binary.PRESENT + binary.long(self.previous_turns),
            binary.ABSENT if self.parts_to is None else binary.PRESENT + binary.text(self.parts_to),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "request_id": self.request_id,
            "tenant": self.tenant,
            "principal": self.principal,
            "endpoint": self.endpoint,
            "messages": [item.to_avro() for item in self.messages],
            "sampling": self.sampling.to_avro(),
            "json_schema": self.json_schema,
            "tools": [item.to_avro() for item in self.tools],
            "tool_choice": self.tool_choice,
            "stream": self.stream,
            "reply_to": self.reply_to,
            "requested_at": self.requested_at,
            "deadline": self.deadline,
            "tags": self.tags,
            "task": self.task,
            "inputs": self.inputs,
            "query": self.query,
            "search": self.search,
            "version": self.version,
            "previous": self.previous,
            "previous_turns": self.previous_turns,
            "parts_to": self.parts_to,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> InferenceRequested:
        """Returns the event that fastavro read."""
        return cls(
            request_id=record["request_id"],
            tenant=record["tenant"],
            principal=record["principal"],
            endpoint=record["endpoint"],
            messages=tuple([Message.from_avro(item) for item in record["messages"]]),
            sampling=Sampling.from_avro(record["sampling"]),
            json_schema=record["json_schema"],
            tools=tuple([Tool.from_avro(item) for item in record["tools"]]),
            tool_choice=record["tool_choice"],
            stream=record["stream"],
            reply_to=record["reply_to"],
            requested_at=record["requested_at"],
            deadline=record["deadline"],
            tags=record["tags"],
            task=Task(record["task"]),
            inputs=tuple(record["inputs"]),
            query=record["query"],
            search=record["search"],
            version=record["version"],
            previous=record["previous"],
            previous_turns=record["previous_turns"],
            parts_to=record["parts_to"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class Signed(Event):
    """The signature of a record, with what remains to verify it when the record is gone.

    Attributes:
        key_id: Key that signed it.
        signature: Ed25519, 64 bytes.
        digest: SHA-256 of the record's value, 32 bytes.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.Signed"

    key_id: str
    signature: bytes
    digest: bytes

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.key_id),
            binary.raw(self.signature),
            binary.raw(self.digest),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "key_id": self.key_id,
            "signature": self.signature,
            "digest": self.digest,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Signed:
        """Returns the event that fastavro read."""
        return cls(
            key_id=record["key_id"],
            signature=record["signature"],
            digest=record["digest"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class Judgement(Event):
    """What one rule of a policy found; never the text that it found.

    Attributes:
        rule: policy/rule.
        stage: admit, input, output or tools.
        verdict: ALLOW, DENY, MASK or ASK.
        found: How often what was found: EMAIL_ADDRESS.
        shadow: Whether it was only evaluated.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.Judgement"

    rule: str
    stage: str
    verdict: str
    found: Mapping[str, int] = field(default_factory=dict)
    shadow: bool = False

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.rule),
            binary.text(self.stage),
            binary.text(self.verdict),
            binary.items([binary.text(key) + (binary.long(item)) for key, item in self.found.items()]),
            binary.BOOLEANS[self.shadow],
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "rule": self.rule,
            "stage": self.stage,
            "verdict": self.verdict,
            "found": self.found,
            "shadow": self.shadow,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Judgement:
        """Returns the event that fastavro read."""
        return cls(
            rule=record["rule"],
            stage=record["stage"],
            verdict=record["verdict"],
            found=record["found"],
            shadow=record["shadow"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class InferenceRouted(Event):
    """The gateway admitted a request and chose where it goes.

    Attributes:
        request: The request as admitted.
        route: Where it goes now.
        fallbacks: Routes still to be tried, best first; each failure shortens the list.
        attempt: 0 for the first route tried, then 1 more for each fallback.
        parts_to: Topic that parts go to straight from the worker; null sends them through
            release.
        tried: Earlier attempts and why each one failed.
        signed: What proves who asked; null where unsigned requests are accepted.
        routed_at: When the gateway chose the route.
        not_before: Instant that the worker waits for: a retry backs off.
        mirrored: Whether this is a copy for a route that nobody hears (shadow traffic).
        charge_id: What was reserved for the request, in the ledger; empty where no limit holds.
        charges: What it counts with until its real use is known.
        cache_key: What the answer is kept under for the same request again; empty where it is
            not.
        sealed: What placeholders stand for, encrypted under the tenant's key.
        access: What of an index the caller may see, as JSON text (schemas/search.py: Access);
            null where the route is to none.
        judgements: What policies found and did, on the way in.
        decision_id: Names the decision on one record of a request, and no other, however often
            the record is read; empty in events older than this field.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.InferenceRouted"

    request: InferenceRequested
    route: Route
    fallbacks: tuple[Route, ...] = ()
    attempt: int = 0
    parts_to: str | None = None
    tried: tuple[Attempt, ...] = ()
    signed: Signed | None = None
    routed_at: datetime
    not_before: datetime | None = None
    mirrored: bool = False
    charge_id: str = ''
    charges: tuple[Charge, ...] = ()
    cache_key: str = ''
    sealed: bytes | None = None
    access: str | None = None
    judgements: tuple[Judgement, ...] = ()
    decision_id: str = ''

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            self.request.to_bytes(),
            self.route.to_bytes(),
            binary.items([item.to_bytes() for item in self.fallbacks]),
            binary.long(self.attempt),
            binary.ABSENT if self.parts_to is None else binary.PRESENT + binary.text(self.parts_to),
            binary.items([item.to_bytes() for item in self.tried]),
            binary.ABSENT if self.signed is None else binary.PRESENT + self.signed.to_bytes(),
            binary.millis(self.routed_at),
            binary.ABSENT if self.not_before is None else binary.PRESENT + binary.millis(self.not_before),
            binary.BOOLEANS[self.mirrored],
            binary.text(self.charge_id),
            binary.items([item.to_bytes() for item in self.charges]),
            binary.text(self.cache_key),
            binary.ABSENT if self.sealed is None else binary.PRESENT + binary.raw(self.sealed),
            binary.ABSENT if self.access is None else binary.PRESENT + binary.text(self.access),
            binary.items([item.to_bytes() for item in self.judgements]),
            binary.text(self.decision_id),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "request": self.request.to_avro(),
            "route": self.route.to_avro(),
            "fallbacks": [item.to_avro() for item in self.fallbacks],
            "attempt": self.attempt,
            "parts_to": self.parts_to,
            "tried": [item.to_avro() for item in self.tried],
            "signed": None if self.signed is None else self.signed.to_avro(),
            "routed_at": self.routed_at,
            "not_before": self.not_before,
            "mirrored": self.mirrored,
            "charge_id": self.charge_id,
            "charges": [item.to_avro() for item in self.charges],
            "cache_key": self.cache_key,
            "sealed": self.sealed,
            "access": self.access,
            "judgements": [item.to_avro() for item in self.judgements],
            "decision_id": self.decision_id,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> InferenceRouted:
        """Returns the event that fastavro read."""
        return cls(
            request=InferenceRequested.from_avro(record["request"]),
            route=Route.from_avro(record["route"]),
            fallbacks=tuple([Route.from_avro(item) for item in record["fallbacks"]]),
            attempt=record["attempt"],
            parts_to=record["parts_to"],
            tried=tuple([Attempt.from_avro(item) for item in record["tried"]]),
            signed=None if record["signed"] is None else Signed.from_avro(record["signed"]),
            routed_at=record["routed_at"],
            not_before=record["not_before"],
            mirrored=record["mirrored"],
            charge_id=record["charge_id"],
            charges=tuple([Charge.from_avro(item) for item in record["charges"]]),
            cache_key=record["cache_key"],
            sealed=record["sealed"],
            access=record["access"],
            judgements=tuple([Judgement.from_avro(item) for item in record["judgements"]]),
            decision_id=record["decision_id"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class InferenceCompleted(Event):
    """A worker is done with a routed request: either completion or refusal is set.

    Attributes:
        routed: What the worker was asked, with the onward address and the routes left.
        completion: The answer, when there is one.
        refusal: Why there is none.
        parts: Parts published for this attempt; over 0 the caller has seen text.
        started_at: When the worker took the request up.
        first_token_at: When the first token came.
        completed_at: When the worker was done.
        usage: Tokens used where there is no completion: of what came before it broke off.
        judgements: What those said who were asked about the answer; null before they were.
        cost_usd: Of an agent: US dollars of all that it asked, each of which has its own
            record; null where a price is unknown, and for all that costs by its tokens.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.InferenceCompleted"

    routed: InferenceRouted
    completion: Completion | None = None
    refusal: Refusal | None = None
    parts: int = 0
    started_at: datetime
    first_token_at: datetime | None = None
    completed_at: datetime
    usage: Usage | None = None
    judgements: tuple[Judgement, ...] | None = None
    cost_usd: Decimal | None = None

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            self.routed.to_bytes(),
            binary.ABSENT if self.completion is None else binary.PRESENT + self.completion.to_bytes(),
            binary.ABSENT if self.refusal is None else binary.PRESENT + self.refusal.to_bytes(),
            binary.long(self.parts),
            binary.millis(self.started_at),
            binary.ABSENT if self.first_token_at is None else binary.PRESENT + binary.millis(self.first_token_at),
            binary.millis(self.completed_at),
            binary.ABSENT if self.usage is None else binary.PRESENT + self.usage.to_bytes(),
            binary.ABSENT if self.judgements is None else binary.PRESENT + binary.items([item.to_bytes() for item in self.judgements]),
            binary.ABSENT if self.cost_usd is None else binary.PRESENT + binary.decimal(self.cost_usd, 38, 12),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "routed": self.routed.to_avro(),
            "completion": None if self.completion is None else self.completion.to_avro(),
            "refusal": None if self.refusal is None else self.refusal.to_avro(),
            "parts": self.parts,
            "started_at": self.started_at,
            "first_token_at": self.first_token_at,
            "completed_at": self.completed_at,
            "usage": None if self.usage is None else self.usage.to_avro(),
            "judgements": None if self.judgements is None else [item.to_avro() for item in self.judgements],
            "cost_usd": self.cost_usd,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> InferenceCompleted:
        """Returns the event that fastavro read."""
        return cls(
            routed=InferenceRouted.from_avro(record["routed"]),
            completion=None if record["completion"] is None else Completion.from_avro(record["completion"]),
            refusal=None if record["refusal"] is None else Refusal.from_avro(record["refusal"]),
            parts=record["parts"],
            started_at=record["started_at"],
            first_token_at=record["first_token_at"],
            completed_at=record["completed_at"],
            usage=None if record["usage"] is None else Usage.from_avro(record["usage"]),
            judgements=None if record["judgements"] is None else tuple([Judgement.from_avro(item) for item in record["judgements"]]),
            cost_usd=record["cost_usd"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class InferenceHeld(Event):
    """A request, or an answer, waits until those who are asked about it have judged it.

    Attributes:
        held_id: Names this wait: the same however often its cause is read.
        tenant: Who pays. Also the record key.
        request_id: The request.
        stage: What waits: input for a request, output for an answer.
        routed: The request, as it goes on when all agree; null for an answer.
        completed: The answer, as its worker gave it; null for a request.
        texts: What is to be judged, in order, as others may see it: masked.
        rules: Rules that are left to be asked, in order: policy/rule.
        approvals: Rules that want a person's approval: policy/rule.
        judgements: What those who were asked said so far.
        asks: Charges that tenants share and that are still to be reserved, by home.
        mirrors: Routes that get a copy when all agree.
        answer: What is kept as its answer, masked: given when all agree, and no route is tried.
        trace_id: W3C trace id of the request, where it is known.
        held_at: When the wait began.
        until: When nobody waits any more: the request's deadline.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.InferenceHeld"

    held_id: str
    tenant: str
    request_id: str
    stage: str
    routed: InferenceRouted | None = None
    completed: InferenceCompleted | None = None
    texts: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    approvals: tuple[str, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    asks: tuple[Charge, ...] = ()
    mirrors: tuple[Route, ...] = ()
    answer: Completion | None = None
    trace_id: str | None = None
    held_at: datetime
    until: datetime

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.held_id),
            binary.text(self.tenant),
            binary.text(self.request_id),
            binary.text(self.stage),
            binary.ABSENT if self.routed is None else binary.PRESENT + self.routed.to_bytes(),
            binary.ABSENT if self.completed is None else binary.PRESENT + self.completed.to_bytes(),
            binary.items([binary.text(item) for item in self.texts]),
            binary.items([binary.text(item) for item in self.rules]),
            binary.items([binary.text(item) for item in self.approvals]),
            binary.items([item.to_bytes() for item in self.judgements]),
            binary.items([item.to_bytes() for item in self.asks]),
            binary.items([item.to_bytes() for item in self.mirrors]),
            binary.ABSENT if self.answer is None else binary.PRESENT + self.answer.to_bytes(),
            binary.ABSENT if self.trace_id is None else binary.PRESENT + binary.text(self.trace_id),
            binary.millis(self.held_at),
            binary.millis(self.until),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "held_id": self.held_id,
            "tenant": self.tenant,
            "request_id": self.request_id,
            "stage": self.stage,
            "routed": None if self.routed is None else self.routed.to_avro(),
            "completed": None if self.completed is None else self.completed.to_avro(),
            "texts": self.texts,
            "rules": self.rules,
            "approvals": self.approvals,
            "judgements": [item.to_avro() for item in self.judgements],
            "asks": [item.to_avro() for item in self.asks],
            "mirrors": [item.to_avro() for item in self.mirrors],
            "answer": None if self.answer is None else self.answer.to_avro(),
            "trace_id": self.trace_id,
            "held_at": self.held_at,
            "until": self.until,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> InferenceHeld:
        """Returns the event that fastavro read."""
        return cls(
            held_id=record["held_id"],
            tenant=record["tenant"],
            request_id=record["request_id"],
            stage=record["stage"],
            routed=None if record["routed"] is None else InferenceRouted.from_avro(record["routed"]),
            completed=None if record["completed"] is None else InferenceCompleted.from_avro(record["completed"]),
            texts=tuple(record["texts"]),
            rules=tuple(record["rules"]),
            approvals=tuple(record["approvals"]),
            judgements=tuple([Judgement.from_avro(item) for item in record["judgements"]]),
            asks=tuple([Charge.from_avro(item) for item in record["asks"]]),
            mirrors=tuple([Route.from_avro(item) for item in record["mirrors"]]),
            answer=None if record["answer"] is None else Completion.from_avro(record["answer"]),
            trace_id=record["trace_id"],
            held_at=record["held_at"],
            until=record["until"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class InferenceJudged(Event):
    """Those who were asked about a request, or an answer, have judged it.

    Attributes:
        tenant: Who pays. Also the record key.
        held: What waits.
        judgements: What each of them said; never the text that it was asked about.
        texts: What goes on instead of the texts that were judged, one for each; empty where
            they stay.
        approvals: Rules that want a person's approval: policy/rule.
        refusal: Why it must not go on; the first one that refuses.
        judged_at: When.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.InferenceJudged"

    tenant: str
    held: InferenceHeld
    judgements: tuple[Judgement, ...] = ()
    texts: tuple[str, ...] = ()
    approvals: tuple[str, ...] = ()
    refusal: Refusal | None = None
    judged_at: datetime

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.tenant),
            self.held.to_bytes(),
            binary.items([item.to_bytes() for item in self.judgements]),
            binary.items([binary.text(item) for item in self.texts]),
            binary.items([binary.text(item) for item in self.approvals]),
            binary.ABSENT if self.refusal is None else binary.PRESENT + self.refusal.to_bytes(),
            binary.millis(self.judged_at),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "tenant": self.tenant,
            "held": self.held.to_avro(),
            "judgements": [item.to_avro() for item in self.judgements],
            "texts": self.texts,
            "approvals": self.approvals,
            "refusal": None if self.refusal is None else self.refusal.to_avro(),
            "judged_at": self.judged_at,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> InferenceJudged:
        """Returns the event that fastavro read."""
        return cls(
            tenant=record["tenant"],
            held=InferenceHeld.from_avro(record["held"]),
            judgements=tuple([Judgement.from_avro(item) for item in record["judgements"]]),
            texts=tuple(record["texts"]),
            approvals=tuple(record["approvals"]),
            refusal=None if record["refusal"] is None else Refusal.from_avro(record["refusal"]),
            judged_at=record["judged_at"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class InferencePart(Event):
    """A piece of a completion on its way through release, where the endpoint has an output
    policy.

    Attributes:
        request_id: The request it answers. Also the record key.
        tenant: Who pays.
        reply_to: Where release sends it on.
        attempt: Which try of a route produced it.
        epoch: When the worker took the request up, in milliseconds since 1970; a later one,
            after a crash, voids the parts of earlier ones.
        seq: Position in the attempt, from 0 without gaps.
        delta: What is new.
        deadline: The request's deadline.
        endpoint: What was asked, whose policies hold.
        sealed: In the first part: what placeholders stand for, encrypted under the tenant's
            key.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.InferencePart"

    request_id: str
    tenant: str
    reply_to: str
    attempt: int = 0
    epoch: int = 0
    seq: int
    delta: Delta
    deadline: datetime
    endpoint: str = ''
    sealed: bytes | None = None

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.request_id),
            binary.text(self.tenant),
            binary.text(self.reply_to),
            binary.long(self.attempt),
            binary.long(self.epoch),
            binary.long(self.seq),
            self.delta.to_bytes(),
            binary.millis(self.deadline),
            binary.text(self.endpoint),
            binary.ABSENT if self.sealed is None else binary.PRESENT + binary.raw(self.sealed),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "request_id": self.request_id,
            "tenant": self.tenant,
            "reply_to": self.reply_to,
            "attempt": self.attempt,
            "epoch": self.epoch,
            "seq": self.seq,
            "delta": self.delta.to_avro(),
            "deadline": self.deadline,
            "endpoint": self.endpoint,
            "sealed": self.sealed,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> InferencePart:
        """Returns the event that fastavro read."""
        return cls(
            request_id=record["request_id"],
            tenant=record["tenant"],
            reply_to=record["reply_to"],
            attempt=record["attempt"],
            epoch=record["epoch"],
            seq=record["seq"],
            delta=Delta.from_avro(record["delta"]),
            deadline=record["deadline"],
            endpoint=record["endpoint"],
            sealed=record["sealed"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class InferenceRecorded(Event):
    """One row of the inference table: what became of one record of a request.

    Attributes:
        request_id: The request. Also the record key. A caller who uses an id for several
            records has a row for each.
        tenant: Who pays.
        principal: Who acted.
        endpoint: What was asked.
        route: Route that gave the outcome; null where none was tried.
        model: Model that gave the outcome.
        entity: Version of the catalog model that answered: main.default.scorer@3.
        adapter: Version of the catalog model whose adapter was on top.
        outcome: How it ended.
        reason: Kind of refusal, where there is no completion.
        message: The refusal in words.
        request: The request as JSON text (OpenAI chat form).
        response: The completion as JSON text (OpenAI chat form).
        finish_reason: Why the model stopped.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens produced.
        cached_tokens: Prompt tokens served from a cache.
        reasoning_tokens: Completion tokens spent on hidden reasoning.
        attempts: Routes tried.
        requested_at: When the caller asked; its date (UTC) is the table's partition.
        first_token_ms: From the request to its first token.
        elapsed_ms: From the request to its terminal reply.
        tags: The caller's own labels.
        key_id: Key that signed the request; null where unsigned ones are accepted.
        signature: The request's Ed25519 signature in base64.
        signed_digest: SHA-256 of the signed record's value in hex: with it the signature can be
            verified when the record is gone.
        deadline: The request's deadline, which is signed with it.
        cost: US dollars of all attempts together; null where a price is unknown.
        cache_write_tokens: Prompt tokens written to the provider's cache.
        usage_estimated: Whether the platform counted the tokens, since the provider did not.
        saved_tokens: Tokens that an answer out of the cache spared; over 0 it came from there.
        streamed: Whether the caller wanted parts.
        status: HTTP status that the outcome stands for; 0 in rows older than this column.
        judgements: What policies found and did, as JSON text.
        rule: Rule that refused: policy/rule.
        connection: Outside provider that gave the outcome.
        row_id: Names the decision that the row is of, and no other. Unique in the table; empty
            in rows older than this column, in which request_id is.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.InferenceRecorded"

    request_id: str
    tenant: str
    principal: str = ''
    endpoint: str
    route: str | None = None
    model: str | None = None
    entity: str | None = None
    adapter: str | None = None
    outcome: Outcome
    reason: str | None = None
    message: str | None = None
    request: str
    response: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    attempts: int = 0
    requested_at: datetime
    first_token_ms: int | None = None
    elapsed_ms: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    key_id: str | None = None
    signature: str | None = None
    signed_digest: str | None = None
    deadline: datetime | None = None
    cost: Decimal | None = None
    cache_write_tokens: int = 0
    usage_estimated: bool = False
    saved_tokens: int = 0
    streamed: bool = False
    status: int = 0
    judgements: str = '[]'
    rule: str | None = None
    connection: str | None = None
    row_id: str = ''

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.request_id),
            binary.text(self.tenant),
            binary.text(self.principal),
            binary.text(self.endpoint),
            binary.ABSENT if self.route is None else binary.PRESENT + binary.text(self.route),
            binary.ABSENT if self.model is None else binary.PRESENT + binary.text(self.model),
            binary.ABSENT if self.entity is None else binary.PRESENT + binary.text(self.entity),
            binary.ABSENT if self.adapter is None else binary.PRESENT + binary.text(self.adapter),
            _OUTCOME[self.outcome],
            binary.ABSENT if self.reason is None else binary.PRESENT + binary.text(self.reason),
            binary.ABSENT if self.message is None else binary.PRESENT + binary.text(self.message),
            binary.text(self.request),
            binary.ABSENT if self.response is None else binary.PRESENT + binary.text(self.response),
            binary.ABSENT if self.finish_reason is None else binary.PRESENT + binary.text(self.finish_reason),
            binary.long(self.prompt_tokens),
            binary.long(self.completion_tokens),
            binary.long(self.cached_tokens),
            binary.long(self.reasoning_tokens),
            binary.long(self.attempts),
            binary.millis(self.requested_at),
            binary.ABSENT if self.first_token_ms is None else binary.PRESENT + binary.long(self.first_token_ms),
            binary.long(self.elapsed_ms),
            binary.items([binary.text(key) + (binary.text(item)) for key, item in self.tags.items()]),
            binary.ABSENT if self.key_id is None else binary.PRESENT + binary.text(self.key_id),
            binary.ABSENT if self.signature is None else binary.PRESENT + binary.text(self.signature),
            binary.ABSENT if self.signed_digest is None else binary.PRESENT + binary.text(self.signed_digest),
            binary.ABSENT if self.deadline is None else binary.PRESENT + binary.millis(self.deadline),
            binary.ABSENT if self.cost is None else binary.PRESENT + binary.decimal(self.cost, 38, 12),
            binary.long(self.cache_write_tokens),
            binary.BOOLEANS[self.usage_estimated],
            binary.long(self.saved_tokens),
            binary.BOOLEANS[self.streamed],
            binary.long(self.status),
            binary.text(self.judgements),
            binary.ABSENT if self.rule is None else binary.PRESENT + binary.text(self.rule),
            binary.ABSENT if self.connection is None else binary.PRESENT + binary.text(self.connection),
            binary.text(self.row_id),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "request_id": self.request_id,
            "tenant": self.tenant,
            "principal": self.principal,
            "endpoint": self.endpoint,
            "route": self.route,
            "model": self.model,
            "entity": self.entity,
            "adapter": self.adapter,
            "outcome": self.outcome,
            "reason": self.reason,
            "message": self.message,
            "request": self.request,
            "response": self.response,
            "finish_reason": self.finish_reason,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cached_tokens": self.cached_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "attempts": self.attempts,
            "requested_at": self.requested_at,
            "first_token_ms": self.first_token_ms,
            "elapsed_ms": self.elapsed_ms,
            "tags": self.tags,
            "key_id": self.key_id,
            "signature": self.signature,
            "signed_digest": self.signed_digest,
            "deadline": self.deadline,
            "cost": self.cost,
            "cache_write_tokens": self.cache_write_tokens,
            "usage_estimated": self.usage_estimated,
            "saved_tokens": self.saved_tokens,
            "streamed": self.streamed,
            "status": self.status,
            "judgements": self.judgements,
            "rule": self.rule,
            "connection": self.connection,
            "row_id": self.row_id,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> InferenceRecorded:
        """Returns the event that fastavro read."""
        return cls(
            request_id=record["request_id"],
            tenant=record["tenant"],
            principal=record["principal"],
            endpoint=record["endpoint"],
            route=record["route"],
            model=record["model"],
            entity=record["entity"],
            adapter=record["adapter"],
            outcome=Outcome(record["outcome"]),
            reason=record["reason"],
            message=record["message"],
            request=record["request"],
            response=record["response"],
            finish_reason=record["finish_reason"],
            prompt_tokens=record["prompt_tokens"],
            completion_tokens=record["completion_tokens"],
            cached_tokens=record["cached_tokens"],
            reasoning_tokens=record["reasoning_tokens"],
            attempts=record["attempts"],
            requested_at=record["requested_at"],
            first_token_ms=record["first_token_ms"],
            elapsed_ms=record["elapsed_ms"],
            tags=record["tags"],
            key_id=record["key_id"],
            signature=record["signature"],
            signed_digest=record["signed_digest"],
            deadline=record["deadline"],
            cost=record["cost"],
            cache_write_tokens=record["cache_write_tokens"],
            usage_estimated=record["usage_estimated"],
            saved_tokens=record["saved_tokens"],
            streamed=record["streamed"],
            status=record["status"],
            judgements=record["judgements"],
            rule=record["rule"],
            connection=record["connection"],
            row_id=record["row_id"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class InferenceRefused(Event):
    """The gateway refused a request before any route was tried.

    Attributes:
        request: The request; without messages and tools where it was refused for its size.
        refusal: Why.
        signed: The signature that the request came with, valid or not.
        refused_at: When.
        decision_id: Names the decision on one record of a request, and no other, however often
            the record is read; empty in events older than this field.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.InferenceRefused"

    request: InferenceRequested
    refusal: Refusal
    signed: Signed | None = None
    refused_at: datetime
    decision_id: str = ''

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            self.request.to_bytes(),
            self.refusal.to_bytes(),
            binary.ABSENT if self.signed is None else binary.PRESENT + self.signed.to_bytes(),
            binary.millis(self.refused_at),
            binary.text(self.decision_id),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "request": self.request.to_avro(),
            "refusal": self.refusal.to_avro(),
            "signed": None if self.signed is None else self.signed.to_avro(),
            "refused_at": self.refused_at,
            "decision_id": self.decision_id,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> InferenceRefused:
        """Returns the event that fastavro read."""
        return cls(
            request=InferenceRequested.from_avro(record["request"]),
            refusal=Refusal.from_avro(record["refusal"]),
            signed=None if record["signed"] is None else Signed.from_avro(record["signed"]),
            refused_at=record["refused_at"],
            decision_id=record["decision_id"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class InferenceReplied(Event):
    """What the caller receives: exactly one of delta, completion, result and refusal is set. All
    but the first are terminal, and each request gets one terminal reply.

    Attributes:
        request_id: The request it answers. Also the record key.
        attempt: Which try of a route it comes from; a higher one restarts at seq 0 and voids
            the parts of lower ones.
        epoch: When the worker took the request up, in milliseconds since 1970; a later one,
            after a crash, voids the parts of earlier ones.
        seq: Position in the attempt, from 0 without gaps; of a terminal reply, the number of
            parts before it.
        delta: A part: what is new.
        completion: Terminal: the whole answer.
        refusal: Terminal: why there is no answer.
        result: Terminal: what a command came to, as JSON text.
        tried: Terminal: the routes that failed before.
        claim: Terminal: names the signed record that it is to (infra/signing.py says how);
            empty where that was not signed, null where nothing is said. Not yours: it is to a
            record of another under the same id.
        replied_at: When it was sent.
        cost_usd: Terminal: US dollars of all tries, and of all that an agent asked for it; null
            where a price is unknown, and where nothing was tried.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.InferenceReplied"

    request_id: str
    attempt: int = 0
    epoch: int = 0
    seq: int = 0
    delta: Delta | None = None
    completion: Completion | None = None
    refusal: Refusal | None = None
    result: str | None = None
    tried: tuple[Attempt, ...] = ()
    claim: str | None = None
    replied_at: datetime
    cost_usd: Decimal | None = None

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.request_id),
            binary.long(self.attempt),
            binary.long(self.epoch),
            binary.long(self.seq),
            binary.ABSENT if self.delta is None else binary.PRESENT + self.delta.to_bytes(),
            binary.ABSENT if self.completion is None else binary.PRESENT + self.completion.to_bytes(),
            binary.ABSENT if self.refusal is None else binary.PRESENT + self.refusal.to_bytes(),
            binary.ABSENT if self.result is None else binary.PRESENT + binary.text(self.result),
            binary.items([item.to_bytes() for item in self.tried]),
            binary.ABSENT if self.claim is None else binary.PRESENT + binary.text(self.claim),
            binary.millis(self.replied_at),
            binary.ABSENT if self.cost_usd is None else binary.PRESENT + binary.decimal(self.cost_usd, 38, 12),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "request_id": self.request_id,
            "attempt": self.attempt,
            "epoch": self.epoch,
            "seq": self.seq,
            "delta": None if self.delta is None else self.delta.to_avro(),
            "completion": None if self.completion is None else self.completion.to_avro(),
            "refusal": None if self.refusal is None else self.refusal.to_avro(),
            "result": self.result,
            "tried": [item.to_avro() for item in self.tried],
            "claim": self.claim,
            "replied_at": self.replied_at,
            "cost_usd": self.cost_usd,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> InferenceReplied:
        """Returns the event that fastavro read."""
        return cls(
            request_id=record["request_id"],
            attempt=record["attempt"],
            epoch=record["epoch"],
            seq=record["seq"],
            delta=None if record["delta"] is None else Delta.from_avro(record["delta"]),
            completion=None if record["completion"] is None else Completion.from_avro(record["completion"]),
            refusal=None if record["refusal"] is None else Refusal.from_avro(record["refusal"]),
            result=record["result"],
            tried=tuple([Attempt.from_avro(item) for item in record["tried"]]),
            claim=record["claim"],
            replied_at=record["replied_at"],
            cost_usd=record["cost_usd"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class InferenceWeighed(Event):
    """The gateway admitted a request as far as its tenant goes; limits that tenants share are
    still to be asked, each where it is counted.

    Attributes:
        routed: What goes on its route when all agree; what is reserved so far is among its
            charges.
        asks: Charges still to be reserved, by home; the first one's home is the record key.
        trace_id: W3C trace id of the request.
        weighed_at: When.
        mirrors: Routes that get a copy when all agree.
        answer: What is kept as its answer, masked: given when all agree, and no route is tried.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.InferenceWeighed"

    routed: InferenceRouted
    asks: tuple[Charge, ...]
    trace_id: str | None = None
    weighed_at: datetime
    mirrors: tuple[Route, ...] = ()
    answer: Completion | None = None

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            self.routed.to_bytes(),
            binary.items([item.to_bytes() for item in self.asks]),
            binary.ABSENT if self.trace_id is None else binary.PRESENT + binary.text(self.trace_id),
            binary.millis(self.weighed_at),
            binary.items([item.to_bytes() for item in self.mirrors]),
            binary.ABSENT if self.answer is None else binary.PRESENT + self.answer.to_bytes(),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "routed": self.routed.to_avro(),
            "asks": [item.to_avro() for item in self.asks],
            "trace_id": self.trace_id,
            "weighed_at": self.weighed_at,
            "mirrors": [item.to_avro() for item in self.mirrors],
            "answer": None if self.answer is None else self.answer.to_avro(),
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> InferenceWeighed:
        """Returns the event that fastavro read."""
        return cls(
            routed=InferenceRouted.from_avro(record["routed"]),
            asks=tuple([Charge.from_avro(item) for item in record["asks"]]),
            trace_id=record["trace_id"],
            weighed_at=record["weighed_at"],
            mirrors=tuple([Route.from_avro(item) for item in record["mirrors"]]),
            answer=None if record["answer"] is None else Completion.from_avro(record["answer"]),
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class Reserved(Event):
    """What one charge has reserved.

    Attributes:
        charge_id: The charge.
        amount: How much.
        until: End of the lease.
        grain: Grain that it is booked in already; -1 for what is only held.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.Reserved"

    charge_id: str
    amount: int
    until: datetime
    grain: int = -1

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.charge_id),
            binary.long(self.amount),
            binary.millis(self.until),
            binary.long(self.grain),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "charge_id": self.charge_id,
            "amount": self.amount,
            "until": self.until,
            "grain": self.grain,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Reserved:
        """Returns the event that fastavro read."""
        return cls(
            charge_id=record["charge_id"],
            amount=record["amount"],
            until=record["until"],
            grain=record["grain"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class Sum(Event):
    """What was used within one grain of a window.

    Attributes:
        grain: Number of the grain since 1970; a window has 60.
        amount: How much.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.Sum"

    grain: int
    amount: int

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.long(self.grain),
            binary.long(self.amount),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "grain": self.grain,
            "amount": self.amount,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Sum:
        """Returns the event that fastavro read."""
        return cls(
            grain=record["grain"],
            amount=record["amount"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class UsageCounted(Event):
    """An entry of the ledger that limits are decided by: counters are the sum of such entries.
    Applied twice it counts once.

    Attributes:
        charge_id: What it is about: the decision on one record.
        home: Whose partition keeps the counters: a tenant, or a counter that tenants share.
            Also the record key.
        shared: Whether tenants share the counters.
        tenant: Who pays.
        request_id: The request.
        entry: What happened.
        charges: What is reserved, or what was really used.
        refusal: What the caller was told, where it was refused.
        judgements: What rules that are only evaluated found, where it goes on: told again when
            its record is read again.
        at: When it counts from.
        until: End of the lease: what is only reserved counts no longer.
        fence: Offset of the entry TAKEN by which who decides took the partition over; a
            decision under another than the latest is void. -1 for what is no decision.
        place: Offset of the record that was decided on; -1 for what is no decision.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.UsageCounted"

    charge_id: str
    home: str
    shared: bool = False
    tenant: str
    request_id: str
    entry: Entry
    charges: tuple[Charge, ...] = ()
    refusal: Refusal | None = None
    judgements: tuple[Judgement, ...] = ()
    at: datetime
    until: datetime
    fence: int = -1
    place: int = -1

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.charge_id),
            binary.text(self.home),
            binary.BOOLEANS[self.shared],
            binary.text(self.tenant),
            binary.text(self.request_id),
            _ENTRY[self.entry],
            binary.items([item.to_bytes() for item in self.charges]),
            binary.ABSENT if self.refusal is None else binary.PRESENT + self.refusal.to_bytes(),
            binary.items([item.to_bytes() for item in self.judgements]),
            binary.millis(self.at),
            binary.millis(self.until),
            binary.long(self.fence),
            binary.long(self.place),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "charge_id": self.charge_id,
            "home": self.home,
            "shared": self.shared,
            "tenant": self.tenant,
            "request_id": self.request_id,
            "entry": self.entry,
            "charges": [item.to_avro() for item in self.charges],
            "refusal": None if self.refusal is None else self.refusal.to_avro(),
            "judgements": [item.to_avro() for item in self.judgements],
            "at": self.at,
            "until": self.until,
            "fence": self.fence,
            "place": self.place,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> UsageCounted:
        """Returns the event that fastavro read."""
        return cls(
            charge_id=record["charge_id"],
            home=record["home"],
            shared=record["shared"],
            tenant=record["tenant"],
            request_id=record["request_id"],
            entry=Entry(record["entry"]),
            charges=tuple([Charge.from_avro(item) for item in record["charges"]]),
            refusal=None if record["refusal"] is None else Refusal.from_avro(record["refusal"]),
            judgements=tuple([Judgement.from_avro(item) for item in record["judgements"]]),
            at=record["at"],
            until=record["until"],
            fence=record["fence"],
            place=record["place"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class UsageSummed(Event):
    """One counter as it stood at an offset of the ledger, so that who takes it over need not
    read the ledger from its beginning.

    Attributes:
        counter: The counter; or a partition of the ledger, which says up to where all counters
            of it are summed. Also the record key.
        home: Whose partition keeps it.
        shared: Whether tenants share it.
        unit: What it counts.
        window_ms: How far back use counts.
        sums: Use by time.
        reserved: What is reserved and not settled.
        ledger_partition: Partition of the ledger that it sums.
        ledger_offset: Offset of the ledger up to which it sums, exclusive.
        fence: Offset of the latest takeover of the partition then.
        summed_at: When.
    """

    SCHEMA: ClassVar[str] = "tessera.inference.UsageSummed"

    counter: str
    home: str
    shared: bool = False
    unit: str
    window_ms: int
    sums: tuple[Sum, ...]
    reserved: tuple[Reserved, ...] = ()
    ledger_partition: int
    ledger_offset: int
    fence: int = -1
    summed_at: datetime

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.counter),
            binary.text(self.home),
            binary.BOOLEANS[self.shared],
            binary.text(self.unit),
            binary.long(self.window_ms),
            binary.items([item.to_bytes() for item in self.sums]),
            binary.items([item.to_bytes() for item in self.reserved]),
            binary.long(self.ledger_partition),
            binary.long(self.ledger_offset),
            binary.long(self.fence),
            binary.millis(self.summed_at),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "counter": self.counter,
            "home": self.home,
            "shared": self.shared,
            "unit": self.unit,
            "window_ms": self.window_ms,
            "sums": [item.to_avro() for item in self.sums],
            "reserved": [item.to_avro() for item in self.reserved],
            "ledger_partition": self.ledger_partition,
            "ledger_offset": self.ledger_offset,
            "fence": self.fence,
            "summed_at": self.summed_at,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> UsageSummed:
        """Returns the event that fastavro read."""
        return cls(
            counter=record["counter"],
            home=record["home"],
            shared=record["shared"],
            unit=record["unit"],
            window_ms=record["window_ms"],
            sums=tuple([Sum.from_avro(item) for item in record["sums"]]),
            reserved=tuple([Reserved.from_avro(item) for item in record["reserved"]]),
            ledger_partition=record["ledger_partition"],
            ledger_offset=record["ledger_offset"],
            fence=record["fence"],
            summed_at=record["summed_at"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class ApprovalWanted(Event):
    """Something waits for a person's approval.

    Attributes:
        approval_id: Names what is to be decided: the same however often its cause is read.
        tenant: Who pays for what waits. Also the record key.
        request_id: The request that waits, or whose answer does.
        principal: Who asked for it; may not decide.
        endpoint: What was asked.
        stage: What waits: input for a request, output for an answer.
        rules: Rules that want it: policy/rule.
        question: What is to be decided, in words; never the text that it is about.
        deciders: Objects of the catalog: who manages one of them may decide.
        held: What goes on when it is granted; null where who wants it waits for the decision
            itself.
        wanted_at: When.
        until: When it counts as denied.
        reply_to: Reply topic that is told the decision where nothing is held: as an
            InferenceReplied under the request's id whose result is a JSON object of granted,
            principal and reason.
    """

    SCHEMA: ClassVar[str] = "tessera.ops.ApprovalWanted"

    approval_id: str
    tenant: str
    request_id: str
    principal: str
    endpoint: str = ''
    stage: str = ''
    rules: tuple[str, ...] = ()
    question: str
    deciders: tuple[str, ...] = ()
    held: InferenceHeld | None = None
    wanted_at: datetime
    until: datetime
    reply_to: str | None = None

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.approval_id),
            binary.text(self.tenant),
            binary.text(self.request_id),
            binary.text(self.principal),
            binary.text(self.endpoint),
            binary.text(self.stage),
            binary.items([binary.text(item) for item in self.rules]),
            binary.text(self.question),
            binary.items([binary.text(item) for item in self.deciders]),
            binary.ABSENT if self.held is None else binary.PRESENT + self.held.to_bytes(),
            binary.millis(self.wanted_at),
            binary.millis(self.until),
            binary.ABSENT if self.reply_to is None else binary.PRESENT + binary.text(self.reply_to),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "approval_id": self.approval_id,
            "tenant": self.tenant,
            "request_id": self.request_id,
            "principal": self.principal,
            "endpoint": self.endpoint,
            "stage": self.stage,
            "rules": self.rules,
            "question": self.question,
            "deciders": self.deciders,
            "held": None if self.held is None else self.held.to_avro(),
            "wanted_at": self.wanted_at,
            "until": self.until,
            "reply_to": self.reply_to,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> ApprovalWanted:
        """Returns the event that fastavro read."""
        return cls(
            approval_id=record["approval_id"],
            tenant=record["tenant"],
            request_id=record["request_id"],
            principal=record["principal"],
            endpoint=record["endpoint"],
            stage=record["stage"],
            rules=tuple(record["rules"]),
            question=record["question"],
            deciders=tuple(record["deciders"]),
            held=None if record["held"] is None else InferenceHeld.from_avro(record["held"]),
            wanted_at=record["wanted_at"],
            until=record["until"],
            reply_to=record["reply_to"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class ApprovalGiven(Event):
    """Somebody grants or denies an approval, which may be refused. The record is signed as
    requests are.

    Attributes:
        given_id: Unique id chosen by the caller; the reply comes under it.
        approval_id: What is decided.
        tenant: Who pays for what waits, whoever decides. Also the record key.
        granted: Whether it may go on.
        principal: Who decides; empty for whoever signed.
        reason: Why, in words for who asked.
        reply_to: Reply topic of the tenant that the decider acts for.
        given_at: When.
        deadline: When a reply stops being of use; nothing is decided after it.
    """

    SCHEMA: ClassVar[str] = "tessera.ops.ApprovalGiven"

    given_id: str
    approval_id: str
    tenant: str
    granted: bool
    principal: str = ''
    reason: str = ''
    reply_to: str
    given_at: datetime
    deadline: datetime

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.given_id),
            binary.text(self.approval_id),
            binary.text(self.tenant),
            binary.BOOLEANS[self.granted],
            binary.text(self.principal),
            binary.text(self.reason),
            binary.text(self.reply_to),
            binary.millis(self.given_at),
            binary.millis(self.deadline),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "given_id": self.given_id,
            "approval_id": self.approval_id,
            "tenant": self.tenant,
            "granted": self.granted,
            "principal": self.principal,
            "reason": self.reason,
            "reply_to": self.reply_to,
            "given_at": self.given_at,
            "deadline": self.deadline,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> ApprovalGiven:
        """Returns the event that fastavro read."""
        return cls(
            given_id=record["given_id"],
            approval_id=record["approval_id"],
            tenant=record["tenant"],
            granted=record["granted"],
            principal=record["principal"],
            reason=record["reason"],
            reply_to=record["reply_to"],
            given_at=record["given_at"],
            deadline=record["deadline"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class ApprovalDecided(Event):
    """An approval is granted, denied, or was not given in time. Of several about one, the first
    on the log counts.

    Attributes:
        approval_id: What is decided.
        tenant: Who pays for what waits. Also the record key.
        wanted: What waited.
        granted: Whether it goes on.
        principal: Who decided, as proven; empty where nobody did in time.
        given: What that one said; null where nobody did in time.
        signed: What proves who decided.
        decided_at: When.
    """

    SCHEMA: ClassVar[str] = "tessera.ops.ApprovalDecided"

    approval_id: str
    tenant: str
    wanted: ApprovalWanted
    granted: bool
    principal: str = ''
    given: ApprovalGiven | None = None
    signed: Signed | None = None
    decided_at: datetime

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.approval_id),
            binary.text(self.tenant),
            self.wanted.to_bytes(),
            binary.BOOLEANS[self.granted],
            binary.text(self.principal),
            binary.ABSENT if self.given is None else binary.PRESENT + self.given.to_bytes(),
            binary.ABSENT if self.signed is None else binary.PRESENT + self.signed.to_bytes(),
            binary.millis(self.decided_at),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "approval_id": self.approval_id,
            "tenant": self.tenant,
            "wanted": self.wanted.to_avro(),
            "granted": self.granted,
            "principal": self.principal,
            "given": None if self.given is None else self.given.to_avro(),
            "signed": None if self.signed is None else self.signed.to_avro(),
            "decided_at": self.decided_at,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> ApprovalDecided:
        """Returns the event that fastavro read."""
        return cls(
            approval_id=record["approval_id"],
            tenant=record["tenant"],
            wanted=ApprovalWanted.from_avro(record["wanted"]),
            granted=record["granted"],
            principal=record["principal"],
            given=None if record["given"] is None else ApprovalGiven.from_avro(record["given"]),
            signed=None if record["signed"] is None else Signed.from_avro(record["signed"]),
            decided_at=record["decided_at"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class AuditRecorded(Event):
    """Somebody did, or was kept from doing, what an auditor asks about. One row of the audit
    table.

    Attributes:
        audit_id: Derived from its cause, so that a repeated record is one row. Also the record
            key.
        at: When; its date (UTC) is the table's partition.
        source: Process that tells it: gateway, catalog, inference.
        principal: Who; empty where nobody could be made out.
        tenant: Who pays, as claimed or known.
        key_id: Signing key that the request named.
        action: What: catalog.create, catalog.grant, request.refused, secret.used.
        kind: Kind of the object: endpoint, tenant, connection.
        name: Full name of the object.
        outcome: How it ended.
        reason: Why it was denied or failed.
        before: The object before, as JSON text.
        after: The object after, as JSON text.
        request_id: The request that caused it.
        trace_id: W3C trace id of the request.
    """

    SCHEMA: ClassVar[str] = "tessera.ops.AuditRecorded"

    audit_id: str
    at: datetime
    source: str
    principal: str = ''
    tenant: str = ''
    key_id: str | None = None
    action: str
    kind: str = ''
    name: str = ''
    outcome: AuditOutcome
    reason: str | None = None
    before: str | None = None
    after: str | None = None
    request_id: str | None = None
    trace_id: str | None = None

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.audit_id),
            binary.millis(self.at),
            binary.text(self.source),
            binary.text(self.principal),
            binary.text(self.tenant),
            binary.ABSENT if self.key_id is None else binary.PRESENT + binary.text(self.key_id),
            binary.text(self.action),
            binary.text(self.kind),
            binary.text(self.name),
            _AUDITOUTCOME[self.outcome],
            binary.ABSENT if self.reason is None else binary.PRESENT + binary.text(self.reason),
            binary.ABSENT if self.before is None else binary.PRESENT + binary.text(self.before),
            binary.ABSENT if self.after is None else binary.PRESENT + binary.text(self.after),
            binary.ABSENT if self.request_id is None else binary.PRESENT + binary.text(self.request_id),
            binary.ABSENT if self.trace_id is None else binary.PRESENT + binary.text(self.trace_id),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "audit_id": self.audit_id,
            "at": self.at,
            "source": self.source,
            "principal": self.principal,
            "tenant": self.tenant,
            "key_id": self.key_id,
            "action": self.action,
            "kind": self.kind,
            "name": self.name,
            "outcome": self.outcome,
            "reason": self.reason,
            "before": self.before,
            "after": self.after,
            "request_id": self.request_id,
            "trace_id": self.trace_id,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> AuditRecorded:
        """Returns the event that fastavro read."""
        return cls(
            audit_id=record["audit_id"],
            at=record["at"],
            source=record["source"],
            principal=record["principal"],
            tenant=record["tenant"],
            key_id=record["key_id"],
            action=record["action"],
            kind=record["kind"],
            name=record["name"],
            outcome=AuditOutcome(record["outcome"]),
            reason=record["reason"],
            before=record["before"],
            after=record["after"],
            request_id=record["request_id"],
            trace_id=record["trace_id"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class Header(Event):
    """One Kafka header.

    Attributes:
        key: Name.
        value: Value; any bytes.
    """

    SCHEMA: ClassVar[str] = "tessera.ops.Header"

    key: str
    value: bytes | None = None

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.key),
            binary.ABSENT if self.value is None else binary.PRESENT + binary.raw(self.value),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "key": self.key,
            "value": self.value,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Header:
        """Returns the event that fastavro read."""
        return cls(
            key=record["key"],
            value=record["value"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class RecordDeadLettered(Event):
    """A record could not be read or processed; here it is, byte for byte.

    Attributes:
        topic: Where the record lay.
        partition: Its partition.
        offset: Its offset.
        key: Its key.
        value: Its value.
        headers: Its headers, in order.
        processor: Consumer group that gave it up.
        cause: What went wrong.
        message: The error in words, without the record's content.
        dead_lettered_at: When it was given up.
    """

    SCHEMA: ClassVar[str] = "tessera.ops.RecordDeadLettered"

    topic: str
    partition: int
    offset: int
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[Header, ...] = ()
    processor: str
    cause: DeadLetterCause
    message: str
    dead_lettered_at: datetime

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.topic),
            binary.long(self.partition),
            binary.long(self.offset),
            binary.ABSENT if self.key is None else binary.PRESENT + binary.raw(self.key),
            binary.ABSENT if self.value is None else binary.PRESENT + binary.raw(self.value),
            binary.items([item.to_bytes() for item in self.headers]),
            binary.text(self.processor),
            _DEADLETTERCAUSE[self.cause],
            binary.text(self.message),
            binary.millis(self.dead_lettered_at),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "key": self.key,
            "value": self.value,
            "headers": [item.to_avro() for item in self.headers],
            "processor": self.processor,
            "cause": self.cause,
            "message": self.message,
            "dead_lettered_at": self.dead_lettered_at,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> RecordDeadLettered:
        """Returns the event that fastavro read."""
        return cls(
            topic=record["topic"],
            partition=record["partition"],
            offset=record["offset"],
            key=record["key"],
            value=record["value"],
            headers=tuple([Header.from_avro(item) for item in record["headers"]]),
            processor=record["processor"],
            cause=DeadLetterCause(record["cause"]),
            message=record["message"],
            dead_lettered_at=record["dead_lettered_at"],
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class RequestCancelled(Event):
    """A caller no longer wants an answer. Broadcast; every worker remembers it until the
    deadline.

    Attributes:
        request_id: The request. Also the record key.
        tenant: Who asked for it; a cancellation by another tenant is ignored.
        cancelled_at: When.
        deadline: The request's deadline: until then it is remembered.
    """

    SCHEMA: ClassVar[str] = "tessera.ops.RequestCancelled"

    request_id: str
    tenant: str
    cancelled_at: datetime
    deadline: datetime

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        return b"".join((
            binary.text(self.request_id),
            binary.text(self.tenant),
            binary.millis(self.cancelled_at),
            binary.millis(self.deadline),
        ))

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        return {
            "request_id": self.request_id,
            "tenant": self.tenant,
            "cancelled_at": self.cancelled_at,
            "deadline": self.deadline,
        }

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> RequestCancelled:
        """Returns the event that fastavro read."""
        return cls(
            request_id=record["request_id"],
            tenant=record["tenant"],
            cancelled_at=record["cancelled_at"],
            deadline=record["deadline"],
        )


EVENTS: dict[str, type[Event]] = {
    "tessera.agents.AgentJournaled": AgentJournaled,
    "tessera.agents.AgentTold": AgentTold,
    "tessera.agents.AgentsSnapshotted": AgentsSnapshotted,
    "tessera.catalog.CatalogChanged": CatalogChanged,
    "tessera.catalog.CatalogWanted": CatalogWanted,
    "tessera.catalog.LineageRecorded": LineageRecorded,
    "tessera.index.IndexReconciled": IndexReconciled,
    "tessera.index.IndexReported": IndexReported,
    "tessera.index.SourceReported": SourceReported,
    "tessera.inference.Completion": Completion,
    "tessera.inference.CompletionCached": CompletionCached,
    "tessera.inference.Delta": Delta,
    "tessera.inference.InferenceAttempted": InferenceAttempted,
    "tessera.inference.InferenceCompleted": InferenceCompleted,
    "tessera.inference.InferenceHeld": InferenceHeld,
    "tessera.inference.InferenceJudged": InferenceJudged,
    "tessera.inference.InferencePart": InferencePart,
    "tessera.inference.InferenceRecorded": InferenceRecorded,
    "tessera.inference.InferenceRefused": InferenceRefused,
    "tessera.inference.InferenceReplied": InferenceReplied,
    "tessera.inference.InferenceRequested": InferenceRequested,
    "tessera.inference.InferenceRouted": InferenceRouted,
    "tessera.inference.InferenceWeighed": InferenceWeighed,
    "tessera.inference.Refusal": Refusal,
    "tessera.inference.UsageCounted": UsageCounted,
    "tessera.inference.UsageSummed": UsageSummed,
    "tessera.ops.ApprovalDecided": ApprovalDecided,
    "tessera.ops.ApprovalGiven": ApprovalGiven,
    "tessera.ops.ApprovalWanted": ApprovalWanted,
    "tessera.ops.AuditRecorded": AuditRecorded,
    "tessera.ops.RecordDeadLettered": RecordDeadLettered,
    "tessera.ops.RequestCancelled": RequestCancelled,
}
