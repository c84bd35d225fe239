"""The seal: what placeholders stand for, readable for the platform alone, tenant by tenant.

The cipher is AES-SIV (RFC 5297) with a 512-bit key. A step draws no random numbers, so it has no
nonce to offer; SIV needs none. It derives its initial vector from the text and all associated data
with a keyed hash (S2V), which makes the same text under the same names the same bytes, and shows
nothing but that. A nonce that repeats, which would open AES-GCM or ChaCha20-Poly1305, cannot be.

Covered: nobody without the platform's secret reads or changes what is sealed, and it opens for the
tenant and the request that it was sealed for, and no other. Not covered: its length shows about
how much is sealed; whoever has the secret opens all; a secret that is replaced leaves requests
that are under way without their values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 64
LEAST_SECRET_BYTES = 32
_PURPOSE = b"tessera/guards/seal/1\0"


class SealBroken(Exception):
    """What is sealed was not sealed under this secret for this tenant and request."""


class Seal:
    """Seals under a key for each tenant, which is derived from one secret (HKDF, RFC 5869).

    Args:
        secret: The platform's secret.

    Raises:
        ValueError: The secret is shorter than 32 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < LEAST_SECRET_BYTES:
            raise ValueError(f"the secret of the seal has under {LEAST_SECRET_BYTES} bytes")
        self._secret = secret

    def seal(self, tenant: str, context: str, values: Mapping[str, str]) -> bytes:
        """Returns what placeholders stand for, encrypted; the same each time.

        Args:
            tenant: Whose it is.
            context: What it belongs to: the id of the request.
            values: The texts by their placeholders.
        """
        said = json.dumps(dict(values), separators=(",", ":")).encode()
        return self._cipher(tenant).encrypt(said, _names(tenant, context))

    def open(self, tenant: str, context: str, sealed: bytes) -> dict[str, str]:
        """Returns what was sealed for a tenant in a context.

        Raises:
            SealBroken: It was sealed for others, or under another secret, or was changed.
        """
        try:
            said = self._cipher(tenant).decrypt(sealed, _names(tenant, context))
        # Bytes that are too few for a seal make it a ValueError.
        except (InvalidTag, ValueError):
            raise SealBroken("not sealed for this tenant and request") from None
        opened: dict[str, str] = json.loads(said)
        return opened

    def _cipher(self, tenant: str) -> AESSIV:
        derived = HKDF(SHA256(), KEY_BYTES, salt=None, info=_PURPOSE + tenant.encode())
        return AESSIV(derived.derive(self._secret))


def _names(tenant: str, context: str) -> list[bytes]:
    # S2V takes a list, so that no two pairs of names run into the same text. It must not be empty.
    return [b"tenant " + tenant.encode(), b"context " + context.encode()]
