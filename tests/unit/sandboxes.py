"""Calls of sandboxed functions, and the proof that nothing of them is left."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import dedent
from typing import Any

import psutil
import pytest

from workers.tools import Checkpoint, ToolFailed
from workers.tools.sandbox import Bounds, run

BOUNDS = Bounds(wall_s=60, cpu_s=5, memory_mib=128, disk_mib=16, file_mib=8)
PR_SET_CHILD_SUBREAPER = 36


async def call(
    source: str,
    bounds: Bounds = BOUNDS,
    key: str = "a-key",
    checkpoint: Checkpoint | None = None,
    **arguments: Any,
) -> Any:
    text, name = dedent(source), "tools.tests.act"
    return await run(text, name, arguments, bounds, key, checkpoint=checkpoint)


async def fails(source: str, bounds: Bounds = BOUNDS, **arguments: Any) -> ToolFailed:
    with pytest.raises(ToolFailed) as failed:
        await call(source, bounds, **arguments)
    assert len(failed.value.message) <= 500
    return failed.value


def relatives() -> set[int]:
    # Not their own: those of services come and go.
    return {one.pid for one in psutil.Process().children()}


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    # Whatever leaves its parent comes to us, so that it is seen.
    libc = ctypes.CDLL(None)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    before, descriptors = relatives(), len(os.listdir("/proc/self/fd"))
    yield
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    assert relatives() <= before
    assert len(os.listdir("/proc/self/fd")) <= descriptors
