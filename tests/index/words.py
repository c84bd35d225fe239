"""A provider that embeds by words: texts that share words lie near one another."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from hashlib import sha256

from infra.settings import InferenceSettings
from schemas.events import Completion, Delta, FinishReason, InferenceRequested, Route, Usage

DIMENSIONS = 32


def vector_of(text: str) -> tuple[float, ...]:
    """Returns a vector of length one, the same for the same words."""
    found = [1e-3] * DIMENSIONS
    for word in text.lower().split():
        for place in sha256(word.encode()).digest()[:4]:
            found[place % DIMENSIONS] += 1.0
    length = math.sqrt(sum(each * each for each in found))
    return tuple(each / length for each in found)


class Words:
    """Embeds."""

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Answers with the vectors of the inputs."""
        yield Completion(
            model=route.model,
            content="",
            finish_reason=FinishReason.STOP,
            usage=Usage(prompt_tokens=sum(len(text.split()) for text in request.inputs)),
            vectors=tuple(vector_of(text) for text in request.inputs),
        )

    async def close(self) -> None:
        """Holds nothing."""


async def open_words(settings: InferenceSettings) -> Words:
    """Opens the provider."""
    return Words()
