"""What is told of an index, as people read it: how it stands, how fast it comes on. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from schemas.events import IndexReported, IndexState

Goal = Callable[[IndexReported], bool]

# What lies further back says nothing of how fast it is now.
LATELY = timedelta(seconds=60)
HEADINGS = ("index", "state", "generation", "taken in", "rows", "chunks", "fresh in", "reason")
MINUTE, HOUR, DAY = 60, 3600, 86_400
SECOND_MS = 1000


class Pace:
    """How fast an index takes in records, by what was told of it lately."""

    def __init__(self) -> None:
        self._told: deque[tuple[datetime, int]] = deque()
        self._generation = 0

    def take(self, report: IndexReported) -> None:
        """Takes in a report, each later than the one before."""
        generation = report.building or report.generation
        anew = self._told and report.read < self._told[-1][1]
        if anew or generation != self._generation:
            self._told.clear()
        self._generation = generation
        self._told.append((report.reported_at, report.read))
        while len(self._told) > 2 and self._told[0][0] < report.reported_at - LATELY:  # noqa: PLR2004
            self._told.popleft()

    @property
    def rate(self) -> float | None:
        """Records a second; None where none were taken in lately."""
        if not self._told:
            return None
        (began, first), (now, read) = self._told[0], self._told[-1]
        elapsed = (now - began).total_seconds()
        return (read - first) / elapsed if elapsed > 0 and read > first else None


def built(generation: int) -> Goal:
    """Returns what holds of an index once a generation is complete, or cannot be built."""

    def reached(report: IndexReported) -> bool:
        if report.state is IndexState.FAILED:
            return generation in (report.building, report.generation)
        complete = report.building is None and report.generation >= generation
        return complete and report.state is IndexState.READY

    return reached


def followed(trigger: int) -> Goal:
    """Returns what holds of an index once it came to the end that a trigger set, or cannot."""

    def reached(report: IndexReported) -> bool:
        there = report.state is IndexState.READY and report.triggered >= trigger
        return there or report.state is IndexState.FAILED

    return reached


def reconciled(wish: int) -> Goal:
    """Returns what holds of an index once it was compared with its source as wished, or cannot."""

    def reached(report: IndexReported) -> bool:
        return report.reconcile >= wish or report.state is IndexState.FAILED

    return reached


def paused(report: IndexReported) -> bool:
    """Returns whether an index stands still."""
    return report.state is IndexState.PAUSED


def resumed(report: IndexReported) -> bool:
    """Returns whether an index is kept."""
    return report.state not in (IndexState.PAUSED, IndexState.UNKNOWN)


def gone(report: IndexReported) -> bool:
    """Returns whether nothing is left of an index."""
    return report.state is IndexState.UNKNOWN


def holds(report: IndexReported | None) -> bool:
    """Returns whether there are vectors of an index, by what was told of it last."""
    if report is None or gone(report):
        return False
    return bool(report.generation or report.read or report.rows)


def fraction(report: IndexReported) -> float:
    """Returns how much of its source an index has taken in: 0 where nothing is there."""
    total = report.read + report.waiting
    return report.read / total if total else 0.0


def progress(report: IndexReported, pace: Pace) -> str:
    """Returns how much was taken in, how fast, and how long it takes; empty where nothing waits."""
    if not report.waiting:
        return ""
    total = report.read + report.waiting
    words = f"{report.read:,} of {total:,} rows ({fraction(report):.0%})"
    if rate := pace.rate:
        words += f", {number(rate)} a second, {duration(report.waiting / rate)} left"
    return words


def line(report: IndexReported, pace: Pace) -> str:
    """Returns how an index stands as a line, and what to do as another."""
    if report.state is IndexState.UNKNOWN:
        return f"{report.index} is gone"
    building = report.building is not None
    served = f", queries see generation {report.generation}" if report.generation else ""
    which = f" generation {report.building}{served}" if building else ""
    told = [progress(report, pace)]
    if report.state is IndexState.READY:
        told = [_held(report), told[0], _fresh(report), _drift(report)]
    said = "; ".join(filter(None, told))
    reason = f": {report.reason}" if report.reason else ""
    remedy = f"\n  what to do: {report.remedy}" if report.remedy else ""
    more = reason or (f": {said}" if said else "")
    return f"{report.index} is {report.state}{which}{more}{remedy}"


def cells(name: str, report: IndexReported | None, pace: Pace) -> tuple[object, ...]:
    """Returns an index as a line under ``HEADINGS``."""
    if report is None or gone(report):
        return (name, "not told of", *[""] * (len(HEADINGS) - 2))
    generation = str(report.generation or "")
    if report.building is not None:
        generation = f"{generation} -> {report.building}".strip()
    return (
        name,
        report.state,
        generation,
        progress(report, pace) or f"{report.read:,}",
        f"{report.rows:,}",
        f"{report.chunks:,}",
        milliseconds(report.freshness_ms),
        report.reason,
    )


def paces(reports: Iterable[IndexReported]) -> Mapping[str, Pace]:
    """Returns how fast each index was, by name."""
    found: dict[str, Pace] = {}
    for report in reports:
        found.setdefault(report.index, Pace()).take(report)
    return found


def described(report: IndexReported, pace: Pace) -> dict[str, object]:
    """Returns how an index stands as fields that people read."""
    return {
        "state": report.state,
        "reason": report.reason,
        "what to do": report.remedy,
        "queries see": f"generation {report.generation}" if report.generation else "nothing yet",
        "building": None if report.building is None else f"generation {report.building}",
        "rows": f"{report.rows:,}",
        "chunks": f"{report.chunks:,}",
        "taken in": progress(report, pace) or f"{report.read:,}",
        "waiting": f"{report.waiting:,}",
        "fresh in": milliseconds(report.freshness_ms),
        "drift": "not looked at yet" if report.drift is None else f"{report.drift:,} rows",
        "reconciled": report.reconciled_at and report.reconciled_at.isoformat(" ", "seconds"),
        "embedded": f"{report.embedded:,} texts",
        "told": report.reported_at.isoformat(" ", "seconds"),
    }


def number(value: float) -> str:
    """Returns a rate as people read it.

    >>> number(1234.5), number(0.25)
    ('1,234', '0.2')
    """
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"  # noqa: PLR2004


def duration(seconds: float) -> str:
    """Returns a time as people read it.

    >>> duration(7.2), duration(90), duration(3700), duration(200_000)
    ('7 s', '1 min 30 s', '1 h 1 min', '2 d 7 h')
    """
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def milliseconds(value: int | None) -> str:
    """Returns a time as people read it.

    >>> milliseconds(None), milliseconds(840), milliseconds(1234), milliseconds(90_000)
    ('', '840 ms', '1.2 s', '1 min 30 s')
    """
    if value is None:
        return ""
    if value < SECOND_MS:
        return f"{value} ms"
    seconds = value / SECOND_MS
    return f"{seconds:.1f} s" if seconds < MINUTE else duration(seconds)


def _held(report: IndexReported) -> str:
    return f"{report.rows:,} rows in {report.chunks:,} chunks"


def _drift(report: IndexReported) -> str:
    if not report.drift:
        return ""
    return f"{report.drift:,} rows differed from the source, and are taken in once more"


def _fresh(report: IndexReported) -> str:
    found = milliseconds(report.freshness_ms)
    return f"the latest change was found after {found}" if found else ""
