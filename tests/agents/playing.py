"""A model, tools and an index that do what the first thing a caller says tells them, as JSON.

    {"turns": [[["add", {"a": 1, "b": 2}], ["add", {"a": 3, "b": 4}]], "It is 3 and 7."]}

Each turn is what the model says: a text, or the calls that it asks for. Which turn it is follows
from what was said before, so that it says the same however often it is asked. An agent that has
instructions finds its turns under those, and not under ``turns``. A text of several words comes in
parts, where parts are wanted; behind them the model waits at the ``gate`` that it is given, if any.

Each effect of a tool is a line of the file that ``INFERENCE_MODEL`` names. A tool that is given a
gate waits until that is open.
"""

from __future__ import annotations

import asyncio
import json
import re
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
from schemas.search import Found, Hit


class Model:
    """Plays the turns."""

    def __init__(self, effects: Path) -> None:
        self._effects = effects

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Says what is its turn to say."""
        first = next(each for each in request.messages if each.role is Role.USER)
        number = sum(each.role is Role.ASSISTANT for each in request.messages)
        system = (each.content for each in request.messages if each.role is Role.SYSTEM)
        script = json.loads(first.content)
        said = script[next(system, "turns")][number]
        calls = () if isinstance(said, str) else tuple(said)
        words = re.findall(r"\S+\s*", said) if isinstance(said, str) else []
        if request.stream and len(words) > 1:
            for word in words:
                yield Delta(content=word)
            await opened(self._effects, script.get("gate"))
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


LOOK_S = 0.05


def gate(effects: Path, number: int) -> Path:
    """Returns the file that is there once a gate is open."""
    return effects.with_name(f"{effects.name}.gate-{number}")


async def opened(effects: Path, number: int | None) -> None:
    """Returns once a gate is open, if there is one."""
    while number and not gate(effects, number).exists():
        await asyncio.sleep(LOOK_S)


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
        await opened(self._effects, given.pop("gate", None))
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


class Index:
    """Finds what it is asked for, twice."""

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Returns the query as two passages."""
        hits = tuple(
            Hit(
                key={"id": at}, text=f"{request.query} {at}", source="main.agents.rows", version="7"
            )
            for at in range(2)
        )
        yield Completion(
            model=route.model,
            finish_reason=FinishReason.STOP,
            usage=Usage(prompt_tokens=3),
            found=Found(hits=hits).model_dump_json(),
        )

    async def close(self) -> None:
        """Holds nothing."""


async def open_index(settings: InferenceSettings) -> Index:
    """Opens the index."""
    return Index()


async def open_model(settings: InferenceSettings) -> Model:
    """Opens the model."""
    return Model(Path(settings.model))


async def open_tools(settings: InferenceSettings) -> Tools:
    """Opens the tools."""
    return Tools(Path(settings.model))
