"""A model and tools that do what the first thing a caller says tells them, as JSON.

    {"turns": [[["add", {"a": 1, "b": 2}], ["add", {"a": 3, "b": 4}]], "It is 3 and 7."]}

Each turn is what the model says: a text, or the calls that it asks for. Which turn it is follows
from what was said before, so that it says the same however often it is asked.

Each effect of a tool is a line of the file that ``INFERENCE_MODEL`` names.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path

from infra.settings import InferenceSettings
from schemas.events import (
    Completion,
    Delta,
    FinishReason,
    InferenceRequested,
    Role,
    Route,
    ToolCall,
    Usage,
)


class Model:
    """Plays the turns."""

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Says what is its turn to say."""
        first = next(each for each in request.messages if each.role is Role.USER)
        number = sum(each.role is Role.ASSISTANT for each in request.messages)
        said = json.loads(first.content)["turns"][number]
        calls = () if isinstance(said, str) else tuple(said)
        yield Completion(
            model=route.model,
            content=said if isinstance(said, str) else "",
            tool_calls=tuple(
                ToolCall(
                    id=f"call_{number}_{at}",
                    name=name,
                    arguments=arguments if isinstance(arguments, str) else json.dumps(arguments),
                )
                for at, (name, arguments) in enumerate(calls)
            ),
            finish_reason=FinishReason.TOOL_CALLS if calls else FinishReason.STOP,
            usage=Usage(prompt_tokens=10, completion_tokens=5),
        )

    async def close(self) -> None:
        """Holds nothing."""


class Tools:
    """Adds, and waits where it is told to."""

    def __init__(self, effects: Path) -> None:
        self._effects = effects

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Returns the sum of what it is given, after a while."""
        given = json.loads(request.inputs[0])
        await asyncio.sleep(given.pop("wait_s", 0))
        with self._effects.open("a", encoding="utf-8") as effects:
            effects.write(f"{request.request_id}\n")
        yield Completion(
            model=route.model,
            content=json.dumps({"result": sum(given.values())}),
            finish_reason=FinishReason.STOP,
            usage=Usage(),
        )

    async def close(self) -> None:
        """Holds nothing."""


async def open_model(settings: InferenceSettings) -> Model:
    """Opens the model."""
    return Model()


async def open_tools(settings: InferenceSettings) -> Tools:
    """Opens the tools."""
    return Tools(Path(settings.model))
