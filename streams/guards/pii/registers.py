"""What registers of numbers say, of which python-stdnum keeps the forms and the checksums.

Presidio's own list of IBANs lacks a dozen countries and has the wrong length for four, Portugal
among them, and it knows the VAT numbers of few countries.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from streams.guards.pii.loading import loaded

# Where the European Union does not say.
VAT_CHECKS = {
    "CHE": "stdnum.ch.uid",
    "GB": "stdnum.gb.vat",
    "NO": "stdnum.no.mva",
    "XI": "stdnum.gb.vat",
}


@cache
def iban_length(country: str) -> int:
    """Returns how many letters and digits an IBAN of a country has; 0 where there are none."""
    ((_, about), *_) = loaded("stdnum.numdb").get("iban").info(country)
    sizes = re.findall("([0-9]+)!", about.get("bban", ""))
    return 4 + sum(map(int, sizes)) if sizes else 0


def is_iban(number: str) -> bool:
    """Returns whether ``number`` has the form and the checksum of an IBAN."""
    # Banks of some countries have checksums of their own, which old accounts may fail.
    return bool(loaded("stdnum.iban").is_valid(number, check_country=False))


@cache
def vat_check(country: str) -> Callable[[str], bool]:
    """Returns what tells whether a number, without its country, is a VAT number of that."""
    valid: Callable[[str], bool] = loaded(VAT_CHECKS.get(country, "stdnum.eu.vat")).is_valid
    prefix = "" if country in {"GB", "XI"} else country
    return lambda number: valid(prefix + number)
