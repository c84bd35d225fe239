"""Card numbers, bank accounts and wallets: all have checksums."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256

from streams.guards.pii.nearby import said, words
from streams.guards.pii.presidio import holds, is_bech32
from streams.guards.pii.registers import iban_length, is_iban
from streams.guards.pii.span import Span, closed_up

SEPARATORS = r"[ \u00a0\u2007\u2009\u202f.-]"
# No part of a word, of a longer number, or of a fraction.
CARD = re.compile(
    r"[2-6](?<![^\W_].)(?<![0-9][.,].)(?:"
    rf"[0-9]{{3}}({SEPARATORS})[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{4}}(?:\1[0-9]{{3}})?"
    rf"|(?<=3)[0-9]{{3}}({SEPARATORS})[0-9]{{6}}\2[0-9]{{4,5}}"
    rf"|[0-9]{{7}}{SEPARATORS}[0-9]{{8}}"
    r"|[0-9]{12,18}"
    r")(?!\w|[.,][0-9])"
)
# Who issues what, by the first digits and how many there are.
ISSUERS = re.compile(
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})"
    r"|(?:5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720)[0-9]{12,14}"
    r"|3[47][0-9]{13}|3(?:0[0-59]|[689][0-9])[0-9]{11,13}|35[2-8][0-9]{13}"
    r"|6(?:011|22[1-9]|4[4-9]|5)[0-9]{12,15}|62[0-9]{14,17}"
    r"|(?:50|5[6-9]|6[0379])[0-9]{14}"
)
USUAL = frozenset({15, 16})
CARD_WORDS = words(
    "cards?", "visa", "mastercard", "amex", "american express", "maestro", "kreditkarte",
    "discover", "diners", "unionpay", "jcb", "debit", "carte", "tarjeta", "pan",
)  # fmt: skip

IBAN = re.compile(r"[A-Za-z](?<![A-Za-z0-9].)[A-Za-z][0-9]{2}(?=[ \u00a0-]?[A-Za-z0-9])")
IBAN_BODY = re.compile(r"(?:[ \u00a0-]?[A-Za-z0-9]){15,34}")

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
WALLET = re.compile(
    r"(?<![\w+/=-])(?:"
    rf"[13DLMT][{BASE58}]{{25,34}}"
    r"|(?:bc|ltc|tb)1[02-9ac-hj-np-z]{11,71}|(?:BC|LTC|TB)1[02-9AC-HJ-NP-Z]{11,71}"
    r"|0x[0-9a-fA-F]{40}"
    r")(?![\w+/=])"
)


def cards(text: str) -> Iterator[Span]:
    """Yields card numbers: of an issuer, of its length, and of the right checksum."""
    for match in CARD.finditer(text):
        number = re.sub(SEPARATORS, "", match.group())
        if not ISSUERS.fullmatch(number) or not holds("CREDIT_CARD", number):
            continue
        # Many a number of these lengths is no card.
        if len(number) in USUAL or said(CARD_WORDS, text, match.span(), before=60, after=30):
            yield Span(match.start(), match.end(), "CREDIT_CARD", 1.0)


def ibans(text: str) -> Iterator[Span]:
    """Yields bank accounts: of a country, of its form, and of the right checksum."""
    for match in IBAN.finditer(text):
        body = IBAN_BODY.match(text, match.start())
        if body is None:
            continue
        letters, at = closed_up(body.group())
        number = letters[: iban_length(letters[:2].upper())].upper()
        # What follows an account may look like more of it, so its country says how long it is.
        if not number or not is_iban(number):
            continue
        end = match.start() + at[len(number) - 1] + 1
        if text[end : end + 1].isalnum():
            continue
        yield Span(match.start(), end, "IBAN_CODE", 1.0)


def wallets(text: str) -> Iterator[Span]:
    """Yields addresses of Bitcoin, Litecoin, Dogecoin, Tron and Ethereum."""
    for match in WALLET.finditer(text):
        address = match.group()
        if address.startswith("0x"):
            yield Span(match.start(), match.end(), "CRYPTO", 0.8)
        elif _checks(address):
            yield Span(match.start(), match.end(), "CRYPTO", 1.0)


def _checks(address: str) -> bool:
    if address[:2].lower() in {"bc", "lt", "tb"}:
        return is_bech32(address)
    if address[0] in "13":
        return holds("CRYPTO", address)
    return _base58check(address)


def _base58check(address: str) -> bool:
    value = 0
    for letter in address:
        value = value * 58 + BASE58.index(letter)
    # A version, 20 bytes of hash and 4 of checksum.
    if value.bit_length() > 25 * 8:
        return False
    raw = value.to_bytes(25, "big")
    return sha256(sha256(raw[:-4]).digest()).digest()[:4] == raw[-4:]
