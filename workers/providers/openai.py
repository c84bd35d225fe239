"""Asks any server that speaks OpenAI's API, and OpenAI's models where Azure serves them.

Chat completions and embeddings are OpenAI's; ranking is as vLLM, Jina and others add it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from urllib.parse import quote

from infra.dialling import SILENCE_S
from schemas.events import (
    Completion,
    Delta,
    InferenceRequested,
    Task,
    Usage,
)
from schemas.kinds import ConnectionSpec
from schemas.openai import listing, mapping, number, text
from workers.providers.chat import Transcript, inner, streaming_body, usage_of
from workers.providers.checks import require_answerable
from workers.providers.figures import embedded, ranked
from workers.providers.openai_calls import Calls, answered, refusing
from workers.providers.options import read

# Where each task is asked for.
PATHS: dict[Task, str] = {
    Task.CHAT: "/chat/completions",
    Task.EMBEDDING: "/embeddings",
    Task.RERANK: "/rerank",
}


@dataclass(slots=True, frozen=True, kw_only=True)
class Options:
    """What a connection may say about such a server.

    Attributes:
        max_tokens_field: ``max_completion_tokens`` for models that refuse ``max_tokens``.
        silence_s: Longest wait for the next byte.
        strict_tools: Whether the server is asked to keep tool calls to their schemas.
    """

    max_tokens_field: str = "max_tokens"
    silence_s: float = SILENCE_S
    strict_tools: bool = False


@dataclass(slots=True, frozen=True, kw_only=True)
class AzureOptions(Options):
    """What a connection may say about Azure; a route's model is the name of a deployment there.

    Attributes:
        api_version: Such as ``2024-10-21``.
    """

    api_version: str


class OpenAI:
    """A dialect.

    Args:
        calls: Makes the calls.
        options: What the connection says about its server.
        place: Returns the path for a model and a task.
    """

    def __init__(
        self, calls: Calls, options: Options, place: Callable[[str, Task], str] | None = None
    ) -> None:
        self._calls = calls
        self._options = options
        self._place = place or _path

    async def complete(
        self, request: InferenceRequested, model: str, secret: str | None
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Yields the deltas as they arrive, and the Completion once the answer has ended well."""
        require_answerable(request, frozenset(PATHS))
        if request.task is Task.EMBEDDING:
            yield await self._embed(request, model, secret)
        elif request.task is Task.RERANK:
            yield await self._rank(request, model, secret)
        else:
            async with aclosing(self._chat(request, model, secret)) as pieces:
                async for piece in pieces:
                    yield piece

    async def close(self) -> None:
        """Closes the connections."""
        await self._calls.close()

    def _chat(
        self, request: InferenceRequested, model: str, secret: str | None
    ) -> AsyncGenerator[Delta | Completion, None]:
        body = streaming_body(request, model, strict_tools=self._options.strict_tools)
        if "max_tokens" in body:
            body[self._options.max_tokens_field] = body.pop("max_tokens")
        chunks = self._calls.stream(self._place(model, Task.CHAT), body, secret)
        return answered(chunks, Transcript(model), request)

    async def _embed(
        self, request: InferenceRequested, model: str, secret: str | None
    ) -> Completion:
        body = {"model": model, "input": list(request.inputs), "encoding_format": "float"}
        with refusing(request, lambda: False):
            path = self._place(model, Task.EMBEDDING)
            form = mapping(await self._calls.post(path, body, secret), "body")
            entries = [mapping(entry, "data[]") for entry in listing(form.get("data"), "data")]
            entries.sort(key=lambda entry: number(entry.get("index"), "index"))
            vectors = [entry.get("embedding") for entry in entries]
            read = _usage(form).prompt_tokens
            return embedded(request, _model(form, model), vectors, read)

    async def _rank(
        self, request: InferenceRequested, model: str, secret: str | None
    ) -> Completion:
        body = {"model": model, "query": request.query, "documents": list(request.inputs)}
        with refusing(request, lambda: False):
            path = self._place(model, Task.RERANK)
            form = mapping(await self._calls.post(path, body, secret), "body")
            results = listing(form.get("results"), "results")
            return ranked(request, _model(form, model), results, _usage(form))


def open_openai(connection: ConnectionSpec) -> OpenAI:
    """Opens a server that speaks OpenAI's API.

    Raises:
        ValueError: The connection has options that do not belong there.
    """
    options = read(connection, Options)
    return OpenAI(Calls(connection, silence_s=options.silence_s), options)


def open_azure_openai(connection: ConnectionSpec) -> OpenAI:
    """Opens OpenAI's models as Azure serves them, one deployment a model.

    Raises:
        ValueError: The connection has options that do not belong there, or no ``api_version``.
    """
    options = read(connection, AzureOptions)
    calls = Calls(
        connection,
        proof=lambda secret: {"api-key": secret},
        query={"api-version": options.api_version},
        silence_s=options.silence_s,
    )
    return OpenAI(calls, options, _deployment)


def _path(model: str, task: Task) -> str:
    return PATHS[task]


def _deployment(model: str, task: Task) -> str:
    return f"/openai/deployments/{quote(model, safe='')}{PATHS[task]}"


def _model(form: Mapping[str, object], asked: str) -> str:
    return text(form.get("model"), "model") or asked


def _usage(form: Mapping[str, object]) -> Usage:
    usage = inner(form, "usage")
    # Where nothing is produced, some servers tell the total alone.
    return usage_of({"prompt_tokens": usage.get("total_tokens"), **usage})
