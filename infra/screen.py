"""What the command line shows: the table of services, rows of an answer, one line for an error.

Values are shown as they are: what looks like Rich's markup in them is text.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from infra.stack.local import GIVE_UP_AFTER, START_S, LocalStack, StackFailed
from infra.stack.state import GOOD, State, Status

REFRESH_S = 0.2
COLOURS = {State.READY: "green", State.DONE: "green", State.FAILING: "red", State.STOPPED: "dim"}

out = Console()
err = Console(stderr=True)


def services(statuses: Mapping[str, Status]) -> Table:
    """The table of services as they are."""
    table = Table(box=None, pad_edge=False)
    for heading in ("service", "state", "port", "pid", "restarts", "reason"):
        table.add_column(heading)
    for name, one in sorted(statuses.items()):
        state = Text(one.state, COLOURS.get(one.state, "yellow"))
        port, pid = str(one.port or ""), str(one.pid or "")
        restarts = str(one.restarts) if one.restarts else ""
        table.add_row(name, state, port, pid, restarts, Text(one.reason))
    return table


def watch_until_ready(stack: LocalStack, names: Iterable[str]) -> None:
    """Show the services until all named ones are ready.

    Raises:
        StackFailed: one keeps failing, or they take longer than ``START_S``.
    """
    names = list(names)
    deadline = time.monotonic() + START_S
    said: dict[str, State] = {}
    with Live(console=err, refresh_per_second=4) as live:
        while True:
            found = stack.status()
            wanted = {name: found[name] for name in names if name in found}
            live.update(services(wanted))
            if not err.is_terminal:
                _say_changes(said, wanted)
            if len(wanted) == len(names) and all(one.state in GOOD for one in wanted.values()):
                return
            hopeless = any(one.restarts >= GIVE_UP_AFTER for one in wanted.values())
            if not found or hopeless or time.monotonic() > deadline:
                raise StackFailed(stack.diagnosis(names))
            time.sleep(REFRESH_S)


def _say_changes(said: dict[str, State], statuses: Mapping[str, Status]) -> None:
    """Where nothing can be drawn over: a line when a service is ready or fails."""
    for name, one in statuses.items():
        if said.get(name) != one.state and one.state in {*GOOD, State.FAILING}:
            err.print(f"{name} is {one.state} {one.reason}".rstrip(), markup=False)
        said[name] = one.state


def rows(answer: pa.Table) -> Table:
    """An answer as a table on the screen."""
    table = Table()
    for name in answer.column_names:
        table.add_column(Text(name), overflow="fold")
    for row in answer.to_pylist():
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    return table


def record(row: Mapping[str, Any]) -> Table:
    """One row, a line for each column that holds something."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in row.items():
        if value not in (None, "", {}, []):
            table.add_row(Text(name), Text(_cell(value)))
    return table


def _cell(value: object) -> str:
    """A value as people write it: nothing for none, and no exponent."""
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return "" if value is None else str(value)


def as_json(answer: pa.Table) -> str:
    """An answer as JSON lines; what JSON cannot say becomes text."""
    return "\n".join(json.dumps(row, default=str) for row in answer.to_pylist())
