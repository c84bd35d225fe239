"""Settling: what was reserved for a request becomes what it really used, wherever it is counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from schemas.binary import MOST_LONG
from schemas.events import (
    Charge,
    Entry,
    InferenceRouted,
    Usage,
    UsageCounted,
)
from schemas.topics import USAGE_COUNTED, Outgoing
from streams.gateway.limits.amounts import really
from streams.gateway.limits.weigh import lease_end


def settled(
    routed: InferenceRouted,
    usage: Usage | None,
    cost: int | None,
    *,
    failed: bool,
    now: datetime,
) -> Iterator[Outgoing]:
    """Says what a request really used, once at each home of its counters.

    Args:
        routed: The request, with its charges.
        usage: Tokens of all its tries; None where nobody knows.
        cost: Picodollars of all its tries; None where a price is unknown.
        failed: Whether it ended without an answer.
        now: The moment.
    """
    used = (
        replace(charge, amount=max(0, min(really(charge, usage, cost, failed=failed), MOST_LONG)))
        for charge in routed.charges
    )
    yield from _entries(routed, used, now)


def given_back(routed: InferenceRouted, now: datetime) -> Iterator[Outgoing]:
    """Says that a request used nothing of what it has reserved: a limit elsewhere refused it."""
    yield from _entries(routed, (replace(charge, amount=0) for charge in routed.charges), now)


def _entries(
    routed: InferenceRouted, charges: Iterator[Charge], now: datetime
) -> Iterator[Outgoing]:
    homes: dict[str, list[Charge]] = {}
    for charge in charges:
        homes.setdefault(charge.home, []).append(charge)
    for home, at_home in homes.items():
        counted = UsageCounted(
            charge_id=routed.charge_id,
            home=home,
            shared=home == at_home[0].counter,
            tenant=routed.request.tenant,
            request_id=routed.request.request_id,
            entry=Entry.SETTLED,
            charges=tuple(at_home),
            at=now,
            until=lease_end(routed.request),
        )
        yield Outgoing(USAGE_COUNTED, counted)
