"""Proof of who asked: the signature of a request, verified long after its record is gone.

Knows what the inference table keeps of a signature and where the catalog's public keys are. What is
proved is that a key signed a record with this digest, for this tenant and deadline; that the row
tells the record's content as it was is the log's word, not the signature's. A key must have counted
when the request was done with, by the gateway's clock: when it was asked is the signer's word.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from infra.catalog import CatalogView, SigningKey
from infra.follow import follow
from infra.identity import SKEW
from infra.lake import query
from infra.registry import Reader, Registry
from infra.settings import KafkaSettings, RegistrySettings
from infra.signing import Signature, is_genuine, milliseconds
from schemas.codec import Codec
from schemas.kinds import ROOT, Privilege
from schemas.topics import INFERENCE_REQUESTED

SECONDS = "%Y-%m-%d %H:%M:%S"


class Unproved(Exception):
    """Who asked is not proved; the message says what is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Signers:
    """Who may have signed.

    Attributes:
        keys: Every key that the catalog ever knew, the revoked and expired among them, by id.
        for_others: Principals who may ask for others, as the catalog is now.
    """

    keys: Mapping[str, SigningKey]
    for_others: frozenset[str] = frozenset()


async def signers(kafka: KafkaSettings, registry: RegistrySettings) -> Signers:
    """Returns who may have signed, by the catalog.

    Raises:
        BusUnreachable: No broker answers.
        CatalogLost: The catalog's topic cannot be read whole.
        LookupError: There is no such topic.
        RegistryUnreachable: The registry does not answer.
    """
    schemas = Registry(registry)
    codec = Codec(await asyncio.to_thread(schemas.ids))
    view = CatalogView()
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    following = await follow(kafka, Reader(codec, schemas), view, "audit", failed.set_exception)
    await following.close()
    if failed.done():
        failed.result()
    holding = (name for name in view.principals if view.access.holds(name, Privilege.MANAGE, ROOT))
    return Signers(view.keys, frozenset(holding))


def proof(root: Path, request_id: str, known: Signers) -> str:
    """Returns who signed a request of the inference table, in words.

    A caller may use an id for several requests: each of them is verified for itself, on a line of
    its own.

    Args:
        root: The lake.
        request_id: The request.
        known: Who may have signed.

    Raises:
        QueryInvalid: There is no inference table.
        Unproved: There is no such row; one has no signature, or none that is genuine.
    """
    sql = "SELECT * FROM inferences WHERE request_id = $id ORDER BY requested_at, row_id"
    rows = query(root, sql, {"id": request_id}).to_pylist()
    if not rows:
        raise Unproved(f"the table inferences has no request {request_id}")
    if len(rows) == 1:
        return verdict(rows[0], known)
    return _verdicts(rows, known)


def _verdicts(rows: Sequence[Mapping[str, Any]], known: Signers) -> str:
    """Returns who signed each of several requests under one id.

    Raises:
        Unproved: Of one of them it is not proved; the message tells of all.
    """
    lines = [f"{len(rows)} requests have the id {rows[0]['request_id']}:"]
    unproved = 0
    for row in rows:
        try:
            said = verdict(row, known)
        except Unproved as problem:
            said = f"not proved: {problem}"
            unproved += 1
        lines.append(f"  row {row['row_id'] or row['request_id']}: {said}")
    told = "\n".join(lines)
    if unproved:
        raise Unproved(told)
    return told


def verdict(row: Mapping[str, Any], known: Signers) -> str:
    """Returns who signed the request of a row, in words, and for whom if not for itself.

    Raises:
        Unproved: Nobody did, or not with a key that counted.
    """
    signature, request_id = _signature(row), row["request_id"]
    key = known.keys.get(signature.key_id)
    if key is None:
        raise Unproved(f"the catalog never knew the key {signature.key_id}")
    tenant = str(row["tenant"]).encode()
    if not is_genuine(signature, key.public_key, INFERENCE_REQUESTED.name, tenant):
        raise Unproved(f"the signature of request {request_id} is not that of key {key.key_id}")
    whose = ""
    if key.principal in known.for_others and row["principal"] not in ("", key.principal):
        whose = f" for {row['principal']}"
    elif key.principal != row["principal"]:
        raise Unproved(
            f"request {request_id} names {row['principal'] or 'nobody'}, but {key.principal} "
            "signed it"
        )
    done = row["requested_at"] + timedelta(milliseconds=row["elapsed_ms"])
    ended = f"{request_id}{whose}, {_outcome(row)} at {done:{SECONDS}}"
    if lack := _lack(key, done):
        raise Unproved(f"{key.principal} signed request {ended}, but its key {lack}")
    return f"{key.principal} signed request {ended}, with key {key.key_id}, which was valid then"


def _outcome(row: Mapping[str, Any]) -> str:
    outcome = str(row["outcome"]).lower()
    return f"{outcome} ({row['reason']})" if row["reason"] else outcome


def _signature(row: Mapping[str, Any]) -> Signature:
    wanted = {name: row.get(name) for name in ("key_id", "signature", "signed_digest", "deadline")}
    if None in wanted.values():
        lacks = ", ".join(name for name, value in wanted.items() if value is None)
        raise Unproved(f"request {row['request_id']} was not signed: its row has no {lacks}")
    try:
        return Signature(
            key_id=row["key_id"],
            deadline_ms=milliseconds(row["deadline"]),
            signature=base64.b64decode(row["signature"], validate=True),
            digest=bytes.fromhex(row["signed_digest"]),
        )
    except (ValueError, binascii.Error):
        raise Unproved(f"the row of request {row['request_id']} holds no signature") from None


def _lack(key: SigningKey, at: datetime) -> str:
    """Returns why a key did not count at an instant; empty where it did."""
    if at < key.not_before - SKEW:
        return f"counted only from {key.not_before:{SECONDS}}"
    for end, what in ((key.expires_at, "expired"), (key.revoked_at, "was revoked")):
        if end is not None and at >= end:
            return f"{what} at {end:{SECONDS}}, before that"
    return ""
