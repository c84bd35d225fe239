"""Tools of the catalog as a client of MCP has them that starts `tessera mcp`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp_types import CallToolResult, TextContent

from infra.bootstrap import ROOT
from tests.agents.conftest import ADD, CAREFUL, CLERK, CODE, TENANT, WIPE, Office
from tests.agents.test_runs import SUM, turns
from tests.broker.approving import PATIENCE_S
from tests.harness import soon
from tests.seed import changed, changes, publish

pytestmark = pytest.mark.stack

COMMAND = ["-m", "streams", "mcp"]
INITIALIZE = (
    json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "tests", "version": "1"},
            },
        }
    )
    + "\n"
).encode()


def environment(office: Office) -> dict[str, str]:
    who = {"CLIENT_TENANT": TENANT, "CLIENT_PRINCIPAL": "", "CLIENT_KEY": ""}
    return {**os.environ, **office.bus.environment, **who}


@asynccontextmanager
async def serving(office: Office, folder: Path, *names: str) -> AsyncIterator[Client]:
    """Gives a client of a server that was started for it."""
    started = StdioServerParameters(
        command=sys.executable, args=[*COMMAND, *names], cwd=ROOT, env=environment(office)
    )
    with (folder / "mcp.log").open("a") as log:
        async with Client(stdio_client(started, errlog=log)) as client:
            yield client


def text(result: CallToolResult) -> str:
    [said] = result.content
    assert isinstance(said, TextContent)
    return said.text


async def test_functions_and_agents_are_tools_of_whoever_speaks_mcp(
    office: Office, folder: Path
) -> None:
    async with serving(office, folder, "main.agents.*", CLERK) as client:
        tools = {each.name: each for each in (await client.list_tools()).tools}
        assert {"add", "wipe", "clerk"} <= tools.keys()
        assert set(tools["add"].input_schema["properties"]) == {"a", "b", "wait_s", "gate"}

        summed = await client.call_tool("add", {"a": 1, "b": 2})
        assert (summed.is_error, text(summed)) == (False, "3")

        answered = await client.call_tool("clerk", {"message": turns([SUM], "It is 3.")})
        assert (answered.is_error, text(answered)) == (False, "It is 3.")


async def test_what_the_caller_may_not_use_is_told_the_model(office: Office, folder: Path) -> None:
    async with serving(office, folder, ADD, WIPE, CAREFUL) as client:
        refused = await client.call_tool("wipe", {"a": 1, "b": 2})
        assert refused.is_error
        assert "PRIVILEGE_MISSING" in text(refused)
        unsaid = await client.call_tool("careful", {})
        assert "message" in text(unsaid)
        unknown = await client.call_tool("fly", {})
        assert "no tool fly" in text(unknown)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("main.agents.gone", "there is no function main.agents.gone"),
        ("gone", "gone is no name"),
    ],
)
def test_a_name_that_leads_nowhere_is_told_at_once(office: Office, name: str, said: str) -> None:
    ended = subprocess.run(
        [sys.executable, *COMMAND, name],
        cwd=ROOT,
        env=environment(office),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert ended.returncode != 0
    assert said in ended.stderr
    assert ended.stdout == ""


def test_it_ends_on_ctrl_c_though_its_client_says_nothing_more(
    office: Office, folder: Path
) -> None:
    log = folder / "left.log"
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, *COMMAND, ADD],
            cwd=ROOT,
            env=environment(office),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=out,
        )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        server.stdin.write(INITIALIZE)
        server.stdin.flush()
        assert b"tessera" in server.stdout.readline()
        server.send_signal(signal.SIGINT)
        assert server.wait(PATIENCE_S) == 130, log.read_text()
    finally:
        server.kill()
        server.stdin.close()
        server.stdout.close()


async def test_what_leaves_the_catalog_is_left_out_and_its_name_goes_to_nothing_else(
    office: Office, folder: Path
) -> None:
    passing = {"kind": "function", "name": "main.agents.passing", "versions": [CODE]}
    publish(office.bus, *changes([passing]))
    async with serving(office, folder, ADD, "main.agents.passing") as client:
        assert {each.name for each in (await client.list_tools()).tools} == {"add", "passing"}
        publish(office.bus, changed("function", "main.agents.passing", None))

        async def is_left_out() -> bool:
            return {each.name for each in (await client.list_tools()).tools} == {"add"}

        await soon(is_left_out, what="the list without it")
        assert text(await client.call_tool("add", {"a": 1, "b": 2})) == "3"
        assert "no tool passing" in text(await client.call_tool("passing", {"a": 1, "b": 2}))
