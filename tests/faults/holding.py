"""A model that is played, and first waits until a file is there, where it is told of one.

{"turns": ["It is 3."], "until": PATH}      what it says comes once the file is there
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path

from infra.settings import InferenceSettings
from schemas.events import Completion, Delta, InferenceRequested, Role, Route
from tests.agents.playing import LOOK_S, Model, open_model


class Held:
    """Holds a model back."""

    def __init__(self, model: Model) -> None:
        self._model = model

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Says what the model says, when it may."""
        first = next(each for each in request.messages if each.role is Role.USER)
        until = json.loads(first.content).get("until")
        while until and not Path(until).exists():
            await asyncio.sleep(LOOK_S)
        async for piece in self._model.complete(request, route):
            yield piece

    async def close(self) -> None:
        """Closes the model."""
        await self._model.close()


async def open_held(settings: InferenceSettings) -> Held:
    """Opens the model."""
    return Held(await open_model(settings))
