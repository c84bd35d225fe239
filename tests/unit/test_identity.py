"""Who asks, case by case: what proves it, what does not, and what is said of each."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from infra.catalog import CatalogView
from infra.identity import SKEW
from infra.signing import Signature, Signer, claim, claimed, generate, is_genuine, milliseconds
from schemas import topics
from schemas.events import (
    AuditOutcome,
    AuditRecorded,
    Completion,
    FinishReason,
    InferenceRecorded,
    InferenceRefused,
    InferenceReplied,
    InferenceRequested,
    InferenceRouted,
    Message,
    Reason,
    Role,
    Usage,
)
from schemas.topics import INFERENCE_REQUESTED
from streams.gateway.asked import Asked
from streams.gateway.rows import record_refusal
from tests.seed import view_of
from tests.unit.asking import CATALOG, LIMITS, MINUTE, NOON, ask, asked, completed, only
from tests.unit.deciding import admit, release

TOPIC = INFERENCE_REQUESTED.name
VALUE = b"the request as it lay on the log"
NAMES = ("agents", "alice", "early", "gone", "late", "mallory", "sealed", "stranger", "team")
SIGNERS = {name: Signer(generate()) for name in NAMES}
SECOND = timedelta(seconds=1)


def key(name: str, **more: str) -> dict[str, str]:
    return {"public_key": base64.b64encode(SIGNERS[name].public_key).decode(), **more}


def user(name: str, tenant: str, **more: str) -> dict[str, Any]:
    return {"kind": "user", "name": name, "spec": {"tenant": tenant}, "keys": [key(name, **more)]}


OPEN = [each for each in CATALOG if each["kind"] not in {"catalog", "schema", "tenant"}]
DOCUMENTS: list[dict[str, Any]] = [
    *OPEN,
    {"kind": "catalog", "name": "main", "grants": {"acme": ["USE"]}},
    {"kind": "schema", "name": "main.tests", "grants": {"acme": ["QUERY", "USE"]}},
    {"kind": "catalog", "name": "hidden"},
    {"kind": "schema", "name": "hidden.away", "grants": {"alice": ["BROWSE"]}},
    {"kind": "endpoint", "name": "hidden.away.one", "spec": CATALOG[2]["spec"]},
    {"kind": "schema", "name": "hidden.deep"},
    {"kind": "endpoint", "name": "hidden.deep.two", "spec": CATALOG[2]["spec"]},
    {"kind": "tenant", "name": "acme", "keys": [key("team")]},
    {"kind": "tenant", "name": "other"},
    user("alice", "acme"),
    user("early", "acme", not_before=(NOON + SKEW + SECOND).isoformat()),
    user("late", "acme", expires_at=NOON.isoformat()),
    user("mallory", "other"),
    user("sealed", "acme", revoked_at=(NOON + SKEW).isoformat()),
    {
        "kind": "user",
        "name": "closed",
        "spec": {"tenant": "acme"},
        "keys": [key("gone") | {"principal": "gone"}],
    },
]
VIEW = view_of(DOCUMENTS, LIMITS)


def signature(
    by: str, request: InferenceRequested, *, topic: str = TOPIC, as_tenant: str | None = None
) -> Signature:
    record_key = (as_tenant or request.tenant).encode()
    signed = claimed(SIGNERS[by].headers(topic, record_key, request.deadline, VALUE), VALUE)
    assert signed is not None
    return signed


def question(**changes: Any) -> InferenceRequested:
    return ask(**{"principal": "", **changes})


def signed(by: str = "alice", *, given: dict[str, Any] | None = None, **changes: Any) -> Asked:
    """Returns a request that somebody signed."""
    request = question(**changes)
    return asked(request, signed=signature(by, request), **(given or {}))


def forged(**changes: Any) -> Asked:
    """Returns a signed request whose signature was changed on the way."""
    good = signed()
    assert good.signed is not None
    return replace(good, signed=replace(good.signed, **changes))


def resigned(**otherwise: Any) -> Asked:
    request = question()
    return asked(request, signed=signature("alice", request, **otherwise))


# What proves nothing: the request as it comes, the reason, and a word that says what to do.
UNPROVEN: dict[str, tuple[Asked, Reason, str]] = {
    "a copy": (signed(given={"replayed": True}), Reason.SIGNATURE_REPLAYED, "new request id"),
    "a copy by a key that is revoked by now": (
        signed("sealed", given={"replayed": True}),
        Reason.SIGNATURE_REPLAYED,
        "new request id",
    ),
    "a deadline that is another": (
        replace(signed(), request=question(deadline=NOON + 2 * MINUTE)),
        Reason.SIGNATURE_INVALID,
        "tessera-deadline",
    ),
    "a foreign principal": (signed(principal="ann"), Reason.PRINCIPAL_FOREIGN, "leave principal"),
    "a foreign tenant": (signed("mallory"), Reason.PRINCIPAL_FOREIGN, "does not act for acme"),
    "a key before its time": (signed("early"), Reason.KEY_EXPIRED, "not count before"),
    "a key of nobody": (signed("gone"), Reason.PRINCIPAL_FOREIGN, "no principal 'gone'"),
    "a key past its time": (signed("late"), Reason.KEY_EXPIRED, "use another"),
    "a key that is revoked": (signed("sealed"), Reason.KEY_REVOKED, "use another"),
    "a key that nobody knows": (signed("stranger"), Reason.KEY_UNKNOWN, "create it"),
    "a key that is another's": (
        forged(key_id=SIGNERS["team"].key_id),
        Reason.SIGNATURE_INVALID,
        "over this value",
    ),
    "a signature for another record key": (
        resigned(as_tenant="other"),
        Reason.SIGNATURE_INVALID,
        "the tenant as key",
    ),
    "a signature for another topic": (
        resigned(topic="catalog.wanted.v1"),
        Reason.SIGNATURE_INVALID,
        TOPIC,
    ),
    "a signature of zeros": (forged(signature=bytes(64)), Reason.SIGNATURE_INVALID, "over this"),
    "a value that is another": (forged(digest=bytes(32)), Reason.SIGNATURE_INVALID, "over this"),
    "no signature": (asked(question()), Reason.SIGNATURE_MISSING, "CLIENT_KEY"),
    "no signature and a name": (asked(ask(principal="alice")), Reason.SIGNATURE_MISSING, "signed"),
}


@pytest.mark.parametrize("what", UNPROVEN)
def test_what_proves_not_who_sent_it_is_refused_with_a_reply(what: str) -> None:
    given, reason, word = UNPROVEN[what]
    outgoing = list(admit(given, VIEW, NOON))
    [replied] = only(outgoing, topics.REPLY)
    assert replied.refusal.reason is reason
    assert word in replied.refusal.message
    assert replied.request_id == "request"
    assert replied.claim == claim(given.signed)
    assert only(outgoing, topics.INFERENCE_ROUTED) == []


@pytest.mark.parametrize("what", UNPROVEN)
def test_what_proves_not_who_sent_it_has_a_row_of_its_own_or_none(what: str) -> None:
    given, reason, _ = UNPROVEN[what]
    refused = only(admit(given, VIEW, NOON), topics.INFERENCE_REFUSED)
    assert len(refused) == (reason is not Reason.SIGNATURE_REPLAYED)
    for each in refused:
        assert each.request.request_id == given.refused_id != "request"
        assert each.request.principal == given.request.principal, "who is claimed, not believed"
        assert (each.signed is None) == (given.signed is None)


@pytest.mark.parametrize("what", UNPROVEN)
def test_an_auditor_hears_of_what_proves_not_who_sent_it(what: str) -> None:
    given, reason, _ = UNPROVEN[what]
    [audit] = only(admit(given, VIEW, NOON), topics.AUDIT_RECORDED)
    assert isinstance(audit, AuditRecorded)
    assert audit.reason is not None
    assert audit.reason.startswith(f"{reason}: ")
    assert audit == AuditRecorded(
        audit_id=given.refused_id,
        at=NOON,
        source="gateway",
        principal=given.request.principal,
        tenant="acme",
        key_id=given.signed.key_id if given.signed else None,
        action="request.refused",
        kind="endpoint",
        name="main.tests.plain",
        outcome=AuditOutcome.DENIED,
        reason=audit.reason,
        request_id="request",
        trace_id=None,
    )


def test_a_refusal_of_one_record_has_one_id_however_often_it_is_read() -> None:
    here, there = (replace(asked(), place=f"{TOPIC}/0/{offset}") for offset in (7, 8))
    assert here.refused_id == asked().refused_id != there.refused_id


def test_a_forgery_that_is_too_large_spoils_no_row_either() -> None:
    large = (Message(role=Role.USER, content="x" * 2000),)
    for given, proven in ((asked(question(messages=large)), False), (signed(messages=large), True)):
        outgoing = list(admit(given, VIEW, NOON))
        [refused] = only(outgoing, topics.INFERENCE_REFUSED)
        [replied] = only(outgoing, topics.REPLY)
        assert replied.claim == claim(given.signed)
        assert refused.refusal.reason is Reason.REQUEST_TOO_LARGE
        assert (refused.request.request_id == "request") is proven


def test_a_record_too_large_to_be_moved_is_refused_wherever_it_lies() -> None:
    most = INFERENCE_REQUESTED.max_bytes // 2
    assert reasons(signed(given={"size": most})) == [None]
    assert reasons(signed(given={"size": most + 1})) == [Reason.REQUEST_TOO_LARGE]


def reasons(given: Asked, view: CatalogView = VIEW, now: datetime = NOON) -> list[Reason | None]:
    """Returns the reason of the refusal, or None where the request is routed."""
    return [
        event.refusal.reason if isinstance(event, InferenceReplied) and event.refusal else None
        for _, event in admit(given, view, now)
        if isinstance(event, InferenceReplied | InferenceRouted)
    ]


@pytest.mark.parametrize(
    ("by", "named", "acts"),
    [
        ("alice", "", "alice"),
        ("alice", "alice", "alice"),
        ("team", "", "acme"),
        ("team", "acme", "acme"),
    ],
)
def test_an_admitted_request_carries_who_signed_it(by: str, named: str, acts: str) -> None:
    given = signed(by, principal=named)
    [(_, routed)] = admit(given, VIEW, NOON)
    assert isinstance(routed, InferenceRouted)
    assert routed.request == replace(given.request, principal=acts)
    assert given.signed is not None
    assert routed.signed is not None
    assert routed.signed.key_id == SIGNERS[by].key_id
    assert routed.signed.signature == given.signed.signature
    assert routed.signed.digest == given.signed.digest


def test_a_key_counts_from_its_first_instant_up_to_its_last() -> None:
    assert reasons(signed("early"), now=NOON + SECOND) == [None]
    assert reasons(signed("late"), now=NOON - SECOND) == [None]
    assert reasons(signed("sealed"), now=NOON - SECOND) == [None], "its revocation is planned"


LENIENT = view_of(
    [*DOCUMENTS, {"kind": "tenant", "name": "acme", "spec": {"accept_unsigned": True}}], LIMITS
)


@pytest.mark.parametrize(("named", "acts"), [("", "acme"), ("acme", "acme"), ("alice", "alice")])
def test_a_tenant_that_is_believed_unsigned_is_believed_who_acts(named: str, acts: str) -> None:
    [(_, routed)] = admit(asked(ask(principal=named)), LENIENT, NOON)
    assert isinstance(routed, InferenceRouted)
    assert routed.request.principal == acts
    assert routed.signed is None


@pytest.mark.parametrize("named", ["mallory", "nobody", "other"])
def test_a_tenant_that_is_believed_unsigned_cannot_act_as_anothers_principal(named: str) -> None:
    assert reasons(asked(ask(principal=named)), LENIENT) == [Reason.PRINCIPAL_FOREIGN]


def test_a_signature_is_verified_even_where_none_is_needed() -> None:
    assert reasons(signed(), LENIENT) == [None]
    assert reasons(forged(signature=bytes(64)), LENIENT) == [Reason.SIGNATURE_INVALID]


# Endpoints that mallory, whom nobody granted anything, and alice may not query; and what they hear.
DENIED: dict[str, tuple[str, str, str, Reason]] = {
    "one that alice may only see": (
        "alice",
        "hidden.away.one",
        "QUERY on hidden.away.one is missing",
        Reason.PRIVILEGE_MISSING,
    ),
    "one that alice may not see": (
        "alice",
        "hidden.deep.two",
        "or there is none",
        Reason.PRIVILEGE_MISSING,
    ),
    "one that alice would not see": (
        "alice",
        "hidden.deep.none",
        "or there is none",
        Reason.PRIVILEGE_MISSING,
    ),
    "one that alice would see": (
        "alice",
        "hidden.away.none",
        "there is no endpoint 'hidden.away.none'",
        Reason.ENDPOINT_UNKNOWN,
    ),
    "one in no catalog": ("alice", "no.where.one", "or there is none", Reason.PRIVILEGE_MISSING),
    "one of a great many levels": ("alice", "." * 300, "or there is", Reason.PRIVILEGE_MISSING),
    "one without a name": ("alice", "", "or there is none", Reason.PRIVILEGE_MISSING),
    "one of another tenant's": (
        "mallory",
        "main.tests.plain",
        "or there is none",
        Reason.PRIVILEGE_MISSING,
    ),
    "none of another tenant's": (
        "mallory",
        "main.tests.none",
        "or there is none",
        Reason.PRIVILEGE_MISSING,
    ),
}


@pytest.mark.parametrize("what", DENIED)
def test_who_may_not_query_an_endpoint_learns_only_what_they_may_see(what: str) -> None:
    by, endpoint, word, reason = DENIED[what]
    tenant = "acme" if by == "alice" else "other"
    given = signed(by, endpoint=endpoint, tenant=tenant, reply_to=f"reply.v1.{tenant}")
    outgoing = list(admit(given, VIEW, NOON))
    [replied] = only(outgoing, topics.REPLY)
    assert (replied.refusal.reason, replied.refusal.field) == (reason, "endpoint")
    assert word in replied.refusal.message
    assert replied.claim == claim(given.signed)
    [refused] = only(outgoing, topics.INFERENCE_REFUSED)
    assert (refused.request.request_id, refused.request.principal) == ("request", by)
    audits = only(outgoing, topics.AUDIT_RECORDED)
    assert [each.principal for each in audits] == [by] * (reason is Reason.PRIVILEGE_MISSING)


def test_what_is_hidden_and_what_is_not_there_sound_the_same() -> None:
    said = set()
    for name in ("hidden.deep.two", "hidden.deep.not", "hidden.else.two"):
        [replied] = only(admit(signed(endpoint=name), VIEW, NOON), topics.REPLY)
        said.add(replied.refusal.message.replace(name, "it"))
    assert len(said) == 1


def rows(outgoing: Iterable[Any]) -> list[InferenceRecorded]:
    return only(outgoing, topics.INFERENCE_RECORDED)


def genuine(row: InferenceRecorded) -> bool:
    """Returns what an auditor finds, who has the row and the catalog's keys."""
    assert row.key_id
    assert row.signature
    assert row.signed_digest
    assert row.deadline
    kept = Signature(
        key_id=row.key_id,
        deadline_ms=milliseconds(row.deadline),
        signature=base64.b64decode(row.signature),
        digest=bytes.fromhex(row.signed_digest),
    )
    return is_genuine(kept, VIEW.keys[row.key_id].public_key, TOPIC, row.tenant.encode())


def test_a_row_holds_what_proves_who_asked() -> None:
    [(_, routed)] = admit(signed(), VIEW, NOON)
    assert isinstance(routed, InferenceRouted)
    served = replace(routed, route=replace(routed.route, entity="main.m.one@3", adapter="m.a.b@1"))
    answer = Completion(model="m", content="hi", finish_reason=FinishReason.STOP, usage=Usage())
    [row] = rows(release(completed(routed=served, completion=answer), VIEW, NOON))
    assert (row.principal, row.tenant) == ("alice", "acme")
    assert (row.entity, row.adapter) == ("main.m.one@3", "m.a.b@1")
    assert genuine(row)
    assert not genuine(replace(row, tenant="other"))


def test_the_row_of_a_refusal_holds_the_signature_that_came() -> None:
    for given, proves in ((signed(messages=()), True), (forged(signature=bytes(64)), False)):
        [refused] = only(admit(given, VIEW, NOON), topics.INFERENCE_REFUSED)
        assert isinstance(refused, InferenceRefused)
        [row] = rows(record_refusal(refused, VIEW, NOON))
        assert genuine(row) is proves
        assert json.loads(row.request)["model"] == "main.tests.plain"
    [refused] = only(admit(asked(question()), VIEW, NOON), topics.INFERENCE_REFUSED)
    [row] = rows(record_refusal(refused, VIEW, NOON))
    assert (row.key_id, row.signature, row.signed_digest) == (None, None, None)
