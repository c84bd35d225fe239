"""Serves the vLLM provider to a test process that has no torch: JSON lines in, JSON lines out.

Run as ``<worker python> -m tests.contract.provider_driver MODEL_FOLDER``. The same engine is also
served over HTTP by vLLM's own OpenAI server, on a loopback port, so that the outside-endpoint
provider can be held against the real thing without a second engine.

In:   {"op": "complete", "id": ..., "route": <Route>, "request": <InferenceRequested>}
      {"op": "cancel", "id": ...}
      {"op": "drain", "id": ...}      answered once the engine has nothing left to do
Out:  {"ready": <base url>} first, then {"id": ..., "delta" | "completion" | "refusal": <record>},
      {"id": ..., "cancelled": true}, {"id": ..., "drained_s": <seconds>}
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from datetime import datetime
from typing import Any, TextIO

from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.launcher import serve_http as http_server

from infra.settings import InferenceSettings
from schemas.events import Completion, InferenceRequested, Route
from workers.providers import ProviderRefused
from workers.providers.vllm import VLLM, open_vllm


class Driver:
    def __init__(self, provider: VLLM, group: asyncio.TaskGroup, out: TextIO) -> None:
        self.provider = provider
        self.group = group
        self.out = out
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def say(self, **line: object) -> None:
        print(json.dumps(line), file=self.out, flush=True)

    def obey(self, line: dict[str, Any]) -> None:
        key = line["id"]
        if line["op"] == "cancel":
            if key in self.tasks:
                self.tasks[key].cancel()
            return
        task = self.drain(key) if line["op"] == "drain" else self.complete(line)
        self.tasks[key] = self.group.create_task(task)

    async def complete(self, line: dict[str, Any]) -> None:
        key, record = line["id"], line["request"]
        for instant in ("requested_at", "deadline"):
            record[instant] = datetime.fromisoformat(record[instant])
        request = InferenceRequested.from_avro(record)
        route = Route.from_avro(line["route"])
        try:
            async for event in self.provider.complete(request, route):
                kind = "completion" if isinstance(event, Completion) else "delta"
                self.say(id=key, **{kind: event.to_avro()})
        except ProviderRefused as refused:
            self.say(id=key, refusal=refused.refusal.to_avro())
        except asyncio.CancelledError:
            self.say(id=key, cancelled=True)
        finally:
            del self.tasks[key]

    async def drain(self, key: str) -> None:
        began = time.monotonic()
        await self.provider.engine.pause_generation(mode="wait", clear_cache=False)
        await self.provider.engine.resume_generation()
        self.say(id=key, drained_s=time.monotonic() - began)
        del self.tasks[key]


async def serve_http(provider: VLLM) -> str:
    """Puts vLLM's own server before the provider's engine and returns its base url."""
    tasks = await provider.engine.get_supported_tasks()
    app = build_app(provider.arguments, tasks, provider.engine.model_config)
    await init_app_state(provider.engine, app.state, provider.arguments, tasks)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    # The application keeps the task alive.
    app.state.serving = asyncio.create_task(
        http_server(app, sock=listener, port=port, log_level="warning")
    )
    return f"http://127.0.0.1:{port}/v1"


async def main() -> None:
    # Standard output is the protocol's; whatever a library prints goes to standard error.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lines = asyncio.StreamReader(limit=2**24)
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    provider = await open_vllm(InferenceSettings(model=sys.argv[1]))
    # A dead engine is no refusal: it leaves the group as an exception and ends the process.
    async with asyncio.TaskGroup() as group:
        driver = Driver(provider, group, out)
        driver.say(ready=await serve_http(provider))
        async for line in lines:
            driver.obey(json.loads(line))
        for task in driver.tasks.values():
            task.cancel()
    await provider.close()


if __name__ == "__main__":
    asyncio.run(main())
