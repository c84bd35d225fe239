"""A provider that judges by the words in what it is asked about; what it is not asked, it answers.

It says DENY of a text with ``harmful`` in it, ASK of one with ``doubtful``, nothing that is a
verdict of one with ``confusing``, and ALLOW of all others.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator

from infra.settings import InferenceSettings
from schemas.events import Completion, Delta, FinishReason, InferenceRequested, Route, Usage

WORDS = {"confusing": "PERHAPS", "doubtful": "ASK", "harmful": "DENY"}


class Verdicts:
    """Judges by words."""

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Says the verdict."""
        texts = " ".join(json.loads(request.messages[-1].content)["texts"])
        says = next((verdict for word, verdict in WORDS.items() if word in texts), "ALLOW")
        content = json.dumps({"verdict": says, "reason": "other"})
        yield Delta(content=content)
        yield Completion(
            model=route.model,
            content=content,
            finish_reason=FinishReason.STOP,
            usage=Usage(prompt_tokens=5, completion_tokens=7),
        )

    async def close(self) -> None:
        """Holds nothing."""


async def open_verdicts(settings: InferenceSettings) -> Verdicts:
    """Opens the provider."""
    return Verdicts()
