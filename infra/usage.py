"""Usage: how much is asked, what it costs, and how long it takes.

    tessera usage                            by endpoint, the last 24 hours
    tessera usage --by user --since 7d
    tessera usage --by tag:team --json       one JSON object a line; costs are exact decimals
    tessera usage --follow                   live, every second, until Ctrl-C

Counts requests and tokens, sums what they cost in US dollars, and counts apart those whose price
nobody has told (tessera catalog kinds model says how). Times are those of the requests answered.
Works while the stack is down, save --follow. All of it can be asked in SQL as well:

    tessera sql "select * from usage order by hour desc"
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from infra.audit import instant
from infra.bus import BusUnreachable
from infra.figures import Figure, Grouping, anything, figures, grouping, over_time
from infra.lake import QueryInvalid
from infra.meter import SECONDS, Meter, follow
from infra.registry import RegistryUnreachable
from infra.settings import (
    KafkaSettings,
    LakeSettings,
    RegistrySettings,
    SettingInvalid,
)
from infra.tail import TailBroken
from infra.telemetry import configure_command, now

DAY = timedelta(days=1)
HEIGHT, WIDTH, PIPED_WIDTH = 6, 60, 200
BLOCKS = " ▁▂▃▄▅▆▇█"
NAMELESS = "(none)"
INTERRUPTED = 130
UNFIT = (
    BusUnreachable,
    LookupError,
    QueryInvalid,
    RegistryUnreachable,
    SettingInvalid,
    TailBroken,
)
# The columns in their order: heading, and which number of a figure stands there.
COLUMNS = (
    ("requests", "requests"),
    ("errors", "errors"),
    ("in", "prompt_tokens"),
    ("cached", "cached_tokens"),
    ("out", "completion_tokens"),
    ("thought", "reasoning_tokens"),
    ("saved", "saved_tokens"),
    ("cost $", "cost"),
    ("unpriced", "unpriced"),
    ("p50", "p50_ms"),
    ("p99", "p99_ms"),
)
# Tokens on the screen: from which number on they are counted in what.
UNITS = ((10**9, 10**9, "G"), (10**6, 10**6, "M"), (10**4, 10**3, "k"))
# Shown only where there are any.
RARE = frozenset({"cached_tokens", "reasoning_tokens", "saved_tokens", "unpriced"})


def table(found: Sequence[Figure], by: str, most: int) -> Table:
    """Returns figures as a table on the screen: the groups, then all of them together."""
    everything, *groups = found
    columns = {
        heading: field
        for heading, field in COLUMNS
        if field not in RARE or getattr(everything, field)
    }
    shown = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    shown.add_column(Text(by), overflow="fold", min_width=8)
    for heading in columns:
        shown.add_column(heading, justify="right", no_wrap=True)
    for each in groups[:most]:
        name = Text(each.name or NAMELESS, "" if each.name else "dim")
        shown.add_row(name, *_cells(each, columns.values()))
    if len(groups) > most:
        shown.add_row(Text(f"and {len(groups) - most} more: --limit", "dim"))
    shown.add_row(Text("all"), *_cells(everything, columns.values()), style="bold")
    return shown


def bars(counts: Sequence[tuple[int, int]], began: str, ends: str, what: str) -> Text:
    """Returns requests over time as bars, red where most of what a cell shows are errors.

    Args:
        counts: Requests and errors of each part of the time.
        began: What stands below the first bar.
        ends: What stands below the last one.
        what: What one bar counts.
    """
    highest = max((requests for requests, _ in counts), default=0)
    label = f"{highest:,}"
    drawn = Text().append(f"{what}\n", "dim")
    for level in reversed(range(HEIGHT)):
        margin = label if level == HEIGHT - 1 else "0" if level == 0 else ""
        drawn.append(f"{margin:>{len(label)}} ", "dim")
        for requests, errors in counts:
            filled = _filled(requests, highest, level)
            failed = 2 * _filled(errors, highest, level) > filled
            drawn.append(BLOCKS[filled], "red" if failed else "green")
        drawn.append("\n")
    gap = max(1, len(counts) - len(began) - len(ends))
    return drawn.append(f"{'':>{len(label)}} {began}{'':>{gap}}{ends}", "dim")


def as_json(found: Sequence[Figure], by: str) -> str:
    """Returns figures as JSON, one object a line; exact decimals as text, names null for all."""
    lines = [{"by": by, **asdict(each), "cost": plain(each.cost)} for each in found]
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)


def plain(amount: Decimal) -> str:
    """Returns a decimal in full, without an exponent and without zeros at its end."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def main(words: Sequence[str]) -> int:
    """Shows what the command line asks for; returns the exit code."""
    arguments = _arguments(words)
    try:
        by = grouping(arguments.by)
        if arguments.follow:
            asyncio.run(_live(arguments, by))
        else:
            _show(arguments, by)
    except UNFIT as problem:
        print(f"usage: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _show(arguments: argparse.Namespace, by: Grouping) -> None:
    root, until = LakeSettings().root, now()
    since = arguments.since or until - DAY
    found = figures(root, by, since)
    if not found:
        _say_nothing(anything(root), since)
    elif arguments.json:
        print(as_json(found, arguments.by))
    else:
        _console().print(
            table(found, arguments.by, arguments.limit),
            Text(),
            bars(
                over_time(root, since, until, WIDTH),
                _moment(since),
                _moment(until),
                f"requests, each bar {_span((until - since) / WIDTH)}; red: failed",
            ),
        )


def _say_nothing(earlier: bool, since: datetime) -> None:
    said = (
        f"no requests since {_moment(since)}; look further back: tessera usage --since 30d"
        if earlier
        else 'no requests yet; ask something: tessera ask "What is Kafka?"'
    )
    print(said, file=sys.stderr)


async def _live(arguments: argparse.Namespace, by: Grouping) -> None:
    console = _console()
    following = follow(by, arguments.since, KafkaSettings(), RegistrySettings())
    async with aclosing(following):
        if console.is_terminal and not arguments.json:
            with Live(console=console, auto_refresh=False) as live:
                async for meter in following:
                    live.update(_frame(meter, arguments), refresh=True)
        else:
            await _print_changes(following, console, arguments)


async def _print_changes(
    following: AsyncIterator[Meter], console: Console, arguments: argparse.Namespace
) -> None:
    """Where nothing can be drawn over: the figures whenever they are others."""
    said = 0
    async for meter in following:
        found = meter.figures()
        if found and found[0].requests != said:
            said = found[0].requests
            if arguments.json:
                print(as_json(found, arguments.by), flush=True)
            else:
                console.print(table(found, arguments.by, arguments.limit), Text())


def _frame(meter: Meter, arguments: argparse.Namespace) -> Group:
    found = meter.figures()
    plot = bars(meter.second(), f"{SECONDS} s ago", "now", "requests a second; red: failed")
    heading = table(found, arguments.by, arguments.limit) if found else Text("no requests yet")
    return Group(heading, Text(), plot, Text("Ctrl-C ends it", "dim"))


def _console() -> Console:
    """Returns where figures are shown; what is no terminal is wide enough for all of them."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPED_WIDTH)


def _cells(figure: Figure, fields: Iterable[str]) -> list[str]:
    return [_cell(field, getattr(figure, field)) for field in fields]


def _cell(field: str, value: int | Decimal | None) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return plain(value)
    if field.endswith("_ms"):
        return f"{value}ms" if value < 1000 else f"{value / 1000:.3g}s"  # noqa: PLR2004 - a second
    if field.endswith("_tokens"):
        for least, size, unit in UNITS:
            if value >= least:
                return f"{value / size:.3g}{unit}"
    return f"{value:,}"


def _filled(count: int, highest: int, level: int) -> int:
    """Returns how many eighths of a bar's cell are filled; what happened once can be seen."""
    steps = len(BLOCKS) - 1
    whole = -(-count * HEIGHT * steps // highest) if highest else 0
    return min(max(whole - level * steps, 0), steps)


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%MZ}"


def _span(length: timedelta) -> str:
    seconds = length.total_seconds()
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tessera usage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--by",
        default="endpoint",
        metavar="WHAT",
        type=_grouped,
        help="endpoint (the default), tenant, user, model, route, or tag:NAME",
    )
    parser.add_argument(
        "--since",
        type=instant,
        metavar="TIME",
        help="1h, 7d, 2026-11-25; 24h if left out, and with --follow from now on",
    )
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="most groups (20)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, the sum first")
    parser.add_argument("-f", "--follow", action="store_true", help="go on, every second")
    return parser.parse_args(words)


def _grouped(text: str) -> str:
    grouping(text)
    return text


if __name__ == "__main__":
    configure_command("usage")
    sys.exit(main(sys.argv[1:]))
