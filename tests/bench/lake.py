"""What an append to the lake costs, by rows in the commit and rows in the table.

    python -m tests.bench.lake

Each figure is the median of several commits. ``first`` is the commit of a process that has just
opened the table, and so reads the keys of the day once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter
from uuid import UUID, uuid4

from infra.lake import EventTable, Row, query
from schemas import topics
from schemas.events import InferenceRecorded, Outcome

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BATCHES = (1, 100, 5000)
LARGE = 1_000_000
COMMITS = 9


class Log:
    """A partition that never ends, of requests with random ids."""

    def __init__(self) -> None:
        self._offsets = count()

    def next(self, size: int) -> list[Row]:
        """Returns the next records."""
        return [self._place(_recorded(uuid4())) for _ in range(size)]

    def again(self, rows: Sequence[Row]) -> list[Row]:
        """Returns the same events as a producer sends them twice: at later offsets."""
        return [self._place(row.event) for row in rows]

    def _place(self, event: object) -> Row:
        assert isinstance(event, InferenceRecorded)
        trace = UUID(event.request_id).hex
        return Row(event, topics.INFERENCE_RECORDED.name, 0, next(self._offsets), trace)


def run() -> None:
    """Prints the figures."""
    log = Log()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        empty = {size: _commits(root / str(size), log, size) for size in BATCHES}
        lake = root / "large"
        table = _table(lake)
        began = perf_counter()
        for _ in range(LARGE // 50_000):
            table.append(log.next(50_000))
        filled = perf_counter() - began
        compacted = _seconds(table.compact)
        table = _table(lake)
        first = _seconds(lambda: table.append(log.next(1)))
        large = {size: _commits(lake, log, size) for size in BATCHES}
        repeated = _repeats(lake, log)
        counted = _seconds(
            lambda: query(lake, "SELECT tenant, count(*) FROM inferences GROUP BY 1")
        )

    print(f"{'rows a commit':>14} {'table':>10} {'ms':>8} {'rows/s':>9} {'ratio':>6}")
    for size in BATCHES:
        _line(size, "empty", empty[size], 1.0)
        _line(size, f"{LARGE:,}", large[size], large[size] / empty[size])
    for size, seconds in repeated.items():
        _line(size, "repeats", seconds, seconds / empty[size])
    print(f"filling {LARGE:,} rows: {filled:.1f} s; compacting them: {compacted:.1f} s")
    print(f"first commit after opening: {first * 1e3:.0f} ms; counting: {counted * 1e3:.0f} ms")


def _table(root: Path) -> EventTable:
    return EventTable.of(root, "inferences", group="bench")


def _commits(root: Path, log: Log, size: int) -> float:
    """Returns the seconds that a commit of ``size`` new rows takes, the first one left out."""
    table = _table(root)
    table.append(log.next(size))
    return _median(table, [log.next(size) for _ in range(COMMITS)])


def _repeats(root: Path, log: Log) -> dict[int, float]:
    """Returns the seconds that a commit of rows takes whose keys are all stored already."""
    table = _table(root)
    spent: dict[int, float] = {}
    for size in BATCHES:
        rows = log.next(size)
        table.append(rows)
        table.compact()
        table.append(log.next(1))
        spent[size] = _median(table, [log.again(rows) for _ in range(COMMITS)])
    return spent


def _median(table: EventTable, batches: Sequence[Sequence[Row]]) -> float:
    return median(_seconds(partial(table.append, rows)) for rows in batches)


def _seconds(act: Callable[[], object]) -> float:
    began = perf_counter()
    act()
    return perf_counter() - began


def _line(size: int, table: str, seconds: float, ratio: float) -> None:
    print(f"{size:>14,} {table:>10} {seconds * 1e3:>8.1f} {size / seconds:>9,.0f} {ratio:>6.2f}")


def _recorded(request: UUID) -> InferenceRecorded:
    text = f"What became of order {request}? " * 4
    return InferenceRecorded(
        request_id=str(request),
        tenant=f"tenant-{request.int % 20}",
        endpoint="main.support.chat",
        route="primary",
        model="smollm2",
        outcome=Outcome.COMPLETED,
        request=f'{{"messages": [{{"role": "user", "content": "{text}"}}]}}',
        response=f'{{"choices": [{{"message": {{"content": "{text}"}}}}]}}',
        finish_reason="stop",
        prompt_tokens=request.int % 700,
        completion_tokens=request.int % 300,
        attempts=1,
        requested_at=NOON,
        first_token_ms=request.int % 900,
        elapsed_ms=request.int % 9000,
    )


if __name__ == "__main__":
    run()
