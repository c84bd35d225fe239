"""What processes tell of the catalog's things: what was told until now, and what comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeVar

from catalog.operator.asking import Registered
from infra.registry import Reader, Registry
from infra.settings import KafkaSettings, RegistrySettings
from infra.told import last_told, told
from schemas.codec import Codec
from schemas.events import Event, IndexReported, SourceReported
from schemas.topics import Topic

E = TypeVar("E", bound=Event)

NAME = "tessera-operator"
# Entries a page.
MOST = 1000


@asynccontextmanager
async def news(
    topic: Topic[E],
) -> AsyncIterator[tuple[list[E], AsyncGenerator[E | None, None]]]:
    """Opens a compacted topic: all that was told until now, and whatever comes from now on.

    Raises:
        BusUnreachable: No broker answers.
        LookupError: There is no such topic.
        TailBroken: It cannot be read on.
    """
    events = told(KafkaSettings(), await _reader(), topic, NAME)
    async with aclosing(events):
        before: list[E] = []
        async for event in events:
            if event is None:
                break
            before.append(event)
        yield before, events


async def last(topic: Topic[E]) -> dict[str, E]:
    """Returns what was told last of each thing; errors are those of ``news``."""
    return await last_told(KafkaSettings(), await _reader(), topic, NAME)


async def seen(catalog: Registered, kind: str) -> dict[str, dict[str, Any]]:
    """Returns the entries of a kind that the caller may see, by name, as a list tells of them."""
    found: dict[str, dict[str, Any]] = {}
    page: str | None = ""
    while page is not None:
        answer = await catalog.ask("list", prefix="", kind=kind, limit=MOST, page=page)
        found |= {each["name"]: each for each in answer["entries"]}
        page = answer["page"]
    return found


def plain(report: IndexReported | SourceReported) -> dict[str, Any]:
    """Returns a report as JSON tells it."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in asdict(report).items()
    }


async def _reader() -> Reader:
    registry = Registry(RegistrySettings())
    return Reader(Codec(await asyncio.to_thread(registry.ids)), registry)
