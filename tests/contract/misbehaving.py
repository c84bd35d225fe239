"""Ways in which a server delivers a good answer badly, whatever protocol it speaks.

A protocol gives the frames of its good answer, as bytes; what is made of them here is a script for
``scripted_server``.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from aiohttp import web

from tests.contract.scripted_server import HEADERS, Script, ScriptedServer

# The frames of a good answer to a body.
Good = Callable[[dict[str, Any]], Sequence[bytes]]
Way = Callable[[Sequence[bytes], web.Request], AsyncIterator[bytes]]

GAP_S = 0.02


def delivered(good: Good, way: Way, **headers: str) -> Script:
    """Returns a script that sends the frames in some way."""

    async def script(
        server: ScriptedServer, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={**HEADERS, **server.headers, **headers})
        await response.prepare(request)
        async for piece in way(good(body), request):
            await response.write(piece)
        return response

    return script


def misbehaviours(good: Good, bad: bytes = b"data: {nope\n\n") -> dict[str, Script]:
    """Returns a script for each way.

    Args:
        good: Gives the frames.
        bad: A frame that cannot be read, for the middle of the good ones.
    """

    async def with_a_bad_line(frames: Sequence[bytes], _: web.Request) -> AsyncIterator[bytes]:
        half = len(frames) // 2
        for frame in (*frames[:half], bad, *frames[half:]):
            yield frame

    return {
        "arrives byte by byte": delivered(good, byte_by_byte),
        "arrives packed": delivered(good, packed, **{"Content-Encoding": "gzip"}),
        "arrives slowly": delivered(good, slowly),
        "breaks off": delivered(good, broken_off),
        "falls silent": delivered(good, silent),
        "hangs": hangs,
        "has a bad line": delivered(good, with_a_bad_line),
        "is cut": delivered(good, cut),
    }


async def byte_by_byte(frames: Sequence[bytes], _: web.Request) -> AsyncIterator[bytes]:
    """Sends each byte by itself, so that characters are cut wherever they can be."""
    for byte in b"".join(frames):
        yield bytes([byte])
        await asyncio.sleep(0)


async def packed(frames: Sequence[bytes], _: web.Request) -> AsyncIterator[bytes]:
    """Sends each frame by itself, packed."""
    packer = zlib.compressobj(wbits=31)
    for frame in frames:
        yield packer.compress(frame) + packer.flush(zlib.Z_SYNC_FLUSH)
        await asyncio.sleep(GAP_S)
    yield packer.flush()


async def slowly(frames: Sequence[bytes], _: web.Request) -> AsyncIterator[bytes]:
    """Sends a frame every 20 ms."""
    for frame in frames:
        yield frame
        await asyncio.sleep(GAP_S)


async def cut(frames: Sequence[bytes], _: web.Request) -> AsyncIterator[bytes]:
    """Ends in good order after two thirds of the frames."""
    for frame in frames[: len(frames) * 2 // 3]:
        yield frame


async def broken_off(frames: Sequence[bytes], request: web.Request) -> AsyncIterator[bytes]:
    """Loses the connection after two thirds of the frames."""
    async for frame in cut(frames, request):
        yield frame
    await asyncio.sleep(GAP_S)
    assert request.transport is not None
    request.transport.abort()


async def silent(frames: Sequence[bytes], request: web.Request) -> AsyncIterator[bytes]:
    """Says nothing more after two thirds of the frames."""
    async for frame in cut(frames, request):
        yield frame
    await asyncio.Event().wait()


async def hangs(
    _: ScriptedServer, request: web.Request, body: dict[str, Any]
) -> web.StreamResponse:
    """Takes the request and never answers."""
    await asyncio.Event().wait()
    raise AssertionError
