"""An HTTP server that answers by scripts: as a protocol has it, or misbehaving."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Script = Callable[["ScriptedServer", web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]
HEADERS = {"Content-Type": "text/event-stream"}
SECRET_WORDS = "the sea is full of salt and secrets"


class ScriptedServer:
    """Answers every request, at whatever path, by the script that the request names.

    Attributes:
        url: Where it is, without a path.
        paths: Path and query of each request, in order.
        seen: Headers and body of each request, in order.
        open: Requests under way.
        headers: What every scripted answer carries besides.
    """

    def __init__(
        self, scripts: Mapping[str, Script], named: Callable[[web.Request, dict[str, Any]], str]
    ) -> None:
        self.url = ""
        self.paths: list[str] = []
        self.seen: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.open = 0
        self.headers: dict[str, str] = {}
        self._scripts = scripts
        self._named = named
        self._closed = asyncio.Condition()

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read() or b"{}")
        self.paths.append(request.path_qs)
        self.seen.append((dict(request.headers), body))
        self.open += 1
        try:
            return await self._scripts[self._named(request, body)](self, request, body)
        finally:
            self.open -= 1
            async with self._closed:
                self._closed.notify_all()

    async def idle(self) -> None:
        async with self._closed:
            await self._closed.wait_for(lambda: not self.open)


def by_model(request: web.Request, body: dict[str, Any]) -> str:
    """Takes the name of the script from the body's model."""
    return str(body["model"])


@asynccontextmanager
async def scripted_server(
    scripts: Mapping[str, Script] | None = None,
    named: Callable[[web.Request, dict[str, Any]], str] = by_model,
) -> AsyncIterator[ScriptedServer]:
    """Runs a server.

    Args:
        scripts: By name; those of OpenAI's chat completions when left out.
        named: Returns the name of the script that a request asks for.
    """
    server = ScriptedServer(SCRIPTS if scripts is None else scripts, named)
    application = web.Application(client_max_size=2**24)
    application.router.add_post("/{path:.*}", server.answer)
    # A client that goes away must be noticed while the server is writing to it.
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()


def chunk(content: str = "", **more: object) -> dict[str, object]:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None, **more}
    return {"id": "1", "object": "chat.completion.chunk", "model": "scripted", "choices": [choice]}


async def begin(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers=HEADERS)
    await response.prepare(request)
    return response


async def send(response: web.StreamResponse, event: object) -> None:
    data = event if isinstance(event, str) else json.dumps(event)
    await response.write(f"data: {data}\n\n".encode())
    await asyncio.sleep(0)


async def echo(_: ScriptedServer, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    words = body["messages"][-1]["content"].split(" ")
    said = words[: body.get("max_tokens", len(words))]
    response = await begin(request)
    await send(response, chunk(role="assistant"))
    for index, word in enumerate(said):
        await send(response, chunk(word if index == 0 else f" {word}"))
    await send(response, chunk(finish_reason="stop" if said == words else "length"))
    usage = {
        "prompt_tokens": len(words),
        "completion_tokens": len(said),
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    await send(response, {"choices": [], "usage": usage})
    await send(response, "[DONE]")
    return response


async def loses_the_connection(
    _: ScriptedServer, request: web.Request, body: dict[str, Any]
) -> web.StreamResponse:
    response = await begin(request)
    await send(response, chunk("half a"))
    assert request.transport is not None
    request.transport.abort()
    return response


async def stalls(
    _: ScriptedServer, request: web.Request, body: dict[str, Any]
) -> web.StreamResponse:
    response = await begin(request)
    await send(response, chunk("half a"))
    await asyncio.Event().wait()
    return response


def says(*events: object) -> Script:
    async def script(
        _: ScriptedServer, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        response = await begin(request)
        for event in events:
            await send(response, event)
        return response

    return script


def fails(status: int, headers: dict[str, str] | None = None, **error: object) -> Script:
    async def script(
        _: ScriptedServer, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        return web.json_response({"error": error}, status=status, headers=headers)

    return script


SCRIPTS: dict[str, Script] = {
    "bad parameter": fails(400, message="temperature is at most 2", param="temperature"),
    "echo": echo,
    "echoes the prompt": fails(400, message=f"no: {SECRET_WORDS}", param="temperature"),
    "ends early": says(chunk("half a")),
    "fails": fails(500, message=SECRET_WORDS),
    "fails midway": says(chunk("half a"), {"error": {"message": SECRET_WORDS, "code": None}}),
    "forbids": fails(401, message="Incorrect API key provided: sk-sec***ret"),
    "limits by date": fails(429, {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}),
    "limits by milliseconds": fails(429, {"retry-after-ms": "1500", "Retry-After": "2"}),
    "limits by seconds": fails(429, {"Retry-After": "7"}),
    "loses the connection": loses_the_connection,
    "overflows": fails(400, message="too long", code="context_length_exceeded"),
    "redirects": fails(307, {"Location": "/v1/elsewhere"}),
    "says another form": says(chunk(delta={"content": 7})),
    "says no JSON": says('{"choices": ['),
    "says nothing": says(),
    "stalls": stalls,
    "unknown": fails(404, message="no such model", param="model"),
}
