"""Asks Google's Gemini API, or whatever speaks it, through Google's own client.

Knows the form of the requests, answers and errors (https://ai.google.dev/api). The client would
call tools itself, take up answers that broke off, and take settings of the environment: all of that
is turned off. Thoughts are not passed on; the signature that comes with one and must go back with
its tool call travels in the id of the call.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Literal
from uuid import uuid4

import httpx2
from google import genai
from google.genai import types
from google.genai.errors import APIError, UnknownApiResponseError
from pydantic import ValidationError

from schemas.events import (
    Alternative,
    Completion,
    Delta,
    FinishReason,
    InferenceRequested,
    Message,
    Reason,
    Refusal,
    Task,
    TokenLogprob,
    ToolCall,
    Usage,
)
from schemas.kinds import ConnectionSpec
from schemas.openai import parsed
from workers.providers import ProviderRefused
from workers.providers.calls import BROKEN, MALFORMED, broken, complained, plain_client
from workers.providers.checks import require_answerable
from workers.providers.figures import embedded
from workers.providers.http import SILENCE_S
from workers.providers.options import read
from workers.providers.turns import Offer, Spoken, failed, offer, system_text, top_k, turns

TASKS = frozenset({Task.CHAT, Task.EMBEDDING})
FAULTS = (APIError, UnknownApiResponseError, ValidationError, *BROKEN, *MALFORMED)
CHOICES: dict[str, str] = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
FINISH_REASONS: dict[str, FinishReason] = {
    "BLOCKLIST": FinishReason.CONTENT_FILTER,
    "MAX_TOKENS": FinishReason.LENGTH,
    "MODEL_ARMOR": FinishReason.CONTENT_FILTER,
    "PROHIBITED_CONTENT": FinishReason.CONTENT_FILTER,
    "RECITATION": FinishReason.CONTENT_FILTER,
    "SAFETY": FinishReason.CONTENT_FILTER,
    "SPII": FinishReason.CONTENT_FILTER,
    "STOP": FinishReason.STOP,
}
# With these the model failed to say what it was about to say.
GIVEN_UP = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
        "TOO_MANY_TOOL_CALLS",
        "UNEXPECTED_TOOL_CALL",
    }
)
# Ids of calls that came without one; Gemini need not see them again.
OWN_ID = "call-"
SIGNED = "~"
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


class Blocks:
    """How the parts of a content are written."""

    def said(self, text: str) -> types.Part:
        """Returns a text part."""
        return types.Part(text=text)

    def called(self, call: ToolCall, arguments: Mapping[str, object]) -> types.Part:
        """Returns a function call part, signed as it came."""
        call_id, _, signature = call.id.partition(SIGNED)
        function = types.FunctionCall(id=_their(call_id), name=call.name, args=dict(arguments))
        return types.Part(function_call=function, thought_signature=_unpacked(signature))

    def answered(self, message: Message, call_id: str, tool: str) -> types.Part:
        """Returns a function response part."""
        return types.Part(
            function_response=types.FunctionResponse(
                id=_their(call_id.partition(SIGNED)[0]),
                name=tool or message.name or "",
                response={"output": message.content},
            )
        )


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
        config = _config(request, offered, _with(secret), native=self._native)
        contents: list[types.ContentUnion] = [
            types.Content(role="model" if turn.model else "user", parts=list(turn.blocks))
            for turn in turns(request, Blocks())
        ]
        try:
            async with _closing():
                stream = await self._client.aio.models.generate_content_stream(
                    model=model, contents=contents, config=config
                )
                async for chunk in stream:
                    for delta in _take(chunk, answer):
                        yield delta
        except FAULTS as error:
            # The library's words quote the answer, and the provider's may quote the prompt.
            raise ProviderRefused(_refusal(error, request, answer), answer.usage) from None
        for delta in answer.ended():
            yield delta
        yield answer.kept(request)

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
                answer = await self._client.aio.models.embed_content(
                    model=model, contents=contents, config=config
                )
        except FAULTS as error:
            raise ProviderRefused(_refusal(error, request, Spoken(model))) from None
        told = answer.usage_metadata
        vectors = [one.values for one in answer.embeddings or ()]
        return embedded(request, model, vectors, told.prompt_token_count if told else None)


def open_gemini(connection: ConnectionSpec) -> Gemini:
    """Opens a connection; nothing is sent yet.

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
    return types.HttpOptions(headers={"x-goog-api-key": secret or ""})


def _config(
    request: InferenceRequested, offered: Offer, http: types.HttpOptions, *, native: bool
) -> types.GenerateContentConfig:
    sampling = request.sampling
    config = types.GenerateContentConfig(
        http_options=http,
        system_instruction=system_text(request) or None,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=top_k(sampling),
        max_output_tokens=sampling.max_tokens,
        stop_sequences=list(sampling.stop) or None,
        seed=sampling.seed,
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=sampling.presence_penalty,
        response_logprobs=True if sampling.top_logprobs is not None else None,
        logprobs=sampling.top_logprobs or None,
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        automatic_continuation=False,
    )
    if request.json_schema is not None and native:
        config.response_mime_type = "application/json"
        config.response_json_schema = parsed(request.json_schema)
    if offered.tools:
        config.tools = [types.Tool(function_declarations=list(_functions(offered)))]
        config.tool_config = types.ToolConfig(function_calling_config=_choice(offered))
    return config


def _functions(offered: Offer) -> Iterator[types.FunctionDeclaration]:
    for tool in offered.tools:
        yield types.FunctionDeclaration(
            name=tool.name,
            description=tool.description,
            parameters_json_schema=parsed(tool.parameters),
        )


def _choice(offered: Offer) -> types.FunctionCallingConfig:
    if offered.choice in CHOICES:
        mode = types.FunctionCallingConfigMode(CHOICES[offered.choice])
        return types.FunctionCallingConfig(mode=mode)
    return types.FunctionCallingConfig(
        mode=types.FunctionCallingConfigMode.ANY, allowed_function_names=[offered.choice]
    )


def _take(chunk: types.GenerateContentResponse, answer: Spoken) -> Iterator[Delta]:
    """Adds one chunk of the stream and yields what it brings.

    Raises:
        ProviderRefused: The model has given up.
    """
    answer.begun = True
    answer.model = chunk.model_version or answer.model
    if chunk.usage_metadata is not None:
        answer.usage = _usage(chunk.usage_metadata)
    if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason is not None:
        answer.finish_reason = FinishReason.CONTENT_FILTER
        # Nothing is charged for what is not answered, so nothing may be told.
        answer.usage = answer.usage or Usage()
    for candidate in (chunk.candidates or ())[:1]:
        parts = candidate.content.parts if candidate.content is not None else None
        for part in parts or ():
            yield from _part(part, answer)
        if candidate.logprobs_result is not None:
            answer.logprobs.extend(_logprobs(candidate.logprobs_result))
        if candidate.finish_reason is not None:
            reason = candidate.finish_reason.value
            if reason in GIVEN_UP:
                said = reason.lower().replace("_", " ")
                raise ProviderRefused(failed(f"the model gave up: {said}"), answer.usage)
            answer.finish_reason = FINISH_REASONS.get(reason, FinishReason.UNKNOWN)


def _part(part: types.Part, answer: Spoken) -> Iterator[Delta]:
    if part.text and not part.thought:
        yield from answer.say(part.text)
    if part.function_call is not None:
        call_id = part.function_call.id or f"{OWN_ID}{uuid4().hex}"
        yield from answer.whole_call(
            call_id=call_id + _packed(part.thought_signature),
            name=part.function_call.name or "",
            arguments=_json(part.function_call.args or {}),
        )


def _logprobs(result: types.LogprobsResult) -> Iterator[TokenLogprob]:
    tops = result.top_candidates or []
    for place, chosen in enumerate(result.chosen_candidates or ()):
        others = (tops[place].candidates or ()) if place < len(tops) else ()
        top = tuple(
            Alternative(token=other.token or "", logprob=other.log_probability or 0.0)
            for other in others
        )
        logprob = chosen.log_probability or 0.0
        yield TokenLogprob(token=chosen.token or "", logprob=logprob, top=top)


def _usage(told: types.GenerateContentResponseUsageMetadata) -> Usage:
    thoughts = told.thoughts_token_count or 0
    return Usage(
        prompt_tokens=(told.prompt_token_count or 0) + (told.tool_use_prompt_token_count or 0),
        # Gemini counts these two apart.
        completion_tokens=(told.candidates_token_count or 0) + thoughts,
        cached_tokens=told.cached_content_token_count or 0,
        reasoning_tokens=thoughts,
    )


def _refusal(error: Exception, request: InferenceRequested, answer: Spoken) -> Refusal:
    if isinstance(error, UnknownApiResponseError | ValidationError):
        return failed("the provider's answer is not in its form")
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


def _json(arguments: Mapping[str, object]) -> str:
    return json.dumps(arguments, ensure_ascii=False)


def _their(call_id: str) -> str | None:
    return None if call_id.startswith(OWN_ID) else call_id


def _packed(signature: bytes | None) -> str:
    return SIGNED + urlsafe_b64encode(signature).decode() if signature else ""


def _unpacked(signature: str) -> bytes | None:
    try:
        return urlsafe_b64decode(signature) or None
    except ValueError:
        # An id that another provider gave.
        return None
