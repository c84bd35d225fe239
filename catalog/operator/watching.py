"""Waiting for what shall come of an index, and showing it meanwhile."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from catalog.operator import printing, reports
from catalog.operator.following import plain
from catalog.operator.reports import Goal, Pace, fraction, line
from catalog.operator.words import Unclear
from schemas.events import IndexReported, IndexState

Told = AsyncGenerator[IndexReported | None, None]

SILENT_S = 10.0
GIVE_UP_S = 120.0
START = "is the indexer up? tessera status; start it: tessera up --only indexer --detach"
BAR = 24
# Where nothing can be drawn over, a line for each tenth.
TENTHS = 10


class Screen:
    """Where people see an index come on: drawn over on a terminal, else a line at a time.

    Args:
        quiet: Shows nothing: a program reads.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._shown: tuple[object, ...] = ()

    def close(self) -> None:
        """Draws no more."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, report: IndexReported, pace: Pace) -> None:
        """Shows how an index stands."""
        words = line(report, pace)
        if self._console.is_terminal and not self._quiet:
            # Not before: what somebody is asked in the meantime must be seen.
            if self._live is None:
                self._live = Live(console=self._console, auto_refresh=False, transient=True)
                self._live.start()
            self._live.update(_drawn(report, words), refresh=True)
            return
        tenth = int(fraction(report) * TENTHS) if report.waiting else None
        seen = (report.state, report.reason, report.building, tenth)
        if seen != self._shown:
            self._shown = seen
            self.say(words)

    def say(self, words: str) -> None:
        """Says something beside."""
        if not self._quiet:
            console = self._live.console if self._live else self._console
            console.print(Text(words), soft_wrap=True)


class Reports:
    """What is told of one index.

    Args:
        name: The index.
        before: All that was told of indexes until now.
        events: What comes from now on.
        screen: Where it is shown.

    Attributes:
        last: What was told of it last; None where nothing was.
        pace: How fast it takes in records.
    """

    def __init__(
        self, name: str, before: Sequence[IndexReported], events: Told, screen: Screen
    ) -> None:
        self.name = name
        self.last: IndexReported | None = None
        self.pace = Pace()
        self.screen = screen
        self._events = events
        for report in before:
            if report.index == name:
                self._take(report)

    async def until(self, goal: Goal, left: str) -> IndexReported:
        """Returns the first report from now on that reaches a goal.

        Args:
            goal: What is waited for.
            left: Said to whoever interrupts the waiting.

        Raises:
            Unclear: Nothing was told of the index at all, for minutes.
        """
        silence = asyncio.get_running_loop().call_later(SILENT_S, self._silent)
        try:
            async with asyncio.timeout(GIVE_UP_S) as patience:
                async for report in self._events:
                    if report is None or report.index != self.name:
                        continue
                    silence.cancel()
                    patience.reschedule(None)
                    self._take(report)
                    if goal(report):
                        return report
                    self.screen.show(report, self.pace)
        except TimeoutError:
            raise Unclear(
                f"nothing was told of {self.name} for {GIVE_UP_S:g} s{self._before()}; {START}"
            ) from None
        except asyncio.CancelledError:
            # At once: whoever started this process does not wait for it to end.
            self.screen.close()
            print(left, file=sys.stderr, flush=True)
            raise
        finally:
            silence.cancel()
        raise AssertionError("what is told has no end")

    def _take(self, report: IndexReported) -> None:
        self.last = report
        self.pace.take(report)

    def _silent(self) -> None:
        self.screen.say(
            f"nothing was told of {self.name} for {SILENT_S:g} s{self._before()}; {START}"
        )

    def _before(self) -> str:
        if self.last is None:
            return ""
        at = self.last.reported_at.isoformat(" ", "seconds")
        return f", last at {at}: {line(self.last, Pace())}"


class Board:
    """How several indexes stand.

    Args:
        names: Which.
        before: What was told until now.
    """

    def __init__(self, names: set[str], before: Iterable[IndexReported]) -> None:
        told = tuple(before)
        self.names = names
        self._paces = {**reports.paces(told)}
        self._told = {report.index: report for report in told}

    def table(self) -> Table:
        """Returns the table of them."""
        lines = [
            reports.cells(name, self._told.get(name), self._paces.get(name, Pace()))
            for name in sorted(self.names)
        ]
        return printing.rows(reports.HEADINGS, lines)

    def show(self, as_json: bool) -> None:
        """Shows them once."""
        found = [self._told.get(name) for name in sorted(self.names)]
        result = {"indexes": [plain(each) for each in found if each]}
        printing.show(result, as_json, self.table())

    def line(self, report: IndexReported) -> str:
        """Returns a report in words."""
        return reports.line(report, self._paces[report.index])

    async def follow(
        self, events: Told, names: Callable[[], Awaitable[set[str]]]
    ) -> AsyncIterator[IndexReported]:
        """Yields what is told of them from now on; of one that is made meanwhile, too."""
        async for report in events:
            if report is None:
                continue
            if report.index not in self.names and report.state is not IndexState.UNKNOWN:
                self.names = await names()
            self._told[report.index] = report
            self._paces.setdefault(report.index, Pace()).take(report)
            if report.index in self.names:
                yield report
            if report.state is IndexState.UNKNOWN:
                self.names.discard(report.index)


def _drawn(report: IndexReported, words: str) -> Table:
    frame = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(report.read + report.waiting, 1), completed=report.read, width=BAR)
    frame.add_row(bar, Text(words))
    return frame
