"""Amounts: what a request counts with until its real use is known, and what it really used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from infra.catalog import CatalogView, Endpoint
from infra.prices import PICO, dollars, picodollars, price_at
from infra.tokens import TOKENLESS, estimate
from schemas.binary import MOST_LONG
from schemas.events import Charge, InferenceRequested, Route, Task, Usage
from schemas.policies import LimitRule

# What produces no tokens.
SILENT = frozenset({Task.EMBEDDING, Task.RERANK, Task.SEARCH, Task.WRITE}) | TOKENLESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a request is expected to use.

    Attributes:
        usage: Tokens.
        cost: Picodollars; None where the price is unknown.
    """

    usage: Usage
    cost: int | None


def estimated(
    request: InferenceRequested, endpoint: Endpoint, route: Route, view: CatalogView, now: datetime
) -> Estimate:
    """Returns what a request is expected to use on a route: all that it may produce."""
    most = request.sampling.max_tokens
    output = endpoint.spec.reserve_tokens if most is None else most
    usage = Usage(
        prompt_tokens=estimate(request),
        completion_tokens=0 if request.task in SILENT else output,
        estimated=True,
    )
    return at_price(usage, route, view, now)


def at_price(usage: Usage, route: Route, view: CatalogView, now: datetime) -> Estimate:
    """Returns what the same tokens cost on a route."""
    price = price_at(view.prices(route), now)
    return Estimate(usage=usage, cost=None if price is None else picodollars(price, usage))


def is_free(route: Route, view: CatalogView, now: datetime) -> bool:
    """Returns whether nothing that a route does costs anything; what has no price is not free."""
    price = price_at(view.prices(route), now)
    return price is not None and not any(
        (price.input, price.cached_input, price.cache_write, price.output, price.request)
    )


def uses_none(
    unit: str, task: Task, routes: Iterable[Route], view: CatalogView, now: datetime
) -> bool:
    """Returns whether a request uses nothing of a unit, so that it passes where all is spent.

    By what it is, never by what it is expected to use: an estimate may be too low.

    Args:
        unit: What is counted.
        task: What is asked for.
        routes: All that it may go to.
        view: The catalog.
        now: The moment.
    """
    if unit == "cost":
        return all(is_free(route, view, now) for route in routes)
    if unit == "output_tokens":
        return task in SILENT
    return unit in USED and task in TOKENLESS


USED: dict[str, Callable[[Usage], int]] = {
    "cached_tokens": lambda usage: usage.cached_tokens,
    "input_tokens": lambda usage: usage.prompt_tokens,
    "output_tokens": lambda usage: usage.completion_tokens,
    "total_tokens": lambda usage: usage.prompt_tokens + usage.completion_tokens,
}


def amount(rule: LimitRule, expected: Estimate) -> int | None:
    """Returns what a request counts with under a rule; None where its price must be known first."""
    if tokens := USED.get(rule.unit):
        return min(tokens(expected.usage), MOST_LONG)
    if rule.unit != "cost":
        return 1
    if expected.cost is not None:
        return min(expected.cost, MOST_LONG)
    return None if rule.unpriced == "refuse" else scaled(rule.unit, rule.unpriced)


def really(charge: Charge, usage: Usage | None, cost: int | None, *, failed: bool) -> int:
    """Returns what a request used of what it was charged with, once that is known.

    What is not known counts as it was reserved; tokens as none where the request failed without
    using any.
    """
    if charge.unit == "in_flight":
        return 0
    if charge.unit == "requests":
        return 0 if failed and charge.refunds else charge.amount
    if charge.unit == "cost":
        return charge.amount if cost is None else cost
    if usage is not None and (tokens := USED.get(charge.unit)):
        return tokens(usage)
    return 0 if failed and usage is None else charge.amount


def scaled(unit: str, most: Decimal) -> int:
    """Returns a bound in what its counter counts: picodollars, or whole ones."""
    return int(most.scaleb(PICO)) if unit == "cost" else int(most)


def shown(unit: str, counted: int) -> str:
    """Returns what a counter counts as a decimal number: dollars, or whole ones."""
    if unit != "cost":
        return str(counted)
    return f"{dollars(counted).normalize():f}"
