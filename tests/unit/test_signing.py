"""Signatures: what they hold to, and what the rule on the wire says byte for byte."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from infra.signing import (
    DEADLINE,
    KEY,
    SIGNATURE,
    KeyUnusable,
    Signer,
    claim,
    claimed,
    generate,
    is_genuine,
    key_id,
    message,
)
from infra.telemetry import Headers

TOPIC = "inference.requested.v1"
TENANT = b"demo"
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
VALUE = b"\x00\x00\x00\x00\x07the value"
SIGNER = Signer(generate())
HEADERS = SIGNER.headers(TOPIC, TENANT, NOON, VALUE)


def genuine(
    headers: Headers, value: bytes = VALUE, topic: str = TOPIC, key: bytes = TENANT
) -> bool:
    signature = claimed(headers, value)
    return signature is not None and is_genuine(signature, SIGNER.public_key, topic, key)


def changed(**headers: bytes) -> Headers:
    names = {"key": KEY, "deadline": DEADLINE, "signature": SIGNATURE}
    return tuple({**dict(HEADERS), **{names[name]: each for name, each in headers.items()}}.items())


def test_what_was_signed_is_genuine() -> None:
    assert genuine(HEADERS)
    assert genuine([("traceparent", b"00-1-2-01"), *reversed(HEADERS)])


def test_a_signature_holds_to_value_topic_key_and_deadline() -> None:
    assert not genuine(HEADERS, value=VALUE + b"!")
    assert not genuine(HEADERS, topic="catalog.wanted.v1")
    assert not genuine(HEADERS, key=b"other")
    later = str(int(NOON.timestamp() * 1000) + 1).encode()
    assert not genuine(changed(deadline=later))
    assert not genuine(changed(signature=bytes(64)))
    assert not genuine(Signer(generate()).headers(TOPIC, TENANT, NOON, VALUE))


@pytest.mark.parametrize(
    "headers",
    [
        (),
        HEADERS[1:],
        HEADERS[:2],
        changed(key=b"short"),
        changed(key=b"\xff" * 32),
        changed(deadline=b"soon"),
        changed(deadline=b" 1"),
        changed(deadline=b"9" * 10_000),
        changed(deadline=b""),
        changed(signature=b"short"),
        ((KEY, None), (DEADLINE, None), (SIGNATURE, None)),
    ],
)
def test_what_is_no_whole_signature_is_none(headers: Headers) -> None:
    assert claimed(headers, VALUE) is None


def test_the_rule_on_the_wire_needs_nothing_of_ours() -> None:
    pem = generate()
    private = load_pem_private_key(pem.encode(), password=None)
    assert isinstance(private, Ed25519PrivateKey)
    public = private.public_key().public_bytes_raw()
    deadline = str(int(NOON.timestamp() * 1000)).encode()
    parts = (
        b"tessera-request-v1",
        TOPIC.encode(),
        TENANT,
        deadline,
        hashlib.sha256(VALUE).digest(),
    )
    signed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    by_hand = (
        ("tessera-key", hashlib.sha256(public).hexdigest()[:32].encode()),
        ("tessera-deadline", deadline),
        ("tessera-signature", private.sign(signed)),
    )
    assert tuple(Signer(pem).headers(TOPIC, TENANT, NOON, VALUE)) == by_hand
    Ed25519PublicKey.from_public_bytes(public).verify(by_hand[2][1], signed)


def test_an_auditor_needs_only_what_a_row_keeps() -> None:
    signature = claimed(HEADERS, VALUE)
    assert signature is not None
    assert signature.digest == hashlib.sha256(VALUE).digest()
    assert signature.key_id == key_id(SIGNER.public_key)
    assert is_genuine(signature, SIGNER.public_key, TOPIC, TENANT)


def test_a_claim_names_the_record_and_its_proof() -> None:
    signature = claimed(HEADERS, VALUE)
    assert signature is not None
    others = {
        claim(None),
        claim(replace(signature, key_id="0" * 32)),
        claim(replace(signature, deadline_ms=signature.deadline_ms + 1)),
        claim(replace(signature, signature=bytes(64))),
        claim(replace(signature, digest=bytes(32))),
    }
    assert len(others | {claim(signature)}) == 6
    assert claim(None) == ""
    assert claim(signature) == claim(claimed(HEADERS, VALUE))


@given(at=st.integers(0, 63), flip=st.integers(1, 255))
def test_a_signature_with_another_byte_proves_nothing_here_or_elsewhere(at: int, flip: int) -> None:
    signature = claimed(HEADERS, VALUE)
    assert signature is not None
    spoilt = bytearray(signature.signature)
    spoilt[at] ^= flip
    other = replace(signature, signature=bytes(spoilt))
    assert not is_genuine(other, SIGNER.public_key, TOPIC, TENANT)
    signed = message(TOPIC, TENANT, other.deadline_ms, other.digest)
    with pytest.raises(InvalidSignature):
        Ed25519PublicKey.from_public_bytes(SIGNER.public_key).verify(other.signature, signed)


@pytest.mark.parametrize("length", [0, 60, 63, 65, 128])
def test_a_signature_of_another_length_proves_nothing(length: int) -> None:
    signature = claimed(HEADERS, VALUE)
    assert signature is not None
    other = replace(signature, signature=(signature.signature * 2)[:length])
    assert not is_genuine(other, SIGNER.public_key, TOPIC, TENANT)


def test_points_of_small_order_prove_nothing() -> None:
    # With the neutral element as key and as R, and S = 0, the equation holds for every message.
    neutral = bytes([1]) + bytes(31)
    signature = claimed(HEADERS, VALUE)
    assert signature is not None
    forged = replace(signature, signature=neutral + bytes(32))
    assert not is_genuine(forged, neutral, TOPIC, TENANT)


def test_another_public_key_or_none_at_all_proves_nothing() -> None:
    signature = claimed(HEADERS, VALUE)
    assert signature is not None
    assert not is_genuine(signature, Signer(generate()).public_key, TOPIC, TENANT)
    assert not is_genuine(signature, b"", TOPIC, TENANT)


def other_key() -> str:
    pem = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    return pem.decode()


@pytest.mark.parametrize(
    "pem",
    ["", "secret words", generate()[:60], other_key()],
    ids=["nothing", "words", "part of a key", "a key of another kind"],
)
def test_what_is_no_key_is_refused_without_quoting_it(pem: str) -> None:
    with pytest.raises(KeyUnusable) as refused:
        Signer(pem)
    assert "secret words" not in str(refused.value)
