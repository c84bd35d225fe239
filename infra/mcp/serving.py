"""A server of MCP on standard input and output: offers tools to the one client that started it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)

from infra.mcp.server import OURS
from schemas.agents import Reachable


class CallRefused(Exception):
    """A call came to no result; the message says why, for the model that made it."""


async def serve(
    offers: Callable[[], Sequence[Reachable]],
    call: Callable[[str, Mapping[str, Any]], Awaitable[Any]],
) -> None:
    """Serves until the client is gone. Meanwhile all that is printed goes to standard error.

    Args:
        offers: Returns the tools as they are now; asked each time that the client asks.
        call: Returns what a tool comes to, as a JSON value; cancelled where the client cancels. A
            CallRefused is told the client as an error of the tool.
    """

    async def listed(
        context: ServerRequestContext[Any], page: PaginatedRequestParams | None
    ) -> ListToolsResult:
        tools = [
            Tool(name=each.name, description=each.description, input_schema=each.parameters)
            for each in offers()
        ]
        return ListToolsResult(tools=tools)

    async def called(
        context: ServerRequestContext[Any], asked: CallToolRequestParams
    ) -> CallToolResult:
        try:
            result = await call(asked.name, asked.arguments or {})
        except CallRefused as refused:
            return CallToolResult(content=[_text(str(refused))], is_error=True)
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
        # What is structured is an object; anything else is told as text alone.
        structured = result if isinstance(result, dict) else None
        return CallToolResult(content=[_text(text)], structured_content=structured)

    server = Server(OURS.name, version=OURS.version, on_list_tools=listed, on_call_tool=called)
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)
