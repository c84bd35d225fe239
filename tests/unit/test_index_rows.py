"""What records say of rows: Debezium's, and any other's."""

from __future__ import annotations

from typing import Any

import pytest

from infra.bus import Record
from infra.changes.rows import UNAVAILABLE, Change, ChangeUnreadable, Op, change_of, version_of
from infra.registry import Plain

KEY = {"tenant": "tä", "id": 1}
ROW = {**KEY, "title": "sea", "body": "salt"}


def record(offset: int = 7, dated: int = 5) -> Record:
    return Record("t", 0, offset, b"k", b"v", (), dated)


def told(op: str, after: Any = None, before: Any = None, **source: Any) -> dict[str, Any]:
    return {
        "before": before,
        "after": after,
        "source": {"lsn": 300, "sequence": '["200","300"]', "ts_ms": 1_700, **source},
        "op": op,
    }


def read(value: dict[str, Any] | None, key: Any = KEY, **more: Any) -> Change | None:
    return change_of(record(), Plain(key, value, 1), captured=True, **more)


def known(change: Change | None) -> Change:
    assert change is not None
    return change


@pytest.mark.parametrize("op", ["c", "u"])
def test_a_row_that_was_written_comes_whole(op: str) -> None:
    assert read(told(op, ROW)) == Change(
        op=Op.UPSERT, key=KEY, row=ROW, version=version_of(300, 7), committed_at=1_700
    )


def test_a_row_that_was_deleted_leaves_its_key() -> None:
    change = read(told("d", before={**KEY, "title": None}))
    assert change == Change(
        op=Op.DELETE, key=KEY, row={}, version=version_of(300, 7), committed_at=1_700
    )


def test_a_truncation_is_of_all_rows() -> None:
    change = known(read(told("t"), key=None))
    assert (change.op, change.key, change.row) == (Op.TRUNCATE, {}, {})


def test_what_repeats_a_deletion_says_nothing() -> None:
    assert read(None) is None


def test_messages_of_the_log_say_nothing_of_rows() -> None:
    assert read(told("m")) is None


def test_a_version_is_where_the_change_became_visible() -> None:
    late = known(read(told("u", ROW, lsn=150, sequence='["200","150"]')))
    assert late.version == version_of(200, 7)
    assert not late.after_snapshot


def test_the_first_transaction_after_a_snapshot_follows_the_snapshot() -> None:
    assert known(read(told("u", ROW, sequence='[null,"300"]'))).after_snapshot
    row = known(read(told("r", ROW, sequence='[null,"300"]')))
    assert (row.after_snapshot, row.version) == (False, version_of(300, 7, snapshot=True))


def test_a_row_that_is_read_again_stands_behind_the_last_commit_and_before_what_follows() -> None:
    again = known(read(told("r", ROW, lsn=None, sequence='["300","300"]')))
    assert again.version == version_of(300, 7, snapshot=True)
    late = told("u", ROW, lsn=250, sequence='["300","250"]')
    follows = known(change_of(record(offset=8), Plain(KEY, late, 1), captured=True))
    earlier = known(change_of(record(offset=6), Plain(KEY, told("u", ROW), 1), captured=True))
    assert earlier.version < again.version < follows.version


@pytest.mark.parametrize(
    "left_out", [UNAVAILABLE, [UNAVAILABLE], list(UNAVAILABLE.encode()), UNAVAILABLE.encode()]
)
def test_values_that_did_not_change_are_named(left_out: object) -> None:
    change = known(read(told("u", {**ROW, "body": left_out})))
    assert change.unavailable == {"body"}


def test_versions_sort_by_log_then_by_offset() -> None:
    versions = [version_of(9, 10), version_of(10, 2), version_of(10, 11, snapshot=True)]
    assert sorted(versions) == versions


def test_another_record_is_a_row_as_it_is() -> None:
    change = change_of(record(), Plain("k", ROW, 1), ("id",))
    assert change == Change(
        op=Op.UPSERT, key={"id": 1}, row=ROW, version=version_of(0, 7), committed_at=5
    )


@pytest.mark.parametrize("key", [{"id": "a"}, "a"])
def test_another_record_without_a_value_deletes_the_row_of_its_key(key: object) -> None:
    change = known(change_of(record(), Plain(key, None, None), ("id",)))  # type: ignore[arg-type]
    assert (change.op, change.key, change.after_all) == (Op.DELETE, {"id": "a"}, True)


@pytest.mark.parametrize(
    ("key", "value", "columns", "said"),
    [
        (None, ROW, (), "no key"),
        (None, ROW, ("isbn",), "isbn"),
        (None, {"id": None}, ("id",), "id"),
        ({"id": [1]}, ROW, ("id",), "neither text"),
    ],
)
def test_a_record_of_no_row_is_told_so(
    key: Any, value: Any, columns: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ChangeUnreadable, match=said):
        change_of(record(), Plain(key, value, 1), columns)
