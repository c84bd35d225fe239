"""Drawing without chance: what every process draws alike, by hashing what it draws for."""

from __future__ import annotations

import math
from hashlib import blake2b

BITS = 64


def drawn(*names: str) -> float:
    """Returns a number between 0 and 1, both excluded, that is always the same for these names."""
    # Between names stands what no sensible name holds, so that "ab", "c" is not "a", "bc".
    text = "\0".join(names).encode("utf-8", "surrogatepass")
    digest = blake2b(text, digest_size=BITS // 8).digest()
    # Cut to what a float holds: the last of 2^64 numbers would be rounded up to 1.
    return ((int.from_bytes(digest, "big") >> 12) + 0.5) / (1 << (BITS - 12))


def ticket(weight: int, *names: str) -> float:
    """Returns what takes part in a draw for these names; whoever has the highest one wins.

    Each wins as often as its weight says, and on its own numbers: where one leaves, only what it
    had won goes to the others (weighted rendezvous hashing; Schindelhauer and Schomaker, SPAA
    2005).
    """
    return -weight / math.log(drawn(*names))
