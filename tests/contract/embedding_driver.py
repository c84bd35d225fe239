"""Serves the embedding provider to a test process that has no torch; driving.py says how.

Run as ``<worker python> -m tests.contract.embedding_driver MODEL``.
"""

from __future__ import annotations

import asyncio
import sys

from infra.settings import InferenceSettings
from tests.contract.driving import Opened, drive
from workers.providers.embedding import open_embedding


async def opened(model: str) -> Opened:
    """Loads the model; it has nothing left to do once one more text is through."""
    provider = await open_embedding(InferenceSettings(model=model, model_name="embeds"))

    async def drain() -> None:
        await provider.batches.embed(["the last of all"])

    return Opened(provider=provider, ready=str(provider.encoder.dimensions), drain=drain)


if __name__ == "__main__":
    asyncio.run(drive(opened(sys.argv[1])))
