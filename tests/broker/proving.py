"""Requests as their senders sign them, and what comes of each on the log."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from aiokafka.partitioner import murmur2

from infra.signing import Signer, generate
from infra.telemetry import Headers, now
from schemas.events import AuditRecorded, InferenceReplied, InferenceRequested, Reason
from schemas.kinds import Key
from schemas.topics import AUDIT_RECORDED, INFERENCE_REQUESTED, INFERENCE_ROUTED, REPLY
from tests.broker.speaking import Place, put, request
from tests.harness import PATIENCE_S, Bus, eventually
from tests.seed import SEEDED, changed, changes, publish

TENANT, OTHER = "signed", "signedtoo"
REPLIES = REPLY.member(TENANT)
ECHO, QUIET, PRIVATE = "main.tests.echo", "main.tests.vllm", "vault.tests.echo"
ROUTED = INFERENCE_ROUTED.member("echo")
TRACE = "0af7651916cd43dd8448eb211c80319c"
# In the order in which they are published.
NAMES = ("alice", "bob", "carol", "early", "late", "mallory", "runner", "stranger", "sealed")
SIGNERS = {name: Signer(generate()) for name in NAMES}


def key(name: str, **more: Any) -> Key:
    public_key = base64.b64encode(SIGNERS[name].public_key).decode()
    return Key(principal=name, public_key=public_key, **{"not_before": SEEDED, **more})


def enrol(bus: Bus) -> None:
    """Publishes two tenants whose requests must be signed, and their users; a gateway is at work.

    Of them ``runner``, of the other tenant, may ask for everybody. Returns when the gateway knows.
    """
    route = {"name": "local", "pool": "echo", "model": "echo"}
    documents: list[dict[str, Any]] = [
        {"kind": "tenant", "name": TENANT},
        {"kind": "tenant", "name": OTHER},
        {"kind": "root", "name": "*", "grants": {"runner": ["MANAGE"]}},
        {"kind": "catalog", "name": "vault", "grants": {"everyone": ["USE"]}},
        {"kind": "schema", "name": "vault.tests"},
        {"kind": "endpoint", "name": PRIVATE, "spec": {"routes": [route]}},
    ]
    for name in NAMES:
        tenant = OTHER if name in ("mallory", "runner") else TENANT
        documents.append({"kind": "user", "name": name, "spec": {"tenant": tenant}})
    hour = timedelta(hours=1)
    special = {
        "early": key("early", not_before=now() + hour),
        "late": key("late", expires_at=now() - hour),
        "sealed": key("sealed", revoked_at=now() - hour),
    }
    made = changes(documents)
    for name in NAMES:
        if name != "stranger":
            made.append(changed("key", SIGNERS[name].key_id, special.get(name, key(name))))
    publish(bus, *made)

    def is_known() -> bool:
        lay(bus, last := sealed(bus, ask(), "sealed"))
        return reason(replied(bus, last)[0]) is Reason.KEY_REVOKED

    eventually(is_known, 2 * PATIENCE_S, "that the gateway knows the last key")


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it was put on the log."""

    request: InferenceRequested
    value: bytes
    headers: Headers

    @property
    def id(self) -> str:
        return self.request.request_id


def ask(content: str = "hello there", **changes: Any) -> InferenceRequested:
    return request(content, **{"tenant": TENANT, "reply_to": REPLIES.name, **changes})


def sealed(bus: Bus, asked: InferenceRequested, by: str | None = "alice", **options: Any) -> Sent:
    """Returns a request with the headers of somebody's signature."""
    value = bus.codec.encode(asked)
    record_key = options.get("record_key", asked.tenant).encode()
    topic = options.get("topic", INFERENCE_REQUESTED.name)
    signed = SIGNERS[by].headers(topic, record_key, asked.deadline, value) if by else ()
    return Sent(
        asked, value, (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01".encode()), *signed)
    )


def lay(bus: Bus, sent: Sent, **options: Any) -> Place:
    """Puts a request on the log."""
    options.setdefault("headers", list(sent.headers))
    key = sent.request.tenant.encode()
    return put(bus.producer, INFERENCE_REQUESTED.name, key, sent.value, **options)


def home(bus: Bus, tenant: str = TENANT) -> int:
    count = len(bus.admin.list_topics(timeout=30).topics[INFERENCE_REQUESTED.name].partitions)
    return int((murmur2(tenant.encode()) & 0x7FFFFFFF) % count)


def replies(bus: Bus, request_id: str, topic: str = REPLIES.name) -> list[InferenceReplied]:
    """Returns the terminal replies to a request so far."""
    found = (
        bus.codec.decode(record.value, InferenceReplied)
        for record in bus.records(topic)
        if record.key == request_id.encode()
    )
    return [each for each in found if each.delta is None]


def replied(bus: Bus, sent: Sent, count: int = 1) -> list[InferenceReplied]:
    """Waits for so many terminal replies to a request."""
    address = sent.request.reply_to
    eventually(lambda: len(replies(bus, sent.id, address)) >= count, what=f"{count} replies")
    return replies(bus, sent.id, address)


def reason(each: InferenceReplied) -> Reason | None:
    return each.refusal.reason if each.refusal else None


def audits(bus: Bus, request_id: str) -> list[AuditRecorded]:
    return [each for each in bus.events(AUDIT_RECORDED) if each.request_id == request_id]


def routed(bus: Bus, request_id: str) -> int:
    """Returns how often a request was admitted."""
    return sum(record.key == request_id.encode() for record in bus.records(ROUTED.name))
