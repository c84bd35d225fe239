"""What an index should hold: the log of its source, folded to the last state of each row."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field, replace

from infra.bus import Record
from infra.changes.folding import fold
from infra.changes.rows import Change, ChangeUnreadable, Op, change_of
from infra.registry import Plain
from infra.vectors import Head, document_id

# Partition and offset of a record of the source.
Where = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Row:
    """The last state of a row.

    Attributes:
        version: Of that state.
        live: Whether the row is there.
        told_at: The records that tell of it: more than one where the last ones left values out.
        refused: Whether a later record of it was given up.
    """

    version: str = ""
    live: bool = False
    told_at: tuple[Where, ...] = ()
    refused: bool = False


@dataclass(slots=True)
class Log:
    """The log as far as it was read; it may hold a share of the rows only.

    Attributes:
        index: Names the rows' documents.
        key_columns: What tells rows apart.
        captured: Whether a connector of ours writes the topic.
        given_up: Records that are dead letters of the index.
        one_of: Of so many rows one is kept.
        turn: Which one, from 0.
        rows: By document id.
        floor: Version of the last truncation; empty without one.
        emptied_at: Where that is told.
    """

    index: str
    key_columns: tuple[str, ...]
    captured: bool
    given_up: Set[Where] = frozenset()
    one_of: int = 1
    turn: int = 0
    rows: dict[str, Row] = field(default_factory=dict)
    floor: str = ""
    emptied_at: Where | None = None

    def take(self, record: Record, plain: Plain) -> None:
        """Takes the next record of a partition in."""
        try:
            change = change_of(record, plain, self.key_columns, captured=self.captured)
        # It is a dead letter.
        except ChangeUnreadable:
            return
        if change is not None:
            self.hear(change, (record.partition, record.offset))

    def hear(self, change: Change, where: Where) -> None:
        """Takes the next change of a partition in, and where it is told."""
        if change.op is Op.TRUNCATE:
            if change.version >= self.floor:
                self.floor, self.emptied_at = change.version, where
            return
        name = document_id(self.index, change.key)
        if self.has(name):
            self.rows[name] = self._after(self.rows.get(name, Row()), change, where)

    def has(self, name: str) -> bool:
        """Returns whether a document is of the share that is kept."""
        return int(name[:8], 16) % self.one_of == self.turn

    def _after(self, row: Row, change: Change, where: Where) -> Row:
        if where in self.given_up:
            return replace(row, refused=True)
        head = Head(version=row.version, deleted=not row.live) if row.version else None
        states = fold([change], head, self.floor)
        if not states:
            return row
        [(_, state)] = states
        before = row.told_at if change.unavailable else ()
        live = state.op is Op.UPSERT
        return Row(version=state.version, live=live, told_at=(*before, where))

    def is_live(self, row: Row) -> bool:
        """Returns whether a row is there, now that all truncations are known."""
        return row.live and row.version > self.floor
