"""Admission: a request goes on its first route, or is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from infra.catalog import CatalogView
from infra.identity import identity
from schemas.events import (
    InferenceRouted,
    InferenceWeighed,
    Refusal,
)
from schemas.topics import (
    INFERENCE_ROUTED,
    INFERENCE_WEIGHED,
    Outgoing,
)
from streams.gateway.asked import Asked
from streams.gateway.checks import first_refusal
from streams.gateway.limits.weigh import refused, reserved, weigh
from streams.gateway.refuse import refuse
from streams.gateway.reply import signed


def admit(asked: Asked, view: CatalogView, now: datetime) -> Iterator[Outgoing]:
    """Sends a request on its first route, or refuses it with a reply.

    Onward it carries who was found to act. What was put here twice was decided the first time.
    """
    if asked.moved_again:
        return
    if refusal := first_refusal(asked, view, now):
        yield from refuse(asked, refusal, view, now)
        return
    request = replace(asked.request, principal=identity(asked.sender, view))
    endpoint = view.endpoints[request.endpoint]
    first, *fallbacks = endpoint.routes
    weighed = weigh(asked, request.principal, endpoint, first, view, now)
    if isinstance(weighed, Refusal):
        yield from refused(asked, weighed, now)
        yield from refuse(asked, weighed, view, now)
        return
    routed = InferenceRouted(
        request=request,
        route=first,
        fallbacks=tuple(fallbacks),
        # Without an output policy, parts spare themselves the way through release.
        parts_to=None if endpoint.output_policy else request.reply_to,
        signed=signed(asked.signed),
        routed_at=now,
        charge_id=weighed.charge_id,
        charges=weighed.charges,
        judgements=weighed.judgements,
    )
    yield from reserved(asked, weighed, now)
    if weighed.asks:
        onward = InferenceWeighed(
            routed=routed, asks=weighed.asks, trace_id=asked.trace_id, weighed_at=now
        )
        yield Outgoing(INFERENCE_WEIGHED, onward)
    else:
        yield Outgoing(INFERENCE_ROUTED.member(first.pool), routed)
