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

CAPITAL = re.compile(f"[{UPPER}]")
DIGIT = re.compile("[0-9]")
# What numbers of each kind have in them, whatever stands around.
ACCOUNT = re.compile("[A-Za-z]{2}[0-9]{2}")
COLONS = re.compile("[:.-][0-9A-Fa-f]{2}(?:[0-9A-Fa-f]{2})?[:.-]")
DOTS = re.compile("\\.[0-9]{1,3}\\.|:[0-9A-Fa-f]{0,4}:")
LONG_WORD = re.compile("[0-9A-Za-z]{26}")
SEVEN_DIGITS = re.compile("[0-9](?:[ ()/.\u00a0\u2007\u2009\u2011\u202f-]{0,3}[0-9]){6}")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of personal data.

    Attributes:
        signs: What a text has, all of it, that has any of the kind; the cheapest first.
        find: Yields all of the kind that a text has.
    """

    signs: tuple[re.Pattern[str], ...]
    find: Callable[[str], Iterator[Span]]


KINDS: dict[str, Kind] = {
    "CREDIT_CARD": Kind((DIGIT, SEVEN_DIGITS), cards),
    "CRYPTO": Kind((DIGIT, LONG_WORD), wallets),
    "DATE_OF_BIRTH": Kind((DIGIT,), births),
    "EMAIL_ADDRESS": Kind((AT,), mails),
    "IBAN_CODE": Kind((DIGIT, ACCOUNT), ibans),
    "IP_ADDRESS": Kind((DIGIT, DOTS), addresses),
    "MAC_ADDRESS": Kind((DIGIT, COLONS), macs),
    "PASSPORT": Kind((DIGIT,), passports),
    "PERSON": Kind((CAPITAL,), people),
    "PHONE_NUMBER": Kind((DIGIT, SEVEN_DIGITS), phones),
    "US_SSN": Kind((DIGIT, SEVEN_DIGITS), social_security),
    "VAT_NUMBER": Kind((DIGIT,), vat_numbers),
}


def find(text: str, entities: Collection[str]) -> list[Span]:
    """Returns the personal data in a text.

    Args:
        text: Any text.
        entities: Kinds to look for, as ``schemas.policies.Entity`` names them.

    Returns:
        Spans that do not overlap, in order.
    """
    seen: dict[re.Pattern[str], bool] = {}
    found: list[Span] = []
    # In the order of the table, so that it is the same whatever the order of a set.
    for entity, kind in KINDS.items():
        if entity not in entities:
            continue
        for sign in kind.signs:
            if sign not in seen:
                seen[sign] = sign.search(text) is not None
            if not seen[sign]:
                break
        else:
            found += kind.find(text)
    return disjoint(found)


def load() -> None:
    """Loads what the first find would have to wait for: some seconds, once in a process."""
    find("Ask Ada: 4111 1111 1111 1111, ada@example.com", KINDS)
