"""Personal data in a text: a table of what finds each kind of it.

Most texts have none. So each kind has a sign, something cheap without which there is none of it,
and only behind its sign are its candidates looked for and judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from streams.guards.pii.birth import births
from streams.guards.pii.mail import AT, mails
from streams.guards.pii.money import cards, ibans, wallets
from streams.guards.pii.network import addresses, macs
from streams.guards.pii.papers import passports, social_security, vat_numbers
from streams.guards.pii.person import UPPER, people
from streams.guards.pii.phone import phones
from streams.guards.pii.span import Span, disjoint

DIGIT = re.compile("[0-9]")
CAPITAL = re.compile(f"[{UPPER}]")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of personal data.

    Attributes:
        sign: What a text has that has any of it.
        find: Yields all of it that a text has.
    """

    sign: re.Pattern[str]
    find: Callable[[str], Iterator[Span]]


KINDS: dict[str, Kind] = {
    "CREDIT_CARD": Kind(DIGIT, cards),
    "CRYPTO": Kind(DIGIT, wallets),
    "DATE_OF_BIRTH": Kind(DIGIT, births),
    "EMAIL_ADDRESS": Kind(AT, mails),
    "IBAN_CODE": Kind(DIGIT, ibans),
    "IP_ADDRESS": Kind(DIGIT, addresses),
    "MAC_ADDRESS": Kind(DIGIT, macs),
    "PASSPORT": Kind(DIGIT, passports),
    "PERSON": Kind(CAPITAL, people),
    "PHONE_NUMBER": Kind(DIGIT, phones),
    "US_SSN": Kind(DIGIT, social_security),
    "VAT_NUMBER": Kind(DIGIT, vat_numbers),
}


def find(text: str, entities: Collection[str]) -> list[Span]:
    """Returns the personal data in a text.

    Args:
        text: Any text.
        entities: Kinds to look for, as ``schemas.policies.Entity`` names them.

    Returns:
        Spans that do not overlap, in order.
    """
    signs: dict[re.Pattern[str], bool] = {}
    found: list[Span] = []
    for entity in entities:
        kind = KINDS[entity]
        if kind.sign not in signs:
            signs[kind.sign] = kind.sign.search(text) is not None
        if signs[kind.sign]:
            found += kind.find(text)
    return disjoint(found)


def load() -> None:
    """Loads what the first find would have to wait for: some seconds, once in a process."""
    find("Ask Ada: 4111 1111 1111 1111, ada@example.com", KINDS)
