"""Dialects: one file for each way to talk to an outside provider, by the type of its connection.

A dialect knows one connection's address and options. It holds no secret: it is given one for each
call, and sends it to that address alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from importlib import import_module
from typing import Protocol

from schemas.events import Completion, Delta, InferenceRequested
from schemas.kinds import ConnectionSpec


class Dialect(Protocol):
    """A way to get completions over one connection."""

    def complete(
        self, request: InferenceRequested, model: str, secret: str | None
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Yields what the completion grows by, as it grows, and last the whole Completion.

        One attempt: when to try again is policy and lies elsewhere. Never blocks the event loop.
        The caller may stop iterating or cancel the task at any time; the dialect then frees
        everything that the request holds, at once.

        Args:
            request: The request; its task says what is asked for, its deadline is the caller's.
            model: The model as the provider names it.
            secret: What the connection's reference leads to now; None where it names none. Never
                kept, never logged.

        Raises:
            ProviderRefused: There will be no completion, whatever was yielded before.
        """

    async def close(self) -> None:
        """Closes what connections are still open."""


Speaker = Callable[[ConnectionSpec], Dialect]

# Dotted paths, so that a process loads only the client libraries that it uses.
DIALECTS: dict[str, str] = {
    "anthropic": "workers.providers.anthropic:open_anthropic",
    "azure_openai": "workers.providers.openai:open_azure_openai",
    "bedrock": "workers.providers.bedrock:open_bedrock",
    "cohere": "workers.providers.cohere:open_cohere",
    "gemini": "workers.providers.gemini:open_gemini",
    "openai": "workers.providers.openai:open_openai",
    "openai_responses": "workers.providers.openai_responses:open_openai_responses",
}


def speaker(kind: str) -> Speaker:
    """Returns the function that opens a dialect for a connection of a type; it sends nothing.

    The function raises ValueError where the connection's options are not what the dialect takes.

    Raises:
        LookupError: No dialect is known for the type, or its client library is not here.
    """
    if kind not in DIALECTS:
        raise LookupError(f"no dialect for connections of type {kind}")
    module, _, function = DIALECTS[kind].partition(":")
    try:
        found: Speaker = getattr(import_module(module), function)
    except ImportError:
        raise LookupError(f"no client for connections of type {kind} in this environment") from None
    return found
