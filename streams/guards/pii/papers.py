"""Numbers that offices give: social security, passports, value added tax."""

from __future__ import annotations

import re
from collections.abc import Iterator

from streams.guards.pii.nearby import mentions, said, words
from streams.guards.pii.registers import vat_check
from streams.guards.pii.span import Span, closed_up

SSN = re.compile(
    r"[0-8](?<![\w.-].)(?<![0-9][ ,/].)(?!(?<=0)00|(?<=6)66)"
    r"[0-9]{2}([- .]?)(?!00)[0-9]{2}\1(?!0000)[0-9]{4}"
    r"(?!\w|[-.,/][0-9])"
)
SSN_WORDS = words("ssns?", "social", "social.security", "soc\\.? ?sec\\.?", "tax.?payer", "w-?[29]")

PASSPORT = re.compile(r"(?<![\w.-])(?=[A-Z]{0,3}[0-9])[A-Z0-9]{6,10}(?!\w|[.-]\w)")
SPLIT_PASSPORT = re.compile(r"(?<![\w.-])[A-Z]{1,2} ?[0-9]{2,3} ?[0-9]{3,4}(?!\w|[.-]\w)")
PASSPORT_WORDS = words(
    "passports?", "passport.?(?:no|nr|number)s?", "pass.?nummer", "reisepass(?:nummer)?",
    "pasaporte", "reisepass.?nr", "passeports?", "passaporto", "passaporte",
    "paspoort(?:nummer)?", "paszport", "travel document", "pass.?nr",
)  # fmt: skip
PASSPORT_ROOTS = ("pas", "travel doc")
# The second line of a passport's machine readable zone (ICAO 9303, part 4).
ZONE = re.compile(
    r"(?<![\w<])[A-Z0-9<]{9}[0-9][A-Z<]{3}[0-9]{7}[MFX<][0-9]{7}[A-Z0-9<]{14}[0-9<][0-9]"
)
FEWEST_IN_PASSPORT = 3

VAT = re.compile(r"[A-Z](?<![\w.-].)[A-Z]{1,2}(?=[ -]?[0-9A-Z]{1,4}[0-9. -])")
VAT_BODY = re.compile(r"[A-Z]{2,3}(?:[ .-]?[0-9A-Z]){2,14}")
BARE_VAT = re.compile(r"(?<![\w.-])[0-9]{3}[ ]?[0-9]{3,4}[ ]?[0-9]{2,4}(?!\w|[.,-][0-9])")
VAT_WORDS = words(
    "vat", "vat.?(?:id|no|nr|number|reg)s?", "ust.?id(?:.?nr)?", "umsatzsteuer\\S*", "mwst",
    "tva", "iva", "btw(?:.?nummer)?", "partita iva", "p\\. ?iva", "n\\.?i\\.?f", "c\\.?i\\.?f",
    "moms", "nip", "tax id\\w*", "tax number", "value.added",
)  # fmt: skip
VAT_ROOTS = (
    "vat", "ust-", "ust.", "ustid", "umsatz", "mwst", "tva", "iva", "btw", "nif", "n.i",
    "cif", "c.i", "nip", "moms", "tax", "value",
)  # fmt: skip
VAT_FORMS = {
    "AT": r"U[0-9]{8}", "BE": r"[01][0-9]{9}", "BG": r"[0-9]{9,10}", "CHE": r"[0-9]{9}",
    "CY": r"[0-9]{8}[A-Z]", "CZ": r"[0-9]{8,10}", "DE": r"[1-9][0-9]{8}", "DK": r"[0-9]{8}",
    "EE": r"[0-9]{9}", "EL": r"[0-9]{9}", "ES": r"[A-Z0-9][0-9]{7}[A-Z0-9]", "FI": r"[0-9]{8}",
    "FR": r"[A-HJ-NP-Z0-9]{2}[0-9]{9}", "GB": r"(?:[0-9]{12}|[0-9]{9}|(?:GD|HA)[0-9]{3})",
    "HR": r"[0-9]{11}", "HU": r"[0-9]{8}", "IE": r"[0-9][0-9A-Z][0-9]{5}[A-Z]{1,2}",
    "IT": r"[0-9]{11}", "LT": r"(?:[0-9]{12}|[0-9]{9})", "LU": r"[0-9]{8}", "LV": r"[0-9]{11}",
    "MT": r"[0-9]{8}", "NL": r"[0-9A-Z]{10}[0-9]{2}", "NO": r"[0-9]{9}", "PL": r"[0-9]{10}",
    "PT": r"[0-9]{9}", "RO": r"[0-9]{2,10}", "SE": r"[0-9]{12}", "SI": r"[0-9]{8}",
    "SK": r"[0-9]{10}", "XI": r"(?:[0-9]{12}|[0-9]{9})",
}  # fmt: skip
FORMS = {country: re.compile(form) for country, form in VAT_FORMS.items()}


def social_security(text: str) -> Iterator[Span]:
    """Yields numbers of US social security, of areas and groups that are given out."""
    for match in SSN.finditer(text):
        # With dashes the form tells; without, something must be said of it.
        dashed = match.group(1) == "-"
        if dashed or said(SSN_WORDS, text, match.span(), before=50, after=20):
            yield Span(match.start(), match.end(), "US_SSN", 0.85)


def passports(text: str) -> Iterator[Span]:
    """Yields numbers of passports, which only what is said of them tells, and their coded line."""
    if "<" in text:
        for match in ZONE.finditer(text):
            if _zone_checks(match.group()):
                yield Span(match.start(), match.end(), "PASSPORT", 1.0)
    if not mentions(text, PASSPORT_ROOTS):
        return
    for pattern in (PASSPORT, SPLIT_PASSPORT):
        for match in pattern.finditer(text):
            digits = sum(letter.isdigit() for letter in match.group())
            if digits >= FEWEST_IN_PASSPORT and said(
                PASSPORT_WORDS, text, match.span(), before=45, after=25
            ):
                yield Span(match.start(), match.end(), "PASSPORT", 0.8)


def _zone_checks(line: str) -> bool:
    fields = ((line[0:9], line[9]), (line[13:19], line[19]), (line[21:27], line[27]))
    return all(_zone_digit(field) == check for field, check in fields)


def _zone_digit(field: str) -> str:
    values = (0 if letter == "<" else int(letter, 36) for letter in field)
    return str(sum(value * (7, 3, 1)[at % 3] for at, value in enumerate(values)) % 10)


def vat_numbers(text: str) -> Iterator[Span]:
    """Yields VAT numbers: of the right checksum, or of the right form where they are spoken of."""
    for match in VAT.finditer(text):
        if match.group()[:2] not in FORMS and match.group() != "CHE":
            continue
        body = VAT_BODY.match(text, match.start())
        if body is None:
            continue
        letters, at = closed_up(body.group())
        country = "CHE" if letters.startswith("CHE") else letters[:2]
        form = FORMS.get(country)
        number = form.match(letters, len(country)) if form else None
        if number is None:
            continue
        end = match.start() + at[number.end() - 1] + 1
        if text[end : end + 1].isalnum():
            continue
        if said(VAT_WORDS, text, (match.start(), end), before=50, after=20):
            yield Span(match.start(), end, "VAT_NUMBER", 0.9)
        elif vat_check(country)(number.group()):
            yield Span(match.start(), end, "VAT_NUMBER", 0.7)
    if mentions(text, VAT_ROOTS):
        for match in BARE_VAT.finditer(text):
            if said(VAT_WORDS, text, match.span(), before=24, after=0):
                yield Span(match.start(), match.end(), "VAT_NUMBER", 0.6)
