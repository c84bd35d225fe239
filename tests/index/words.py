"""A provider that embeds and ranks by words: texts that share words lie near one another."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from hashlib import sha256

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

DIMENSIONS = 32


def vector_of(text: str) -> tuple[float, ...]:
    """Returns a vector of length one, the same for the same words."""
    found = [1e-3] * DIMENSIONS
    for word in text.lower().split():
        for place in sha256(word.encode()).digest()[:4]:
            found[place % DIMENSIONS] += 1.0
    length = math.sqrt(sum(each * each for each in found))
    return tuple(each / length for each in found)


def shared(query: str, text: str) -> float:
    """Returns which part of a query's words a text has."""
    words = set(query.lower().split())
    return len(words & set(text.lower().split())) / len(words)


class Words:
    """Embeds, and ranks."""

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Answers with the vectors of the inputs, or how many words each shares with the query."""
        ranks = request.task is Task.RERANK
        yield Completion(
            model=route.model,
            content="",
            finish_reason=FinishReason.STOP,
            usage=Usage(prompt_tokens=sum(len(text.split()) for text in request.inputs)),
            vectors=() if ranks else tuple(vector_of(text) for text in request.inputs),
            scores=tuple(shared(request.query or "", each) for each in request.inputs if ranks),
        )

    async def close(self) -> None:
        """Holds nothing."""


async def open_words(settings: InferenceSettings) -> Words:
    """Opens the provider."""
    return Words()
