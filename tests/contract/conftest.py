"""What the provider suite runs against; one engine of a kind a session serves all that need it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from itertools import count
from typing import Any

import pytest_asyncio

from infra import artifacts
from infra.bootstrap import ROOT, python_of
from infra.models import CARRIED
from infra.settings import InferenceSettings
from infra.stack.settings import StackSettings
from infra.stack.workers import EMBEDDER, MODEL, VLLM
from schemas.events import Completion, Delta, InferenceRequested, Refusal, Route
from tests.contract.asking import Subject
from tests.contract.connections import connected
from tests.contract.driving import MOST_LINE
from tests.contract.scripted_server import ScriptedServer, scripted_server
from workers.providers import ProviderBroken, ProviderRefused, opener

# Streams live on the loop that reads the driver, so everything here does.
on_the_session_loop = pytest_asyncio.fixture(loop_scope="session")


class Driven:
    """A provider in a process of the worker environment.

    Attributes:
        said: What its driver says of it; of vLLM, where its own OpenAI server answers, too.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines: dict[str, asyncio.Queue[dict[str, Any] | None]] = defaultdict(asyncio.Queue)
        self._keys = (str(number) for number in count())
        self.said = ""

    async def listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            self._lines[said.get("id", "ready")].put_nowait(said)
        for queue in self._lines.values():
            queue.put_nowait(None)

    async def ready(self) -> None:
        self.said = (await self._hear("ready"))["ready"]

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion, None]:
        key = self._say("complete", route=route.to_avro(), request=request.to_avro())
        ended = False
        try:
            while not ended:
                said = await self._hear(key)
                ended = "delta" not in said
                if "refusal" in said:
                    raise ProviderRefused(Refusal.from_avro(said["refusal"]))
                if "completion" in said:
                    yield Completion.from_avro(said["completion"])
                else:
                    yield Delta.from_avro(said["delta"])
        finally:
            if not ended:
                self._say("cancel", key)

    async def drain(self) -> float:
        """Returns how long the engine went on, in seconds, once it has nothing left to do."""
        return float((await self._hear(self._say("drain")))["drained_s"])

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    def _say(self, op: str, key: str = "", **more: object) -> str:
        assert self._process.stdin is not None
        key = key or next(self._keys)
        line = json.dumps({"op": op, "id": key, **more}, default=datetime.isoformat)
        self._process.stdin.write(f"{line}\n".encode())
        return key

    async def _hear(self, key: str) -> dict[str, Any]:
        said = await self._lines[key].get()
        if said is None:
            raise ProviderBroken("the driver has ended")
        return said


@asynccontextmanager
async def driven_vllm() -> AsyncIterator[Driven]:
    model = await asyncio.to_thread(artifacts.ensure, MODEL, StackSettings())
    async with driven("provider_driver", str(model)) as vllm:
        yield vllm


@asynccontextmanager
async def driven(driver: str, model: str) -> AsyncIterator[Driven]:
    process = await asyncio.create_subprocess_exec(
        *(str(python_of("worker")), "-m", f"tests.contract.{driver}", model),
        cwd=ROOT,
        env={**os.environ, **VLLM},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=MOST_LINE,
    )
    provider = Driven(process)
    listening = asyncio.create_task(provider.listen())
    try:
        await provider.ready()
        yield provider
        await provider.close()
    finally:
        # The engine's children outlive their parent for seconds.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await listening


async def at_once() -> None:
    """For what never has anything left to do."""


@asynccontextmanager
async def opened(
    model: str, idle: Callable[[], Awaitable[object]], settings: InferenceSettings
) -> AsyncIterator[Subject]:
    provider = await opener(settings.provider)(settings)
    yield Subject(provider, model, idle)
    await provider.close()


@on_the_session_loop
async def scripted() -> AsyncIterator[ScriptedServer]:
    """A server that speaks OpenAI's protocol, and misbehaves as the model's name says."""
    async with scripted_server() as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm() -> AsyncIterator[Driven]:
    """The one engine of the session; starting it takes a minute on a quiet machine."""
    async with driven_vllm() as driven:
        yield driven


@on_the_session_loop
async def echo() -> AsyncIterator[Subject]:
    """The echo provider."""
    async with opened("echo", at_once, InferenceSettings(provider="echo")) as subject:
        yield subject


@on_the_session_loop
async def outside(scripted: ScriptedServer) -> AsyncIterator[Subject]:
    """The outside provider before the scripted server."""
    async with connected("echo", scripted.idle, "openai", scripted.base_url) as subject:
        yield subject


@on_the_session_loop
async def outside_before_vllm(vllm: Driven) -> AsyncIterator[Subject]:
    """The outside provider before vLLM's own server."""
    options = {"strict_tools": "true"}
    async with connected(MODEL, vllm.drain, "openai", vllm.said, options=options) as subject:
        yield subject


@on_the_session_loop
async def vllm_in_process(vllm: Driven) -> Subject:
    """The vLLM provider."""
    return Subject(vllm, MODEL, vllm.drain)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def encoder() -> AsyncIterator[Driven]:
    """The one sentence encoder of the session."""
    async with driven("embedding_driver", f"package:{CARRIED[EMBEDDER]}") as encoder:
        yield encoder


@on_the_session_loop
async def embedding(encoder: Driven) -> Subject:
    """The embedding provider."""
    return Subject(encoder, "embeds", encoder.drain)
