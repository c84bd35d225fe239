"""``tessera index``: tables that are searchable by meaning, and how that stands."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.live import Live

from catalog.declared.problems import name_problem
from catalog.operator import definitions, printing, reports
from catalog.operator.asking import Registered, reach
from catalog.operator.changing import (
    ENDPOINT,
    Asked,
    bring_about,
    definition_of,
    endpoint_of,
    entry_of,
    index_of,
    kept,
    running,
    table_of,
    update,
)
from catalog.operator.definitions import Words
from catalog.operator.following import last, news, plain, seen
from catalog.operator.watching import START, Board, Reports, Screen
from catalog.operator.words import AsJson, Named, Unclear
from schemas.indexes import IndexSpec
from schemas.topics import INDEX_REPORTED

NONE = "no index is there that you may see: tessera index create --help"

Waits = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Show it come on until it is done; Ctrl-C leaves.")
]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Tables that are searched by meaning, kept as their tables are change by change.",
    epilog="[bold]Examples[/]\n\n"
    "tessera index create main.lab.docs --source main.lab.notes --text '{title}: {body}'\n\n"
    "tessera index status --follow\n\n"
    "tessera index describe main.lab.docs\n\n"
    "tessera index rebuild main.lab.docs\n\n"
    "A table is captured first: tessera source create --help",
)


@app.command()
def create(
    name: Named,
    *,
    source: Annotated[str | None, typer.Option(help="Table; without, callers write to it.")] = None,
    text: Annotated[
        str | None, typer.Option(help="What is searched: a column, or '{title}: {body}'.")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="Key column; the table's own if left out; repeatable.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME:TYPE kept to filter by and return; repeatable. Types: "
            "boolean, date, double, long, string."
        ),
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help=f"Who embeds; {ENDPOINT} if there.")] = None,
    chunking: Annotated[
        str | None, typer.Option(help="How texts are cut: none, tokens, sentence or heading.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Most tokens of a chunk; 256.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Tokens repeated of the one before.")] = None,
    sync: Annotated[
        str | None, typer.Option(help="continuous, or triggered: tessera index sync.")
    ] = None,
    distance: Annotated[str | None, typer.Option(help="cosine, dot or l2.")] = None,
    dimensions: Annotated[int | None, typer.Option(help="Length of a vector.")] = None,
    document_prefix: Annotated[str | None, typer.Option(help="In front of each text.")] = None,
    query_prefix: Annotated[str | None, typer.Option(help="In front of each query.")] = None,
    comment: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    wait: Waits = True,
    as_json: AsJson = False,
) -> None:
    """Make a table searchable by meaning; said again, it changes nothing.

    Examples: tessera index create main.lab.docs --source main.lab.notes --text body

    tessera index create main.lab.docs --source main.lab.notes --text '{title}: {body}'
    --column price:long --column lang --chunking sentence --size 200

    tessera index create main.lab.own --text body (without a source, callers write to it)
    """
    if problem := name_problem("index", name):
        raise Unclear(problem)
    words = Words(
        source=source,
        text=text,
        keys=key or (),
        columns=column or (),
        endpoint=endpoint,
        chunking=chunking,
        size=size,
        overlap=overlap,
        sync=sync,
        distance=distance,
        dimensions=dimensions,
        document_prefix=document_prefix,
        query_prefix=query_prefix,
    )
    # What is refused here reaches no topic.
    wanted = definitions.defined(words)

    async def made(catalog: Registered, told: Reports) -> Asked:
        entry = await entry_of(catalog, "index", name)
        if entry is not None:
            return _again(name, entry, wanted)
        definitions.fits(wanted, await table_of(catalog, wanted))
        whole = wanted.model_copy(update={"endpoint": await endpoint_of(catalog, wanted)})
        if reports.holds(told.last):
            told.screen.say(f"a former {name} is cleared away first")
            await told.until(reports.gone, f"{name} is not made: say it again")
        spec = whole.model_dump(mode="json", exclude_defaults=True)
        await catalog.ask("create", kind="index", name=name, spec=spec, comment=comment)
        if whole.source is None:
            return Asked(f"{name} is made: callers may write to it", True, None)
        return Asked(f"{name} is made, over {whole.source}", True, reports.built(1))

    bring_about(name, made, wait, as_json)


def _again(name: str, found: dict[str, Any], wanted: IndexSpec) -> Asked:
    """Returns that an index is there already; raises Unclear where it is another."""
    there = definition_of(found)
    if wanted.endpoint is None:
        wanted = wanted.model_copy(update={"endpoint": there.endpoint})
    if differs := definitions.differences(there, wanted):
        raise Unclear(definitions.other(name, there, wanted, differs))
    said = f"{name} is there already, and like that: nothing was changed"
    if there.paused:
        return Asked(f"{said}; it is paused: tessera index resume {name}", False, None)
    return Asked(said, False, reports.built(there.generation) if there.source else None)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the indexes that you may see."""

    async def found(catalog: Registered) -> list[dict[str, Any]]:
        told, entries = await last(INDEX_REPORTED), await seen(catalog, "index")
        return [
            {**entries[name], "report": plain(told[name]) if name in told else None}
            for name in sorted(entries)
        ]

    entries = reach(found)
    headings = ("index", "state", "owner", "comment")
    lines = [
        (each["name"], (each["report"] or {}).get("state"), each["owner"], each["comment"])
        for each in entries
    ]
    printing.show({"indexes": entries}, as_json, printing.rows(headings, lines))
    if not entries:
        typer.echo(NONE, err=True)


@app.command()
def describe(name: Named, as_json: AsJson = False) -> None:
    """Show all of an index: its definition, how it stands, and what to do where it is wrong."""

    async def found(catalog: Registered) -> tuple[dict[str, Any], Reports]:
        entry = await index_of(catalog, name)
        async with news(INDEX_REPORTED) as (before, events):
            return entry, Reports(name, before, events, Screen(quiet=True))

    entry, told = reach(found)
    spec, report = definition_of(entry), told.last
    result = {
        **{field: entry[field] for field in ("name", "owner", "comment", "spec")},
        "report": plain(report) if report else None,
    }
    standing: dict[str, object] = {"state": f"nothing was told of it: {START}"}
    if report is not None:
        standing = reports.described(report, told.pace)
    elif spec.source is None:
        standing = {"state": "callers write to it, and nobody tells of it"}
    shown = {"index": name, "owner": entry["owner"], "comment": entry["comment"]}
    table = printing.record({**shown, **definitions.described(spec), **standing})
    printing.show(result, as_json, table)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="Full name; all if left out.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show in a line each how indexes stand, and how far what is being built is.

    Examples: tessera index status

    tessera index status main.lab.docs --follow
    """

    async def names(catalog: Registered) -> set[str]:
        if name is None:
            return {*await seen(catalog, "index")}
        await index_of(catalog, name)
        return {name}

    async def work(catalog: Registered) -> None:
        async with news(INDEX_REPORTED) as (before, events):
            board = Board(await names(catalog), before)
            if not follow:
                board.show(as_json)
            elif printing.out().is_terminal and not as_json:
                with Live(board.table(), console=printing.out(), auto_refresh=False) as live:
                    async for _ in board.follow(events, lambda: names(catalog)):
                        live.update(board.table(), refresh=True)
            else:
                async for report in board.follow(events, lambda: names(catalog)):
                    words = json.dumps(plain(report)) if as_json else board.line(report)
                    print(words, flush=True)
            if not board.names:
                typer.echo(NONE, err=True)

    try:
        reach(work)
    except KeyboardInterrupt:
        # That is how it ends.
        raise typer.Exit(0) from None


@app.command()
def sync(name: Named, wait: Waits = True, as_json: AsJson = False) -> None:
    """Bring a triggered index up to date with its table.

    Example: tessera index sync main.lab.docs
    """

    async def triggered(catalog: Registered, told: Reports) -> Asked:
        entry = await index_of(catalog, name)
        spec = kept(name, entry, "bring up to date")
        if spec.sync != "triggered":
            raise Unclear(f"{name} is not triggered: it follows {spec.source} by itself")
        running(name, spec)
        done = told.last.triggered if told.last else 0
        trigger = max(spec.trigger, done) + 1
        await update(catalog, entry, trigger=trigger)
        return Asked(f"{name} is triggered", True, reports.followed(trigger))

    bring_about(name, triggered, wait, as_json)


@app.command()
def reconcile(name: Named, wait: Waits = True, as_json: AsJson = False) -> None:
    """Compare an index with its source now, row by row; what differs is mended.

    It also happens by itself, every quarter of an hour.

    Example: tessera index reconcile main.lab.docs
    """

    async def wished(catalog: Registered, told: Reports) -> Asked:
        entry = await index_of(catalog, name)
        spec = kept(name, entry, "compare it with")
        running(name, spec)
        wish = max(spec.reconcile, told.last.reconcile if told.last else 0) + 1
        await update(catalog, entry, reconcile=wish)
        return Asked(f"{name} is compared with {spec.source}", True, reports.reconciled(wish))

    bring_about(name, wished, wait, as_json)


@app.command()
def pause(name: Named, wait: Waits = True, as_json: AsJson = False) -> None:
    """Let an index stand still; it is searched as it is, and goes on from there."""

    async def paused(catalog: Registered, told: Reports) -> Asked:
        entry = await index_of(catalog, name)
        if kept(name, entry, "pause").paused:
            return Asked(f"{name} is paused already", False, reports.paused)
        await update(catalog, entry, paused=True)
        return Asked(f"{name} shall stand still: tessera index resume {name}", True, reports.paused)

    bring_about(name, paused, wait, as_json)


@app.command()
def resume(name: Named, wait: Waits = True, as_json: AsJson = False) -> None:
    """Let a paused index go on where it stopped."""

    async def resumed(catalog: Registered, told: Reports) -> Asked:
        entry = await index_of(catalog, name)
        if not kept(name, entry, "resume").paused:
            return Asked(f"{name} is not paused", False, None)
        await update(catalog, entry, paused=False)
        return Asked(f"{name} goes on", True, reports.resumed)

    bring_about(name, resumed, wait, as_json)


@app.command()
def rebuild(name: Named, wait: Waits = True, as_json: AsJson = False) -> None:
    """Build an index anew from its table; queries see it as it was until that is complete.

    Example: tessera index rebuild main.lab.docs --no-wait
    """

    async def begun(catalog: Registered, told: Reports) -> Asked:
        entry = await index_of(catalog, name)
        spec = kept(name, entry, "build it from")
        running(name, spec)
        if told.last is not None and told.last.building is not None:
            told.screen.say(f"generation {told.last.building}, which was being built, is given up")
        generation = max(spec.generation, told.last.generation if told.last else 0) + 1
        await update(catalog, entry, generation=generation)
        said = f"{name} is built anew, as generation {generation}"
        return Asked(said, True, reports.built(generation))

    bring_about(name, begun, wait, as_json)


@app.command()
def drop(
    name: Named,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Waits = True,
    as_json: AsJson = False,
) -> None:
    """Delete an index with its vectors; its table stays.

    Example: tessera index drop main.lab.docs --yes
    """

    async def dropped(catalog: Registered, told: Reports) -> Asked:
        spec = definition_of(await index_of(catalog, name))
        if not yes:
            size = f"{told.last.rows:,} rows of it" if told.last else "all that was written to it"
            stays = f"; {spec.source} stays" if spec.source else ""
            typer.confirm(f"This deletes {name} and {size}{stays}. Go on?", abort=True, err=True)
        await catalog.ask("delete", kind="index", name=name)
        said = f"{name} is dropped"
        if spec.source is None:
            soon = "what was written to it goes within a minute: use its name for no other before"
            return Asked(f"{said}; {soon}", True, None)
        left = f"the indexer clears away what is left of {name}"
        return Asked(said, True, reports.gone if reports.holds(told.last) else None, left)

    bring_about(name, dropped, wait, as_json)
