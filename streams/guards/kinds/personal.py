"""Personal data."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.policies import PiiRule
from streams.guards.found import Deal, Detector, Hit
from streams.guards.pii import find as find_personal

# Characters that the longest kind with spaces in it has (an IBAN in groups of four), and those
# behind it whose words may tell what it is.
REACH = 96
# An address of electronic mail has at most 320 characters (RFC 5321).
TOKEN = 320

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
    return Detector(find=find, reach=REACH, token=TOKEN, follows=True)
