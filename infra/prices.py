"""What tokens cost: exact, in whole picodollars (10^-12 US dollars).

A rate has at most six decimals for a million tokens, so that a single token costs a whole number of
picodollars, and sums never round.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from schemas.events import Usage
from schemas.routing import PER, Price

PICODOLLARS = 10**12


def price_at(prices: Iterable[Price], moment: datetime) -> Price | None:
    """Returns the price that holds at a moment: the latest that has come; None where none has."""
    come = (price for price in prices if price.since <= moment)
    return max(come, key=lambda price: price.since, default=None)


def picodollars(price: Price, usage: Usage) -> int:
    """Returns what a request costs.

    Args:
        price: The model's.
        usage: Tokens; the cached ones and those written to a cache are among those read.
    """
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    written = min(usage.cache_write_tokens, usage.prompt_tokens - cached)
    cached_rate = price.input if price.cached_input is None else price.cached_input
    write_rate = price.input if price.cache_write is None else price.cache_write
    tokens = (
        (usage.prompt_tokens - cached - written) * price.input
        + cached * cached_rate
        + written * write_rate
        + usage.completion_tokens * price.output
    )
    return int(tokens * PICODOLLARS / PER + price.request * PICODOLLARS)


def dollars(pico: int) -> Decimal:
    """Returns picodollars in US dollars, exactly."""
    return Decimal(pico).scaleb(-12)
