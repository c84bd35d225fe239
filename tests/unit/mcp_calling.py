"""Servers of MCP, runners of their functions, and calls of these, for tests."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.settings import ToolsSettings
from tests.harness import eventually, free_port
from tests.unit.calling import call, office
from workers.tools import Call
from workers.tools.mcp import McpRunner, open_mcp

SERVER = Path(__file__).with_name("mcp_server.py")
SCRIPT = Path(__file__).with_name("mcp_script.py")
ANSWERS = (
    "asks",
    "dies",
    "endless",
    "garbage",
    "holds",
    "large",
    "lingers",
    "mute",
    "notes",
    "refuses",
    "silent",
    "told",
    "well",
)
COMMANDS = {
    "missing": ("/nowhere/such-a-program",),
    "real": (sys.executable, str(SERVER), "stdio"),
    **{how: (sys.executable, "-I", "-S", str(SCRIPT), how) for how in ANSWERS},
}
SETTINGS = ToolsSettings(mcp_commands=COMMANDS)
ADD = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
_opened: list[McpRunner] = []


@contextmanager
def served() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Runs a server of the SDK's on a port."""
    port = free_port()
    command = [sys.executable, str(SERVER), "http", str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: _answers(port), what="a server on its port")
            yield process, port
        finally:
            process.kill()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def over_http(port: int) -> dict[str, Any]:
    url = f"http://127.0.0.1:{port}/mcp"
    return {"type": "mcp", "url": url, "private": True, "secret": "env:TOKEN"}


def over_pipes(name: str) -> dict[str, Any]:
    return {"type": "mcp", "url": f"stdio://{name}", "secret": "env:TOKEN"}


async def running(connection: dict[str, Any], **settings: Any) -> McpRunner:
    """Returns what runs functions of a server, to the end of the test."""
    changed = SETTINGS.model_copy(update=settings)
    runner = await open_mcp(office(connection, settings=changed))
    assert isinstance(runner, McpRunner)
    _opened.append(runner)
    return runner


@pytest.fixture(autouse=True)
async def closing() -> AsyncIterator[None]:
    """Ends what a test has opened."""
    yield
    while _opened:
        await _opened.pop().close()


def runs(pid: int) -> bool:
    """Returns whether a process runs."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def order(effect: str = "reconcile", what: str = "17", **more: Any) -> Call:
    """A call of the one tool of the script's."""
    parameters = {"properties": {"id": {}}, "required": ["id"]}
    given = {"parameters": parameters, "seconds": 60, "timeout": "60s", **more}
    return call("order", {"id": what}, language="mcp", effect=effect, **given)
