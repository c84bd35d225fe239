"""What stands on the command line, as data: pairs, JSON, durations; and the options that recur."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.telemetry import now

SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}


class Unclear(Exception):
    """The command line says something that cannot be read; the message says what and how."""


AsJson = Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]
Etag = Annotated[str | None, typer.Option(help="Only if it still has this etag.")]
Kind = Annotated[str | None, typer.Option(help="Its kind, where the name alone says too little.")]
Named = Annotated[str, typer.Argument(help="Full name: main.default.smollm2.")]
SpecOption = Annotated[
    str | None, typer.Option("--spec", help="JSON, or @FILE that holds it; @- for standard input.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def pairs(words: Sequence[str]) -> dict[str, str]:
    """Returns ``k=v`` words; one without = has no value.

    Raises:
        Unclear: A name is missing.
    """
    found = dict(word.partition("=")[::2] for word in words)
    if "" in found:
        raise Unclear("a pair is NAME=VALUE, and the name is missing")
    return found


def json_of(word: str | None, what: str = "--spec") -> dict[str, Any] | None:
    """Returns the object in JSON text or, after @, in a file.

    Raises:
        Unclear: It is none.
    """
    if word is None:
        return None
    place = word[1:] if word.startswith("@") else what
    try:
        found = json.loads(content(place) if word.startswith("@") else word)
    except json.JSONDecodeError as problem:
        where = f"line {problem.lineno}, column {problem.colno}"
        raise Unclear(f"{place}, {where}: this is no JSON: {problem.msg}") from None
    if not isinstance(found, dict):
        raise Unclear(f"{place}: a JSON object is wanted: {{...}}")
    return found


def content(place: str) -> str:
    """Returns the text of a file, or of standard input for ``-``.

    Raises:
        Unclear: It cannot be read.
    """
    try:
        return typer.get_text_stream("stdin").read() if place == "-" else Path(place).read_text()
    except OSError as problem:
        raise Unclear(f"{place} cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise Unclear(f"{place} cannot be read: it is no text in UTF-8") from None


def seconds(word: str) -> int:
    """Returns the seconds of ``30s``, ``15m``, ``12h`` or ``90d``.

    Raises:
        Unclear: It is none of these.
    """
    found = re.fullmatch(r"(\d{1,9})([smhd])", word)
    if not found:
        raise Unclear(f"{word} is no duration; write 30s, 15m, 12h or 90d")
    return int(found[1]) * SECONDS[found[2]]


def instant(word: str) -> datetime:
    """Returns the instant of ``2027-01-31`` (UTC), of ISO 8601, or from now after a duration.

    Raises:
        Unclear: It is none of these.
    """
    if re.fullmatch(r"\d+[smhd]", word):
        return now() + timedelta(seconds=seconds(word))
    try:
        found = datetime.fromisoformat(word)
    except ValueError:
        raise Unclear(f"{word} is no instant; write 90d, 2027-01-31 or ISO 8601") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
