"""What tokens cost: exact, in whole picodollars (10^-12 US dollars).

A rate has at most six decimals for a million tokens, so that a single token costs a whole number of
picodollars, and sums never round.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal

from schemas.events import Usage
from schemas.routing import Price

# Exponents of ten: picodollars in a dollar, and tokens that a rate is for.
PICO, PER_MILLION = 12, 6


def price_at(prices: Iterable[Price], moment: datetime) -> Price | None:
    """Returns the price that holds at a moment: the latest that has come; None where none has."""
    come = (price for price in prices if _since(price) <= moment)
    return max(come, key=_since, default=None)


def picodollars(price: Price, usage: Usage) -> int:
    """Returns what a request costs, exactly.

    Args:
        price: The model's.
        usage: Tokens; the cached ones and those written to a cache are among those read.
    """
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    written = min(usage.cache_write_tokens, usage.prompt_tokens - cached)
    cached_rate = price.input if price.cached_input is None else price.cached_input
    write_rate = price.input if price.cache_write is None else price.cache_write
    return (
        (usage.prompt_tokens - cached - written) * _of_a_token(price.input)
        + cached * _of_a_token(cached_rate)
        + written * _of_a_token(write_rate)
        + usage.completion_tokens * _of_a_token(price.output)
        + int(price.request.scaleb(PICO))
    )


def dollars(pico: int) -> Decimal:
    """Returns picodollars in US dollars, exactly."""
    # From text: arithmetic of decimals rounds to 28 digits.
    return Decimal(f"{pico}E-{PICO}")


def _of_a_token(rate: Decimal) -> int:
    return int(rate.scaleb(PICO - PER_MILLION))


def _since(price: Price) -> datetime:
    """Returns when a price begins to hold; a day without a zone is one in UTC."""
    return price.since if price.since.tzinfo else price.since.replace(tzinfo=UTC)
