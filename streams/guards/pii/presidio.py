"""What Presidio's recognisers say of a candidate, offline.

Presidio looks for all patterns of all kinds in all of a text, which takes milliseconds. Here a
cheap pattern of ours has found a candidate, and Presidio's recogniser of its kind judges that
alone, by checksum or form. Importing Presidio takes seconds, so it waits for the first candidate.
"""

from __future__ import annotations

import logging
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from streams.guards.pii.loading import loaded

if TYPE_CHECKING:
    from presidio_analyzer import PatternRecognizer
    from tldextract import TLDExtract

PREDEFINED = "presidio_analyzer.predefined_recognizers"
RECOGNISERS: dict[str, str] = {
    "CREDIT_CARD": "CreditCardRecognizer",
    "CRYPTO": "CryptoRecognizer",
    "IP_ADDRESS": "IpRecognizer",
    "MAC_ADDRESS": "MacAddressRecognizer",
}
# Suffixes no registry sells, that mail inside of a house goes to all the same.
PRIVATE_SUFFIXES = frozenset(
    {"corp", "example", "home", "internal", "intranet", "invalid", "lan", "local", "test"}
)


@cache
def _recogniser(entity: str) -> PatternRecognizer:
    # Its messages may quote what it judged.
    logging.getLogger("presidio-analyzer").setLevel(logging.CRITICAL + 1)
    recogniser: PatternRecognizer = getattr(loaded(PREDEFINED), RECOGNISERS[entity])()
    return recogniser


def holds(entity: str, candidate: str) -> bool:
    """Returns whether Presidio's recogniser of ``entity`` takes ``candidate`` for one."""
    recogniser = _recogniser(entity)
    if recogniser.invalidate_result(candidate):
        return False
    return recogniser.validate_result(candidate) is not False


def is_bech32(candidate: str) -> bool:
    """Returns whether ``candidate`` has the checksum of a Bech32 address, whatever its coin."""
    recogniser: Any = _recogniser("CRYPTO")
    return bool(recogniser.validate_bech32_address(candidate)[0])


@cache
def _suffixes() -> TLDExtract:
    # The list of public suffixes that ships with the package: no file, no network.
    suffixes: TLDExtract = loaded("tldextract").TLDExtract(None, ())
    return suffixes


@lru_cache(maxsize=10_000)
def is_domain(name: str) -> bool:
    """Returns whether ``name`` is a domain under a public suffix, or one for use inside."""
    if name.rpartition(".")[2].lower() in PRIVATE_SUFFIXES:
        return True
    found = _suffixes()(name)
    return bool(found.domain and found.suffix)
