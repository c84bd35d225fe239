"""Embeds texts with a model in this process, those of many requests together.

A text that is longer than the model reads is cut, and the completion says so: it ends for LENGTH.
Tokens are counted as the model reads them, those at both ends of each text among them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import fields

import structlog

from infra.settings import InferenceSettings
from schemas.events import (
    Completion,
    Delta,
    FinishReason,
    InferenceRequested,
    Reason,
    Refusal,
    Route,
    Task,
    Usage,
)
from workers.providers import ProviderRefused
from workers.providers.batches import WIDEST, Batches, ModelUnsound
from workers.providers.checks import require_answerable
from workers.providers.encoder import Engine, SentenceEncoder, load

log = structlog.get_logger()

EMBEDS = frozenset({Task.EMBEDDING})
# A CPU takes eight texts as fast as it ever will: a batch more costs it less than filling up one.
WIDEST_OF_CPU = 1.1


class Embedding:
    """A provider that owns a sentence encoder.

    Attributes:
        encoder: The model.
        batches: What it is asked through.
    """

    def __init__(self, encoder: SentenceEncoder, name: str) -> None:
        self.encoder = encoder
        self._name = name
        widest = WIDEST_OF_CPU if encoder.device == "cpu" else WIDEST
        self.batches = Batches(encoder, encoder.most, widest, encoder.lanes)

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Yields the Completion, which holds one vector for each text in their order.

        Raises:
            ProviderRefused: The request asks for something else, or for another model.
            ProviderBroken: The model has failed.
        """
        require_answerable(request, EMBEDS)
        if route.model != self._name:
            raise ProviderRefused(
                Refusal(
                    reason=Reason.PROVIDER_FAILED,
                    message=f"this pool serves {self._name}, and not the model of its route",
                )
            )
        embedded = await self.batches.embed(request.inputs)
        yield Completion(
            model=route.model,
            finish_reason=FinishReason.LENGTH if embedded.cut else FinishReason.STOP,
            usage=Usage(prompt_tokens=embedded.tokens),
            vectors=embedded.vectors,
        )

    async def close(self) -> None:
        """Ends the threads."""
        await self.batches.close()


async def open_embedding(settings: InferenceSettings) -> Embedding:
    """Loads the model, which takes seconds.

    Raises:
        ValueError: There is no such model, or an argument for the engine is unknown.
    """
    known = {field.name for field in fields(Engine)}
    if unknown := sorted(settings.engine.keys() - known):
        raise ValueError(f"INFERENCE_ENGINE: a sentence encoder has no {', '.join(unknown)}")
    engine = Engine(**settings.engine)  # type: ignore[arg-type]
    try:
        encoder = await asyncio.to_thread(load, settings.model, engine)
    except ModelUnsound as problem:
        raise ValueError(str(problem)) from None
    log.info(
        "model loaded",
        model=settings.model_name,
        device=encoder.device,
        dimensions=encoder.dimensions,
        lanes=encoder.lanes,
        reads_tokens=encoder.limit,
    )
    return Embedding(encoder, settings.model_name)
