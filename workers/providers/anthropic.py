"""Asks Anthropic's Messages API, or whatever speaks it, through Anthropic's own client.

Knows the form of the requests, events and errors (https://docs.anthropic.com/en/api/messages). No
seed, penalties or log probabilities exist there, so requests for them are refused. Thinking is not
asked for, and not passed on where a model thinks all the same.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from anthropic import (
    APIConnectionError,
    APIError,
    APIStatusError,
    AsyncAnthropic,
    AsyncStream,
    Omit,
)

from infra.dialling import SILENCE_S
from schemas.events import (
    Completion,
    Delta,
    FinishReason,
    InferenceRequested,
    Message,
    Refusal,
    Tool,
    ToolCall,
    Usage,
)
from schemas.kinds import ConnectionSpec
from schemas.openai import mapping, number, parsed, text
from workers.providers import ProviderRefused
from workers.providers.answer import failed
from workers.providers.calls import (
    BROKEN,
    MALFORMED,
    broken,
    complained,
    headed,
    is_json,
    plain_client,
)
from workers.providers.chat import inner, tokens_of
from workers.providers.checks import require_answerable
from workers.providers.http import count_skipped
from workers.providers.options import read
from workers.providers.turns import (
    Offer,
    Spoken,
    offer,
    require_drawable,
    system_text,
    top_k,
    turns,
)

LACKS = frozenset({"frequency_penalty", "presence_penalty", "seed", "top_logprobs"})
CHOICES: dict[str, str] = {"auto": "auto", "none": "none", "required": "any"}
FINISH_REASONS: dict[str, FinishReason] = {
    "end_turn": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "refusal": FinishReason.CONTENT_FILTER,
    "stop_sequence": FinishReason.STOP,
    "tool_use": FinishReason.TOOL_CALLS,
}
REDIRECTS = 300
# What status an error in the stream would have had, by its type.
ERRORS: dict[str, int] = {
    "api_error": 500,
    "authentication_error": 401,
    "billing_error": 402,
    "invalid_request_error": 400,
    "not_found_error": 404,
    "overloaded_error": 529,
    "permission_error": 403,
    "rate_limit_error": 429,
    "request_too_large": 413,
    "timeout_error": 504,
}


@dataclass(slots=True, frozen=True, kw_only=True)
class Options:
    """What a connection may say beside its address.

    Attributes:
        api_version: The date that the form is of.
        max_tokens: Most tokens to produce where a request does not say: the form demands a number.
        json_schema: How schemas go there; ``tool`` is for models that know no structured output.
        silence_s: Longest wait for the next byte.
    """

    api_version: str = "2023-06-01"
    max_tokens: int = 4096
    json_schema: Literal["native", "tool"] = "native"
    silence_s: float = SILENCE_S


class Blocks:
    """How the blocks of a turn are written."""

    def said(self, text: str) -> dict[str, object]:
        """Returns a text block."""
        return {"type": "text", "text": text}

    def called(self, call: ToolCall, arguments: Mapping[str, object]) -> dict[str, object]:
        """Returns a tool use block."""
        return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}

    def answered(self, message: Message, call_id: str, tool: str) -> dict[str, object]:
        """Returns a tool result block."""
        return {"type": "tool_result", "tool_use_id": call_id, "content": message.content}


class Events(AsyncStream[object]):
    """A stream of which events that are no JSON are skipped; they say nothing, the others do."""

    async def _iter_events(self) -> AsyncIterator[Any]:
        skipped = 0
        async for event in super()._iter_events():
            if event.data and not is_json(event.data):
                skipped += 1
            else:
                yield event
        count_skipped(skipped)


class Anthropic:
    """Anthropic behind one connection."""

    def __init__(self, client: AsyncAnthropic, options: Options) -> None:
        self._client = client
        self._options = options

    async def complete(
        self, request: InferenceRequested, model: str, secret: str | None
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Yields the deltas as they arrive, and the Completion once the stream has ended well."""
        require_answerable(request)
        require_drawable(request, LACKS)
        offered = offer(request, native=self._options.json_schema == "native")
        body = self._body(request, model, offered)
        answer, counts = Spoken(model, answer_tool=offered.answers), dict[str, object]()
        try:
            async with await self._stream(body, secret) as stream:
                async for event in stream:
                    for delta in _take(event, answer, counts):
                        yield delta
        except (APIError, *BROKEN, *MALFORMED) as error:
            # The provider's own words may quote the prompt, so they must not ride along.
            raise ProviderRefused(_refusal(error, request, answer), answer.usage) from None
        for piece in answer.rest(request):
            yield piece

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def _stream(self, body: Mapping[str, object], secret: str | None) -> AsyncStream[object]:
        headers = {
            "anthropic-version": self._options.api_version,
            # The library takes what is here for a key: without it, it would look for one.
            "X-Api-Key": headed(secret) if secret else Omit(),
            "Authorization": Omit(),
        }
        return await self._client.post(
            "/v1/messages",
            cast_to=object,
            body=body,
            options={"headers": headers},
            stream=True,
            stream_cls=Events,
        )

    def _body(self, request: InferenceRequested, model: str, offered: Offer) -> dict[str, object]:
        sampling = request.sampling
        asked = sampling.max_tokens
        given: dict[str, object] = {
            "system": system_text(request) or None,
            "temperature": sampling.temperature,
            "top_k": top_k(sampling),
            "top_p": sampling.top_p,
            "stop_sequences": list(sampling.stop) or None,
            **_tools(offered),
        }
        if request.json_schema is not None and self._options.json_schema == "native":
            schema = parsed(request.json_schema)
            given["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        return {
            "model": model,
            "max_tokens": self._options.max_tokens if asked is None else asked,
            "messages": [
                {"role": "assistant" if turn.model else "user", "content": turn.blocks}
                for turn in turns(request, Blocks())
            ],
            "stream": True,
            **{name: value for name, value in given.items() if value is not None},
        }


def open_anthropic(connection: ConnectionSpec) -> Anthropic:
    """Opens a connection, whose address ends before ``/v1/messages``; nothing is sent yet.

    Raises:
        ValueError: An option is unknown, or not of its kind.
    """
    options = read(connection, Options)
    headers = ("anthropic-version", "x-api-key")
    client = AsyncAnthropic(
        api_key="",
        base_url=connection.url,
        max_retries=0,
        open_telemetry=False,
        http_client=plain_client(connection, *headers, silence_s=options.silence_s),
    )
    return Anthropic(client, options)


def _tools(offered: Offer) -> dict[str, object]:
    if not offered.tools:
        return {}
    kind = CHOICES.get(offered.choice)
    choice: dict[str, object] = {"type": kind} if kind else {"type": "tool", "name": offered.choice}
    if offered.answers:
        # There is one answer.
        choice["disable_parallel_tool_use"] = True
    return {"tools": [_tool(tool) for tool in offered.tools], "tool_choice": choice}


def _tool(tool: Tool) -> dict[str, object]:
    return {
        "name": tool.name,
        "description": tool.description,
        "input_schema": parsed(tool.parameters),
    }


def _take(event: object, answer: Spoken, counts: dict[str, object]) -> Iterator[Delta]:
    """Adds one event of the stream and yields what it brings.

    Raises:
        FormInvalid: The event is not in the form.
    """
    form = mapping(event, "event")
    answer.begun = True
    match form.get("type"):
        case "message_start":
            message = mapping(form.get("message"), "message")
            answer.model = text(message.get("model"), "model") or answer.model
            _count(message.get("usage"), answer, counts)
        case "content_block_start":
            block = mapping(form.get("content_block"), "content_block")
            yield from _begin(_place(form), block, answer)
        case "content_block_delta":
            yield from _grow(_place(form), mapping(form.get("delta"), "delta"), answer)
        case "message_delta":
            delta = mapping(form.get("delta"), "delta")
            if reason := text(delta.get("stop_reason"), "stop_reason"):
                answer.finish_reason = FINISH_REASONS.get(reason, FinishReason.UNKNOWN)
            _count(form.get("usage"), answer, counts)


def _begin(place: int, block: Mapping[str, object], answer: Spoken) -> Iterator[Delta]:
    match block.get("type"):
        case "text":
            yield from answer.say(text(block.get("text"), "text"))
        case "tool_use":
            call_id, name = text(block.get("id"), "id"), text(block.get("name"), "name")
            yield from answer.call(place, call_id=call_id, name=name)


def _grow(place: int, delta: Mapping[str, object], answer: Spoken) -> Iterator[Delta]:
    match delta.get("type"):
        case "text_delta":
            yield from answer.say(text(delta.get("text"), "text"))
        case "input_json_delta":
            yield from answer.call(place, arguments=text(delta.get("partial_json"), "partial_json"))


def _place(form: Mapping[str, object]) -> int:
    return int(number(form.get("index"), "index"))


def _count(usage: object, answer: Spoken, counts: dict[str, object]) -> None:
    """Takes what is told of the tokens; a later figure counts the earlier one in."""
    told = mapping(usage or {}, "usage")
    counts.update({name: value for name, value in told.items() if value is not None})
    cached = tokens_of(counts, "cache_read_input_tokens")
    written = tokens_of(counts, "cache_creation_input_tokens")
    details = inner(counts, "output_tokens_details")
    answer.usage = Usage(
        # Anthropic counts these three apart.
        prompt_tokens=tokens_of(counts, "input_tokens") + cached + written,
        completion_tokens=tokens_of(counts, "output_tokens"),
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=tokens_of(details, "thinking_tokens"),
    )


def _refusal(error: Exception, request: InferenceRequested, answer: Spoken) -> Refusal:
    match error:
        case APIConnectionError():
            return broken(_cause(error), begun=answer.begun)
        case APIStatusError():
            body = error.body if isinstance(error.body, Mapping) else {}
            told = body.get("error")
            said = told if isinstance(told, Mapping) else {}
            status, message = ERRORS.get(str(said.get("type"))), str(said.get("message") or "")
            if "credit balance" in message:
                status = ERRORS["billing_error"]
            # An error of no known type comes with the status of the stream that it stands in.
            status = status or (error.status_code if error.status_code >= REDIRECTS else 500)
            return complained(request, status, message, error.response.headers)
        case APIError():
            return failed("the provider reported an error in the middle of its answer")
    return broken(error, begun=answer.begun)


def _cause(error: Exception) -> Exception:
    return error.__cause__ if isinstance(error.__cause__, Exception) else error
