"""Signed requests on the real gateway: who signed is served, who did not is refused and told of."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from infra.signing import Signature, Signer, generate, is_genuine, milliseconds
from infra.telemetry import now
from schemas.events import (
    AuditOutcome,
    CatalogChanged,
    Completion,
    FinishReason,
    InferenceRecorded,
    InferenceReplied,
    InferenceRequested,
    Reason,
    Usage,
)
from schemas.kinds import Grant, Privilege
from schemas.topics import INFERENCE_RECORDED, INFERENCE_REFUSED, INFERENCE_REQUESTED, REPLY
from streams.client import Client, RequestRefused
from tests.broker.proving import (
    ECHO,
    OTHER,
    PRIVATE,
    QUIET,
    REPLIES,
    SIGNERS,
    TENANT,
    TRACE,
    Sent,
    ask,
    audits,
    enrol,
    key,
    lay,
    reason,
    replied,
    routed,
    sealed,
)
from tests.broker.speaking import request, requests_with, teach
from tests.harness import Bus, Process, eventually, soon, unique
from tests.seed import changed, publish

pytestmark = pytest.mark.stack

# What is promised of a change to the catalog: that it is in force everywhere within five seconds,
# on a machine that does nothing else.
PROMISED_S = 60.0


@pytest.fixture(scope="module", autouse=True)
def people(bus: Bus, gateway: Process, echo: Process) -> None:
    enrol(bus)


def test_a_signed_request_is_answered_and_its_row_proves_who_asked(bus: Bus) -> None:
    sent = sealed(bus, ask())
    lay(bus, sent)
    [answer] = replied(bus, sent)
    assert answer.completion is not None, answer.refusal

    def row() -> list[InferenceRecorded]:
        return bus.events(INFERENCE_RECORDED, sent.id)

    eventually(row, what="the row")
    [found] = row()
    assert (found.principal, found.tenant) == ("alice", TENANT)
    assert found.key_id
    assert found.signature
    assert found.signed_digest
    assert found.deadline
    kept = Signature(
        key_id=found.key_id,
        deadline_ms=milliseconds(found.deadline),
        signature=base64.b64decode(found.signature),
        digest=bytes.fromhex(found.signed_digest),
    )
    public_key = SIGNERS["alice"].public_key
    assert is_genuine(kept, public_key, INFERENCE_REQUESTED.name, found.tenant.encode())
    assert not is_genuine(replace(kept, digest=bytes(32)), public_key, "t", b"k")


def test_who_may_ask_for_others_is_answered_and_the_row_is_theirs(bus: Bus) -> None:
    asked = ask(principal="alice", reply_to=REPLY.member(OTHER).name)
    sent, denied = (
        sealed(bus, each, "runner")
        for each in (asked, replace(asked, request_id=unique("r"), endpoint=PRIVATE))
    )
    for each in (sent, denied):
        lay(bus, each)
    [answer] = replied(bus, sent)
    assert answer.completion is not None, answer.refusal
    [refused] = replied(bus, denied)
    assert reason(refused) is Reason.PRIVILEGE_MISSING, "the privileges of alice hold"
    eventually(lambda: bus.events(INFERENCE_RECORDED, sent.id), what="the row")
    [row] = bus.events(INFERENCE_RECORDED, sent.id)
    assert (row.principal, row.tenant) == ("alice", TENANT)
    assert row.key_id == SIGNERS["runner"].key_id


def tampered(sent: Sent, bus: Bus) -> Sent:
    return replace(sent, value=bus.codec.encode(replace(sent.request, tags={"a": "b"})))


BAD: dict[str, tuple[Callable[[Bus], Sent], Reason]] = {
    "a changed value": (
        lambda bus: tampered(sealed(bus, ask()), bus),
        Reason.SIGNATURE_INVALID,
    ),
    "a foreign principal": (
        lambda bus: sealed(bus, ask(principal="bob")),
        Reason.PRINCIPAL_FOREIGN,
    ),
    "a foreign tenant": (lambda bus: sealed(bus, ask(), "mallory"), Reason.PRINCIPAL_FOREIGN),
    "a key of tomorrow": (lambda bus: sealed(bus, ask(), "early"), Reason.KEY_EXPIRED),
    "a key of yesterday": (lambda bus: sealed(bus, ask(), "late"), Reason.KEY_EXPIRED),
    "a revoked key": (lambda bus: sealed(bus, ask(), "sealed"), Reason.KEY_REVOKED),
    "a signature for another key": (
        lambda bus: sealed(bus, ask(), record_key=OTHER),
        Reason.SIGNATURE_INVALID,
    ),
    "a signature for another topic": (
        lambda bus: sealed(bus, ask(), topic="catalog.wanted.v1"),
        Reason.SIGNATURE_INVALID,
    ),
    "an endpoint that was not granted": (
        lambda bus: sealed(bus, ask(endpoint=PRIVATE)),
        Reason.PRIVILEGE_MISSING,
    ),
    "an unknown key": (lambda bus: sealed(bus, ask(), "stranger"), Reason.KEY_UNKNOWN),
    "no signature": (lambda bus: sealed(bus, ask(), None), Reason.SIGNATURE_MISSING),
}


@pytest.mark.parametrize("what", BAD)
def test_who_may_not_ask_is_refused_with_a_reply_and_an_auditor_hears_of_it(
    bus: Bus, what: str
) -> None:
    make, expected = BAD[what]
    sent = make(bus)
    lay(bus, sent)
    [answer] = replied(bus, sent)
    assert reason(answer) is expected
    eventually(lambda: audits(bus, sent.id), what="the audit")
    [audit] = audits(bus, sent.id)
    assert (audit.action, audit.outcome) == ("request.refused", AuditOutcome.DENIED)
    assert (audit.tenant, audit.trace_id) == (TENANT, TRACE)
    assert audit.reason is not None
    assert audit.reason.startswith(expected)
    assert routed(bus, sent.id) == 0


async def test_a_client_is_not_fooled_by_forgeries_under_its_requests_id(
    bus: Bus, tmp_path: Path
) -> None:
    tag = unique("fool")
    async with client(bus, tmp_path, "carol") as carol:
        # Nobody serves this endpoint here: the answer is ours.
        asking = asyncio.create_task(carol.chat(QUIET, "hello", tags={tag: ""}, timeout=900))

        async def arrived() -> bool:
            return bool(await asyncio.to_thread(requests_with, bus, INFERENCE_REQUESTED.name, tag))

        await soon(arrived)
        asked = await asyncio.to_thread(forge, bus, tag)
        assert not asking.done()
        answer = InferenceReplied(
            request_id=asked.request_id,
            completion=Completion(
                model="m", content="mine", finish_reason=FinishReason.STOP, usage=Usage()
            ),
            replied_at=now(),
        )
        await asyncio.to_thread(bus.send, REPLIES, answer)
        assert (await asking).content == "mine"
    told = await asyncio.to_thread(bus.events, INFERENCE_REFUSED)
    assert asked.request_id not in {each.request.request_id for each in told}


def forge(bus: Bus, tag: str) -> InferenceRequested:
    """Puts forgeries and copies of a request, and another's own under its id, on the log.

    Returns the request when all are replied to.
    """
    [found] = [
        record
        for record in bus.records(INFERENCE_REQUESTED.name)
        if tag.encode() in (record.value or b"")
    ]
    asked = bus.codec.decode(found.value, InferenceRequested)
    true = Sent(asked, found.value or b"", found.headers)
    headers = dict(found.headers)
    lay(bus, true)
    lay(bus, true, headers=[])
    lay(bus, true, headers=list({**headers, "tessera-deadline": b"1"}.items()))
    lay(bus, true, headers=list({**headers, "tessera-key": b"0" * 32}.items()))
    lay(bus, replace(true, value=bus.codec.encode(replace(asked, endpoint=ECHO))))
    lay(bus, sealed(bus, replace(asked, endpoint=ECHO, principal="", tags={}), "bob"))
    late = replace(asked, deadline=now() - timedelta(minutes=1), tags={})
    lay(bus, sealed(bus, late, None))
    lay(bus, sealed(bus, replace(asked, messages=request("x" * 2_000_000).messages), None))
    replied(bus, true, 8)
    return asked


def client(bus: Bus, folder: Path, name: str) -> Client:
    """Returns a client with a new key of somebody's."""
    pem = generate()
    SIGNERS[name] = Signer(pem)
    file = folder / f"{name}.pem"
    file.write_text(pem)
    teach(bus, changed("key", SIGNERS[name].key_id, key(name)))
    return Client(
        tenant=TENANT, key=f"file:{file}", kafka=bus.kafka, registry=bus.registry_settings
    )


async def refused(carol: Client, endpoint: str) -> Reason | None:
    """Asks; returns why that is refused, or None when it is answered."""
    try:
        await carol.chat(endpoint, "hello")
    except RequestRefused as said:
        return said.refusal.reason
    return None


async def served(carol: Client) -> bool:
    return await refused(carol, PRIVATE) is None


async def soon_refused(bus: Bus, change: CatalogChanged, carol: Client, expected: Reason) -> None:
    """Publishes a change; what is asked a second later or more must be refused for it."""
    await asyncio.to_thread(publish, bus, change)
    published = time.monotonic()
    while True:
        asked = time.monotonic()
        if found := await refused(carol, PRIVATE):
            assert found is expected
            return
        assert asked - published < PROMISED_S


async def test_a_grant_and_a_key_are_refused_soon_after_their_end(bus: Bus, tmp_path: Path) -> None:
    granted = Grant(allow=(Privilege.QUERY, Privilege.USE))
    name = "vault.tests/carol"
    async with client(bus, tmp_path, "carol") as carol:
        await asyncio.to_thread(publish, bus, changed("grant", name, granted))
        await soon(lambda: served(carol), what="the grant")
        gone = changed("grant", name, None)
        await soon_refused(bus, gone, carol, Reason.PRIVILEGE_MISSING)
        await asyncio.to_thread(publish, bus, changed("grant", name, granted))
        await soon(lambda: served(carol), what="the grant")
        revoked = changed("key", SIGNERS["carol"].key_id, key("carol", revoked_at=now()))
        await soon_refused(bus, revoked, carol, Reason.KEY_REVOKED)
