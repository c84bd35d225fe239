"""Searches an index from the command line.

    tessera search main.kb.notes "How salt is the sea?"
    tessera search main.kb.notes "salt" --mode full_text --k 3
    tessera search main.kb.notes "salt" --filter "price < 5 AND color IN ('red', 'blue')"
    tessera search main.kb.notes "salt" --columns title --columns price --json

A filter is a condition like SQL's over the columns that the index keeps. Shown are a hit's score,
its key, which chunk of its row it is, the version of the row, and the beginning of its text.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from pydantic import ValidationError

from infra.secrets import SecretUnavailable
from infra.settings import SettingInvalid
from infra.signing import KeyUnusable
from schemas.search import Found, Hit
from streams.ask import LOST, identity, tagged, told
from streams.client import Client, RequestRefused
from streams.lines import plain
from streams.terms import SearchOptions

HEADINGS = ("score", "key", "chunk", "version", "text")
# Of a text, where the terminal's width is not known; and what is left of it at least.
WIDTH = 120
LEAST_TEXT = 24
CUT = "..."
# Of a version, its end tells states apart.
LONGEST_VERSION = 24

Mode = Literal["full_text", "hybrid", "vector"]


def main(words: Sequence[str]) -> int:
    """Searches for what the command line says; returns the exit code."""
    arguments = _arguments(words)
    try:
        found = asyncio.run(search(arguments))
    except RequestRefused as refused:
        print(f"refused: {refused} (request {refused.request_id})", file=sys.stderr)
        for line in told(refused):
            print(f"  {line}", file=sys.stderr)
        return 1
    except ValidationError as problem:
        first = problem.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        print(f"search: {place}: {first['msg']}" if place else first["msg"], file=sys.stderr)
        return 1
    except (KeyUnusable, SecretUnavailable, SettingInvalid) as problem:
        print(f"search: {problem}", file=sys.stderr)
        return 1
    except LOST as problem:
        print(f"search: {problem}; is the stack up? try: tessera status", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ncancelled", file=sys.stderr)
        return 130
    if arguments.json:
        print("".join(f"{hit.model_dump_json(exclude_none=True)}\n" for hit in found.hits), end="")
    else:
        print(table(found, shutil.get_terminal_size((WIDTH, 0)).columns))
    return 0


async def search(arguments: argparse.Namespace) -> Found:
    """Asks the index."""
    options: SearchOptions = {
        "alpha": arguments.alpha,
        "columns": arguments.columns,
        "filters": arguments.filter,
        "k": arguments.k,
        "mode": arguments.mode,
        "offset": arguments.offset,
        "score_threshold": arguments.least,
        "tags": dict(arguments.tag),
        "timeout": arguments.timeout,
    }
    who = {"tenant": arguments.tenant, "principal": arguments.principal, "key": arguments.key}
    async with Client(**who) as client:
        return await client.search(arguments.index, arguments.query, **options)


def table(found: Found, width: int) -> str:
    """Returns hits as a table in lines of text, none of them wider than it may be, if it can.

    Args:
        found: What was found.
        width: Of the terminal, in characters.
    """
    if not found.hits:
        return "nothing was found"
    rows = [HEADINGS, *map(_row, found.hits)]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    room = max(LEAST_TEXT, width - sum(widths) - 2 * len(widths))
    return "\n".join(_lines(rows, widths, room))


def _lines(rows: Sequence[tuple[str, ...]], widths: Sequence[int], room: int) -> Iterator[str]:
    for *cells, text in rows:
        shown = text if len(text) <= room else text[: room - len(CUT)] + CUT
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        yield "  ".join((*padded, shown)).rstrip()


def _row(hit: Hit) -> tuple[str, ...]:
    version = hit.version
    key = ", ".join(f"{name}={json.dumps(value)}" for name, value in hit.key.items())
    beside = ", ".join(f"{name}={json.dumps(value)}" for name, value in hit.columns.items())
    text = " ".join((hit.text or beside).split())
    return (
        "" if hit.score is None else f"{hit.score:.3f}",
        plain(key),
        f"{hit.position + 1} of {hit.chunks}",
        version if len(version) <= LONGEST_VERSION else CUT + version[-LONGEST_VERSION:],
        plain(text),
    )


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tessera search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("index", help="three-level name")
    parser.add_argument("query", help="what is searched for")
    parser.add_argument("--mode", choices=get_args(Mode), default="vector", help="how")
    parser.add_argument("--k", type=int, default=10, help="how many hits")
    parser.add_argument("--offset", type=int, default=0, help="hits passed over first")
    parser.add_argument("--alpha", type=float, default=0.5, help="hybrid: meaning against words")
    parser.add_argument("--filter", metavar="CONDITION", help="what hits must satisfy")
    parser.add_argument("--least", type=float, metavar="SCORE", help="least score of a hit")
    parser.add_argument(
        "--columns",
        action="append",
        metavar="NAME",
        help="what is returned beside the text, all if left out; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line, whole")
    identity(parser)
    tagged(parser)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds until the deadline")
    return parser.parse_args(words)
