"""Asks any endpoint that speaks OpenAI's chat completions API.

One attempt a request: when to try again is policy and lies elsewhere. The key is resolved for each
request, so a rotated one is picked up. Proxies and credentials of the environment are ignored and
redirects are not followed, so a request goes to the address of the settings and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from json import JSONDecodeError

from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    AsyncStream,
    DefaultAsyncHttpxClient,
    Omit,
)
from pydantic import TypeAdapter

from infra.secrets import SecretUnavailable, resolve
from infra.settings import InferenceSettings
from schemas.events import Completion, Delta, InferenceRequested, Reason, Refusal, Route
from schemas.openai import FormInvalid
from workers.providers import ProviderRefused, SecretUsed
from workers.providers.answer import stream_cut
from workers.providers.chat import Complaint, Transcript, refusal, streaming_body
from workers.providers.checks import require_answerable, require_kept

# How a body that is no stream of chat completion chunks shows itself.
MALFORMED = (FormInvalid, JSONDecodeError, RecursionError, UnicodeDecodeError)


@dataclass(slots=True, frozen=True, kw_only=True)
class Endpoint:
    """What ``INFERENCE_ENGINE`` may say about an outside endpoint.

    Attributes:
        timeout_s: Longest wait for a connection, for the first part and between parts.
        strict_tools: Whether the endpoint is asked to keep tool calls to their schemas.
        max_tokens_field: ``max_completion_tokens`` for endpoints that refuse ``max_tokens``.
    """

    timeout_s: float = 60
    strict_tools: bool = False
    max_tokens_field: str = "max_tokens"


class OpenAICompatible:
    """A provider behind HTTP; up to 1,000 requests are under way at once."""

    def __init__(self, client: AsyncOpenAI, endpoint: Endpoint, api_key: str) -> None:
        self._client = client
        self._endpoint = endpoint
        self._api_key = api_key

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion | SecretUsed, None]:
        """Yields the deltas as they arrive, and the Completion once the stream has ended well."""
        require_answerable(request)
        key: str | Omit = Omit()
        if self._api_key:
            used, key = await _unlocked(self._api_key)
            yield used
            if used.failure:
                raise ProviderRefused(_failed("the provider's key cannot be read on this platform"))
        transcript = Transcript(route.model)
        try:
            async with await self._stream(request, route.model, key) as stream:
                async for chunk in stream:
                    if delta := transcript.take(chunk):
                        yield delta
        except (APIError, *MALFORMED) as error:
            # The provider's own words may quote the prompt, so they must not ride along.
            raise ProviderRefused(_refusal(error, request, transcript)) from None
        if not transcript.begun:
            raise ProviderRefused(_failed("the provider answered with an empty body"))
        completion = transcript.completion()
        require_kept(completion, request)
        yield completion

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def _stream(
        self, request: InferenceRequested, model: str, key: str | Omit
    ) -> AsyncStream[object]:
        body = streaming_body(request, model, strict_tools=self._endpoint.strict_tools)
        if "max_tokens" in body:
            body[self._endpoint.max_tokens_field] = body.pop("max_tokens")
        return await self._client.post(
            "/chat/completions",
            cast_to=object,
            body=body,
            options={"headers": _headers(key)},
            stream=True,
            stream_cls=AsyncStream[object],
        )


async def open_openai(settings: InferenceSettings) -> OpenAICompatible:
    """Opens an outside endpoint; nothing is sent yet.

    Raises:
        SecretUnavailable: The reference to the key leads nowhere.
        ValueError: The settings name no endpoint, or an argument that it does not take.
    """
    if not settings.base_url:
        raise ValueError("INFERENCE_BASE_URL names no endpoint")
    if settings.api_key:
        resolve(settings.api_key)
    endpoint = _endpoint(settings.engine)
    client = AsyncOpenAI(
        api_key="",
        admin_api_key="",
        base_url=settings.base_url,
        max_retries=0,
        timeout=endpoint.timeout_s,
        http_client=DefaultAsyncHttpxClient(trust_env=False, follow_redirects=False),
        _enforce_credentials=False,
    )
    return OpenAICompatible(client, endpoint, settings.api_key)


async def _unlocked(reference: str) -> tuple[SecretUsed, str]:
    """Returns what is to be told of it, and what goes into the header; a store may take a while."""
    try:
        secret = await asyncio.to_thread(resolve, reference)
    except SecretUnavailable as lack:
        return SecretUsed(reference=reference, failure=str(lack)), ""
    return SecretUsed(reference=reference), f"Bearer {secret}"


def _headers(key: str | Omit) -> dict[str, str | Omit]:
    return {
        "Authorization": key,
        # The library would take these two from the environment.
        "OpenAI-Organization": Omit(),
        "OpenAI-Project": Omit(),
    }


def _endpoint(engine: Mapping[str, object]) -> Endpoint:
    known = {field.name for field in fields(Endpoint)}
    if unknown := sorted(engine.keys() - known):
        raise ValueError(
            f"INFERENCE_ENGINE: an outside endpoint takes no {', '.join(unknown)}; "
            f"it takes {', '.join(sorted(known))}"
        )
    return TypeAdapter(Endpoint).validate_python(engine)


def _refusal(error: Exception, request: InferenceRequested, transcript: Transcript) -> Refusal:
    match error:
        case APITimeoutError():
            found = Refusal(
                reason=Reason.PROVIDER_TIMEOUT, message="the provider did not answer in time"
            )
        case APIConnectionError() if transcript.begun:
            found = stream_cut()
        case APIConnectionError():
            found = Refusal(
                reason=Reason.PROVIDER_UNAVAILABLE, message="the provider cannot be reached"
            )
        case APIStatusError():
            complaint = _complaint(error, error.status_code)
            found = refusal(complaint, request, _retry_after_ms(error.response.headers))
        case APIError() if str(error.code).isdecimal():
            found = refusal(_complaint(error, int(str(error.code))), request)
        case APIError():
            found = _failed("the provider reported an error in the middle of its answer")
        case _:
            found = _failed("the provider's answer is not in the form of chat completions")
    return found


def _complaint(error: APIError, status: int) -> Complaint:
    body = error.body if isinstance(error.body, Mapping) else {}
    return Complaint(
        status=status,
        message=str(body.get("message") or ""),
        param=str(error.param or ""),
        code=str(error.code or ""),
    )


def _retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """Returns the wait of ``Retry-After`` (RFC 9110): seconds, or a date."""
    said = headers.get("retry-after", "").strip()
    if said.isdecimal():
        return int(said) * 1000
    try:
        until = parsedate_to_datetime(said)
    except ValueError:
        return None
    wait = until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)
    return max(0, int(wait.total_seconds() * 1000))


def _failed(message: str) -> Refusal:
    return Refusal(reason=Reason.PROVIDER_FAILED, message=message)
