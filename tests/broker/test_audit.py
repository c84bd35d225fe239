"""The audit on real services: facts become rows, rows answer questions, and proofs hold."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from infra.bootstrap import ROOT
from infra.lake import QueryInvalid, query
from infra.signing import SIGNATURE, Signer, generate
from infra.telemetry import now
from schemas.events import (
    AuditOutcome,
    AuditRecorded,
    InferenceRecorded,
    InferenceRouted,
    Outcome,
    Route,
)
from schemas.kinds import Key
from schemas.topics import (
    AUDIT_RECORDED,
    INFERENCE_COMPLETED,
    INFERENCE_RECORDED,
    INFERENCE_REQUESTED,
    INFERENCE_ROUTED,
)
from tests.contract.scripted_server import scripted_server
from tests.harness import PATIENCE_S, Bus, Process, eventually, running, soon, unique
from tests.routed import routed
from tests.seed import changed, described, publish

pytestmark = pytest.mark.stack


def audit(bus: Bus, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Asks the audit as a person does."""
    return subprocess.run(
        [sys.executable, "-m", "infra.audit", *words],
        cwd=ROOT,
        env={**os.environ, **bus.environment, "LAKE_ROOT": str(folder / "lake")},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def stored(folder: Path, table: str, column: str, *wanted: str) -> None:
    """Returns when rows with these values are there."""

    def all_there() -> bool:
        try:
            rows = query(folder / "lake", f"SELECT {column} FROM {table}").to_pylist()
        except QueryInvalid:  # The table appears with its first event.
            return False
        return {row[column] for row in rows}.issuperset(wanted)

    eventually(all_there, what=f"rows of {table}")


def test_what_was_audited_can_be_asked_for_while_the_recorder_goes_on(
    bus: Bus, folder: Path, recorder: Process
) -> None:
    who = unique("auditor")
    denied = AuditRecorded(
        audit_id=unique("audit"),
        at=now(),
        source="catalog",
        principal=who,
        action="catalog.grant",
        kind="endpoint",
        name="main.tests.echo",
        outcome=AuditOutcome.DENIED,
        reason="MANAGE on main.tests.echo is missing",
    )
    done = replace(
        denied,
        audit_id=unique("audit"),
        at=denied.at + timedelta(seconds=1),
        outcome=AuditOutcome.DONE,
        reason=None,
        before=json.dumps({"allow": []}),
        after=json.dumps({"allow": ["QUERY"]}),
    )
    # Told twice, it is one row.
    bus.send(AUDIT_RECORDED, denied, denied, done)
    stored(folder, "audits", "audit_id", denied.audit_id, done.audit_id)
    told = audit(bus, folder, "--who", who, "--since", "1h")
    assert told.returncode == 0, told.stderr
    newest, change, oldest = told.stdout.splitlines()
    assert newest.endswith(f"{who}  catalog.grant  endpoint main.tests.echo  DONE")
    assert change.strip() == "allow[0]: nothing -> QUERY"
    assert oldest.endswith("DENIED: MANAGE on main.tests.echo is missing")
    only = audit(bus, folder, "--who", who, "--outcome", "denied", "--what", "catalog.*", "--json")
    assert [json.loads(line)["audit_id"] for line in only.stdout.splitlines()] == [denied.audit_id]


def signed_row(signer: Signer, principal: str) -> InferenceRecorded:
    requested_at, value = now(), unique("value").encode()
    deadline = requested_at + timedelta(minutes=1)
    headers = dict(signer.headers(INFERENCE_REQUESTED.name, b"records", deadline, value))
    return InferenceRecorded(
        request_id=unique("signed"),
        tenant="records",
        principal=principal,
        endpoint="main.tests.echo",
        outcome=Outcome.COMPLETED,
        request="{}",
        requested_at=requested_at,
        key_id=signer.key_id,
        signature=base64.b64encode(headers[SIGNATURE] or b"").decode(),
        signed_digest=hashlib.sha256(value).hexdigest(),
        deadline=deadline,
    )


def test_who_signed_a_request_is_proved_from_its_row_and_the_catalogs_keys(
    bus: Bus, folder: Path, recorder: Process
) -> None:
    signer, principal = Signer(generate()), unique("signer")
    key = Key(
        principal=principal,
        public_key=base64.b64encode(signer.public_key).decode(),
        not_before=now() - timedelta(minutes=1),
    )
    publish(bus, changed("key", signer.key_id, key))
    genuine = signed_row(signer, principal)
    forged = replace(genuine, request_id=unique("forged"), tenant="client")
    bus.send(INFERENCE_RECORDED, genuine, forged)
    stored(folder, "inferences", "request_id", genuine.request_id, forged.request_id)
    proved = audit(bus, folder, "--verify", genuine.request_id)
    assert (proved.returncode, proved.stderr) == (0, "")
    told = f"{principal} signed request {genuine.request_id}, completed at "
    assert proved.stdout.startswith(told)
    refused = audit(bus, folder, "--verify", forged.request_id)
    assert refused.returncode == 1
    assert f"is not that of key {signer.key_id}" in refused.stderr
    # Revoked since, it still proves what was signed before.
    publish(bus, changed("key", signer.key_id, key.model_copy(update={"revoked_at": now()})))
    assert audit(bus, folder, "--verify", genuine.request_id).stdout == proved.stdout


def from_outside(connection: str) -> InferenceRouted:
    event = routed("hello", stream=True)
    route = Route(name="outside", pool="outside", model="echo", connection=connection)
    return replace(event, route=route)


async def test_a_worker_tells_the_audit_of_each_key_that_it_uses_and_never_the_key(
    bus: Bus, folder: Path, tmp_path: Path
) -> None:
    key, pool = tmp_path / "key", unique("outside")
    key.write_text("sk-very-hidden")
    connection, topic = f"main.tests.{pool}", INFERENCE_ROUTED.member(pool)
    bus.make(topic)
    command = ["-m", "workers", "inference", "--provider", "outside", "--pool", pool]
    async with scripted_server() as server:
        spec = {
            "type": "openai",
            "url": server.base_url,
            "secret": f"file:{key}",
            "private": True,
        }
        body = described({"spec": spec})
        await asyncio.to_thread(publish, bus, changed("connection", connection, body))
        worker = running(bus, command, folder)
        process = await asyncio.to_thread(worker.__enter__)
        try:
            first, second = from_outside(connection), from_outside(connection)

            async def concluded(event: InferenceRouted) -> bool:
                found = await asyncio.to_thread(bus.events, INFERENCE_COMPLETED)
                return event.request in [each.routed.request for each in found]

            async def audited(event: InferenceRouted) -> bool:
                found = await asyncio.to_thread(bus.events, AUDIT_RECORDED)
                return event.request.request_id in [each.request_id for each in found]

            await asyncio.to_thread(bus.send, topic, first)
            await soon(lambda: concluded(first), what="the answer")
            key.unlink()
            await asyncio.to_thread(bus.send, topic, second)
            await soon(lambda: concluded(second), what="the refusal")
            for each in (first, second):
                await soon(partial(audited, each), what="that the audit is told")
            assert "sk-very-hidden" not in process.log()
        finally:
            await asyncio.to_thread(worker.__exit__, None, None, None)
    used = {
        event.request_id: event
        for event in await asyncio.to_thread(bus.events, AUDIT_RECORDED)
        if event.name == f"file:{key}"
    }
    assert len(used) == 2
    assert used[first.request.request_id].outcome is AuditOutcome.DONE
    failed = used[second.request.request_id]
    assert failed.outcome is AuditOutcome.FAILED
    assert failed.reason == f"file:{key} cannot be read: FileNotFoundError"
    assert {event.action for event in used.values()} == {"secret.used"}
    everything = await asyncio.to_thread(bus.records, AUDIT_RECORDED.name)
    assert not [record for record in everything if b"sk-very-hidden" in (record.value or b"")]
