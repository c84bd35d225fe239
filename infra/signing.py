"""Signed requests: who asked, proved on a bus that everybody may write to.

The rule on the wire, for any client. Three headers go with a record:

    tessera-key         the key's id: the first 32 hex digits of the SHA-256 of its 32 bytes
    tessera-deadline    the request's deadline in milliseconds since 1970, as decimal digits
    tessera-signature   the Ed25519 signature (RFC 8032), 64 bytes

What is signed is ``tessera-request-v1`` and then four parts: the topic's name, the record's key,
the digits of the deadline, and the SHA-256 of the record's value. Before each of the five stands
its length in bytes as four bytes, the highest first.

Only the value's digest goes in, so that a signature can be verified as long as digest and public
key are kept, with or without the record.

What a record claims, in one short text, is the SHA-256 in hex of four parts, each with its length
before it as above: the key's id, the digits of the deadline, the signature, and the SHA-256 of the
value. Two records with one claim are copies of each other.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from infra.telemetry import Headers

KEY = "tessera-key"
DEADLINE = "tessera-deadline"
SIGNATURE = "tessera-signature"

PURPOSE = b"tessera-request-v1"
KEY_ID_DIGITS = 32
SIGNATURE_BYTES = 64
LENGTH = struct.Struct(">I")
# Whoever asks again about the record in hand must not cause another verification.
REMEMBERED = 4


class KeyUnusable(ValueError):
    """What should be a private key is none; the message quotes nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a record's headers claim; ``digest`` is the SHA-256 of its value."""

    key_id: str
    deadline_ms: int
    signature: bytes
    digest: bytes


class Signer:
    """Signs records with one private key.

    Args:
        pem: The key as PEM text (PKCS #8, not encrypted).

    Raises:
        KeyUnusable: It is no Ed25519 private key in that form.
    """

    def __init__(self, pem: str) -> None:
        try:
            key = load_pem_private_key(pem.encode(), password=None)
        except (TypeError, ValueError):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyUnusable("the signing key is no Ed25519 private key in PEM form (PKCS #8)")
        self._key = key
        self.public_key = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.key_id = key_id(self.public_key)

    def headers(self, topic: str, key: bytes, deadline: datetime, value: bytes) -> Headers:
        """Returns the headers that prove who sent a record."""
        deadline_ms = milliseconds(deadline)
        signed = message(topic, key, deadline_ms, hashlib.sha256(value).digest())
        return (
            (KEY, self.key_id.encode()),
            (DEADLINE, str(deadline_ms).encode()),
            (SIGNATURE, self._key.sign(signed)),
        )


def generate() -> str:
    """Returns a new private key as PEM text."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    return pem.decode()


def key_id(public_key: bytes) -> str:
    """Returns the id of a public key of 32 bytes."""
    return hashlib.sha256(public_key).hexdigest()[:KEY_ID_DIGITS]


def claimed(headers: Headers, value: bytes) -> Signature | None:
    """Returns the signature that headers carry; None where they carry none, or no whole one."""
    found = {name: content or b"" for name, content in headers}
    try:
        key, deadline, signature = found[KEY], found[DEADLINE], found[SIGNATURE]
        whole = len(key) == KEY_ID_DIGITS and deadline.isdigit()
        if not whole or len(signature) != SIGNATURE_BYTES:
            return None
        return Signature(
            key_id=key.decode("ascii"),
            deadline_ms=int(deadline),
            signature=signature,
            digest=hashlib.sha256(value).digest(),
        )
    except (KeyError, ValueError):
        return None


def claim(signature: Signature | None) -> str:
    """Returns what names a record and its proof in short; empty where there is none."""
    if signature is None:
        return ""
    deadline = str(signature.deadline_ms).encode()
    parts = (signature.key_id.encode(), deadline, signature.signature, signature.digest)
    return hashlib.sha256(_framed(parts)).hexdigest()


@lru_cache(maxsize=REMEMBERED)
def is_genuine(signature: Signature, public_key: bytes, topic: str, key: bytes) -> bool:
    """Returns whether the owner of a public key signed a record of this topic and key.

    What libsodium takes for genuine, every other implementation does too; it takes half the time of
    OpenSSL, and the gateway spends more on this than on any decision.
    """
    signed = message(topic, key, signature.deadline_ms, signature.digest)
    try:
        VerifyKey(public_key).verify(signed, signature.signature)
    # A key or a signature of another length is a ValueError.
    except (CryptoError, ValueError):
        return False
    return True


def message(topic: str, key: bytes, deadline_ms: int, digest: bytes) -> bytes:
    """Returns the bytes that are signed."""
    parts = (PURPOSE, topic.encode(), key, str(deadline_ms).encode(), digest)
    return _framed(parts)


def milliseconds(instant: datetime) -> int:
    """Returns an instant in milliseconds since 1970."""
    return round(instant.timestamp() * 1000)


def _framed(parts: tuple[bytes, ...]) -> bytes:
    return b"".join(LENGTH.pack(len(part)) + part for part in parts)
