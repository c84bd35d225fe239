"""Providers: one file for each way to get a completion.

A provider is opened once per worker process and then answers many requests at a time.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, runtime_checkable

from infra.catalog import CatalogView
from infra.settings import InferenceSettings
from schemas.events import (
    CatalogChanged,
    Completion,
    Delta,
    InferenceRequested,
    InferenceRouted,
    Refusal,
    Route,
    Usage,
)


class ProviderRefused(Exception):
    """There will be no completion.

    Attributes:
        refusal: Why, in words for the caller.
        usage: Tokens used all the same, as the provider reports them; None where it does not.
    """

    def __init__(self, refusal: Refusal, usage: Usage | None = None) -> None:
        super().__init__(f"{refusal.reason}: {refusal.message}")
        self.refusal = refusal
        self.usage = usage


class ProviderBroken(RuntimeError):
    """The provider cannot answer anybody any more: the process must end and be started anew."""


@dataclass(slots=True, frozen=True, kw_only=True)
class SecretUsed:
    """A secret was asked for, to answer a request with it.

    Attributes:
        reference: Where the secret is; never the secret.
        failure: Why it could not be had; null where it was.
    """

    reference: str
    failure: str | None = None


class Provider(Protocol):
    """A way to get completions."""

    def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion | SecretUsed, None]:
        """Yields what the completion grows by, as it grows, and last the whole Completion.

        Before it uses a secret it yields that, too: it goes into the audit.

        Never blocks the event loop. The caller may stop iterating or cancel the task at any time;
        the provider then frees everything that the request holds, at once.

        Args:
            request: The request; its deadline is the caller's affair.
            route: Where it goes: the model as the provider names it, and the connection, if any.

        Raises:
            ProviderRefused: There will be no completion, whatever was yielded before.
            ProviderBroken: The provider is dead (its engine ended).
        """

    async def close(self) -> None:
        """Gives back what the provider holds; requests under way are cut."""


@runtime_checkable
class RoutedReader(Protocol):
    """A provider that must know more of what was routed than the request and its route."""

    def answer(
        self, routed: InferenceRouted
    ) -> AsyncGenerator[Delta | Completion | SecretUsed, None]:
        """Is asked instead of ``complete``; all that is said there holds here, too."""


@runtime_checkable
class CatalogReader(Protocol):
    """A provider that goes by the catalog: whoever opens it feeds it, too.

    Attributes:
        view: An empty view; complete before the first request, and kept so.
    """

    view: CatalogView

    def changed(self, change: CatalogChanged) -> None:
        """Hears of each change when the view has taken it in."""


Opener = Callable[[InferenceSettings], Awaitable[Provider]]

# Dotted paths, so that a process loads only the provider it runs.
PROVIDERS: dict[str, str] = {
    "echo": "workers.providers.echo:open_echo",
    "embedding": "workers.providers.embedding:open_embedding",
    "outside": "workers.providers.outside:open_outside",
    "search": "workers.providers.search:open_search",
    "tools": "workers.providers.tools:open_tools",
    "vllm": "workers.providers.vllm:open_vllm",
}


def opener(name: str) -> Opener:
    """Returns the function that opens a provider.

    Args:
        name: A name of the table, or ``package.module:function`` for one of your own.

    Raises:
        LookupError: There is no such provider.
    """
    path = PROVIDERS.get(name, name)
    module, colon, function = path.partition(":")
    if not colon:
        raise LookupError(
            f"no provider named {name}: use one of {', '.join(sorted(PROVIDERS))}, "
            "or package.module:function"
        )
    found: Opener = getattr(import_module(module), function)
    return found
