"""Personal data."""

from __future__ import annotations

import re
from collections.abc import Iterator

from schemas.policies import PiiRule
from streams.guards.found import Deal, Detector, Hit, last_run
from streams.guards.pii import find as find_personal
from streams.guards.pii.names import FIRST, LAST, ORDINARY, PLACE, kinds, plain
from streams.guards.pii.person import UPPER

# An address of electronic mail has at most 320 characters (RFC 5321).
TOKEN = 320
# Characters behind a place whose words may tell what it is.
TELLING = 32
TELLING_OF_NAMES = 16
# Characters that are waited for at most from the first word on that may be part of something.
REACH = 160
LONGEST_COUNTRY = 4

# What numbers, names and dates are made of; addresses of mail and machines are one word.
_WORD = re.compile(r"[^\s\u2e80-\ud7ff]+")
_DIGIT = re.compile("[0-9]")
_CAPITALISED = re.compile(rf"[{UPPER}]\w*")
_PLACEHOLDER = re.compile("<[A-Z_]+_[0-9]+>")
_MONTHS = frozenset(
    (
        *("abr", "ago", "aoû", "apr", "aug", "avr", "dec", "dez", "dic", "déc", "ene", "feb"),
        *("fev", "fév", "gen", "giu", "jan", "jui", "jul", "jun", "lug", "mag", "mai", "may"),
        *("mar", "mär", "nov", "oct", "okt", "ott", "sep", "set"),
    )
)

DEALS: dict[str, Deal] = {"block": "deny", "mask": "mask", "restore": "restore"}


def personal(rule: PiiRule) -> Detector:
    """Returns what finds the kinds that something is to happen to."""
    deals = {
        str(entity): DEALS[action] for entity, action in rule.entities.items() if action in DEALS
    }
    entities = frozenset(deals)

    def find(text: str, begin: int) -> Iterator[Hit]:
        # Nobody's data is in an empty text, and many texts of a request are.
        for span in find_personal(text, entities) if text and entities else ():
            if span.end > begin:
                yield Hit(max(span.start, begin), span.end, span.entity, deals[span.entity])

    if not entities:
        return Detector()
    return Detector(find=find, held_from=_Waiting(entities).held_from, follows=True)


class _Waiting:
    """Tells how much of a growing text may be part of what is not whole yet."""

    def __init__(self, entities: frozenset[str]) -> None:
        self._people = "PERSON" in entities

    def held_from(self, text: str) -> int:
        """Returns where something begins that may go on, or that the next words may tell of."""
        held = last_run(text, TOKEN)
        edge = len(text)
        words = list(_WORD.finditer(text, max(0, min(held, edge - REACH))))
        for word in reversed(words):
            if word.end() <= edge - TELLING:
                break
            if edge - word.end() < self._telling(word[0]):
                edge = word.start()
        return min(held, edge)

    def _telling(self, word: str) -> int:
        """Returns how many characters behind a word may tell that it is part of something."""
        word = _PLACEHOLDER.sub("", word)
        if _DIGIT.search(word) or word[:3].lower() in _MONTHS:
            return TELLING
        # Before the figures of many a number stands a country.
        if word.isupper() and len(word) <= LONGEST_COUNTRY:
            return TELLING
        named = self._people and any(map(_may_name, _CAPITALISED.findall(word)))
        return TELLING_OF_NAMES if named else 0


def _may_name(word: str) -> bool:
    bits = kinds().get(plain(word), 0)
    return not bits & (ORDINARY | PLACE) or bits & (FIRST | LAST) != 0
