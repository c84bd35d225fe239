"""``tessera source``: tables whose changes are captured, and how that stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Annotated, Any

import typer

from catalog.declared.problems import name_problem, spec_of
from catalog.operator import printing
from catalog.operator.asking import Registered, reach
from catalog.operator.following import last, news, plain, seen
from catalog.operator.words import AsJson, Named, Unclear, seconds
from infra.asker import RequestRefused
from infra.connectors.rereading import is_refused
from schemas.events import Reason, SourceReported, SourceState
from schemas.topics import SOURCE_REPORTED

Told = AsyncGenerator[SourceReported | None, None]
# Whether a report says that what was asked for has come about.
End = Callable[[SourceReported], bool]
Wait = Annotated[str, typer.Option(help="How long to watch it come and go: 30s, 10m; 0s: not.")]

KIB = 1024
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
LOST = "its rows on the topic go, too: an index over it must be built anew afterwards"

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Tables in PostgreSQL whose rows and changes become records, for indexes to follow.",
    epilog="[bold]Examples[/]\n\n"
    "tessera source create main.lab.notes --connection main.lab.shop --table public.notes\n\n"
    "tessera source list\n\n"
    "tessera source show main.lab.notes\n\n"
    "tessera source snapshot main.lab.notes --where \"lang = 'de'\"\n\n"
    "tessera source remove main.lab.notes\n\n"
    "The connection is one of the catalog: tessera catalog kinds connection",
)


@app.command()
def create(
    name: Named,
    *,
    connection: Annotated[str, typer.Option(help="Of type postgresql: main.lab.shop.")],
    table: Annotated[str, typer.Option(help="The table in its database: public.notes.")],
    snapshot: Annotated[bool, typer.Option(help="Read the rows that are there, too.")] = True,
    heartbeat: Annotated[str, typer.Option(help="How often its database is written to.")] = "10s",
    comment: Annotated[str | None, typer.Option(help="What the table is for.")] = None,
    wait: Wait = "10m",
    as_json: AsJson = False,
) -> None:
    """Capture a table; one that the catalog has not is made there.

    It needs a primary key, wal_level = logical, and a user who owns it and may replicate. What is
    made in its database is a publication and a replication slot, and no table.
    """
    capture = {"snapshot": "initial" if snapshot else "never", "heartbeat": heartbeat}
    wanted = {"location": table, "connection": connection, "capture": capture}
    if problem := name_problem("table", name):
        raise Unclear(problem)
    spec_of("table", wanted)

    async def ask(catalog: Registered) -> End:
        try:
            found = await catalog.ask("get", name=name, kind="table")
        except RequestRefused as refused:
            if refused.refusal.reason is not Reason.NOT_FOUND:
                raise
            spec: dict[str, Any] = {**wanted}
            await catalog.ask("create", kind="table", name=name, spec=spec, comment=comment)
            return _in(SourceState.STREAMING)
        asked = {**(found["spec"].get("capture") or {}), **capture}
        spec = {**found["spec"], **wanted, "capture": asked}
        more = {"spec": spec, "comment": comment, "etag": found["etag"]}
        await catalog.ask("update", name=name, kind="table", **more)
        return _in(SourceState.STREAMING)

    _watched(name, ask, wait, as_json)


@app.command()
def snapshot(
    name: Named,
    *,
    where: Annotated[
        str | None, typer.Option(help="Which rows: \"id > 7 AND lang = 'de'\"; all if left out.")
    ] = None,
    wait: Wait = "10m",
    as_json: AsJson = False,
) -> None:
    """Read rows of a captured table again while its changes flow on: missed ones come in.

    Changes come late meanwhile where there are many rows: pick those that are missed.

    A condition compares columns with values, with AND, OR, NOT, IN, BETWEEN, LIKE and IS NULL.

    Examples: tessera source snapshot main.lab.notes

    tessera source snapshot main.lab.notes --where "made >= '2026-05-01' AND lang = 'de'"
    """

    async def ask(catalog: Registered) -> End:
        found = await catalog.ask("get", name=name, kind="table")
        capture = found["spec"].get("capture")
        if capture is None:
            raise Unclear(f"{name} is not captured: tessera source create")
        report = (await last(SOURCE_REPORTED)).get(name)
        if report is None or report.state is not SourceState.STREAMING:
            state = report.state if report else "told of by nobody"
            raise Unclear(
                f"{name} is {state}, and rows are read again once it is "
                f"{SourceState.STREAMING}: tessera source show {name}"
            )
        before = capture.get("resnapshot", 0)
        if before > report.resnapshots and not is_refused(report.reason, before):
            raise Unclear(
                f"rows of {name} are being read again, as was asked before: wait until that is "
                f"done: tessera source show {name}"
            )
        number: int = max(before, report.resnapshots) + 1
        asked = {**capture, "resnapshot": number, "resnapshot_where": where}
        spec = {**found["spec"], "capture": asked}
        await catalog.ask("update", name=name, kind="table", spec=spec, etag=found["etag"])

        def through(report: SourceReported) -> bool:
            if is_refused(report.reason, number):
                raise Unclear(f"{report.reason}\n  what to do: {report.remedy}")
            return report.resnapshots >= number

        return through

    _watched(name, ask, wait, as_json)
    if not as_json and seconds(wait):
        typer.echo(f"rows of {name} were read again: they are on its topic")


@app.command()
def remove(name: Named, wait: Wait = "2m", as_json: AsJson = False) -> None:
    """Capture a table no more: its connector, slot, publication and topic go; the table stays."""

    async def ask(catalog: Registered) -> End:
        found = await catalog.ask("get", name=name, kind="table")
        spec = {each: value for each, value in found["spec"].items() if each != "capture"}
        await catalog.ask("update", name=name, kind="table", spec=spec, etag=found["etag"])
        return _in(SourceState.REMOVED)

    typer.echo(LOST, err=True)
    _watched(name, ask, wait, as_json)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the captured tables that you may see."""

    async def found(catalog: Registered) -> list[SourceReported]:
        reports = await last(SOURCE_REPORTED)
        tables = await seen(catalog, "table")
        standing = (reports[name] for name in sorted(reports.keys() & tables.keys()))
        return [each for each in standing if each.state is not SourceState.REMOVED]

    reports = reach(found)
    headings = ("table", "state", "behind", "kept", "reason")
    lines = [
        (each.table, each.state, size(each.lag_bytes), size(each.retained_bytes), each.reason)
        for each in reports
    ]
    result = {"sources": [plain(each) for each in reports]}
    printing.show(result, as_json, printing.rows(headings, lines))
    if not reports:
        typer.echo("no table is captured that you may see: tessera source create", err=True)


@app.command()
def show(name: Named, as_json: AsJson = False) -> None:
    """Show how the capture of a table stands, and what to do where something is wrong."""

    async def found(catalog: Registered) -> SourceReported | None:
        await catalog.ask("get", name=name, kind="table")
        reports = await last(SOURCE_REPORTED)
        return reports.get(name)

    report = reach(found)
    if report is None:
        raise Unclear(f"nobody has told of {name} yet: is it captured, and sources up?")
    result = plain(report)
    printing.show(result, as_json, printing.record(result))


def size(count: int | None) -> str:
    """Returns a number of bytes as a person reads it.

    >>> size(0), size(2048), size(5 * 1024**3), size(None)
    ('0 B', '2 KiB', '5 GiB', '')
    """
    if count is None:
        return ""
    number, unit = float(count), 0
    while number >= KIB and unit < len(UNITS) - 1:
        number, unit = number / KIB, unit + 1
    return f"{number:.0f} {UNITS[unit]}"


def _in(state: SourceState) -> End:
    return lambda report: report.state is state


def _watched(
    name: str,
    ask: Callable[[Registered], Awaitable[End]],
    wait: str,
    as_json: bool,
) -> None:
    """Asks for something and shows how it comes about."""
    patience = seconds(wait)

    async def work(catalog: Registered) -> tuple[SourceReported | None, bool]:
        # What was told before is of before.
        async with news(SOURCE_REPORTED) as (_, events):
            end = await ask(catalog)
            if not patience:
                return None, True
            report = await _ended(events, name, end, patience, as_json)
            return report, report is None or end(report)

    report, well = reach(work)
    if report is None:
        return
    if as_json:
        result = plain(report)
        printing.show(result, as_json, printing.record(result))
    if not well:
        raise typer.Exit(1)


async def _ended(
    events: Told, name: str, end: End, patience: float, as_json: bool
) -> SourceReported | None:
    before = None
    try:
        async with asyncio.timeout(patience):
            async for event in events:
                if event is None or event.table != name:
                    continue
                if not as_json and (before is None or _said(before) != _said(event)):
                    typer.echo(_said(event))
                before = event
                if end(event) or event.state is SourceState.FAILED:
                    return event
    except TimeoutError:
        state = f"is {before.state}" if before else "was not told of: is sources up? tessera status"
        raise Unclear(
            f"{name} {state} after {patience:g} s; it goes on: tessera source show {name}"
        ) from None
    return before


def _said(report: SourceReported) -> str:
    """Returns a report as a line, and what to do as another."""
    behind = f", {size(report.lag_bytes)} behind" if report.lag_bytes else ""
    reason = f": {report.reason}" if report.reason else ""
    remedy = f"\n  what to do: {report.remedy}" if report.remedy else ""
    return f"{report.table} is {report.state}{'' if reason else behind}{reason}{remedy}"
