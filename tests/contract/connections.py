"""The outside provider with connections of a test's own, as the catalog would tell of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from infra.settings import InferenceSettings
from tests.contract.asking import Subject
from tests.seed import changed, described
from workers.providers.outside import Outside, open_outside

CONNECTION = "main.tests.outside"


def connect(provider: Outside, spec: dict[str, Any] | None, name: str = CONNECTION) -> None:
    """Makes or changes a connection; it is gone where there is no spec."""
    body = None if spec is None else described({"spec": {"private": True, **spec}})
    change = changed("connection", name, body)
    provider.view.apply(change)
    provider.changed(change)


@asynccontextmanager
async def connected(
    model: str, idle: Callable[[], Awaitable[object]], type: str, url: str, **spec: Any
) -> AsyncIterator[Subject]:
    """Opens the provider with one connection, to a server of this machine."""
    provider = await open_outside(InferenceSettings(provider="outside"))
    connect(provider, {"type": type, "url": url, **spec})
    yield Subject(provider, model, idle, CONNECTION)
    await provider.close()
