"""How an endpoint is served: its routes, how one of them is chosen, and what their tokens cost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from schemas.events import Reason
from schemas.shapes import (
    MOST_RULES,
    MOST_TOPICS,
    Duration,
    FullName,
    Name,
    Segment,
    Shape,
    Spec,
    Text,
    VersionName,
)

PER = 1_000_000  # tokens that a price is for
# No model costs so much a million tokens, and none so little: a price a token was written.
MOST_PRICE, LEAST_PRICE = Decimal(5000), Decimal("0.001")
DECIMALS = 6  # so that a single token costs a whole number of picodollars


def per_million(price: Decimal) -> Decimal:
    """Returns a price that can be one for a million tokens."""
    whole = price == round(price, DECIMALS)
    if price and not (whole and LEAST_PRICE <= price <= MOST_PRICE):
        raise ValueError(
            f"a price is in US dollars for a million tokens, from {LEAST_PRICE} to {MOST_PRICE}, "
            f"or 0, with at most {DECIMALS} decimals: is this one for a single token?"
        )
    return price


Rate = Annotated[Decimal, Field(ge=0, allow_inf_nan=False), AfterValidator(per_million)]


class Price(Shape):
    """What a model's tokens cost from a day on, in US dollars for a million of them.

    Attributes:
        since: From when it holds; of several the latest that has come.
        input: Prompt tokens that no cache served.
        cached_input: Prompt tokens that the provider's cache served; as ``input`` if left out.
        cache_write: Prompt tokens written to the provider's cache; as ``input`` if left out.
        output: Tokens produced, reasoning ones among them.
        request: US dollars for each request, whatever its tokens.
    """

    since: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    input: Rate = Decimal(0)
    cached_input: Rate | None = None
    cache_write: Rate | None = None
    output: Rate = Decimal(0)
    request: Annotated[Decimal, Field(ge=0, le=100, decimal_places=9)] = Decimal(0)


Prices = Annotated[tuple[Price, ...], Field(max_length=MOST_RULES)]


class RouteSpec(Shape):
    """One way to serve an endpoint.

    Attributes:
        name: Name inside the endpoint.
        pool: Worker pool that serves it.
        model: Model as the pool's workers name it.
        entity: Version of a catalog model that it serves.
        adapter: Version of a catalog model whose adapter is put on top.
        connection: Outside provider that it goes to.
        weight: Share of the requests, against the other routes with one; without, it is only
            fallen back on. Where no route has one, the first has all.
        mirror: Part of the requests, from 0 to 1, that are sent here as well and whose answers
            nobody hears (shadow traffic); such a route serves nothing else.
        tools: Whether it takes tools.
        json_schema: Whether it keeps to a JSON schema.
        context_tokens: Most tokens of prompt and completion together.
        retries: How often it is tried again before the next route is.
        first_token: Longest wait for the first token.
        idle: Longest silence between tokens.
    """

    name: Name
    pool: Segment
    model: Text
    entity: VersionName | None = None
    adapter: VersionName | None = None
    connection: FullName | None = None
    weight: Annotated[int, Field(ge=0, le=10_000)] | None = None
    mirror: Annotated[float, Field(ge=0, le=1)] = 0
    tools: bool = True
    json_schema: bool = True
    context_tokens: Annotated[int, Field(ge=1)] | None = None
    retries: Annotated[int, Field(ge=0, le=5)] = 0
    first_token: Duration | None = None
    idle: Duration | None = None


class Cooldown(Shape):
    """When a route counts as down: after so many failures in a row, for so long.

    Then one request probes it (half-open): answered, it is up again; else it cools down anew.
    """

    failures: Annotated[int, Field(ge=1, le=1000)] = 3
    lasts: Duration = "30s"


class Cache(Shape):
    """Answers that are given again for the very same request of the same tenant.

    Attributes:
        lasts: How long an answer is good.
        mode: Whether answers are looked up, kept, or both.
    """

    lasts: Duration = "1h"
    mode: Literal["read_only", "read_write", "write_only"] = "read_write"


# Faults of the route, not of the caller: another route may do better.
FALL_BACK_ON = (
    Reason.ANSWER_UNKEPT,
    Reason.PROVIDER_FAILED,
    Reason.PROVIDER_TIMEOUT,
    Reason.PROVIDER_UNAVAILABLE,
    Reason.RATE_LIMITED,
    Reason.STREAM_CUT,
)


class EndpointSpec(Spec):
    """What can be asked, and how it is served.

    Attributes:
        routes: Where requests go. One is chosen by weight; the others are its fallbacks, in order.
        output_policy: Whether parts pass through release, whatever the policies say.
        policies: What requests and answers are held to.
        balance: How a route is chosen among those with a weight: by weight, the one with the least
            in flight, the fastest, or the cheapest.
        sticky: What keeps its route: each request for itself, the session (tag ``session``), or
            the user.
        fall_back_on: Refusals after which the next route is tried.
        cooldown: When a route counts as down.
        cache: Whether answers are kept.
        reserve_tokens: Completion tokens that a request counts with until its real ones are known,
            where it sets no ``max_tokens``.
    """

    routes: tuple[RouteSpec, ...] = Field(min_length=1, max_length=MOST_TOPICS)
    output_policy: bool = False
    policies: tuple[FullName, ...] = Field(default=(), max_length=MOST_RULES)
    balance: Literal["cost", "latency", "least_in_flight", "weight"] = "weight"
    sticky: Literal["request", "session", "user"] = "request"
    fall_back_on: tuple[Reason, ...] = FALL_BACK_ON
    cooldown: Cooldown = Cooldown()
    cache: Cache | None = None
    reserve_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 1024

    def references(self) -> Iterator[str]:
        """Yields the models, adapters, connections and policies that routes name."""
        for route in self.routes:
            yield from filter(None, (route.entity, route.adapter, route.connection))
        yield from self.policies
