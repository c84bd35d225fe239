"""Answers with the caller's own last message, word by word.

Texts are embedded as their length, and documents ranked by how many words of the query they have.
For measuring the bus and trying a client without a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from infra.settings import InferenceSettings
from schemas.events import (
    Completion,
    Delta,
    FinishReason,
    InferenceRequested,
    Route,
    Task,
    Usage,
)


class Echo:
    """A provider that costs nothing; it yields to the event loop between words."""

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Yields the last message a word at a time, at most ``max_tokens`` words."""
        if request.task is not Task.CHAT:
            yield _figures(request, route)
            return
        asked = request.messages[-1].content.split(" ")
        words = asked[: request.sampling.max_tokens]
        spaced = [words[0], *(f" {word}" for word in words[1:])]
        if request.stream:
            for word in spaced:
                yield Delta(content=word)
                await asyncio.sleep(0)
        yield Completion(
            model=route.model,
            content="".join(spaced),
            finish_reason=FinishReason.STOP if len(words) == len(asked) else FinishReason.LENGTH,
            usage=Usage(prompt_tokens=len(asked), completion_tokens=len(words)),
        )

    async def close(self) -> None:
        """Holds nothing, so gives back nothing."""


def _figures(request: InferenceRequested, route: Route) -> Completion:
    asked = set((request.query or "").split())
    ranks = request.task is Task.RERANK
    return Completion(
        model=route.model,
        finish_reason=FinishReason.STOP,
        usage=Usage(prompt_tokens=sum(len(text.split()) for text in request.inputs)),
        vectors=() if ranks else tuple((float(len(text)),) for text in request.inputs),
        scores=tuple(float(len(asked & set(text.split()))) for text in request.inputs)
        if ranks
        else (),
    )


async def open_echo(settings: InferenceSettings) -> Echo:
    """Opens the echo; no setting concerns it."""
    return Echo()
