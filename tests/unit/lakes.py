"""A lake of inferences to test with: its rows, its tables, and what is in them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.lake import EventTable, Row, query
from schemas.events import (
    InferenceRecorded,
    Outcome,
)

TOPIC = "recorded"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def recorded(key: str, at: datetime = NOON, tenant: str = "acme") -> InferenceRecorded:
    return InferenceRecorded(
        request_id=key,
        tenant=tenant,
        endpoint="main.chat",
        outcome=Outcome.COMPLETED,
        request="{}",
        requested_at=at,
        tags={"team": "search"},
    )


def row(key: str, offset: int, partition: int = 0, at: datetime = NOON) -> Row:
    return Row(recorded(key, at), TOPIC, partition, offset, "0af7651916cd43dd8448eb211c80319c")


def opened(root: Path, **options: Any) -> EventTable:
    return EventTable.of(root, "inferences", **{"group": "recorder", **options})


def places(root: Path) -> dict[str, tuple[int, int]]:
    """Returns where in the log the row of each key came from; fails if a key has two."""
    rows = query(root, "SELECT request_id, log_partition, log_offset FROM inferences").to_pylist()
    found = {item["request_id"]: (item["log_partition"], item["log_offset"]) for item in rows}
    assert len(found) == len(rows)
    return found


def data_files(root: Path) -> list[Path]:
    return sorted(root.glob("inferences/date=*/*.parquet"))
