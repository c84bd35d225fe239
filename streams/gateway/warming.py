"""Warming up: what takes seconds to load is loaded before the first request needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import structlog

from infra.catalog import CatalogView
from infra.telemetry import described
from schemas.policies import PiiRule

log = structlog.get_logger()

LOOK_S = 1.0


async def warm(view: CatalogView) -> None:
    """Loads the finders of personal data once some policy looks for it."""
    while not any(_looks(view)):
        await asyncio.sleep(LOOK_S)
    try:
        # Heavy, so that a gateway that needs none of it does without.
        from streams.guards.pii import load  # noqa: PLC0415

        await asyncio.to_thread(load)
    # Who needs it finds out by itself, and fails closed.
    except Exception as error:  # noqa: BLE001
        log.error("finders of personal data not loaded", error=described(error))
    else:
        log.info("finders of personal data loaded")


def _looks(view: CatalogView) -> Iterator[bool]:
    for policy in list(view.policies.values()):
        yield any(isinstance(rule, PiiRule) for rule in policy.rules)
