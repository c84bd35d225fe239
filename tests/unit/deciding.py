"""The gateway's decisions, as a process makes them that has seen nothing else yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from infra.catalog import CatalogView
from schemas.events import InferenceCompleted
from schemas.topics import (
    INFERENCE_COMPLETED,
    INFERENCE_PARTS,
    INFERENCE_REFUSED,
    INFERENCE_REQUESTED,
    Outgoing,
    Topic,
)
from streams.gateway.admit import admit as admit_at
from streams.gateway.asked import Asked
from streams.gateway.desk import Desk
from streams.gateway.release import release as release_at
from streams.gateway.release import release_part
from streams.gateway.rows import record_refusal
from streams.steps import Step


def admit(asked: Asked, view: CatalogView, now: datetime) -> Iterator[Outgoing]:
    """Decides on a request."""
    return admit_at(asked, view, now, Desk())


def release(completed: InferenceCompleted, view: CatalogView, now: datetime) -> Iterator[Outgoing]:
    """Decides on an answer."""
    return release_at(completed, view, now, Desk())


STEPS: Mapping[Topic[Any], Step] = {
    INFERENCE_COMPLETED: release,
    INFERENCE_PARTS: release_part,
    INFERENCE_REFUSED: record_refusal,
    INFERENCE_REQUESTED: admit,
}
