"""What the operator sees: tables and plans for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

# Where nobody looks, nothing is folded.
WIDE = 500

SIGNS = {
    "alias": "~",
    "create": "+",
    "grant": "~",
    "key": "+",
    "own": "~",
    "update": "~",
    "version": "+",
}
COLOURS = {"+": "green", "~": "yellow"}
NOTHING: tuple[object, ...] = (None, "", [], {})


def out() -> Console:
    """Returns where answers go."""
    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)


def show(result: Mapping[str, Any], as_json: bool, table: Table) -> None:
    """Shows a result: as JSON if that is wanted, else as a table."""
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        out().print(table)


def record(result: Mapping[str, Any]) -> Table:
    """Returns a table with a line for each field that holds something."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in result.items():
        if value not in NOTHING:
            table.add_row(Text(name), Text(said(value)))
    return table


def rows(headings: Sequence[str], lines: Iterable[Sequence[object]]) -> Table:
    """Returns a table of lines."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for line in lines:
        table.add_row(*(Text(said(each)) for each in line))
    return table


def entries(result: Mapping[str, Any]) -> Table:
    """Returns the table of a list or a search."""
    return rows(
        ("kind", "name", "owner", "tags", "comment"),
        (
            (each["kind"], each["name"], each["owner"], _pairs(each["tags"]), each["comment"])
            for each in result["entries"]
        ),
    )


def effective(result: Mapping[str, Any]) -> Table:
    """Returns the table of what a principal may."""
    return rows(
        ("privilege", "held", "because"),
        (
            (privilege, "yes" if each["allowed"] else "no", each["because"])
            for privilege, each in result["privileges"].items()
        ),
    )


def plan(steps: Sequence[Mapping[str, Any]]) -> Iterable[Text]:
    """Yields the lines of a plan: what is made, and how what is there changes."""
    if not steps:
        yield Text("nothing to do")
    for step in steps:
        sign = SIGNS[step["verb"]]
        verb = "" if step["verb"] in ("create", "update") else f" {step['verb']}"
        yield Text(f"{sign} {step['kind']} {step['name']}{verb}", COLOURS[sign])
        for field, (before, after) in step["changes"].items():
            if before is None:
                yield from _made(field, after)
            else:
                yield from _differences(field, before, after)


def _made(field: str, value: object) -> Iterable[Text]:
    """Yields what is there now, a line for each field: whoever agrees must see all of it."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            if inner not in NOTHING:
                yield from _made(f"{field}.{name}", inner)
    else:
        yield Text(f"    {field}: {_json(value)}")


def _differences(field: str, before: object, after: object) -> Iterable[Text]:
    """Yields what differs, as deep as both have the same fields."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in {**before, **after}:
            if before.get(name) != after.get(name):
                yield from _differences(f"{field}.{name}", before.get(name), after.get(name))
    elif before != after:
        yield Text(f"    {field}: {_json(before)} -> {_json(after)}")


def said(value: object) -> str:
    """Returns a value as a person reads it."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _json(value: object) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)


def _pairs(tags: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" if value else name for name, value in tags.items())
