"""Phone numbers.

``phonenumbers`` knows the numbering plan of every country, but to look for numbers of several
countries in all of a text costs it milliseconds. Here a pattern finds what is written like a phone
number, and ``phonenumbers`` judges it. What is written like one is often none: the rarer its form,
the more must be said of it near by.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from streams.guards.pii.loading import loaded
from streams.guards.pii.nearby import said, said_before, words
from streams.guards.pii.span import Span

if TYPE_CHECKING:
    from phonenumbers import PhoneNumber

GAP = r"(?:[ \u00a0\u2011.-]|(?<! ) ?/ ?| - )"
GROUP = r"\(?[0-9]{1,13}\)?"
NUMBER = re.compile(
    r"(?=[+(0-9])(?<![\w.#/@+-])(?<![0-9][,:])"
    r"(?>(?:\+ ?)?(?:\(\+?[0-9]{1,5}\)|[0-9]{1,15})"
    rf"(?:{GAP}?\([0-9]{{1,5}}\)[0-9]*|{GAP}{GROUP}){{0,6}}"
    r"(?:,? ?(?:ext\.?|x|Durchwahl|-) ?[0-9]{1,5}(?![0-9]))?)(?!\w|-[A-Za-z])"
)
NORTH_AMERICAN = re.compile(
    r"(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}([.-]))[2-9][0-9]{2}[ .-][0-9]{4}"
    r"(?:,? ?(?:ext\.?|x) ?[0-9]{1,5})?"
)
# Small numbers in a row are no phone.
PHONE_LIKE = re.compile("(?:[0-9][^0-9]{0,3}){6}[0-9]")
THREE_DIGITS = re.compile("[0-9]{3}")
# Cards and the like.
LONG_NUMBER = re.compile(r"[0-9]{4}([ .-])[0-9]{4,6}\1[0-9]{4,5}(?:\1[0-9]{1,4})?")
PARTED = re.compile(r"[^ /\u00a0]+")
NATIONAL = re.compile(r"\(0[1-9][0-9]{0,4}\)|0[1-9][0-9]{0,3}[^0-9]")
DIGITS = re.compile("[2-9][0-9]{6,11}|1[2-9][0-9]{9}|0[1-9][0-9]{7,11}")
GROUPED = re.compile(r"[0-9][^0-9+]+[0-9]")
# Dates, fractions, and lists of small numbers.
NO_PHONE = re.compile(
    r"[0-9]{1,2}([./-])[0-9]{1,2}\1[0-9]{2,4}(?!.*[0-9]{4})|[0-9]{4}([./-])[0-9]{2}\2[0-9]{2}"
    r"|[0-9]+(?:\.[0-9]+){3}\Z|[0-9]+\.[0-9]+\Z|(?:[0-9]{1,2}[ -]+){5,}|.* - [0-9]{4}\Z"
    r"|[0-9]{3}([ -])[0-9]{2}\3[0-9]{4}\Z|97[89][ -]?[0-9]"
)
SPOKEN_OF = words(
    "phones?", "tele?(?:phone)?s?", "cell(?:phone)?", "mobiles?", "call(?:ing|ed)?", "fax", "sms",
    "text(?:ing|ed)? (?:me|her|him|them|us)", "dial(?:ing|ed)?", "ring", "reach(?:ed|able)?",
    "whats.?app", "signal", "handy", "telefon(?:nummer)?", "rufnummer", "mobil(?:nummer)?",
    "téléphone", "teléfono", "telefono", "hotline", "landline", "voicemail", "contact number",
    "my number is", "tél", "móvil", "celular", "portable", "erreichbar", "anrufen",
)  # fmt: skip
OTHERWISE = words(
    "orders?", "invoices?", "tickets?", "case", "accounts?", "isbn", "id", "ref(?:erence)?",
    "serial", "parts?", "model", "zip", "iban", "card", "ssn", "passport", "tracking", "po",
    "sku", "version", "order number", "build", "issue", "pr", "commit", "timestamp", "epoch",
    "vat", "steuernummer", "article", "item", "bestellung", "rechnung", "kundennummer",
    "customer", "policy", "licen[cs]e",
)  # fmt: skip
REGIONS = (
    "US", "GB", "DE", "FR", "IN", "IT", "ES", "NL", "AU", "CH", "AT", "BE", "SE", "PL", "BR",
    "MX", "JP", "IE", "DK", "NO", "PT", "NZ", "ZA", "SG", "IL", "FI", "CZ", "TR", "KE", "NG",
)  # fmt: skip
# Where numbers at home begin with a zero that tells them.
WITH_ZERO = (
    "DE",
    "GB",
    "FR",
    "AU",
    "CH",
    "AT",
    "NL",
    "IN",
    "BE",
    "IT",
    "SE",
    "JP",
    "IE",
    "NZ",
    "ZA",
)
FEWEST_DIGITS, MOST_DIGITS = 7, 15


def phones(text: str) -> Iterator[Span]:
    """Yields phone numbers, written for abroad or for home."""
    for match in NUMBER.finditer(text):
        written = match.group()
        if not _is_likely(written) or LONG_NUMBER.fullmatch(written):
            continue
        about = _About(text, match.span())
        for start, end in _runs(match):
            if score := _score(text[start:end], about):
                yield Span(start, end, "PHONE_NUMBER", score)
                break


def _is_likely(written: str) -> bool:
    """Returns whether it has the digits of a phone number, and not in ones and twos alone."""
    return PHONE_LIKE.search(written) is not None and (
        written[0] in "+0(" or THREE_DIGITS.search(written) is not None
    )


class _About:
    """What is said of a number, looked up when asked for."""

    def __init__(self, text: str, place: tuple[int, int]) -> None:
        self._text = text
        self._place = place

    @cached_property
    def phone(self) -> bool:
        return said(SPOKEN_OF, self._text, self._place, before=40, after=14)

    @cached_property
    def other(self) -> bool:
        return said_before(OTHERWISE, self._text, self._place[0], within=18)


def _runs(match: re.Match[str]) -> Iterator[tuple[int, int]]:
    """Yields the whole, then what is left of it without what blanks part from its ends."""
    start, end = match.span()
    yield start, end
    groups = list(PARTED.finditer(match.group()))
    for first, last in ((0, -1), (1, None), (0, -2), (2, None), (1, -1)):
        kept = groups[first:last]
        if kept and len(kept) < len(groups):
            yield start + kept[0].start(), start + kept[-1].end()


def _score(number: str, about: _About) -> float:
    digits = sum(map(str.isdigit, number))
    if not FEWEST_DIGITS <= digits <= MOST_DIGITS + 5:
        return 0
    if number.lstrip("(").startswith("+"):
        return _abroad(number, about)
    if NO_PHONE.match(number) or about.other:
        return 0
    if number.startswith("00") and (GROUPED.search(number) or about.phone):
        return _abroad(f"+{number[2:]}", about)
    return _at_home(number, digits, about)


def _abroad(number: str, about: _About) -> float:
    # The zero in brackets is for those who call from inside.
    number = number.replace("(0)", "")
    if _is_valid(number, None):
        return 0.9
    written_so = GROUPED.search(number) is not None or about.phone
    return 0.7 if written_so and _is_possible(number) else 0


def _at_home(number: str, digits: int, about: _About) -> float:
    if NORTH_AMERICAN.fullmatch(number):
        return 0.75
    if NATIONAL.match(number) and len(set(re.findall(r"[.-]", number))) <= 1:
        return 0.7 if about.phone or any(_is_valid(number, region) for region in WITH_ZERO) else 0
    if not (GROUPED.search(number) or DIGITS.fullmatch(number)) or not about.phone:
        return 0
    if digits == FEWEST_DIGITS:
        return 0.6 if re.fullmatch(r"[2-9][0-9]{2}[ .-][0-9]{4}", number) else 0
    return 0.6 if any(_is_valid(number, region) for region in REGIONS) else 0


@cache
def _plans() -> Any:
    return loaded("phonenumbers")


@lru_cache(maxsize=4096)
def _is_valid(number: str, region: str | None) -> bool:
    """Returns whether the numbering plan of a country has such a number."""
    parsed = _parsed(number, region)
    return parsed is not None and bool(_plans().is_valid_number(parsed))


def _is_possible(number: str) -> bool:
    parsed = _parsed(number, None)
    return parsed is not None and bool(_plans().is_possible_number(parsed))


def _parsed(number: str, region: str | None) -> PhoneNumber | None:
    plans = _plans()
    try:
        parsed: PhoneNumber = plans.parse(number, region)
    except plans.NumberParseException:
        return None
    return parsed
