"""Upstreams: servers of this machine that keep every byte that they are sent.

They live in a thread, since tests come and go, each with a loop of its own. The first segment of a
path names the upstream, the model that is asked for names the script of its answer; one that is
down answers nobody.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.contract import anthropic_server
from tests.contract.misbehaving import delivered, slowly
from tests.contract.openai_servers import CHAT, RESPONSES, frames
from tests.contract.scripted_server import SCRIPTS, Script, ScriptedServer, chunk
from tests.harness import eventually

USAGE = {"prompt_tokens": 7, "completion_tokens": 3}


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it came.

    Attributes:
        upstream: Who was asked.
        path: Where, with the query.
        headers: Names and values, one a line.
        body: The body.
    """

    upstream: str
    path: str
    headers: bytes
    body: bytes

    @property
    def raw(self) -> bytes:
        """All of it."""
        return self.path.encode() + b"\n" + self.headers + b"\n" + self.body

    @property
    def form(self) -> Any:
        """What the body says."""
        return json.loads(self.body)


class Upstreams(ScriptedServer):
    """Answers by script, and keeps what it is sent.

    Attributes:
        calls: Every request, in order.
        down: Upstreams that answer nobody.
        scripts: By the name of the model, for tests to add to.
        under_way: Requests under way at each.
        most: How many were at one time.
    """

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {**SCRIPTS, **CHAT}
        super().__init__(self.scripts, _named)
        self.calls: list[Call] = []
        self.down: set[str] = set()
        self.under_way: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Keeps a request and answers it."""
        name = request.path.split("/")[1]
        headers = b"\n".join(b": ".join(each) for each in request.raw_headers)
        self.calls.append(Call(name, request.path_qs, headers, await request.read()))
        if name in self.down:
            return web.json_response({"error": {"message": "down"}}, status=503)
        self.under_way[name] += 1
        self.most[name] = max(self.most[name], self.under_way[name])
        try:
            return await super().answer(request)
        finally:
            self.under_way[name] -= 1

    def to(self, upstream: str) -> list[Call]:
        """Returns what an upstream was sent."""
        return [each for each in self.calls if each.upstream == upstream]

    def is_asked(self, upstream: str, times: int = 1) -> None:
        """Returns when an upstream was sent so many requests."""
        eventually(lambda: len(self.to(upstream)) >= times, 90, f"a request to {upstream}")

    def is_left(self, upstream: str) -> None:
        """Returns when nothing is under way at an upstream any more."""
        eventually(lambda: not self.under_way[upstream], 90, f"that {upstream} is left alone")


def _named(request: web.Request, body: dict[str, Any]) -> str:
    form = request.path.rpartition("/")[2]
    return f"{form}: {body['model']}" if form in ("messages", "responses") else str(body["model"])


def heard(body: dict[str, Any]) -> str:
    """Returns the last words of a chat."""
    content = body["messages"][-1]["content"]
    return str(content if isinstance(content, str) else content[-1]["text"])


def says(
    words: Callable[[str], Iterable[str]],
    *,
    usage: dict[str, Any] | None = None,
    gap_s: float | Callable[[], float] = 0,
) -> Script:
    """Returns a script that answers in pieces.

    Args:
        words: The pieces, given what was heard last.
        usage: What it says that it used.
        gap_s: Pause before each piece, or what tells it.
    """
    told: dict[str, Any] = {"choices": [], "usage": usage or USAGE}

    def good(body: dict[str, Any]) -> list[bytes]:
        said = [chunk(word) for word in words(heard(body))]
        return [*frames([*said, chunk(finish_reason="stop"), told]), b"data: [DONE]\n\n"]

    async def way(pieces: Any, _: web.Request) -> Any:
        for piece in pieces:
            await asyncio.sleep(gap_s() if callable(gap_s) else gap_s)
            yield piece

    return delivered(good, way)


GAP_S = 0.02
GOOD = says(lambda text: ["go", "od"])


def good_once(over: threading.Event) -> Script:
    """Returns a script that answers once it is over."""

    async def script(
        server: ScriptedServer, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        while not over.is_set():
            await asyncio.sleep(GAP_S)
        return await GOOD(server, request, body)

    return script


def calls(arguments: Callable[[str], str], *, size: int = 3) -> Script:
    """Returns a script that calls the tool ``send``, its arguments in pieces of a size."""

    def good(body: dict[str, Any]) -> list[bytes]:
        text = arguments(heard(body))
        name = {"name": "send", "arguments": ""}
        events = [_call({"index": 0, "id": "call_1", "type": "function", "function": name})]
        for at in range(0, len(text), size):
            piece = {"index": 0, "function": {"arguments": text[at : at + size]}}
            events.append(_call(piece))
        last = chunk(finish_reason="tool_calls")
        told = {"choices": [], "usage": USAGE}
        return [*frames([*events, last, told]), b"data: [DONE]\n\n"]

    async def way(pieces: Any, _: web.Request) -> Any:
        for piece in pieces:
            yield piece
            await asyncio.sleep(0)

    return delivered(good, way)


def _call(piece: dict[str, Any]) -> dict[str, object]:
    return chunk(delta={"tool_calls": [piece]})


@contextmanager
def serving() -> Iterator[Upstreams]:
    """Runs the upstreams for a block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="upstreams", daemon=True)
    thread.start()
    upstreams = Upstreams()
    upstreams.scripts.update(
        {f"messages: {name}": each for name, each in anthropic_server.SCRIPTS.items()}
    )
    upstreams.scripts["messages: is well"] = delivered(anthropic_server.good, slowly)
    upstreams.scripts.update({f"responses: {name}": each for name, each in RESPONSES.items()})

    async def start() -> web.AppRunner:
        application = web.Application(client_max_size=2**24)
        application.router.add_post("/{path:.*}", upstreams.answer)
        runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        host, port = runner.addresses[0][:2]
        upstreams.url = f"http://{host}:{port}"
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    try:
        yield upstreams
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
