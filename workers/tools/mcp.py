"""Functions in MCP: a tool of the server behind a connection; the source is its name there.

Each call has a session to itself; one with a command of this machine is kept, and the next call of
the same tenant may have it. Before each its server is asked what the tool takes: one that is gone,
or takes other parameters than the catalog says, is not called. Where the effect is not ``pure`` the
id of the call goes along in ``_meta``, as ``idempotency-key``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from infra.mcp.pool import Place, Pool, Session
from infra.mcp.server import Lack, Server, ServerFailed, Tool
from workers.tools import Call, Fault, Runner, ToolFailed
from workers.tools.calls import Office
from workers.tools.outside import (
    connection_of,
    out_of_time,
    seconds_left,
    secret_of,
    unanswered,
)

KEY = "idempotency-key"

FAULTS: dict[Lack, Fault] = {
    Lack.ARGUMENTS: Fault.ARGUMENTS,
    Lack.FAILED: Fault.RAISED,
    Lack.FORBIDDEN: Fault.FORBIDDEN,
    Lack.LARGE: Fault.LIMIT,
    Lack.UNFIT: Fault.SOURCE,
    Lack.UNREACHABLE: Fault.UNREACHABLE,
}


async def open_mcp(office: Office) -> Runner:
    """Returns what runs functions in MCP."""
    return McpRunner(office)


class McpRunner:
    """Runs functions in MCP. Made inside the running loop."""

    def __init__(self, office: Office) -> None:
        self._office = office
        settings = office.settings
        self._pool = Pool(
            settings.mcp_commands,
            most=settings.mcp_kept,
            most_alike=settings.mcp_kept_alike,
            idle_s=settings.mcp_idle_ms / 1000,
            age_s=settings.mcp_age_ms / 1000,
        )

    async def run(self, call: Call) -> Any:
        """Returns the tool's structured content, else its text."""
        place = await self._place(call)

        async def check(server: Server) -> None:
            require_same(call, await server.tools())

        async def made(server: Server) -> Any:
            return await server.call(call.spec.source, call.arguments, _meta(call))

        session: Session | None = None
        try:
            async with (
                asyncio.timeout(seconds_left(call)) as limit,
                self._pool.lent(place, check) as session,
            ):
                answer = await session.ask(made)
                # A server that is slow to end takes no answer back.
                limit.reschedule(None)
                return answer
        except TimeoutError:
            failure = out_of_time(call)
        except ServerFailed as problem:
            failure = ToolFailed(FAULTS[problem.lack], str(problem))
        unheard = session is not None and session.server.unheard
        raise unanswered(call, failure) if unheard else failure

    async def close(self) -> None:
        """Ends its sessions."""
        await self._pool.close()

    async def _place(self, call: Call) -> Place:
        connection = connection_of(call, self._office.view, "mcp")
        return Place(
            tenant=call.tenant,
            connection=str(call.spec.connection),
            spec=connection,
            secret=await secret_of(call, connection, self._office),
        )


def _meta(call: Call) -> dict[str, str]:
    return {} if call.spec.effect == "pure" else {KEY: call.call_id}


def require_same(call: Call, tools: list[Tool]) -> None:
    """Returns if a server has a tool that takes what its function says.

    Raises:
        ServerFailed: It has not.
    """
    name = call.spec.source
    tool = next((each for each in tools if each.name == name), None)
    if tool is None:
        raise ServerFailed(Lack.UNFIT, f"its server has no tool {name} any more")
    if not _names_parameters(tool.parameters):
        raise ServerFailed(
            Lack.UNFIT, f"its server does not say what {name} takes: this is no JSON Schema"
        )
    if changed := _changed(call.spec.parameters, tool.parameters):
        schema = call.function.rpartition(".")[0]
        raise ServerFailed(
            Lack.UNFIT,
            f"its server's {name} takes other parameters now ({changed}): import it anew with "
            f"tessera catalog import-mcp {call.spec.connection} {schema}",
        )


def _names_parameters(schema: Mapping[str, Any]) -> bool:
    """Returns whether a schema says which properties there are, and which are needed.

    Nothing is checked by it, so what else it says may be anything, in any dialect.
    """
    properties, needed = schema.get("properties", {}), schema.get("required", [])
    names = needed if isinstance(needed, list) else [None]
    return isinstance(properties, dict) and all(isinstance(name, str) for name in names)


def _changed(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Returns in which parameters a tool is another than its function says; empty for none.

    A function may ask for more than its tool, and say more of what it asks for.
    """
    here, there = ours.get("properties", {}), theirs.get("properties", {})
    gone = [] if theirs.get("additionalProperties") else sorted(here.keys() - there.keys())
    needed = sorted({*theirs.get("required", ())} - {*ours.get("required", ())})
    words = (("no", gone), ("needs", needed))
    return "; ".join(f"{word} {', '.join(names)}" for word, names in words if names)
