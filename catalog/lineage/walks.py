"""A walk along edges of lineage: how far it goes, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from catalog.lineage.lineage import Node

DEPTH = 10
LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Link:
    """An edge as it was found."""

    downstream: Node
    relation: str
    upstream: Node
    attributes: Mapping[str, str]
    first_at: datetime
    last_at: datetime
    cause_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """How far to go.

    Attributes:
        start: Where.
        downstream: To what came from it; to what it came from otherwise.
        depth: Steps at most.
        since: Only along edges that were so at this time or later.
        until: Only along edges that were so before this time.
        limit: Edges at most; the nearest and newest are kept.
    """

    start: Node
    downstream: bool = False
    depth: int = DEPTH
    since: datetime | None = None
    until: datetime | None = None
    limit: int = LIMIT


@dataclass(frozen=True, slots=True)
class Found:
    """What a walk found: its edges, the nearest first, and whether its limit cut some off."""

    links: tuple[Link, ...]
    cut: bool
