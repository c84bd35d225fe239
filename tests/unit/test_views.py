"""Views over the inferences: laid out as others publish them, with the same types."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from infra.columns import arrow_schema
from infra.lake import EventTable, QueryInvalid, Row, query
from infra.views import VIEWS
from schemas.events import InferenceRecorded, Outcome
from tests.unit.lakes import NOON, TOPIC, opened, recorded

TEXTS = pa.map_(pa.string(), pa.string())
INSTANT = pa.timestamp("us", "UTC")
# The columns as published, in their order.
LAYOUTS: dict[str, dict[str, Any]] = {
    "inferences_gateway": {
        "request_id": pa.string(),
        "invocation_id": pa.string(),
        "request_tags": TEXTS,
        "event_time": INSTANT,
        "status_code": pa.int32(),
        "sampling_fraction": pa.float64(),
        "latency_ms": pa.int64(),
        "time_to_first_byte_ms": pa.int64(),
        "request": pa.string(),
        "response": pa.string(),
        "destination_type": pa.string(),
        "destination_name": pa.string(),
        "destination_model": pa.string(),
        "logging_error_codes": pa.list_(pa.string()),
        "requester": pa.string(),
        "schema_version": pa.string(),
    },
    "inferences_legacy": {
        "databricks_request_id": pa.string(),
        "client_request_id": pa.string(),
        "date": pa.date32(),
        "timestamp_ms": pa.int64(),
        "status_code": pa.int32(),
        "sampling_fraction": pa.float64(),
        "execution_time_ms": pa.int64(),
        "request": pa.string(),
        "response": pa.string(),
        "request_metadata": TEXTS,
    },
    "inferences_serving": {
        "request_date": pa.date32(),
        "databricks_request_id": pa.string(),
        "client_request_id": pa.string(),
        "request_time": INSTANT,
        "status_code": pa.int32(),
        "sampling_fraction": pa.float64(),
        "execution_duration_ms": pa.int64(),
        "request": pa.string(),
        "response": pa.string(),
        "served_entity_id": pa.string(),
        "logging_error_codes": pa.list_(pa.string()),
        "requester": pa.string(),
    },
    "usage_serving": {
        "account_id": pa.string(),
        "workspace_id": pa.string(),
        "client_request_id": pa.string(),
        "databricks_request_id": pa.string(),
        "requester": pa.string(),
        "status_code": pa.int32(),
        "request_time": INSTANT,
        "input_token_count": pa.int64(),
        "output_token_count": pa.int64(),
        "input_character_count": pa.int64(),
        "output_character_count": pa.int64(),
        "usage_context": TEXTS,
        "request_streaming": pa.bool_(),
        "served_entity_id": pa.string(),
    },
}


def stored(root: Path, *events: InferenceRecorded) -> None:
    table = EventTable.of(root, "inferences", group="recorder")
    table.append([Row(event, TOPIC, 0, offset) for offset, event in enumerate(events)])


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    paid = replace(
        recorded("a"),
        principal="ann",
        route="first",
        model="m",
        entity="main.default.scorer@3",
        prompt_tokens=10,
        completion_tokens=5,
        cost=Decimal("0.0000001"),
        status=200,
    )
    stored(
        tmp_path,
        paid,
        replace(paid, request_id="b", requested_at=NOON + timedelta(minutes=59), cost=None),
        replace(recorded("c"), outcome=Outcome.REFUSED, status=429, cost=Decimal(0)),
    )
    return tmp_path


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_has_the_published_columns_and_types(lake: Path, name: str) -> None:
    found = query(lake, f"FROM {name}")
    types = {field.name: field.type for field in found.schema}
    assert list(types) == list(LAYOUTS[name])
    assert types == LAYOUTS[name]
    assert found.num_rows == 3


def test_every_view_can_be_asked_and_no_name_is_a_tables(lake: Path) -> None:
    assert list(VIEWS) == sorted(VIEWS)
    for name in VIEWS:
        assert query(lake, f"FROM {name}").num_rows == 3 - (name == "usage")


def test_a_layout_tells_what_the_row_does(lake: Path) -> None:
    [row] = query(lake, "FROM inferences_legacy WHERE client_request_id = 'a'").to_pylist()
    assert row["timestamp_ms"] == int(NOON.timestamp() * 1000)
    assert dict(row["request_metadata"]) == {
        "endpoint_name": "main.chat",
        "model_name": "main.default.scorer",
        "model_version": "3",
    }
    [row] = query(lake, "FROM inferences_gateway WHERE status_code = 429").to_pylist()
    assert (row["request_id"], row["requester"], row["destination_type"]) == ("c", "acme", None)
    [row] = query(lake, "FROM usage_gateway WHERE request_id = 'a'").to_pylist()
    assert row["token_details"]["cache_read_input_tokens"] == 0
    assert (row["total_tokens"], row["requester"]) == (15, "ann")


def test_usage_is_summed_by_the_hour_and_exactly(lake: Path) -> None:
    found = query(lake, "FROM usage ORDER BY requests DESC")
    assert pa.types.is_decimal(found.schema.field("cost").type)
    assert found.schema.field("tags").type == TEXTS
    paid, refused = found.to_pylist()
    assert (paid["hour"], paid["requests"], paid["errors"]) == (NOON, 2, 0)
    assert (paid["prompt_tokens"], paid["cost"], paid["unpriced"]) == (20, Decimal("1e-7"), 1)
    assert (refused["requests"], refused["errors"], refused["cost"]) == (1, 1, Decimal(0))
    [row] = query(
        lake, "SELECT sum(requests) AS n FROM usage WHERE tags['team'] = 'search'"
    ).to_pylist()
    assert row == {"n": 3}


def test_tags_in_another_order_are_the_same_tags(tmp_path: Path) -> None:
    tags = {"a": "1", "b": "2"}
    turned = dict(reversed(tags.items()))
    stored(tmp_path, replace(recorded("x"), tags=tags), replace(recorded("y"), tags=turned))
    [row] = query(tmp_path, "FROM usage").to_pylist()
    assert (row["requests"], dict(row["tags"])) == (2, tags)


def test_a_view_reads_only_the_files_it_needs(lake: Path) -> None:
    stored_before = sorted(lake.glob("inferences/date=*/*.parquet"))
    later = NOON + timedelta(days=2)
    opened(lake).append([Row(recorded("late", later), TOPIC, 1, 0)])
    for path in stored_before:
        path.unlink()
    [row] = query(
        lake, "FROM inferences_serving WHERE request_date = DATE '2026-03-03'"
    ).to_pylist()
    assert row["databricks_request_id"] == "late"


def test_rows_of_a_lake_from_before_a_column_are_asked_as_any_other(tmp_path: Path) -> None:
    old = [
        "cost",
        "cache_write_tokens",
        "usage_estimated",
        "saved_tokens",
        "streamed",
        "status",
        "judgements",
        "rule",
        "connection",
    ]
    known = arrow_schema(InferenceRecorded)
    columns = pa.schema(
        [field for field in known if field.name not in old]
        + [pa.field("date", pa.date32(), nullable=False)]
    )
    event = {**recorded("old").to_avro(), "date": date(2026, 3, 1)}
    write_deltalake(
        tmp_path / "inferences",
        pa.Table.from_pylist([{name: event[name] for name in columns.names}], columns),
        partition_by=["date"],
    )
    [row] = query(tmp_path, "SELECT request_id, cost, status, rule FROM inferences").to_pylist()
    assert row == {"request_id": "old", "cost": None, "status": None, "rule": None}
    for name in VIEWS:
        assert query(tmp_path, f"FROM {name}").num_rows == 1
    [row] = query(tmp_path, "SELECT status_code FROM inferences_gateway").to_pylist()
    assert row == {"status_code": 200}
    stored(tmp_path, replace(recorded("new"), cost=Decimal("0.5"), status=200))
    rows = query(tmp_path, "SELECT request_id, cost FROM inferences ORDER BY 1").to_pylist()
    assert rows == [
        {"request_id": "new", "cost": Decimal("0.500000000000")},
        {"request_id": "old", "cost": None},
    ]


def test_where_nothing_was_asked_yet_there_is_no_view(tmp_path: Path) -> None:
    EventTable.of(tmp_path, "audits", group="g")
    with pytest.raises(QueryInvalid, match=r"The tables of the lake: audits$"):
        query(tmp_path, "FROM usage")
    stored(tmp_path)
    assert query(tmp_path, "FROM usage").num_rows == 0
    with pytest.raises(QueryInvalid, match="audits, inferences, inferences_gateway"):
        query(tmp_path, "FROM useage")


def test_instants_of_views_are_in_utc(lake: Path) -> None:
    found = query(lake, "SELECT min(request_time) AS first FROM inferences_serving").to_pylist()
    assert found == [{"first": datetime(2026, 3, 1, 12, tzinfo=UTC)}]
