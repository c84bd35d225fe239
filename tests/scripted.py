"""A provider that does what each request's last message tells it to, as JSON.

    {"words": 20, "gap_s": 0.01}        twenty words, one every 10 ms
    {"say": "so ", "words": 3}          one word three times
    {"delay_s": 15}                     silence first
    {"until": PATH}                     the last word comes once the file is there
    {"refuse": "PROVIDER_UNAVAILABLE"}  a refusal, after the words
    {"raise": 1}                        a surprise, on the first so many tries of this request
    {"broken": true}                    the engine is dead

Each start and end of a request is a line in the journal, the file that ``INFERENCE_MODEL`` names.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path

from infra.settings import InferenceSettings
from schemas.events import (
    Completion,
    Delta,
    FinishReason,
    InferenceRequested,
    Reason,
    Refusal,
    Route,
    Usage,
)
from workers.providers import ProviderBroken, ProviderRefused

LOOK_S = 0.05


class Scripted:
    """Follows the script in the last message."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._tries: Counter[str] = Counter()

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Follows the script."""
        script = json.loads(request.messages[-1].content)
        self._tries[request.request_id] += 1
        self._note("start", request)
        try:
            if self._tries[request.request_id] <= script.get("raise", 0):
                raise ValueError(f"scripted failure of {request.messages[-1].content}")
            if script.get("broken"):
                raise ProviderBroken("the script says so")
            await asyncio.sleep(script.get("delay_s", 0))
            words = [script.get("say", f"w{number} ") for number in range(script.get("words", 1))]
            for left, word in enumerate(words, start=1 - len(words)):
                while left == 0 and "until" in script and not Path(script["until"]).exists():
                    await asyncio.sleep(LOOK_S)
                yield Delta(content=word)
                await asyncio.sleep(script.get("gap_s", 0))
            if reason := script.get("refuse"):
                refusal = Refusal(reason=Reason(reason), message="the script says so")
                raise ProviderRefused(refusal)
        except (asyncio.CancelledError, GeneratorExit):
            self._note("cancelled", request)
            raise
        # Noted first: nobody comes back for more after a completion.
        self._note("end", request)
        yield Completion(
            model=route.model,
            content="".join(words),
            finish_reason=FinishReason.STOP,
            usage=Usage(prompt_tokens=1, completion_tokens=len(words)),
        )

    async def close(self) -> None:
        """Holds nothing."""

    def _note(self, what: str, request: InferenceRequested) -> None:
        with self._journal.open("a") as journal:
            journal.write(f"{what} {request.request_id}\n")


async def open_scripted(settings: InferenceSettings) -> Scripted:
    """Opens the provider; the model setting names the journal."""
    return Scripted(Path(settings.model))
