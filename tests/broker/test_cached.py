"""Kept answers on their way to every gateway process."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from infra.registry import Reader, Registry
from infra.telemetry import now
from schemas.codec import Codec
from schemas.events import Completion, CompletionCached, FinishReason, Usage
from schemas.topics import COMPLETION_CACHED
from streams.gateway.cache import Cache
from streams.gateway.cached import Following
from tests.harness import Bus, soon, unique
from tests.seed import changes, view_of

pytestmark = pytest.mark.stack

ROUTES = [{"name": "a", "pool": "a", "model": "m"}]


def endpoint(**spec: object) -> dict[str, object]:
    return {
        "kind": "endpoint",
        "name": "main.tests.kept",
        "spec": {"routes": ROUTES, **spec},
    }


def answer(key: str, tenant: str) -> CompletionCached:
    instant = now()
    return CompletionCached(
        cache_key=key,
        tenant=tenant,
        endpoint="main.tests.kept",
        completion=Completion(
            model="m", content=key, finish_reason=FinishReason.STOP, usage=Usage()
        ),
        cached_at=instant,
        until=instant + timedelta(hours=1),
    )


async def test_a_process_has_what_was_kept_before_and_since_while_an_endpoint_keeps_answers(
    bus: Bus,
) -> None:
    tenant = unique("tenant")
    old = replace(answer("old", tenant), until=now() - timedelta(seconds=1))
    bus.send(COMPLETION_CACHED, answer("before", tenant), old)
    bus.put(COMPLETION_CACHED.name, tenant.encode(), b"no event")
    bus.settle()
    view = view_of([endpoint()])
    cache = Cache()
    registry = Registry(bus.registry_settings)
    following = Following(
        bus.kafka, Reader(Codec(registry.ids()), registry), view, cache, unique("gateway")
    )

    async def has(*keys: str) -> object:
        found = {key for key in ("before", "since", "old") if cache.get(tenant, key, now())}
        return found == set(keys)

    async def has_before() -> object:
        return await has("before")

    async def has_both() -> object:
        return await has("before", "since")

    async def has_none() -> object:
        return len(cache) == 0

    try:
        for each in changes([endpoint(cache={"lasts": "1h"})]):
            view.apply(each)
        await soon(has_before, what="what was kept before")
        bus.send(COMPLETION_CACHED, answer("since", tenant))
        bus.settle()
        await soon(has_both, what="what was kept since")
        for each in changes([endpoint()]):
            view.apply(each)
        await soon(has_none, what="an empty cache")
    finally:
        await following.close()
