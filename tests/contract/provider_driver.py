"""Serves the vLLM provider to a test process that has no torch; driving.py says how.

Run as ``<worker python> -m tests.contract.provider_driver MODEL_FOLDER``. The same engine is also
served over HTTP by vLLM's own OpenAI server, on a loopback port, so that the outside-endpoint
provider can be held against the real thing without a second engine: ``ready`` is its address.
"""

from __future__ import annotations

import asyncio
import socket
import sys

from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.launcher import serve_http as http_server

from infra.settings import InferenceSettings
from tests.contract.driving import Opened, drive
from workers.providers.vllm import VLLM, open_vllm


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


async def opened(model: str) -> Opened:
    """Starts the engine, with both ways to ask it."""
    provider = await open_vllm(InferenceSettings(model=model))

    async def drain() -> None:
        await provider.engine.pause_generation(mode="wait", clear_cache=False)
        await provider.engine.resume_generation()

    return Opened(provider=provider, ready=await serve_http(provider), drain=drain)


if __name__ == "__main__":
    asyncio.run(drive(opened(sys.argv[1])))
