"""Functions in HTTP, against a server that does what it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.harness import free_port
from tests.unit.calling import CALL_ID, WORD, call, fails, office, shipped
from workers.tools import Fault
from workers.tools.calls import MOST_RESULT_BYTES
from workers.tools.http import HttpRunner, open_http

Case = tuple[str, dict[str, Any], str]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def answer(body: bytes, head: bytes = OK) -> bytes:
    return head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


@dataclass
class Server:
    """A server that reads a request and sends bytes; None for hanging up, silence where empty."""

    sends: bytes | None = answer(b'{"ok": true}')
    asked: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.asked.append(head[0].removesuffix(" HTTP/1.1"))
        named = (line.split(": ", 1) for line in head[1:] if line)
        self.headers = {name.lower(): value for name, value in named}
        self.body = await reader.readexactly(int(self.headers.get("content-length", 0)))
        if self.sends == b"":
            await reader.read()
        writer.write(self.sends or b"")
        writer.close()

    @property
    def connection(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.port}/api/"
        return {"type": "http", "url": url, "private": True, "secret": "env:TOKEN"}


@asynccontextmanager
async def served(server: Server) -> AsyncIterator[Server]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with served(Server()) as server:
        yield server


@pytest.fixture
async def runner(server: Server) -> AsyncIterator[HttpRunner]:
    runner = await open_http(office(server.connection))
    assert isinstance(runner, HttpRunner)
    yield runner
    await runner.close()


ASKED: dict[str, Case] = {
    "a place in path and query": (
        "GET /orders/{id}?limit={limit}",
        {"id": "a b", "limit": 5},
        "GET /api/orders/a%20b?limit=5",
    ),
    "what is not given": (
        "GET /orders?after={after}&all=1",
        {"after": None},
        "GET /api/orders?all=1",
    ),
    "truth and lists": (
        "GET /find?tag={tags}&open={open}",
        {"tags": ["a&b", "c"], "open": True},
        "GET /api/find?tag=a%26b&tag=c&open=true",
    ),
    "several segments": ("GET /{+path}", {"path": "/a/b c/"}, "GET /api/a/b%20c/"),
    "no segment": ("GET /{+path}", {"path": ""}, "GET /api/"),
    "an object": (
        "GET /find{?query}",
        {"query": {"a b": "c=d", "n": 1, "left": None}},
        "GET /api/find?a%20b=c%3Dd&n=1",
    ),
    "another host in the path": (
        "GET /{id}",
        {"id": "@evil.example:80"},
        "GET /api/%40evil.example%3A80",
    ),
    "another host in the query": (
        "GET /a?to={to}",
        {"to": "//evil.example/?x#y"},
        "GET /api/a?to=%2F%2Fevil.example%2F%3Fx%23y",
    ),
    "one more line of the head": (
        "GET /a?to={to}",
        {"to": "x\r\nHost: evil.example"},
        "GET /api/a?to=x%0D%0AHost%3A%20evil.example",
    ),
    "one more pair": ("GET /a?to={to}", {"to": "x&admin=1"}, "GET /api/a?to=x%26admin%3D1"),
    "what is encoded already": ("GET /{id}", {"id": "%2e%2e%2f"}, "GET /api/%252e%252e%252f"),
    "a method in small letters": ("get /a", {}, "GET /api/a"),
    "only the head": ("HEAD /a", {}, "HEAD /api/a"),
}


@pytest.mark.parametrize("case", ASKED)
async def test_arguments_stand_in_their_places_and_nowhere_else(
    case: str, server: Server, runner: HttpRunner
) -> None:
    source, arguments, target = ASKED[case]
    await runner.run(call(source, arguments, effect="pure"))
    assert server.asked == [target]
    assert server.headers["host"] == f"127.0.0.1:{server.port}"
    assert server.headers["authorization"] == f"Bearer {WORD}"
    assert "idempotency-key" not in server.headers


UNASKED: dict[str, tuple[str, dict[str, Any], Fault]] = {
    "a segment up": ("GET /files/{id}", {"id": ".."}, Fault.ARGUMENTS),
    "a segment up, in two": ("GET /files/{a}{b}", {"a": ".", "b": "."}, Fault.ARGUMENTS),
    "a slash": ("GET /files/{id}", {"id": "a/../../b"}, Fault.ARGUMENTS),
    "the other slash": ("GET /files/{id}", {"id": "..\\b"}, Fault.ARGUMENTS),
    "a line break": ("GET /files/{id}", {"id": "a\r\nX: y"}, Fault.ARGUMENTS),
    "nothing for a segment": ("GET /files/{id}/x", {"id": ""}, Fault.ARGUMENTS),
    "no argument for a segment": ("GET /files/{id}", {"id": None}, Fault.ARGUMENTS),
    "an object for a segment": ("GET /files/{id}", {"id": {}}, Fault.ARGUMENTS),
    "segments up": ("GET /a/{+path}", {"path": "b/../../c"}, Fault.ARGUMENTS),
    "another host as segments": ("GET /{+path}", {"path": "//evil.example/"}, Fault.ARGUMENTS),
    "a long address": ("GET /a?x={x}", {"x": "x" * 9000}, Fault.ARGUMENTS),
    "a text as a query": ("GET /a{?query}", {"query": "a=b"}, Fault.ARGUMENTS),
    "half a character": ("GET /a?x={x}", {"x": "\ud800"}, Fault.ARGUMENTS),
    "no method": ("FETCH /a", {}, Fault.SOURCE),
    "a whole address": ("GET https://evil.example/", {}, Fault.SOURCE),
    "another host": ("GET //evil.example/", {}, Fault.SOURCE),
    "a way up in the source": ("GET /a/%2e%2e/b", {}, Fault.SOURCE),
    "an unknown name": ("GET /a/{nobody}", {}, Fault.SOURCE),
    "a brace alone": ("GET /a/{id", {"id": "x"}, Fault.SOURCE),
    "a body of GET": ('GET /a\n{"a": 1}', {}, Fault.SOURCE),
    "a change that is called pure": ("POST /a", {}, Fault.SOURCE),
    "a path alone that is called pure": ("/a", {}, Fault.SOURCE),
}


@pytest.mark.parametrize("case", UNASKED)
async def test_what_may_not_be_asked_is_refused_before_it_is_sent(
    case: str, server: Server, runner: HttpRunner
) -> None:
    source, arguments, fault = UNASKED[case]
    await fails(runner, call(source, arguments, effect="pure"), fault)
    assert server.asked == []


BODY = (
    'POST /orders/{id}\n{"item": "{item}", "note": "{note}", "list": ["{n}", 1], "as": "{item}!"}'
)


async def test_a_body_is_filled_with_values_of_any_type(server: Server, runner: HttpRunner) -> None:
    item = {"name": '"}, "admin": true', "more": [1.5, None]}
    arguments = {"id": 7, "item": item, "n": 2}
    found = await runner.run(call(BODY, arguments, names=["note"]))
    assert found == {"status": 200, "body": {"ok": True}}
    assert json.loads(server.body) == {"item": item, "list": [2, 1], "as": "{item}!"}
    assert server.headers["idempotency-key"] == CALL_ID
    assert server.headers["content-type"] == "application/json"


async def test_a_path_alone_takes_all_arguments_as_its_body(
    server: Server, runner: HttpRunner
) -> None:
    await runner.run(call("/judge", {"text": "a", "n": [1]}, effect="idempotent"))
    assert server.asked == ["POST /api/judge"]
    assert json.loads(server.body) == {"text": "a", "n": [1]}


async def test_no_call_has_a_key_that_ends_a_line(server: Server, runner: HttpRunner) -> None:
    await runner.run(call("POST /a", call_id="ü\r\nX-Admin: 1/acme/1"))
    assert server.headers["idempotency-key"] == "%C3%BC%0D%0AX-Admin:%201/acme/1"
    assert "x-admin" not in server.headers


PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
ANSWERS: dict[str, tuple[bytes, Any]] = {
    "json": (answer(b'[1, "\xc3\xa4"]'), [1, "ä"]),
    "json of another name": (
        answer(b"{}", b"HTTP/1.1 201 Created\r\nContent-Type: application/hal+json; a=b\r\n"),
        {},
    ),
    "json that is none": (answer(b"{"), "{"),
    "a number that JSON does not know": (answer(b"NaN"), "NaN"),
    "half a character": (answer(b'"\\ud800"'), '"\\ud800"'),
    "a text": (answer(b'{"a": 1}', PLAIN), '{"a": 1}'),
    "nothing": (answer(b"", b"HTTP/1.1 204 No Content\r\n"), ""),
    "bytes": (answer(b"\xff\xfe", PLAIN), "\ufffd\ufffd"),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_an_answer_is_what_its_json_says_else_its_text(
    case: str, server: Server, runner: HttpRunner
) -> None:
    server.sends, body = ANSWERS[case]
    assert (await runner.run(call("GET /a")))["body"] == body


def moved(to: str) -> bytes:
    return answer(b"", b"HTTP/1.1 302 Found\r\nLocation: %s\r\n" % to.encode())


LARGE = b"x" * (MOST_RESULT_BYTES + 1)
WRONG: dict[str, tuple[bytes | None, str, Fault, str]] = {
    "not found": (answer(WORD.encode(), b"HTTP/1.1 404 No\r\n"), "pure", Fault.RAISED, "404"),
    "broken": (answer(b"", b"HTTP/1.1 500 No\r\n"), "reconcile", Fault.RAISED, "500"),
    "away": (answer(b"", b"HTTP/1.1 503 No\r\n"), "reconcile", Fault.UNSETTLED, "503"),
    "away, and may be repeated": (
        answer(b"", b"HTTP/1.1 503 No\r\n"),
        "idempotent",
        Fault.RAISED,
        "503",
    ),
    "away behind a gateway": (
        answer(b"", b"HTTP/1.1 502 No\r\n"),
        "reconcile",
        Fault.UNSETTLED,
        "not known",
    ),
    "late behind a gateway": (
        answer(b"", b"HTTP/1.1 504 No\r\n"),
        "reconcile",
        Fault.UNSETTLED,
        "not known",
    ),
    "elsewhere": (moved("https://evil.example/"), "pure", Fault.RAISED, "redirect"),
    "elsewhere on the same host": (moved("/api/b"), "pure", Fault.RAISED, "redirect"),
    "too large": (answer(LARGE, PLAIN), "pure", Fault.LIMIT, "bytes"),
    "without an end": (PLAIN + b"\r\n" + LARGE * 4, "pure", Fault.LIMIT, "bytes"),
    "packed": (answer(b"x", PLAIN + b"Content-Encoding: gzip\r\n"), "pure", Fault.RAISED, "packs"),
    "hung up on": (None, "pure", Fault.UNREACHABLE, "does not answer"),
    "hung up on, and may be repeated": (None, "idempotent", Fault.UNREACHABLE, "does not answer"),
    "hung up on, and may not": (None, "reconcile", Fault.UNSETTLED, "not known"),
    "half an answer": (OK + b"Content-Length: 9\r\n\r\n{", "pure", Fault.UNREACHABLE, "to the end"),
    "silent": (b"", "pure", Fault.LIMIT, "longer than it may (8s)"),
    "silent, and may not be repeated": (b"", "reconcile", Fault.UNSETTLED, "not known"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_goes_wrong_is_told_without_a_word_of_the_service(
    case: str, server: Server, runner: HttpRunner
) -> None:
    server.sends, effect, fault, words = WRONG[case]
    timeout = "8s" if case.startswith("silent") else "60s"
    await fails(runner, call("GET /a", effect=effect, timeout=timeout), fault, words)
    assert server.asked == ["GET /api/a"]


async def test_an_address_of_this_machine_is_called_only_where_its_connection_allows_it(
    server: Server,
) -> None:
    places = [f"http://localhost:{server.port}", f"http://[::ffff:127.0.0.1]:{server.port}"]
    for url in [*places, "http://169.254.169.254", "http://metadata.google.internal"]:
        runner = await open_http(office({"type": "http", "url": url}))
        await fails(runner, call("POST /a"), Fault.FORBIDDEN, "may not be called")
        await runner.close()
    assert server.asked == []


async def test_what_was_never_sent_had_no_effect() -> None:
    runner = await open_http(office(Server(port=free_port()).connection))
    await fails(runner, call("POST /a"), Fault.UNREACHABLE, "does not answer")
    await fails(runner, call("POST /a", seconds=-1), Fault.LIMIT, "before it began")
    await runner.close()


NOT_THERE: dict[str, tuple[dict[str, Any], Fault, str]] = {
    "of another type": (
        {"type": "postgresql", "url": "postgresql://localhost/a"},
        Fault.SOURCE,
        "type http",
    ),
    "under another name": ({"name": "main.tests.other"}, Fault.SOURCE, "no connection"),
    "whose secret is gone": ({"secret": "env:NOWHERE"}, Fault.UNREACHABLE, "cannot be read"),
    "that would show its secret": ({"private": False}, Fault.SOURCE, "shows its secret"),
}


@pytest.mark.parametrize("case", NOT_THERE)
async def test_a_connection_that_is_none_is_named(case: str, server: Server) -> None:
    more, fault, words = NOT_THERE[case]
    runner = await open_http(office({**server.connection, **more}))
    await fails(runner, call("GET /a"), fault, words)
    await runner.close()
    assert server.asked == []


async def test_a_secret_that_no_header_carries_is_not_sent(server: Server) -> None:
    runner = await open_http(office(server.connection, secret=f"{WORD}\r\nX-Admin: 1"))
    await fails(runner, call("GET /a"), Fault.SOURCE, "no header carries")
    assert server.asked == []


async def test_a_service_is_read_by_the_function_that_comes_with_the_platform(
    server: Server, runner: HttpRunner
) -> None:
    spec = shipped("main.default.http_get", "catalog/tools.yaml")
    arguments = {"path": "orders/17", "query": {"full": True}}
    asked = call(spec.pop("source"), arguments, **{**spec, "connection": "main.tests.outside"})
    assert await runner.run(asked) == {"status": 200, "body": {"ok": True}}
    assert server.asked == ["GET /api/orders/17?full=true"]
