"""A table, its log as Debezium writes it, and a store in memory: for the laws of indexes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from infra.bus import Record
from infra.changes.rows import UNAVAILABLE, Change, change_of
from infra.registry import Plain
from infra.vectors import Document, Head, Place, VectorsUnreachable
from schemas.indexes import IndexSpec, Kept

SPEC = IndexSpec(
    source="main.tests.docs",
    text="{title}: {body}",
    columns=(Kept(name="price", type="long"),),
    endpoint="main.tests.embed",
)
PLACE = Place("main.tests.index", 1)
PARTITIONS = 2

Row = dict[str, Any]


@dataclass
class Table:
    """A table, and the log of it: records by partition, each in the order of the database."""

    rows: dict[int, Row] = field(default_factory=dict)
    log: list[list[Change]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])
    lsn: int = 100
    committed: int | None = None

    def write(self, key: int, *, title: str, body: str | None, price: int) -> None:
        """Inserts a row or updates it; no body leaves a large one as it is."""
        known = self.rows.get(key)
        row = {"id": key, "title": title, "body": body, "price": price}
        if body is None and known is not None:
            self.rows[key] = {**row, "body": known["body"]}
            self._tell("u", key, {**row, "body": UNAVAILABLE})
        else:
            self.rows[key] = row
            self._tell("u" if known else "c", key, row)

    def delete(self, key: int) -> None:
        """Deletes a row if it is there."""
        if self.rows.pop(key, None) is not None:
            self._tell("d", key, None)

    def move(self, key: int, other: int) -> None:
        """Gives a row another key, if it is there and the other is free."""
        if key in self.rows and other not in self.rows:
            row = {**self.rows.pop(key), "id": other}
            self.rows[other] = row
            self._tell("d", key, None)
            self.lsn -= 10
            self._tell("c", other, row)

    def truncate(self, partition: int) -> None:
        """Deletes all rows; the record of it lies on some partition."""
        self.rows.clear()
        self._put(partition, None, "t", None)

    def snapshot(self) -> None:
        """Reads all rows, as an incremental snapshot does."""
        for key, row in self.rows.items():
            self._tell("r", key, row)

    def stale(self, key: int, back: int) -> None:
        """Has a row read as it was some changes ago, under the place that the log had then."""
        log = self.log[key % PARTITIONS]
        written = [each for each in log if each.key == {"id": key} and each.row]
        if not written or written[-1].unavailable:
            return
        old = written[-min(back, len(written))]
        if old.unavailable:
            return
        lsn = int(old.version.partition(".")[0])
        self._put(key % PARTITIONS, key, "r", dict(old.row), lsn)

    def repeat(self, partition: int, last: int) -> None:
        """Has the last records of a partition told once more, as a restarted connector does."""
        log = self.log[partition]
        for old in log[max(0, len(log) - last) :]:
            number, _, _ = old.version.partition(".")
            version = f"{number}.{len(log):020d}{'r' if old.version.endswith('r') else ''}"
            log.append(replace(old, version=version))

    def _tell(self, op: str, key: int, row: Row | None) -> None:
        self._put(key % PARTITIONS, key, op, row)

    def _put(
        self, partition: int, key: int | None, op: str, row: Row | None, lsn: int | None = None
    ) -> None:
        if lsn is None:
            self.lsn += 10
            lsn = self.lsn
        log = self.log[partition]
        change = change_of(
            Record("cdc", partition, len(log), b"", b"", ()),
            Plain(
                None if key is None else {"id": key},
                envelope(op, row, lsn, self.lsn - 10),
                1,
            ),
            captured=True,
        )
        assert change is not None
        log.append(change)


def envelope(op: str, row: Row | None, lsn: int, committed: int | None) -> Row:
    """Returns what Debezium says of a change; of a row read again, only the last commit before."""
    if op == "r":
        committed = lsn
    last = "null" if committed is None else f'"{committed}"'
    return {
        "before": None,
        "after": row,
        "source": {
            "lsn": None if op == "r" else lsn,
            "sequence": f'[{last},"{lsn}"]',
            "ts_ms": 1_700_000_000_000 + lsn,
        },
        "op": op,
        "ts_ms": 0,
    }


class Memory:
    """A store that keeps documents in memory, and may fail half-way."""

    def __init__(self) -> None:
        self.documents: dict[str, Document] = {}
        self.lowest = ""
        # Documents that are still stored before it breaks down; None where it does not.
        self.breaks_after: int | None = None

    async def floor(self, place: Place) -> str:
        return self.lowest

    async def heads(self, place: Place, ids: Iterable[str]) -> Mapping[str, Head]:
        return {
            name: Head(
                version=found.version,
                deleted=found.deleted,
                inputs=found.inputs,
                digests=tuple(chunk.digest for chunk in found.chunks),
            )
            for name in ids
            if (found := self.documents.get(name))
        }

    async def store(
        self, place: Place, documents: Sequence[Document], *, again: bool = False
    ) -> Mapping[str, str]:
        for at, document in enumerate(documents):
            if self.breaks_after is not None and at >= self.breaks_after:
                self.breaks_after = None
                raise VectorsUnreachable("it was killed")
            self.documents[document.id] = document
        return {}

    async def truncate(self, place: Place, version: str) -> None:
        self.lowest = max(self.lowest, version)
        self.documents = {
            name: each for name, each in self.documents.items() if each.version > version
        }

    def rows(self) -> dict[int, tuple[str, int]]:
        """Returns text and price of what is there, by key."""
        return {
            each.key["id"]: ("".join(chunk.text for chunk in each.chunks), each.columns["price"])
            for each in self.documents.values()
            if not each.deleted
        }
