"""What becomes of a document, change by change."""

from __future__ import annotations

from infra.changes.folding import fold
from infra.changes.rows import Change, Op, version_of
from infra.vectors import Head


def change(number: int, offset: int, op: Op = Op.UPSERT, **more: object) -> Change:
    row = {"body": f"at {offset}"} if op is Op.UPSERT else {}
    made = {"op": op, "key": {"id": 1}, "row": row, "version": version_of(number, offset), **more}
    return Change(**made)  # type: ignore[arg-type]


def stored(number: int, offset: int, *, snapshot: bool = False, deleted: bool = False) -> Head:
    version = version_of(number, offset, snapshot=snapshot)
    return Head(version=version, deleted=deleted, inputs={"body": "stored"})


def versions(
    *changes: Change, head: Head | None = None, floor: str = "", **more: bool
) -> list[str]:
    return [each.version for _, each in fold(changes, head, floor, **more)]


def test_what_is_older_or_the_same_does_nothing() -> None:
    assert versions(change(4, 9), change(5, 3), head=stored(5, 3)) == []


def test_a_deleted_row_stays_deleted() -> None:
    assert versions(change(4, 9), head=stored(5, 3, deleted=True)) == []


def test_nothing_comes_back_from_under_a_truncation() -> None:
    assert versions(change(4, 9), change(6, 10), floor=version_of(5, 0)) == [version_of(6, 10)]


def test_what_is_stored_is_stored_once_more_where_that_is_asked_for() -> None:
    assert versions(change(4, 2), change(5, 3), head=stored(5, 3), again=True) == [version_of(5, 3)]


def test_a_value_that_was_left_out_comes_from_the_state_before() -> None:
    left = change(6, 4, row={"body": "?"}, unavailable=frozenset({"body"}))
    [(_, filled)] = fold([left], stored(5, 3), "")
    assert (filled.row, filled.unavailable) == ({"body": "stored"}, frozenset())
    [_, (at, filled)] = fold([change(6, 4), left_at(7, 5)], stored(5, 3), "")
    assert (at, filled.row) == (1, {"body": "at 4"})


def test_a_value_that_nobody_knows_stays_left_out() -> None:
    for head, floor in (
        (None, ""),
        (stored(5, 3, deleted=True), ""),
        (stored(5, 3), version_of(5, 9)),
    ):
        [(_, left)] = fold([left_at(6, 4)], head, floor)
        assert left.unavailable == {"body"}


def left_at(number: int, offset: int) -> Change:
    return change(number, offset, row={"body": "?"}, unavailable=frozenset({"body"}))


def test_a_change_that_was_written_before_a_snapshot_and_committed_after_it_wins() -> None:
    late = change(90, 8, after_snapshot=True)
    assert versions(late, head=stored(100, 5, snapshot=True)) == [version_of(100, 8)]
    # Not over what was logged, though: then it only comes again.
    assert versions(late, head=stored(100, 5)) == []
    assert versions(late, head=stored(100, 9, snapshot=True)) == []


def test_a_record_without_a_value_deletes_what_lies_before_it() -> None:
    gone = change(0, 8, Op.DELETE, after_all=True)
    assert versions(gone, head=stored(100, 5)) == [version_of(100, 8)]
    assert versions(gone, head=stored(100, 9)) == []
    assert versions(gone, head=stored(100, 8, deleted=True)) == []
