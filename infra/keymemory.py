"""Remembering keys: which of some are in data files, without reading most files twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

# Eight bytes each.
REMEMBERED_KEYS = 16_000_000


class KeyMemory:
    """Remembers the keys in data files, as sorted hashes, so that most files are read once.

    A data file never changes, so what is remembered of it stays right whoever writes. A hash that
    is found is looked up in the file: the answer is exact.

    Args:
        column: Column of the keys.
        capacity: Keys remembered; beyond it, the files that were used least recently go.
        older: Column of the keys of rows that have none in ``column``, which is newer than they.
    """

    def __init__(
        self, column: str, capacity: int = REMEMBERED_KEYS, *, older: str | None = None
    ) -> None:
        self._column = column
        self._older = older
        self._capacity = capacity
        self._files: OrderedDict[str, Any] = OrderedDict()
        self._duckdb = duckdb.connect()

    def among(self, keys: Sequence[str], files: Sequence[str]) -> set[str]:
        """Returns which of some keys are in some files."""
        wanted = pa.array(keys, pa.string())
        hashes = self._hash(wanted)
        found: set[str] = set()
        for file in files:
            hits = self._hits(hashes, file)
            if pc.any(hits).as_py():
                stored = self._read(file)
                found.update(stored.filter(pc.is_in(stored, wanted.filter(hits))).to_pylist())
        return found

    def _hits(self, hashes: Any, file: str) -> Any:
        known = self._hashes(file)
        left = pc.search_sorted(known, hashes, side="left")
        return pc.less(left, pc.search_sorted(known, hashes, side="right"))

    def _hashes(self, file: str) -> Any:
        if file in self._files:
            self._files.move_to_end(file)
            return self._files[file]
        hashes = self._hash(self._read(file))
        self._files[file] = known = hashes.take(pc.sort_indices(hashes))
        while len(self._files) > 1 and sum(map(len, self._files.values())) > self._capacity:
            self._files.popitem(last=False)
        return known

    def _hash(self, keys: Any) -> Any:
        hashed = self._duckdb.from_arrow(pa.table({"key": keys})).project("hash(key) AS hash")
        return hashed.to_arrow_table()["hash"].combine_chunks()

    def _read(self, file: str) -> Any:
        stored = pq.ParquetFile(file)
        wanted = [name for name in (self._column, self._older) if name in stored.schema_arrow.names]
        columns = stored.read(wanted)
        return pc.coalesce(*(columns[name] for name in wanted))
