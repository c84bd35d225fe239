"""Runs made of their journals once more: what they come to, and what they say on the way."""

from __future__ import annotations

from collections.abc import Iterable

from infra.registry import Reader, Registry
from schemas.events import AgentJournaled
from streams.runs import replaying
from streams.runs.replaying import Replayed
from tests.harness import Bus


async def replayed(bus: Bus, entries: Iterable[AgentJournaled]) -> Replayed:
    """Returns what a run comes to whose entries are taken in once more."""
    return await replaying.replayed(entries, Reader(bus.codec, Registry(bus.registry_settings)))
