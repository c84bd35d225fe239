"""What servers of all vendors do alike: repeat the caller's words, and complain in many ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from tests.contract.scripted_server import SECRET_WORDS, Script, ScriptedServer

WEATHER_CALL = '{"city": "北京", "unit": "celsius"}'
# The body of a complaint with a status and a message.
Form = Callable[[int, str], dict[str, Any]]


def last_words(said: str, most: int | None) -> list[str]:
    """Returns the words of a text, at most so many, each with the space before it."""
    first, *rest = said.split(" ")[:most]
    return [first, *(f" {word}" for word in rest)]


def refuses(form: Form, status: int, message: str = "no", **headers: str) -> Script:
    """Returns a script that answers with a complaint."""

    async def script(
        _: ScriptedServer, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        return web.json_response(form(status, message), status=status, headers=headers)

    return script


def answers(make: Callable[[dict[str, Any]], object]) -> Script:
    """Returns a script that answers with one JSON body."""

    async def script(
        _: ScriptedServer, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        return web.json_response(make(body))

    return script


async def is_a_page(
    _: ScriptedServer, request: web.Request, body: dict[str, Any]
) -> web.StreamResponse:
    """Answers as a portal does that wants a password first."""
    return web.Response(text="<html>Welcome.</html>", content_type="text/html")


async def says_nothing(
    server: ScriptedServer, request: web.Request, body: dict[str, Any]
) -> web.StreamResponse:
    """Answers with an empty stream."""
    return web.Response(headers={"Content-Type": "text/event-stream", **server.headers})


def complaints(form: Form, overflow: str = "prompt is too long: 9 > 8") -> dict[str, Script]:
    """Returns a script for each complaint that all vendors have.

    Args:
        form: Makes the body.
        overflow: What is said of a conversation that is longer than the context.
    """
    date = {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}
    return {
        "bad parameter": refuses(form, 400, "temperature: at most 1"),
        "echoes the prompt": refuses(form, 400, f"temperature: {SECRET_WORDS}"),
        "fails": refuses(form, 500, SECRET_WORDS),
        "forbids": refuses(form, 401, "invalid x-api-key: sk-sec***ret"),
        "halves a character": refuses(form, 400, "temperature: \ud83d"),
        "is a page": is_a_page,
        "is overloaded": refuses(form, 503),
        "limits by date": refuses(form, 429, **date),
        "limits by seconds": refuses(form, 429, **{"Retry-After": "7"}),
        "overflows": refuses(form, 400, overflow),
        "redirects": refuses(form, 307, **{"Location": "/v1/elsewhere"}),
        "says nothing": says_nothing,
        "unknown": refuses(form, 404, "no such model"),
    }
