"""Sending a request on its route, and copies of it where nobody hears the answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from schemas.events import InferenceRouted, Route
from schemas.topics import INFERENCE_ROUTED, Outgoing


def sent(routed: InferenceRouted, mirrors: Iterable[Route]) -> Iterator[Outgoing]:
    """Sends a request on its route, and copies to routes whose answers nobody hears.

    A copy reserves nothing, is kept nowhere, and has no parts.
    """
    yield Outgoing(INFERENCE_ROUTED.member(routed.route.pool), routed)
    for route in mirrors:
        copy = replace(
            routed,
            request=replace(routed.request, stream=False),
            route=route,
            fallbacks=(),
            charge_id="",
            charges=(),
            cache_key="",
            mirrored=True,
        )
        yield Outgoing(INFERENCE_ROUTED.member(route.pool), copy)
