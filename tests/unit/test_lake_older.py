"""A lake of rows from before each decision had a name: they are named after their requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from infra.columns import arrow_schema
from infra.keymemory import KeyMemory
from infra.lake import LOG_COLUMNS, EventTable, Row, query
from infra.views import VIEWS
from schemas.events import InferenceRecorded
from tests.unit.lakes import NOON, TOPIC, data_files, opened, recorded, row

OLDER = pa.schema(
    [
        *(field for field in arrow_schema(InferenceRecorded) if field.name != "row_id"),
        *LOG_COLUMNS,
    ]
)


def older(root: Path, *keys: str) -> None:
    """Writes rows as they were before the column."""
    place = {"log_topic": TOPIC, "log_partition": 9, "log_offset": 0, "trace_id": None}
    day = {"date": date(2026, 3, 1)}
    rows = [{**recorded(key).to_avro(), **place, **day} for key in keys]
    columns = [{name: each[name] for name in OLDER.names} for each in rows]
    write_deltalake(
        root / "inferences",
        pa.Table.from_pylist(columns, OLDER),
        mode="append",
        schema_mode="merge",
        partition_by=["date"],
        configuration={"delta.dataSkippingStatsColumns": "request_id,requested_at"},
    )


def named(key: str, row_id: str, offset: int, at: datetime = NOON) -> Row:
    return Row(replace(recorded(key, at), row_id=row_id), TOPIC, 0, offset)


def found(root: Path) -> Sequence[tuple[str, str | None]]:
    rows = query(root, "SELECT request_id, row_id FROM inferences ORDER BY 1, 2").to_pylist()
    return [(each["request_id"], each["row_id"]) for each in rows]


def test_one_id_has_a_row_for_each_decision_and_each_decision_one(tmp_path: Path) -> None:
    table = opened(tmp_path)
    assert table.append([named("a", "one", 0), named("a", "two", 1), named("a", "one", 2)]) == 2
    assert table.append([named("a", "two", 3), named("a", "three", 4)]) == 1
    assert opened(tmp_path, group="another").append([named("a", "one", 0)]) == 0
    assert found(tmp_path) == [("a", "one"), ("a", "three"), ("a", "two")]


def test_one_id_of_two_tenants_is_a_row_of_each(tmp_path: Path) -> None:
    mine, theirs = (replace(recorded("a", tenant=each), row_id=each) for each in ("we", "they"))
    assert opened(tmp_path).append([Row(mine, TOPIC, 0, 0), Row(theirs, TOPIC, 1, 0)]) == 2


def test_a_row_of_an_older_event_is_stored_under_the_id_of_its_request(tmp_path: Path) -> None:
    table = opened(tmp_path)
    assert table.append([row("a", 0), row("a", 1), named("a", "a", 2)]) == 1
    assert found(tmp_path) == [("a", "a")]


@pytest.mark.parametrize("compacted", [False, True])
def test_older_rows_stay_what_they_are_and_come_no_second_time(
    tmp_path: Path, *, compacted: bool
) -> None:
    older(tmp_path, "a", "b", "z")
    table = opened(tmp_path)
    assert table.append([row("b", 0), named("b", "x", 1), named("c", "c", 2)]) == 2
    if compacted:
        older(tmp_path, "d")
        table.compact()
        assert len(DeltaTable(tmp_path / "inferences").file_uris()) == 1
    # Beside the ends of what the newer rows are named, too.
    assert table.append([row("a", 3), row("z", 4), named("b", "x", 5), named("c", "c", 6)]) == 0
    lacking = [("d", None)] if compacted else []
    assert found(tmp_path) == [
        ("a", None),
        ("b", "x"),
        ("b", None),
        ("c", "c"),
        *lacking,
        ("z", None),
    ]


def test_an_older_table_that_is_opened_many_times_gets_its_column_once(tmp_path: Path) -> None:
    older(tmp_path, "a")
    tables = [opened(tmp_path, group=str(number)) for number in range(3)]
    assert DeltaTable(tmp_path / "inferences").version() == 2
    kept = DeltaTable(tmp_path / "inferences").metadata().configuration
    assert kept["delta.dataSkippingStatsColumns"].split(",")[:2] == ["row_id", "request_id"]
    for offset, table in enumerate(tables):
        assert table.append([named("a", "x", offset)]) == (offset == 0)


def test_a_writer_from_before_the_column_goes_on_beside_a_newer_one(tmp_path: Path) -> None:
    older(tmp_path, "a")
    table = opened(tmp_path)
    table.append([named("a", "x", 0)])
    older(tmp_path, "b")
    assert table.append([row("b", 1), named("b", "y", 2)]) == 1
    assert found(tmp_path) == [("a", "x"), ("a", None), ("b", "y"), ("b", None)]


@pytest.mark.parametrize("capacity", [0, 1000])
def test_keys_are_found_in_files_with_and_without_their_column(
    tmp_path: Path, capacity: int
) -> None:
    older(tmp_path, "a", "b")
    opened(tmp_path).append([named("a", "x", 0), named("c", "y", 1)])
    memory = KeyMemory("row_id", capacity, older="request_id")
    files = [str(path) for path in data_files(tmp_path)]
    assert memory.among(["a", "b", "c", "x", "y"], files) == {"a", "b", "x", "y"}


def test_an_append_to_a_table_of_old_rows_alone_opens_no_file_of_another_date(
    tmp_path: Path,
) -> None:
    older(tmp_path, "a")
    table = EventTable.of(tmp_path, "inferences", group="recorder")
    data_files(tmp_path)[0].unlink()
    later = datetime(2026, 3, 2, tzinfo=NOON.tzinfo)
    assert table.append([named("a", "x", 0, at=later)]) == 1


def test_every_view_tells_rows_of_one_id_apart_and_names_older_ones(tmp_path: Path) -> None:
    older(tmp_path, "old")
    opened(tmp_path).append([named("a", "one", 0), named("a", "two", 1)])
    for view, column, client in (
        ("inferences_gateway", "invocation_id", "request_id"),
        ("inferences_legacy", "databricks_request_id", "client_request_id"),
        ("inferences_serving", "databricks_request_id", "client_request_id"),
        ("usage_gateway", "invocation_id", "request_id"),
        ("usage_serving", "databricks_request_id", "client_request_id"),
    ):
        assert view in VIEWS
        rows = query(tmp_path, f"SELECT {column}, {client} FROM {view} ORDER BY 1").to_pylist()
        told = [(each[column], each[client]) for each in rows]
        assert told == [("old", "old"), ("one", "a"), ("two", "a")]
    [used] = query(tmp_path, "SELECT sum(requests) AS n FROM usage").to_pylist()
    assert used == {"n": 3}
