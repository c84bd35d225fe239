"""Asks Google's Gemini API, or whatever speaks it, through Google's own client.

Knows how calls are made and how they fail; the form is ``gemini_form``'s. The client would call
tools itself, take up answers that broke off, and take settings of the environment: all of that is
turned off. What it cannot read of an answer fails the answer; it skips nothing.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Literal, TypeVar

import httpx2
from google import genai
from google.genai import types
from google.genai.errors import APIError

from infra.dialling import SILENCE_S
from schemas.events import (
    Completion,
    Delta,
    InferenceRequested,
    Reason,
    Refusal,
    Task,
)
from schemas.kinds import ConnectionSpec
from schemas.openai import FormInvalid
from workers.providers import ProviderRefused
from workers.providers.calls import (
    BROKEN,
    MALFORMED,
    broken,
    complained,
    headed,
    plain_client,
)
from workers.providers.checks import require_answerable
from workers.providers.figures import embedded
from workers.providers.gemini_form import config_of, contents_of, take
from workers.providers.options import read
from workers.providers.turns import Spoken, offer

TASKS = frozenset({Task.CHAT, Task.EMBEDDING})
FAULTS = (APIError, *BROKEN, *MALFORMED)
STUMBLES = (AttributeError, IndexError, KeyError, TypeError, ValueError)
Read = TypeVar("Read")
# The library keeps the response to itself, in a cycle: it is closed here, at once.
RESPONSES: ContextVar[list[httpx2.Response]] = ContextVar("responses")


@dataclass(slots=True, frozen=True, kw_only=True)
class Options:
    """What a connection may say beside its address.

    Attributes:
        api_version: In the path behind the address.
        json_schema: How schemas go there; ``tool`` is for models that take none beside tools.
        silence_s: Longest wait for the next byte.
    """

    api_version: str = "v1beta"
    json_schema: Literal["native", "tool"] = "native"
    silence_s: float = SILENCE_S


class Gemini:
    """Gemini behind one connection."""

    def __init__(self, client: genai.Client, http: httpx2.AsyncClient, options: Options) -> None:
        self._client = client
        self._http = http
        self._native = options.json_schema == "native"

    async def complete(
        self, request: InferenceRequested, model: str, secret: str | None
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Yields the deltas as they arrive, and the Completion once the stream has ended well."""
        require_answerable(request, TASKS)
        if request.task is Task.EMBEDDING:
            yield await self._embedded(request, model, secret)
            return
        offered = offer(request, native=self._native)
        answer = Spoken(model, answer_tool=offered.answers)
        config = config_of(request, offered, _with(secret), native=self._native)
        contents = contents_of(request)
        try:
            async with _closing():
                stream = await self._client.aio.models.generate_content_stream(
                    model=model, contents=contents, config=config
                )
                while (chunk := await _read(anext(stream, None))) is not None:
                    for delta in take(chunk, answer):
                        yield delta
        except FAULTS as error:
            # The library's words quote the answer, and the provider's may quote the prompt.
            raise ProviderRefused(_refusal(error, request, answer), answer.usage) from None
        for piece in answer.rest(request):
            yield piece

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _embedded(
        self, request: InferenceRequested, model: str, secret: str | None
    ) -> Completion:
        # Contents, since some models make one vector of several texts.
        contents: list[types.ContentUnion] = [
            types.Content(parts=[types.Part(text=text)]) for text in request.inputs
        ]
        config = types.EmbedContentConfig(http_options=_with(secret))
        try:
            async with _closing():
                answer = await _read(
                    self._client.aio.models.embed_content(
                        model=model, contents=contents, config=config
                    )
                )
        except FAULTS as error:
            raise ProviderRefused(_refusal(error, request, Spoken(model))) from None
        told = answer.usage_metadata
        vectors = [one.values for one in answer.embeddings or ()]
        return embedded(request, model, vectors, told.prompt_token_count if told else None)


def open_gemini(connection: ConnectionSpec) -> Gemini:
    """Opens a connection, whose address ends before ``/v1beta/models/``; nothing is sent yet.

    Raises:
        ValueError: An option is unknown, or not of its kind.
    """
    options = read(connection, Options)
    http = plain_client(connection, "x-goog-api-key", silence_s=options.silence_s)
    http.event_hooks = {**http.event_hooks, "response": [_remember]}
    client = genai.Client(
        vertexai=False,
        # The library would look for one without; each call brings its own.
        api_key="none",
        http_options=types.HttpOptions(
            base_url=connection.url,
            api_version=options.api_version,
            httpx_async_client=http,
        ),
    )
    return Gemini(client, http, options)


async def _read(answer: Awaitable[Read]) -> Read:
    """Returns what the library reads.

    Raises:
        FormInvalid: It stumbled over the answer, which it takes to be in the form.
    """
    try:
        return await answer
    except STUMBLES:
        raise FormInvalid("answer") from None


async def _remember(response: httpx2.Response) -> None:
    if (held := RESPONSES.get(None)) is not None:
        held.append(response)


@asynccontextmanager
async def _closing() -> AsyncIterator[None]:
    """Closes at the end whatever responses were got by this task since."""
    held: list[httpx2.Response] = []
    RESPONSES.set(held)
    try:
        yield
    finally:
        for response in held:
            await response.aclose()


def _with(secret: str | None) -> types.HttpOptions:
    return types.HttpOptions(headers={"x-goog-api-key": headed(secret or "")})


def _refusal(error: Exception, request: InferenceRequested, answer: Spoken) -> Refusal:
    if not isinstance(error, APIError):
        return broken(error, begun=answer.begun)
    details = list(_details(error))
    # Google calls a key that it does not know a fault of the arguments.
    keyless = any(detail.get("reason") == "API_KEY_INVALID" for detail in details)
    status = HTTPStatus.UNAUTHORIZED if keyless else int(error.code or 500)
    headers = getattr(error.response, "headers", None)
    found = complained(request, status, error.message or "", headers)
    waits = [str(detail["retryDelay"]) for detail in details if "retryDelay" in detail]
    if found.reason is Reason.RATE_LIMITED and found.retry_after_ms is None and waits:
        return replace(found, retry_after_ms=_milliseconds(waits[0]))
    return found


def _details(error: APIError) -> Iterator[Mapping[str, object]]:
    body = error.details if isinstance(error.details, Mapping) else {}
    told = body.get("error")
    details = told.get("details") if isinstance(told, Mapping) else None
    if isinstance(details, list):
        yield from (detail for detail in details if isinstance(detail, Mapping))


def _milliseconds(duration: str) -> int | None:
    """Returns how long a duration of protobuf's JSON form is, such as 7s or 1.5s."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)s", duration)
    return int(float(found.group(1)) * 1000) if found else None
