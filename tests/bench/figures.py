"""What benches say of times, and of who had the processors meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from statistics import median

import psutil


def quantile(values: Sequence[float], part: float) -> float:
    """Returns the value that this part of all is below."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * part))]


def millis(seconds: Sequence[float]) -> str:
    """Returns the middle and the hundredth highest of some times, in milliseconds."""
    return f"p50 {median(seconds) * 1e3:,.1f} ms, p99 {quantile(seconds, 0.99) * 1e3:,.1f} ms"


class Spent:
    """Processor time from here on: that of some processes, and that of all else on the machine.

    Args:
        processes: Their ids by what they are called; their children count as theirs.
    """

    def __init__(self, processes: Mapping[str, int]) -> None:
        self._processes = {"this bench": os.getpid(), **processes}
        self._began = time.perf_counter()
        self._before, self._all = self._each(), _busy()

    def told(self, units: int, unit: str) -> str:
        """Returns who spent how much on each of some units, and what others took of the cores."""
        passed = time.perf_counter() - self._began
        spent = {name: seconds - self._before[name] for name, seconds in self._each().items()}
        others = max(0.0, _busy() - self._all - sum(spent.values())) / passed
        ranked = sorted(spent.items(), key=lambda each: -each[1])
        shares = ", ".join(
            f"{name} {1000 * seconds / units:.1f}"
            for name, seconds in ranked
            if seconds > 0.01 * passed
        )
        return f"ms of processor time a {unit}: {shares}; others had {others:.1f} cores"

    def _each(self) -> dict[str, float]:
        return {name: family(pid) for name, pid in self._processes.items()}


def family(pid: int) -> float:
    """Returns the processor time of a process and those below it, in seconds."""
    found = psutil.Process(pid)
    spent = 0.0
    # Those below this process are processes of their own here.
    for process in [found, *(found.children(recursive=True) if pid != os.getpid() else ())]:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            spent += times.user + times.system
    return spent


def _busy() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)
