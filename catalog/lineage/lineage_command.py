"""``tessera lineage``: the golden thread of an answer, or what came from a thing."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from catalog.lineage.drawing import as_svg
from catalog.lineage.thread import Thread, as_text, notices
from catalog.lineage.walks import DEPTH, LIMIT
from catalog.operator.asking import ask
from catalog.operator.words import SECONDS, AsJson, Unclear, instant, seconds
from infra.telemetry import now

Start = Annotated[
    str, typer.Argument(metavar="RESPONSE_ID", help="Id of a response, or a name: a.b.model@3.")
]
Instant = Annotated[str | None, typer.Option(help="2027-01-31 (UTC), ISO 8601, or 7d for ago.")]


def lineage(
    name: Start,
    *,
    downstream: Annotated[
        bool, typer.Option("--downstream", help="What came from it, instead of what it came from.")
    ] = False,
    of: Annotated[
        str | None, typer.Option(help="Its kind, where the name could mean several.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="Only these kinds, and what leads to them.")
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="Steps at most.")] = DEPTH,
    since: Instant = None,
    until: Instant = None,
    limit: Annotated[int, typer.Option(min=1, help="Edges at most.")] = LIMIT,
    as_json: AsJson = False,
    svg: Annotated[Path | None, typer.Option(help="Draw it into this file.")] = None,
    openlineage: Annotated[
        bool, typer.Option("--openlineage", help="OpenLineage events, one a line.")
    ] = False,
) -> None:
    """Show what an answer came from: endpoint, model, training, data, chunks, tools, decisions.

    --since and --until keep to edges that were so in between.

    Example: tessera lineage 0b9f7c1e-... --svg thread.svg
    """
    if sum([as_json, svg is not None, openlineage]) > 1:
        raise Unclear("only one of --json, --svg and --openlineage can be wanted at a time")
    found = ask(
        "lineage",
        name=name,
        downstream=downstream,
        kind=of,
        kinds=kind,
        depth=depth,
        since=_instant(since),
        until=_instant(until),
        limit=limit,
    )
    thread = Thread.model_validate(found)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
    elif openlineage:
        from catalog.lineage.openlineage import as_openlineage  # noqa: PLC0415 - takes a while to load

        for event in as_openlineage(thread):
            typer.echo(event)
    elif svg is not None:
        _write(svg, as_svg(thread))
        typer.echo(f"drawn: {len(thread.nodes)} things, {len(thread.edges)} edges in {svg}")
    else:
        typer.echo(as_text(thread))
    for notice in notices(thread, limit):
        typer.echo(notice, err=True)


def _write(file: Path, drawn: str) -> None:
    try:
        file.write_text(drawn, encoding="utf-8")
    except OSError as problem:
        raise Unclear(f"{file} cannot be written: {problem.strerror}") from None


def _instant(word: str | None) -> str | None:
    """Returns an instant as the action takes it; a duration is how long ago it was."""
    if word is None:
        return None
    ago = word[-1:] in SECONDS and word[:-1].isdecimal()
    return (now() - timedelta(seconds=seconds(word)) if ago else instant(word)).isoformat()
