"""A table of the lake: one row for each key, each effect once."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra import columns
from infra.columns import arrow_schema
from infra.keymemory import KeyMemory
from infra.lake import TABLES, EventTable, LakeContended, Row, query
from schemas.events import (
    Attempt,
    AuditOutcome,
    AuditRecorded,
    Event,
    InferenceRecorded,
    InferenceReplied,
    Reason,
    Refusal,
    Route,
)
from tests.unit.lakes import NOON, TOPIC, data_files, opened, places, recorded, row


def test_a_row_is_the_event_and_its_place_in_the_log(tmp_path: Path) -> None:
    assert opened(tmp_path).append([row("a", 7, partition=3)]) == 1
    [stored] = query(tmp_path, "FROM inferences").to_pylist()
    assert dict(stored.pop("tags")) == {"team": "search"}
    expected = recorded("a").to_avro()
    del expected["tags"]
    assert stored == {
        **expected,
        "row_id": "a",
        "log_topic": TOPIC,
        "log_partition": 3,
        "log_offset": 7,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "date": date(2026, 3, 1),
    }


def test_nested_records_are_stored_whole(tmp_path: Path) -> None:
    table = EventTable(tmp_path, "replies", InferenceReplied, "request_id", "replied_at", group="g")
    tried = Attempt(
        route=Route(name="first", pool="p", model="m"),
        refusal=Refusal(reason=Reason.PROVIDER_TIMEOUT, message="too slow", retry_after_ms=10),
    )
    replied = InferenceReplied(request_id="a", tried=(tried,), replied_at=NOON)
    table.append([Row(replied, "reply", 0, 0)])
    [stored] = query(tmp_path, "SELECT tried, completion FROM replies").to_pylist()
    assert stored == {"tried": [tried.to_avro()], "completion": None}


@pytest.mark.parametrize(("own", "stored"), [("of the event", "of the event"), (None, "of it")])
def test_an_event_that_has_a_column_of_the_log_itself_keeps_it(
    own: str | None, stored: str, tmp_path: Path
) -> None:
    event = AuditRecorded(
        audit_id="a", at=NOON, source="s", action="x", outcome=AuditOutcome.DONE, trace_id=own
    )
    EventTable.of(tmp_path, "audits", group="g").append([Row(event, TOPIC, 0, 0, "of it")])
    [found] = query(tmp_path, "SELECT trace_id FROM audits").to_pylist()
    assert found == {"trace_id": stored}


def test_the_partition_is_the_date_in_utc(tmp_path: Path) -> None:
    early = datetime(2026, 3, 2, 1, tzinfo=timezone(timedelta(hours=14)))
    opened(tmp_path).append([row("a", 0, at=early)])
    assert data_files(tmp_path)[0].parent.name == "date=2026-03-01"


def test_a_redelivered_offset_is_skipped(tmp_path: Path) -> None:
    table = opened(tmp_path)
    table.append([row("a", 0), row("b", 1)])
    assert table.append([row("a", 0), row("b", 1), row("c", 2)]) == 1
    assert places(tmp_path) == {"a": (0, 0), "b": (0, 1), "c": (0, 2)}


def test_where_every_offset_is_redelivered_there_is_no_commit(tmp_path: Path) -> None:
    table = opened(tmp_path)
    table.append([row("a", 0), row("b", 1)])
    assert table.append([]) == 0
    assert table.append([row("a", 0), row("b", 1)]) == 0
    assert len(list(tmp_path.glob("inferences/_delta_log/*.json"))) == 2


@pytest.mark.parametrize("key", ["", "'", '"', "\\", "\n", "\0", "%", "null", "🙂", "a" * 5000])
def test_any_text_can_be_a_key(tmp_path: Path, key: str) -> None:
    table = opened(tmp_path)
    assert table.append([row(key, 0)]) == 1
    assert table.append([row(key, 1)]) == 0
    assert table.append([row("m", 2), row(key, 3), row(f"{key}x", 4)]) == 2


def test_the_first_row_of_a_key_wins(tmp_path: Path) -> None:
    table = opened(tmp_path)
    assert table.append([row("a", 0), row("a", 1)]) == 1
    assert table.append([row("a", 9, partition=1), row("b", 10, partition=1)]) == 1
    assert places(tmp_path) == {"a": (0, 0), "b": (1, 10)}


def test_offsets_advance_where_every_row_is_dropped(tmp_path: Path) -> None:
    table = opened(tmp_path)
    assert table.offset(TOPIC, 0) is None
    table.append([row("a", 0)])
    assert table.append([row("a", 1), row("a", 2)]) == 0
    assert opened(tmp_path).offset(TOPIC, 0) == 2
    assert table.offset(TOPIC, 1) is None


def test_each_group_keeps_its_own_offsets(tmp_path: Path) -> None:
    opened(tmp_path).append([row("a", 5)])
    other = opened(tmp_path, group="audit")
    assert other.offset(TOPIC, 0) is None
    assert other.append([row("a", 5), row("b", 6)]) == 1


def test_an_append_opens_no_file_of_another_date(tmp_path: Path) -> None:
    yesterday = NOON - timedelta(days=1)
    opened(tmp_path).append([row("a", 0, at=yesterday), row("c", 1, at=yesterday)])
    data_files(tmp_path)[0].unlink()
    assert opened(tmp_path).append([row("b", 2)]) == 1


def test_the_tables_are_named_after_their_topics_events(tmp_path: Path) -> None:
    assert list(TABLES) == sorted(TABLES)
    for name, spec in TABLES.items():
        assert {spec.key, spec.at} <= set(arrow_schema(spec.topic.event).names)
        assert EventTable.of(tmp_path, name, group="g").name == name


@pytest.mark.parametrize("capacity", [0, 3, 1000])
def test_forgetting_keys_changes_no_answer(tmp_path: Path, capacity: int) -> None:
    table = opened(tmp_path)
    for offset, key in enumerate("abcdef"):
        table.append([row(key, offset)])
    memory = KeyMemory("request_id", capacity)
    files = [str(path) for path in data_files(tmp_path)]
    assert memory.among(list("adfxyz"), files) == set("adf")
    assert memory.among(list("bxe"), files) == set("be")


class Meddling(InferenceRecorded):
    """An event that lets another writer commit between the check and the commit."""

    __slots__ = ()
    meanwhile: Iterator[object]

    def to_avro(self) -> dict[str, Any]:
        next(type(self).meanwhile, None)
        return super().to_avro()


def meddling(key: str, offset: int, meanwhile: Iterator[object]) -> Row:
    Meddling.meanwhile = meanwhile
    plain = recorded(key)
    fields = {name: getattr(plain, name) for name in InferenceRecorded.__slots__}
    return Row(Meddling(**fields), TOPIC, 0, offset)


def test_an_append_that_lost_to_another_sees_what_that_one_stored(tmp_path: Path) -> None:
    other = opened(tmp_path)
    rival = (other.append([row(key, 0, partition=1)]) for key in ["a"])
    assert opened(tmp_path).append([meddling("a", 0, rival), row("b", 1)]) == 1
    assert places(tmp_path) == {"a": (1, 0), "b": (0, 1)}


def test_an_append_gives_up_after_its_attempts(tmp_path: Path) -> None:
    other = opened(tmp_path)
    rival = (other.append([row(f"other-{n}", n, partition=1)]) for n in range(9))
    table = opened(tmp_path, attempts=2)
    with pytest.raises(LakeContended, match="2 commits"):
        table.append([meddling("a", 0, rival)])
    assert "a" not in places(tmp_path)
    assert table.offset(TOPIC, 0) is None


# Any order of things

KEYS = st.one_of(
    st.sampled_from(["a", "b", "c"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    st.text("ab", min_size=60, max_size=90),
)
LOGS = st.lists(st.lists(KEYS, min_size=1, max_size=8), min_size=1, max_size=3)


def day_of(key: str) -> datetime:
    return NOON + timedelta(days=len(key) % 2)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(logs=LOGS, data=st.data())
def test_any_interleaving_leaves_the_first_row_of_each_key(
    logs: list[list[str]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("lake")
    table = opened(root)
    model: dict[str, tuple[int, int]] = {}
    ends = [0] * len(logs)
    for _ in range(data.draw(st.integers(1, 6))):
        action = data.draw(st.sampled_from(["append", "append", "append", "reopen", "compact"]))
        if action == "reopen":
            table = opened(root)
        if action == "compact":
            table.compact(timedelta(0))
        batch: list[Row] = []
        for partition, log in enumerate(logs):
            start = data.draw(st.integers(0, ends[partition]))
            stop = data.draw(st.integers(start, len(log)))
            batch += [
                row(log[offset], offset, partition, day_of(log[offset]))
                for offset in range(start, stop)
            ]
            ends[partition] = max(ends[partition], stop)
        before = len(model)
        for item in batch:
            model.setdefault(item.event.request_id, (item.partition, item.offset))  # type: ignore[attr-defined]
        assert table.append(batch) == len(model) - before
        for partition, end in enumerate(ends):
            assert table.offset(TOPIC, partition) == (end - 1 if end else None)
    assert places(root) == model


# Compaction


def test_compaction_merges_the_files_of_a_date(tmp_path: Path) -> None:
    table = opened(tmp_path)
    for offset in range(5):
        table.append([row(f"k{offset}", offset, at=NOON + timedelta(days=offset // 4))])
    before = places(tmp_path)
    table.compact(timedelta(0))
    assert len(data_files(tmp_path)) == 2
    assert places(tmp_path) == before
    assert list(tmp_path.glob("inferences/_delta_log/*.checkpoint.parquet"))
    again = opened(tmp_path)
    assert again.offset(TOPIC, 0) == 4
    assert again.append([row("k1", 5), row("new", 6)]) == 1


def test_compaction_keeps_files_that_a_reader_may_still_hold(tmp_path: Path) -> None:
    table = opened(tmp_path)
    for offset in range(3):
        table.append([row(f"k{offset}", offset)])
    table.compact()
    assert len(data_files(tmp_path)) == 4


def test_one_compaction_runs_at_a_time(tmp_path: Path) -> None:
    table = opened(tmp_path)
    for offset in range(3):
        table.append([row(f"k{offset}", offset)])
    lock = tmp_path / "inferences/.compacting"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        table.compact(timedelta(0))
        assert len(data_files(tmp_path)) == 3
    table.compact(timedelta(0))
    assert len(data_files(tmp_path)) == 1
    # A vacuum that took the file away would let the next two compactions hold different locks.
    assert lock.exists()


# Growing schemas


class Noted(Event):
    """An event with whatever fields a version of its schema has."""

    SCHEMA = "tessera.test.Noted"

    def __init__(self, **fields: object) -> None:
        self.fields = {"id": "", "at": NOON, "place": {"x": 1}, "path": [{"x": 2}]} | fields

    def __getattr__(self, name: str) -> object:
        return self.fields[name]

    def to_avro(self) -> dict[str, Any]:
        return self.fields


def noted_schema(*added: dict[str, object]) -> dict[str, object]:
    place = {"type": "record", "name": "Place", "fields": [{"name": "x", "type": "long"}, *added]}
    instant = {"type": "long", "logicalType": "timestamp-millis"}
    return {
        "type": "record",
        "name": "Noted",
        "namespace": "tessera.test",
        "fields": [
            {"name": "id", "type": "string"},
            {"name": "at", "type": instant},
            {"name": "place", "type": place},
            {"name": "path", "type": {"type": "array", "items": "Place"}, "default": []},
            *added,
        ],
    }


def test_a_new_field_becomes_a_column_that_older_rows_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noted(*added: dict[str, object]) -> EventTable:
        monkeypatch.setattr(columns, "whole", lambda name: noted_schema(*added))
        return EventTable(tmp_path, "notes", Noted, "id", "at", group="g")

    old = noted()
    old.append([Row(Noted(id="a"), TOPIC, 0, 0)])
    new = noted({"name": "y", "type": "long", "default": 0})
    deep = {"x": 3, "y": 4}
    new.append([Row(Noted(id="b", place=deep, path=[deep], y=5), TOPIC, 0, 1)])
    old.append([Row(Noted(id="c"), TOPIC, 0, 2)])
    new.compact()
    rows = query(tmp_path, "SELECT id, place, path, y FROM notes ORDER BY id").to_pylist()
    lacking = {"place": {"x": 1, "y": None}, "path": [{"x": 2, "y": None}], "y": None}
    assert rows == [
        {"id": "a", **lacking},
        {"id": "b", "place": deep, "path": [deep], "y": 5},
        {"id": "c", **lacking},
    ]
