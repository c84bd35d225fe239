"""Several processes write to one table, and die at it."""

from __future__ import annotations

import multiprocessing
import random
from multiprocessing.connection import Connection
from pathlib import Path

from tests.harness import eventually
from tests.unit.lakes import TOPIC, opened, places, row

SPAWN = multiprocessing.get_context("spawn")


def write(root: Path, partition: int, rounds: int) -> None:
    """Appends batches of which every second key is also written by every other process."""
    table = opened(root)
    for start in range(0, rounds * 10, 10):
        table.append(
            [
                row(f"{offset}" if offset % 2 else f"{partition}-{offset}", offset, partition)
                for offset in range(start, start + 10)
            ]
        )
        if start % 40 == 30:
            table.compact()


def test_processes_that_write_together_lose_and_double_nothing(tmp_path: Path) -> None:
    writers = [
        SPAWN.Process(target=write, args=(tmp_path, each, 12), daemon=True) for each in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    odd = {str(offset) for offset in range(1, 120, 2)}
    even = {f"{each}-{offset}" for each in range(4) for offset in range(0, 120, 2)}
    assert set(places(tmp_path)) == odd | even
    assert [opened(tmp_path).offset(TOPIC, each) for each in range(4)] == [119] * 4


def consume(root: Path, ready: Connection) -> None:
    """Appends from where the table stands, compacting now and then, until it is killed."""
    table = opened(root)
    last = table.offset(TOPIC, 0)
    offset = 0 if last is None else last + 1
    ready.send(offset)
    while True:
        # As after a rebalance, some of what is stored already is delivered again.
        first = max(0, offset - 5)
        table.append([row(f"k{n // 2}", n) for n in range(first, offset + 20)])
        offset += 20
        if offset % 100 == 0:
            table.compact()


def test_a_killed_writer_leaves_no_half_commit(tmp_path: Path) -> None:
    moments = random.Random(20260301)
    stored = 0
    for left in reversed(range(8)):
        ours, theirs = SPAWN.Pipe()
        writer = SPAWN.Process(target=consume, args=(tmp_path, theirs), daemon=True)
        writer.start()
        assert ours.poll(120)
        assert ours.recv() == stored
        if not left:
            # On a slow machine none may have come so far until now.
            eventually(lambda: opened(tmp_path).offset(TOPIC, 0) is not None, what="a commit")
        writer.join(moments.uniform(0, 0.3))
        writer.kill()
        writer.join()
        last = opened(tmp_path).offset(TOPIC, 0)
        stored = 0 if last is None else last + 1
        assert stored % 20 == 0
        assert places(tmp_path) == {f"k{n // 2}": (0, n) for n in range(0, stored, 2)}
    assert stored > 0
