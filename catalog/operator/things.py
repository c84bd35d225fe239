"""``tessera catalog``: make, find, change and delete what the catalog holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from catalog.declared.problems import kind_problem, name_problem, spec_of, version_spec_of
from catalog.operator import printing
from catalog.operator.asking import Registered, ask, reach
from catalog.operator.importing import import_mcp
from catalog.operator.kinds import kinds
from catalog.operator.words import AsJson, Etag, Kind, Named, SpecOption, Unclear, json_of, pairs
from schemas.shapes import Spec

MOST_AT_ONCE = 1000

Pairs = Annotated[list[str] | None, typer.Option("--tag", help="NAME=VALUE; may be repeated.")]
Properties = Annotated[
    list[str] | None, typer.Option("--property", help="NAME=VALUE; may be repeated.")
]
Limit = Annotated[int, typer.Option(min=1, help="Most entries to show.")]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="What exists: endpoints, models, functions and more, under names of three levels.",
    epilog="[bold]Examples[/]\n\n"
    "tessera catalog kinds endpoint                   what may stand in one, with an example\n\n"
    "tessera catalog list main                        what lies in the catalog main\n\n"
    "tessera catalog get main.default.smollm2         all of one thing\n\n"
    "tessera catalog create schema main.lab --comment 'Trials'\n\n"
    "tessera catalog create endpoint main.lab.ask --spec @ask.json\n\n"
    'tessera catalog version add main.lab.judge --spec \'{"uri": "file:/models/judge"}\'\n\n'
    "tessera catalog alias set main.lab.judge prod=2\n\n"
    "tessera catalog import-mcp main.lab.github main.github        an MCP server's tools",
)
alias_app = typer.Typer(no_args_is_help=True, help="Names of versions: prod, canary.")
version_app = typer.Typer(no_args_is_help=True, help="Versions, which never change.")
app.add_typer(alias_app, name="alias")
app.add_typer(version_app, name="version")
app.command()(kinds)
app.command()(import_mcp)


@app.command()
def create(
    kind: Annotated[str, typer.Argument(help="endpoint, model, schema, user, ...")],
    name: Named,
    *,
    spec: SpecOption = None,
    comment: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    owner: Annotated[str | None, typer.Option(help="Whose it is; yours if left out.")] = None,
    tag: Pairs = None,
    property_: Properties = None,
    as_json: AsJson = False,
) -> None:
    """Make something new.

    Example: tessera catalog create user alice --spec '{"tenant": "acme"}'
    """
    said = json_of(spec)
    # What is refused here reaches no topic: not even a secret that stands in the wrong place.
    _known(spec_of, kind, said or {})
    if problem := name_problem(kind, name):
        raise Unclear(problem)
    result = ask(
        "create",
        kind=kind,
        name=name,
        spec=said,
        comment=comment,
        owner=owner,
        tags=pairs(tag or []),
        properties=pairs(property_ or []),
    )
    printing.show(result, as_json, printing.record(result))


@app.command()
def get(name: Named, kind: Kind = None, as_json: AsJson = False) -> None:
    """Show all of one thing, or of a version: main.lab.judge@2, main.lab.judge@prod."""
    result = ask("get", name=name, kind=kind)
    printing.show(result, as_json, printing.record(result))


@app.command("list")
def list_(
    prefix: Annotated[str, typer.Argument(help="A catalog, a schema; all if left out.")] = "",
    kind: Annotated[str | None, typer.Option(help="Only of this kind.")] = None,
    limit: Limit = MOST_AT_ONCE,
    as_json: AsJson = False,
) -> None:
    """List what you may see.

    Example: tessera catalog list main.default --kind endpoint
    """
    _listed("list", limit, as_json, prefix=prefix, kind=kind)


@app.command()
def search(
    words: Annotated[list[str], typer.Argument(help="Words; all of them must be found.")],
    limit: Limit = MOST_AT_ONCE,
    as_json: AsJson = False,
) -> None:
    """Find words in names, kinds, comments and tags.

    Example: tessera catalog search judge prod
    """
    _listed("search", limit, as_json, text=" ".join(words))


def _listed(action: str, limit: int, as_json: bool, **arguments: object) -> None:
    async def pages(catalog: Registered) -> dict[str, Any]:
        found: dict[str, Any] = {"entries": [], "page": ""}
        while found["page"] is not None and (left := limit - len(found["entries"])) > 0:
            page = {"limit": min(left, MOST_AT_ONCE), "page": found["page"]}
            answer = await catalog.ask(action, **arguments, **page)
            found = {"entries": found["entries"] + answer["entries"], "page": answer["page"]}
        return found

    result = reach(pages)
    printing.show(result, as_json, printing.entries(result))
    if not result["entries"]:
        typer.echo("nothing of that kind or name is there that you may see", err=True)
    if result["page"] and not as_json:
        typer.echo("there is more: raise --limit", err=True)


@app.command()
def update(
    name: Named,
    *,
    kind: Kind = None,
    spec: SpecOption = None,
    comment: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    owner: Annotated[str | None, typer.Option(help="Whose it shall be.")] = None,
    property_: Properties = None,
    etag: Etag = None,
    as_json: AsJson = False,
) -> None:
    """Change what is said of something; what is left out stays.

    Example: tessera catalog update main.lab.ask --comment "For trials" --etag 17
    """
    said = json_of(spec)
    properties = None if property_ is None else pairs(property_)

    async def updated(catalog: Registered) -> dict[str, Any]:
        if said is not None:
            _known(spec_of, kind or await _kind(catalog, name), said)
        return await catalog.ask(
            "update",
            name=name,
            kind=kind,
            spec=said,
            comment=comment,
            owner=owner,
            properties=properties,
            etag=etag,
        )

    result = reach(updated)
    printing.show(result, as_json, printing.record(result))


async def _kind(catalog: Registered, name: str) -> str:
    """Returns the kind of something, as the catalog tells it without hearing of a spec."""
    return str((await catalog.ask("get", name=name))["kind"])


def _known(shaped: Callable[[str, dict[str, Any]], Spec], kind: str, spec: dict[str, Any]) -> None:
    """Returns if a spec has the shape of its kind.

    Raises:
        Invalid: It has another.
        Unclear: There is no such kind.
    """
    if problem := kind_problem(kind):
        raise Unclear(problem)
    shaped(kind, spec)


@app.command()
def tag(
    name: Named,
    tags: Annotated[list[str] | None, typer.Argument(help="NAME=VALUE to set.")] = None,
    *,
    unset: Annotated[list[str] | None, typer.Option(help="Tag to take away.")] = None,
    kind: Kind = None,
    etag: Etag = None,
    as_json: AsJson = False,
) -> None:
    """Set tags and take others away.

    Example: tessera catalog tag main.lab.ask team=search stage=trial --unset draft
    """
    if not tags and not unset:
        raise Unclear("say NAME=VALUE to set or --unset NAME to take away")
    result = ask("tag", name=name, kind=kind, set=pairs(tags or []), unset=unset or [], etag=etag)
    printing.show(result, as_json, printing.record(result))


@app.command()
def delete(name: Named, kind: Kind = None, etag: Etag = None, as_json: AsJson = False) -> None:
    """Delete something that nobody needs; whoever refers to it is named otherwise."""
    result = ask("delete", name=name, kind=kind, etag=etag)
    printing.show(result, as_json, printing.record(result))


@version_app.command("add")
def add_version(
    name: Named,
    spec: SpecOption = None,
    comment: Annotated[str | None, typer.Option(help="What is new in it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add a version of a function, model or prompt; it gets the next number.

    Example: tessera catalog version add main.lab.greeting --spec '{"template": "Hello {{name}}"}'
    """
    said = json_of(spec) or {}

    async def added(catalog: Registered) -> dict[str, Any]:
        _known(version_spec_of, await _kind(catalog, name), said)
        return await catalog.ask("version", name=name, spec=said, comment=comment)

    result = reach(added)
    printing.show(result, as_json, printing.record(result))


@alias_app.command("set")
def set_alias(
    name: Named,
    aliases: Annotated[list[str], typer.Argument(help="ALIAS=NUMBER")],
    as_json: AsJson = False,
) -> None:
    """Let names stand for versions.

    Example: tessera catalog alias set main.lab.judge prod=2 canary=3
    """
    said = pairs(aliases)
    if wrong := [alias for alias, number in said.items() if not number.isdecimal()]:
        raise Unclear(f"{wrong[0]} needs the number of a version: {wrong[0]}=1")
    numbers = {alias: int(number) for alias, number in said.items()}
    result = ask("alias", name=name, set=numbers)
    printing.show(result, as_json, printing.record(result))


@alias_app.command("unset")
def unset_alias(
    name: Named,
    aliases: Annotated[list[str], typer.Argument(help="Names to take away.")],
    as_json: AsJson = False,
) -> None:
    """Take names of versions away."""
    result = ask("alias", name=name, unset=aliases)
    printing.show(result, as_json, printing.record(result))
