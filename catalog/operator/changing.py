"""What is asked of an index, and what comes of it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import typer

from catalog.declared.problems import spec_of
from catalog.operator import reports
from catalog.operator.asking import Registered, reach
from catalog.operator.following import news, plain, seen
from catalog.operator.reports import Goal, Pace
from catalog.operator.watching import Reports, Screen
from catalog.operator.words import Unclear
from infra.asker import RequestRefused
from schemas.events import IndexReported, IndexState, Reason
from schemas.indexes import IndexSpec
from schemas.tables import TableSpec
from schemas.topics import INDEX_REPORTED

ENDPOINT = "main.default.minilm"
DIRECT = "has no source: callers write to it, and there is nothing to"


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of an index.

    Attributes:
        said: That in words.
        changed: Whether the catalog is another now.
        goal: What shall come of it; None where there is nothing to wait for.
        left: Said to whoever waits no longer; where to look again if left out.
    """

    said: str
    changed: bool
    goal: Goal | None
    left: str = ""


def bring_about(
    name: str,
    change: Callable[[Registered, Reports], Awaitable[Asked]],
    wait: bool,
    as_json: bool,
) -> None:
    """Asks something of an index, and shows what comes of it."""
    look = f"{name} goes on without you; look: tessera index status {name} --follow"

    async def work(catalog: Registered) -> tuple[Asked, IndexReported | None]:
        async with news(INDEX_REPORTED) as (before, events):
            with closing(Screen(quiet=as_json)) as screen:
                told = Reports(name, before, events, screen)
                asked = await change(catalog, told)
                if not wait or asked.goal is None:
                    return asked, None
                screen.say(asked.said)
                if not asked.changed and told.last is not None and asked.goal(told.last):
                    return asked, told.last
                return asked, await told.until(asked.goal, asked.left or look)

    asked, report = reach(work)
    if as_json:
        result = {
            "index": name,
            "changed": asked.changed,
            "report": plain(report) if report else None,
        }
        print(json.dumps(result, ensure_ascii=False))
    else:
        typer.echo(reports.line(report, Pace()) if report else asked.said)
    if report is not None and report.state is IndexState.FAILED:
        raise typer.Exit(1)


async def entry_of(catalog: Registered, kind: str, name: str) -> dict[str, Any] | None:
    """Returns an entry of the catalog; None where it is not there."""
    try:
        return await catalog.ask("get", name=name, kind=kind)
    except RequestRefused as refused:
        if refused.refusal.reason is not Reason.NOT_FOUND:
            raise
        return None


async def needed(catalog: Registered, kind: str, name: str, otherwise: str) -> dict[str, Any]:
    """Returns an entry of the catalog; raises Unclear where it is not there."""
    if (entry := await entry_of(catalog, kind, name)) is not None:
        return entry
    close = difflib.get_close_matches(name, await seen(catalog, kind), 1)
    meant = f"did you mean {close[0]}? " if close else ""
    raise Unclear(f"there is no {kind} {name} that you may see; {meant}{otherwise}")


async def index_of(catalog: Registered, name: str) -> dict[str, Any]:
    """Returns an index as the catalog tells of it; raises Unclear where it is not there."""
    return await needed(catalog, "index", name, "which there are: tessera index list")


async def endpoint_of(catalog: Registered, wanted: IndexSpec) -> str | None:
    """Returns who embeds; raises Unclear where nobody would."""
    if wanted.endpoint is not None:
        which = "which there are: tessera catalog list --kind endpoint"
        await needed(catalog, "endpoint", wanted.endpoint, which)
        return wanted.endpoint
    if await entry_of(catalog, "endpoint", ENDPOINT) is not None:
        return ENDPOINT
    if wanted.text:
        raise Unclear(
            f"nobody embeds its texts: there is no {ENDPOINT}, so name one that is there: "
            "--endpoint NAME (tessera catalog list --kind endpoint)"
        )
    return None


async def table_of(catalog: Registered, wanted: IndexSpec) -> TableSpec | None:
    """Returns the table of an index that has one; raises Unclear where that is not there."""
    if wanted.source is None:
        return None
    otherwise = f"let one be captured: tessera source create {wanted.source} --help"
    found = await needed(catalog, "table", wanted.source, otherwise)
    shaped = spec_of("table", found["spec"])
    assert isinstance(shaped, TableSpec)
    return shaped


def definition_of(entry: dict[str, Any]) -> IndexSpec:
    """Returns the definition in an entry of an index."""
    shaped = spec_of("index", entry["spec"])
    assert isinstance(shaped, IndexSpec)
    return shaped


def kept(name: str, entry: dict[str, Any], what: str) -> IndexSpec:
    """Returns the definition of an index that is kept; raises Unclear where it has no source."""
    spec = definition_of(entry)
    if spec.source is None:
        raise Unclear(f"{name} {DIRECT} {what}")
    return spec


def running(name: str, spec: IndexSpec) -> None:
    """Returns if an index is not paused; raises Unclear otherwise."""
    if spec.paused:
        raise Unclear(f"{name} is paused, let it go on first: tessera index resume {name}")


async def update(catalog: Registered, entry: dict[str, Any], **fields: object) -> None:
    """Changes fields of an index, as it was when it was looked at."""
    spec = {**entry["spec"], **fields}
    more = {"spec": spec, "etag": entry["etag"]}
    await catalog.ask("update", name=entry["name"], kind="index", **more)
