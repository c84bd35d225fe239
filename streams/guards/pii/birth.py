"""Dates of birth: dates of which it is said that somebody was born on them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from streams.guards.pii.nearby import mentions, said, words
from streams.guards.pii.span import Span

MONTHS = (
    "jan(?:uary|uar|vier)?|enero|gennaio", "feb(?:ruary|ruar)?|février|febrero|febbraio",
    "mar(?:ch|s|zo)?|märz", "apr(?:il|ile)?|avril|abril", "may|mai|mayo|maggio",
    "june?|juni|juin|junio|giugno", "july?|juli|juillet|julio|luglio", "aug(?:ust)?|août|agosto",
    "sept?(?:ember|embre|iembre)?|settembre", "o[ck]t(?:ober|obre|ubre)?|ottobre",
    "nov(?:ember|embre|iembre)?", "de[cz](?:ember|iembre)?|décembre|dicembre",
)  # fmt: skip
NAMED = "|".join(MONTHS)
YEAR = r"(?:19[0-9]{2}|20[0-3][0-9])"
DATE = re.compile(
    r"(?<![\w/.-])(?:"
    rf"(?P<y1>{YEAR})(?P<sep>[-/.])(?P<m1>[01]?[0-9])(?P=sep)(?P<d1>[0-3]?[0-9])"
    r"|(?P<a>[0-3]?[0-9])(?P<sep2>[-/.])\s?(?P<b>[0-3]?[0-9])(?P=sep2)\s?"
    rf"(?P<y2>{YEAR}|[0-9]{{2}})"
    r"|(?P<d3>[0-3]?[0-9])(?:st|nd|rd|th|\.|º|er)?[ -](?:of |de )?"
    rf"(?P<m3>{NAMED})\.?,?[ -](?:de |del )?(?P<y3>{YEAR}|[0-9]{{2}}(?!:))"
    rf"|(?P<m4>{NAMED})\.?[ -](?P<d4>[0-3]?[0-9])(?:st|nd|rd|th)?,?[ -]"
    rf"(?P<y4>{YEAR})"
    r")(?!\w|[/-][0-9]|\.[0-9])",
    re.IGNORECASE,
)
BORN = words(
    "born", "births?", "birth.?(?:day|date)s?", "d\\.?o\\.?b\\.?", "date.of.birth", "geboren",
    "geburtsdatum", "geburtstag", "geb\\.?", "née?", "naissance", "nacid[oa]", "nació",
    "nacimiento", "nascita", "nat[oa]", "geboortedatum", "nascimento", "urodzon[ya]",
    "date_of_birth", "birth_date", "dateofbirth",
)  # fmt: skip
ROOTS = ("born", "birth", "dob", "d.o.b", "geb", "né", "naissance", "nac", "nasc", "nat", "urodz")


def births(text: str) -> Iterator[Span]:
    """Yields the dates that somebody was born on; none where nothing is said of a birth."""
    if not mentions(text, ROOTS):
        return
    for match in DATE.finditer(text):
        if said(BORN, text, match.span(), before=45, after=25) and _exists(match):
            yield Span(match.start(), match.end(), "DATE_OF_BIRTH", 0.85)


def _exists(match: re.Match[str]) -> bool:
    """Returns whether there is such a day, whichever of day and month comes first."""
    got = match.groupdict()
    year = int(got["y1"] or got["y2"] or got["y3"] or got["y4"])
    if got["a"]:
        one, two = int(got["a"]), int(got["b"])
        return _is_day(year, two, one) or _is_day(year, one, two)
    if got["m1"]:
        return _is_day(year, int(got["m1"]), int(got["d1"]))
    name = (got["m3"] or got["m4"]).lower()
    month = next(at for at, month in enumerate(MONTHS, 1) if re.fullmatch(month, name))
    return _is_day(year, month, int(got["d3"] or got["d4"]))


def _is_day(year: int, month: int, day: int) -> bool:
    # Of two figures, so of either century: take a leap year for what may be one.
    year = year if year > 99 else 1900 + year if year else 2000  # noqa: PLR2004
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True
