"""A real MCP server, made with the SDK: ``mcp_server.py stdio``, or ``mcp_server.py http PORT``."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ImageContent, TextContent, ToolAnnotations

server = MCPServer("tests")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool(annotations=ToolAnnotations(idempotent_hint=True))
def say() -> list[TextContent | ImageContent]:
    """Says two lines and shows a picture."""
    picture = ImageContent(type="image", data="AAAA", mime_type="image/png")
    return [*(TextContent(type="text", text=line) for line in ("one", "two")), picture]


@server.tool()
def key(ctx: Context[Any, Any]) -> dict[str, Any]:
    """Tells what came beside the arguments."""
    return {"meta": dict(ctx.request_context.meta or {})}


@server.tool()
def fail(word: str) -> str:
    """Fails, and says the word that it was given."""
    raise ToolError(f"there is no order {word}")


@server.tool()
def large(size: int) -> str:
    """Says so many letters."""
    return "x" * size


@server.tool()
async def effect(notes: str, then: str, ctx: Context[Any, Any]) -> str:
    """Notes its key, then ends its server, hangs, or returns."""
    meta = dict(ctx.request_context.meta or {})
    with Path(notes).open("a") as file:
        file.write(f"{meta.get('idempotency-key')}\n")
    if then == "die":
        os._exit(1)
    if then == "hang":
        await asyncio.sleep(600)
    return "done"


@server.tool()
def surroundings() -> dict[str, Any]:
    """Tells where it runs, as what, and leaves a process behind."""
    left = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
    return {
        "variables": dict(os.environ),
        "folder": str(Path.cwd()),
        "files": resource.getrlimit(resource.RLIMIT_FSIZE)[1],
        "server": os.getpid(),
        "left": left.pid,
    }


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run()
    else:
        server.run("streamable-http", port=int(sys.argv[2]))
