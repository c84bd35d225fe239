"""Progress of one long step on standard error: a bar where there is a count, else a spinner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Step:
    """A running step; tells the screen how far it is. Safe to call from threads."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._lock = Lock()
        self._finished = 0
        self._total = 0
        self._unit = ""

    def expect(self, total: int, unit: str) -> None:
        """Say how many ``unit`` there will be, which turns the spinner into a bar."""
        self._total, self._unit = total, unit
        self._progress.update(self._task, total=total)

    def advance(self, count: int) -> None:
        """Say that ``count`` more are finished."""
        with self._lock:
            self._finished += count
            text = f"{self._finished} of {self._total} {self._unit}"
            self._progress.update(self._task, advance=count, count=text)


@contextmanager
def step(what: str) -> Iterator[Step]:
    """Show ``what`` while the block runs, and how long it took when it is over."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(finished_text="[green]ok[/]"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
    )
    if not console.is_terminal:
        console.print(f"{what} ...")
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=None, count="")
        yield Step(progress, task)
        progress.update(task, total=1, completed=1)  # A step without a count is full now.
