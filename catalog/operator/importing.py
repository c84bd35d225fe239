"""``tessera catalog import-mcp``: the tools of an MCP server as functions of the catalog."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.declared.problems import spec_of
from catalog.operator.applying import carried_out, show
from catalog.operator.asking import Registered, reach
from catalog.operator.changing import needed
from catalog.operator.words import AsJson, DryRun, Unclear, Yes
from infra.secrets import lend
from infra.settings import ToolsSettings
from schemas.jsonschemas import require_schema
from schemas.kinds import ConnectionSpec

if TYPE_CHECKING:
    from infra.mcp.server import Tool

ANSWER_S = 60.0
LONGEST_NAME = 100


def import_mcp(
    connection: Annotated[str, typer.Argument(help="Of type mcp: main.default.github.")],
    schema: Annotated[str, typer.Argument(help="Where the functions go: main.github.")],
    *,
    only: Annotated[
        list[str] | None, typer.Option(help="A tool, by its server's name; may be repeated.")
    ] = None,
    trust_hints: Annotated[
        bool,
        typer.Option(
            help="Believe the server which of its tools change nothing, or may be repeated."
        ),
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make functions of what an MCP server offers; shows the plan, asks, does all or nothing.

    Done again it adds a version to each function whose tool is described otherwise, or takes other
    parameters, and leaves all others alone. Read what the server says of its tools: models will.
    The server is asked from here, so here is where the secret of the connection must be, and
    TOOLS_MCP_COMMANDS for stdio://NAME.

    Example: tessera catalog import-mcp main.default.github main.github --dry-run
    """

    async def imported(catalog: Registered) -> dict[str, Any]:
        tools = await offered(await _connection(catalog, connection))
        exported = await catalog.ask("export", prefix=schema)
        there = {each["name"]: each for each in exported["documents"]}
        source = Source(connection, schema, trust_hints)
        for name in source.gone(tools, there.values()):
            typer.echo(f"{name}: its server has no such tool any more", err=True)
        documents = source.documents(_chosen(tools, only or ()), there)
        return await carried_out(catalog, documents, dry_run=dry_run, yes=yes, as_json=as_json)

    show(reach(imported), as_json=as_json)


async def offered(connection: ConnectionSpec) -> list[Tool]:
    """Returns the tools of a server.

    Raises:
        SecretUnavailable: The secret of its connection is not here.
        Unclear: It does not tell them; says why.
    """
    from infra.mcp.server import Server, ServerFailed  # noqa: PLC0415 - takes a second to load

    reference = connection.secret
    secret = await asyncio.to_thread(lend, reference) if reference else None
    server = Server(connection, secret, ToolsSettings().mcp_commands)
    try:
        async with asyncio.timeout(ANSWER_S), server.opened():
            return await server.tools()
    except ServerFailed as problem:
        raise Unclear(str(problem)) from None
    except TimeoutError:
        raise Unclear(f"its server does not answer within {ANSWER_S:g} s") from None


@dataclass(frozen=True, slots=True)
class Source:
    """Where functions come from.

    Attributes:
        connection: Its name.
        schema: Where the functions go.
        trusted: Whether the server is believed which of its tools may be called twice.
    """

    connection: str
    schema: str
    trusted: bool = False

    def documents(
        self, tools: Collection[Tool], there: Mapping[str, dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Returns documents that make functions of tools.

        Args:
            tools: What the server offers.
            there: Documents of what is there, by name.

        Raises:
            Unclear: A tool cannot be a function, or its name is another's.
        """
        names = {tool.name: self.name_of(tool) for tool in tools}
        twice = [name for name, count in Counter(names.values()).items() if count > 1]
        if twice:
            both = " and ".join(name for name, made in names.items() if made == twice[0])
            raise Unclear(f"{both} would all be {twice[0]}: import one of them, with --only")
        return [self._document(tool, there.get(names[tool.name])) for tool in tools]

    def name_of(self, tool: Tool) -> str:
        """Returns what a tool is called in the catalog."""
        name = re.sub(r"[^A-Za-z0-9_-]|^-", "_", tool.name)[:LONGEST_NAME]
        return f"{self.schema}.{name}"

    def gone(self, tools: Iterable[Tool], there: Iterable[Mapping[str, Any]]) -> Iterator[str]:
        """Yields functions of this connection whose tools the server has no more."""
        offers = {tool.name for tool in tools}
        for each in there:
            if self._of(each) and each["versions"][-1]["spec"]["source"] not in offers:
                yield each["name"]

    def _document(self, tool: Tool, there: Mapping[str, Any] | None) -> dict[str, Any]:
        name = self.name_of(tool)
        _require_parameters(tool)
        if there is None:
            fresh = {
                "language": "mcp",
                "source": tool.name,
                "connection": self.connection,
                "effect": self._effect(tool),
                **_said(tool),
            }
            comment = tool.description.partition("\n")[0]
            versions = [{"spec": fresh}]
            return {"kind": "function", "name": name, "comment": comment, "versions": versions}
        if not self._of(there) or there["versions"][-1]["spec"]["source"] != tool.name:
            raise Unclear(
                f"{name} is there already, and is no function of {self.connection}'s {tool.name}: "
                "take another schema"
            )
        # What a person has said of it since holds on: its effect, its time.
        last = there["versions"][-1]["spec"]
        versions = list(there["versions"])
        if any(last.get(field) != said for field, said in _said(tool).items()):
            versions.append({"spec": {**last, **_said(tool)}})
        return {"kind": "function", "name": name, "versions": versions}

    def _effect(self, tool: Tool) -> str:
        if self.trusted and tool.reads:
            return "pure"
        return "idempotent" if self.trusted and tool.repeatable else "reconcile"

    def _of(self, there: Mapping[str, Any]) -> bool:
        """Returns whether a document is of a function of this connection."""
        if there["kind"] != "function" or not there.get("versions"):
            return False
        spec = there["versions"][-1]["spec"]
        return (spec["language"], spec.get("connection")) == ("mcp", self.connection)


def _said(tool: Tool) -> dict[str, Any]:
    """Returns what the server says of a function; all else of it is the person's."""
    return {"description": tool.description, "parameters": tool.parameters}


def _require_parameters(tool: Tool) -> None:
    try:
        require_schema(tool.parameters)
    except ValueError as problem:
        raise Unclear(f"the parameters of {tool.name} are none: {problem}") from None


async def _connection(catalog: Registered, name: str) -> ConnectionSpec:
    """Returns a connection to an MCP server; raises Unclear where it is none."""
    otherwise = "which there are: tessera catalog list --kind connection"
    found = await needed(catalog, "connection", name, otherwise)
    shaped = spec_of("connection", found["spec"])
    assert isinstance(shaped, ConnectionSpec)
    if shaped.type != "mcp":
        raise Unclear(f"connection {name} is of type {shaped.type}: name one of type mcp")
    return shaped


def _chosen(tools: Collection[Tool], only: Collection[str]) -> list[Tool]:
    """Returns the tools that were asked for, all if none was named."""
    offers = [tool.name for tool in tools]
    if missing := [name for name in only if name not in offers]:
        raise Unclear(f"its server has no tool {missing[0]}; it has: {', '.join(offers)}")
    return [tool for tool in tools if not only or tool.name in only]
