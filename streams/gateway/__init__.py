"""The gateway: who may ask what, where it goes, and what the caller hears.

Two decisions, both pure. ``admit`` stands before the workers, ``release`` behind them; what they
need of each other travels inside the events, and what a process remembers lies on its desk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from infra.catalog import CatalogView
from infra.provision import require
from infra.registry import Reader
from schemas.events import InferenceCompleted, InferenceRouted, InferenceWeighed
from schemas.topics import (
    APPROVAL_DECIDED,
    APPROVAL_GIVEN,
    INFERENCE_COMPLETED,
    INFERENCE_JUDGED,
    INFERENCE_PARTS,
    INFERENCE_REFUSED,
    INFERENCE_REQUESTED,
    INFERENCE_WEIGHED,
    Outgoing,
    Topic,
)
from streams.gateway.admission import Admission
from streams.gateway.admit import admit
from streams.gateway.approvals import decide
from streams.gateway.cached import Following
from streams.gateway.desk import Desk, opened
from streams.gateway.judged import judged
from streams.gateway.judging import Judging
from streams.gateway.limits.ledger import Ledger
from streams.gateway.parts import Parts
from streams.gateway.release import release
from streams.gateway.rows import record_refusal
from streams.gateway.warming import warm
from streams.gateway.watch import Approving, Giving, Watch
from streams.gateway.weighed import Heard, Weighing, pass_on
from streams.steps import Fail, Runtime, Step, Steps, Work

# What a step yields, given event, view, moment and desk.
Deciding = Callable[[Any, CatalogView, datetime, Desk], Iterable[Outgoing]]


def at_desk(step: Deciding, desk: Desk) -> Step:
    """Returns a step that decides by what is on the desk, which hears of all that is sent.

    It hears where the route was chosen: what waits for limits that tenants share counts as sent.
    """

    def decide(given: Any, view: CatalogView, now: datetime) -> Iterable[Outgoing]:
        if isinstance(given, InferenceCompleted):
            desk.health.observe(given, view, now)
        for outgoing in step(given, view, now, desk):
            if (routed := _chosen(given, outgoing)) is not None:
                desk.health.sent(routed, now)
            yield outgoing

    return decide


def _chosen(given: Any, outgoing: Outgoing) -> InferenceRouted | None:
    """Returns what goes on a route that was chosen here; None where it was before, or is none."""
    if isinstance(given, Heard):
        return None
    event = outgoing.event
    if isinstance(event, InferenceWeighed):
        return event.routed if event.answer is None else None
    return event if isinstance(event, InferenceRouted) else None


class Releasing(Steps):
    """Work that releases answers; beside it, what the desk needs is brought there."""

    def __init__(self, runtime: Runtime, fail: Fail, desk: Desk) -> None:
        super().__init__(INFERENCE_COMPLETED, at_desk(release, desk), runtime, fail)
        reader = Reader(runtime.codec, runtime.registry)
        self._following = Following(runtime.kafka, reader, runtime.view, desk.answers, runtime.name)
        self._warming = asyncio.create_task(warm(runtime.view))

    async def close(self) -> None:
        """Stops what goes on beside it."""
        self._warming.cancel()
        await self._following.close()


def open_gateway(runtime: Runtime, fail: Fail) -> Mapping[Topic[Any], Work]:
    """Returns the work of the gateway.

    Raises:
        ProvisioningFailed: A topic that the catalog names does not exist.
        SettingInvalid: The secret of the seal is too short.
        SecretUnavailable: It cannot be had.
    """
    require(runtime.kafka)
    desk, ledger = opened(runtime.seal), Ledger(runtime, fail)
    watch = Watch(runtime, fail)
    return {
        APPROVAL_DECIDED: Approving(at_desk(decide, desk), runtime, fail, watch),
        APPROVAL_GIVEN: Giving(runtime, fail, watch),
        INFERENCE_COMPLETED: Releasing(runtime, fail, desk),
        INFERENCE_JUDGED: Judging(at_desk(judged, desk), runtime, fail),
        INFERENCE_PARTS: Parts(runtime, fail, desk),
        INFERENCE_REFUSED: Steps(INFERENCE_REFUSED, record_refusal, runtime, fail),
        INFERENCE_REQUESTED: Admission(
            INFERENCE_REQUESTED, at_desk(admit, desk), runtime, fail, ledger
        ),
        INFERENCE_WEIGHED: Weighing(at_desk(pass_on, desk), runtime, fail, ledger),
    }
