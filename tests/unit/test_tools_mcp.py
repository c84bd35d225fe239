"""Functions in MCP, against servers made with the SDK and one that says what it is told."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.mcp import pipes
from infra.mcp.server import Lack, ServerFailed, Tool
from tests.harness import eventually, soon
from tests.unit import mcp_script
from tests.unit.calling import CALL_ID, WORD, call, fails
from tests.unit.mcp_calling import (
    ADD,
    closing,
    order,
    over_http,
    over_pipes,
    running,
    runs,
    served,
)
from workers.tools import Fault
from workers.tools.mcp import McpRunner, require_same

__all__ = ["closing"]

EFFECT = {
    "type": "object",
    "properties": {"notes": {"type": "string"}, "then": {"type": "string"}},
    "required": ["notes", "then"],
}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served() as (_, port):
        yield port


@pytest.fixture(params=["http", "stdio"])
async def runner(request: pytest.FixtureRequest, port: int) -> McpRunner:
    return await running(over_http(port) if request.param == "http" else over_pipes("real"))


async def test_a_tool_returns_what_is_structured(runner: McpRunner) -> None:
    asked = call("add", {"a": 2, "b": 3}, language="mcp", parameters=ADD, timeout="60s", seconds=60)
    assert await runner.run(asked) == {"result": 5}


async def test_what_is_not_structured_is_its_text(port: int) -> None:
    runner = await running(over_http(port))
    assert await runner.run(call("say", language="mcp")) == (
        "one\ntwo\n[image: left out, it is no text]"
    )


@pytest.mark.parametrize(("effect", "told"), [("pure", None), ("idempotent", CALL_ID)])
async def test_what_has_an_effect_is_told_its_key(effect: str, told: str | None, port: int) -> None:
    runner = await running(over_http(port))
    said = await runner.run(call("key", language="mcp", effect=effect))
    assert said["meta"].get("idempotency-key") == told


async def test_a_tool_that_fails_says_so_without_the_secret(runner: McpRunner) -> None:
    needed = {"properties": {"word": {"type": "string"}}, "required": ["word"]}
    asked = call(
        "fail", {"word": WORD}, language="mcp", parameters=needed, timeout="60s", seconds=60
    )
    await fails(runner, asked, Fault.RAISED, "there is no order ...")


async def test_a_tool_that_is_gone_is_not_called(runner: McpRunner) -> None:
    await fails(
        runner,
        call("subtract", language="mcp", timeout="60s", seconds=60),
        Fault.SOURCE,
        "its server has no tool subtract any more",
    )


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"properties": {"a": {}, "b": {}}, "required": ["a"]}, "needs b"),
        ({"properties": {"a": {}, "b": {}, "c": {}}, "required": ["a", "b"]}, "no c"),
    ],
)
async def test_a_tool_that_takes_other_parameters_now_is_not_called(
    parameters: dict[str, Any], word: str, port: int
) -> None:
    runner = await running(over_http(port))
    asked = call("add", {"a": 1, "b": 1}, language="mcp", parameters=parameters)
    await fails(runner, asked, Fault.SOURCE, word, "tessera catalog import-mcp")


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": None},
        {"properties": ["id"]},
        {"required": None},
        {"required": [{}]},
        {"required": [["id"]]},
        {"$schema": "http://json-schema.org/draft-03/schema#", "required": True},
        {"$schema": {}, "required": 7},
    ],
)
def test_a_tool_whose_parameters_are_no_schema_is_not_called(schema: dict[str, Any]) -> None:
    tool = Tool(name="order", description="", parameters=schema, reads=False, repeatable=False)
    with pytest.raises(ServerFailed, match="does not say what order takes") as failure:
        require_same(order(), [tool])
    assert failure.value.lack is Lack.UNFIT


async def test_a_tool_that_says_nothing_of_its_properties_is_not_called() -> None:
    async with answering(b"", {"type": "object", "properties": None}) as port:
        words = "does not say what order takes"
        await fails(await running(over_http(port)), order(), Fault.SOURCE, words)


async def test_a_function_may_ask_for_more_than_its_tool(port: int) -> None:
    runner = await running(over_http(port))
    strict = {**ADD, "additionalProperties": False}
    strict["properties"] = {"a": {"type": "integer", "maximum": 9}, "b": {"const": 1}}
    asked = call("add", {"a": 1, "b": 1}, language="mcp", parameters=strict)
    assert await runner.run(asked) == {"result": 2}


FAULTS = {"reconcile": Fault.UNSETTLED, "idempotent": Fault.UNREACHABLE}


@pytest.mark.parametrize("effect", FAULTS)
async def test_a_server_that_is_killed_in_the_middle_leaves_the_effect_unknown(
    effect: str, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    with served() as (_, port):
        runner = await running(over_http(port))
        given = {"notes": str(notes), "then": "die"}
        asked = call("effect", given, language="mcp", parameters=EFFECT, effect=effect)
        await fails(runner, asked, FAULTS[effect], "does not answer")
    assert notes.read_text().splitlines() == [CALL_ID]


@pytest.mark.parametrize("effect", FAULTS)
async def test_a_command_that_ends_in_the_middle_leaves_the_effect_unknown(effect: str) -> None:
    await fails(await running(over_pipes("dies")), order(effect), FAULTS[effect], "not to the end")


async def test_a_server_that_hangs_is_left_in_time(port: int, tmp_path: Path) -> None:
    given = {"notes": str(tmp_path / "notes"), "then": "hang"}
    runner = await running(over_http(port))

    async def is_left(effect: str, fault: Fault) -> None:
        asked = call(
            "effect", given, language="mcp", parameters=EFFECT, effect=effect, timeout="10s"
        )
        await fails(runner, asked, fault, "longer than it may (10s)")

    await asyncio.gather(is_left("reconcile", Fault.UNSETTLED), is_left("idempotent", Fault.LIMIT))


async def test_a_server_that_answers_is_heard_though_it_prints_more_than_messages() -> None:
    assert await (await running(over_pipes("well"))).run(order()) == "done"


async def test_an_answer_counts_however_long_its_server_takes_to_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipes, "CLOSE_S", 11.0)
    runner = await running(over_pipes("lingers"), mcp_kept=0)
    assert await runner.run(order(timeout="10s")) == "done"


WRONG: dict[str, tuple[Fault, str]] = {
    "asks": (Fault.UNSETTLED, "what MCP does not have"),
    "endless": (Fault.LIMIT, "pages of tools"),
    "garbage": (Fault.UNSETTLED, "what MCP does not have"),
    "large": (Fault.UNSETTLED, "more than 4 MiB"),
    "missing": (Fault.UNREACHABLE, "does not answer"),
    "mute": (Fault.LIMIT, "longer than it may (2s)"),
    "refuses": (Fault.ARGUMENTS, "refuses (-32602): no id"),
    "silent": (Fault.UNSETTLED, "longer than it may (10s)"),
}


@pytest.mark.parametrize("how", WRONG)
async def test_a_server_that_answers_wrongly_is_a_fault_that_says_how(how: str) -> None:
    fault, words = WRONG[how]
    time = next((each for each in ("2s", "10s") if f"({each})" in words), "60s")
    await fails(await running(over_pipes(how)), order(timeout=time, seconds=60), fault, words)


ANSWERED: dict[str, tuple[str, str, Fault, str]] = {
    "a page": ("200 OK", "<html>", Fault.SOURCE, "what MCP does not have"),
    "another secret": ("401 Unauthorized", "", Fault.UNREACHABLE, "lets nobody in"),
    "a failure": ("500 Internal Server Error", "", Fault.RAISED, "refuses (-32603)"),
    "nothing of the kind": ("404 Not Found", "", Fault.SOURCE, "refuses (-32601)"),
    "another place": ("302 Found\r\nLocation: /other", "", Fault.SOURCE, "MCP does not have"),
}


@pytest.mark.parametrize("what", ANSWERED)
async def test_what_answers_over_http_and_is_no_server_is_a_fault(what: str) -> None:
    status, body, fault, words = ANSWERED[what]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close"
        writer.write(f"{head}\r\nContent-Type: text/html\r\n\r\n{body}".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        await fails(await running(over_http(port)), order(), fault, words)


@asynccontextmanager
async def answering(
    called: bytes, schema: dict[str, Any] = mcp_script.SCHEMA, heard: list[str] | None = None
) -> AsyncIterator[int]:
    """Serves the script's tool on a port; what answers its calls may be given, head and all."""
    listed = {"tools": [{"name": "order", "inputSchema": schema}]}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
        body = await reader.readexactly(length)
        if heard is not None:
            heard.append(json.loads(body or b"{}").get("method", "none"))
        writer.write(_answered(body, called, listed))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


def _answered(body: bytes, called: bytes, listed: dict[str, Any]) -> bytes:
    asked = json.loads(body or b"{}")
    if "id" not in asked:
        return b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    if called and asked["method"] == "tools/call":
        return called
    results = {**mcp_script.RESULTS, "tools/list": listed}
    if asked["method"] not in results:
        return posted("404 Not Found", b"", "text/html")
    said = {"jsonrpc": "2.0", "id": asked["id"], "result": results[asked["method"]]}
    return posted("200 OK", json.dumps(said).encode())


def posted(status: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close"
    return f"{head}\r\nContent-Type: {kind}\r\n\r\n".encode() + body


async def test_each_call_over_http_has_a_session_of_its_own() -> None:
    heard: list[str] = []
    async with answering(b"", heard=heard) as port:
        runner = await running(over_http(port))
        assert [await runner.run(order()) for _ in range(2)] == ["done", "done"]
    assert heard.count("initialize") == heard.count("tools/call") == 2


@pytest.mark.parametrize("status", ["502 Bad Gateway", "504 Gateway Timeout", "500 Oh"])
async def test_a_gateway_that_answers_for_its_server_leaves_the_effect_unknown(status: str) -> None:
    async with answering(posted(status, b"<html>", "text/html")) as port:
        await fails(await running(over_http(port)), order(), Fault.UNSETTLED, "not known")
        await fails(await running(over_http(port)), order("idempotent"), Fault.RAISED, "-32603")


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_a_packed_answer_is_not_unpacked(kind: str) -> None:
    head = f"{kind}\r\nContent-Encoding: gzip"
    # Unpacked it is more than anything may be, by far.
    bomb = posted("200 OK", gzip.compress(bytes(64 * 1024**2)), head)
    async with answering(bomb) as port:
        words = "packs what it says"
        await fails(await running(over_http(port)), order(), Fault.UNSETTLED, words)
        await fails(await running(over_http(port)), order("idempotent"), Fault.SOURCE, words)


async def test_an_answer_over_http_is_not_read_past_its_bound(port: int) -> None:
    sized = {"properties": {"size": {"type": "integer"}}, "required": ["size"]}
    asked = call("large", {"size": 5_000_000}, language="mcp", parameters=sized, effect="pure")
    said = await fails(await running(over_http(port)), asked, Fault.LIMIT)
    assert "4 MiB" in said


async def test_a_command_that_the_settings_do_not_name_is_not_run() -> None:
    runner = await running(over_pipes("other"))
    await fails(runner, order(), Fault.FORBIDDEN, "TOOLS_MCP_COMMANDS has no other")


@pytest.mark.parametrize(
    ("changed", "fault", "words"),
    [
        ({"private": False, "secret": None}, Fault.FORBIDDEN, "may not be called"),
        ({"private": False}, Fault.SOURCE, "over https"),
        ({"url": "ftp://127.0.0.1/mcp"}, Fault.SOURCE, "http or https"),
        ({"url": "http://127.0.0.1:9/mcp"}, Fault.UNREACHABLE, "does not answer"),
        ({"secret": "env:NOWHERE"}, Fault.UNREACHABLE, "cannot be read on this platform"),
        ({"type": "http"}, Fault.SOURCE, "name one of type mcp"),
    ],
)
async def test_a_connection_that_leads_to_no_server_is_a_fault(
    changed: dict[str, Any], fault: Fault, words: str, port: int
) -> None:
    await fails(await running({**over_http(port), **changed}), order(), fault, words)


async def test_a_command_has_nothing_of_ours_and_leaves_nothing_behind() -> None:
    runner = await running(over_pipes("real"))
    found = await runner.run(call("surroundings", language="mcp", timeout="60s", seconds=60))
    folder = found["folder"]
    assert found["variables"].keys() - {"LC_CTYPE"} == {
        *("HOME", "LANG", "MCP_SECRET", "PATH", "TMPDIR")
    }
    assert found["variables"]["MCP_SECRET"] == WORD
    assert found["variables"]["HOME"] == found["variables"]["TMPDIR"] == folder
    assert found["files"] == 256 * 1024**2
    await runner.close()
    assert os.path.exists(folder) is False
    eventually(
        lambda: not any(runs(found[each]) for each in ("server", "left")), 60, "the end of all"
    )


async def test_a_call_that_is_cancelled_leaves_no_process_behind() -> None:
    runner = await running(over_pipes("mute"))
    before = set(psutil.Process().children())
    running_call = asyncio.create_task(runner.run(order()))

    async def started() -> set[psutil.Process]:
        return set(psutil.Process().children()) - before

    await soon(started, 60, "its process")
    [process] = await started()
    running_call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running_call
    # It was killed by now, and is gone a moment later.
    await asyncio.to_thread(eventually, lambda: not runs(process.pid), 60, "its end")
