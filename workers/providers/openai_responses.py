"""Asks OpenAI's Responses API, which streams events by name and keeps nothing here (no store).

The form: https://platform.openai.com/docs/api-reference/responses.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from infra.dialling import SILENCE_S
from schemas.events import (
    Completion,
    Delta,
    FinishReason,
    InferenceRequested,
    Message,
    Reason,
    Refusal,
    Role,
    Tool,
    ToolCallDelta,
    Usage,
)
from schemas.kinds import ConnectionSpec
from schemas.openai import TOOL_CHOICES, listing, mapping, number, parsed, text
from workers.providers import ProviderRefused
from workers.providers.answer import Answer, failed
from workers.providers.chat import inner, logprobs_of, tokens_of
from workers.providers.checks import require_answerable
from workers.providers.openai_calls import Calls, answered
from workers.providers.options import read

PATH = "/responses"
# Why an answer is incomplete.
INCOMPLETE: dict[str, FinishReason] = {
    "content_filter": FinishReason.CONTENT_FILTER,
    "max_output_tokens": FinishReason.LENGTH,
}
# What an answer failed of, beside the server's own faults.
FAILURES: dict[str, Reason] = {
    "rate_limit_exceeded": Reason.RATE_LIMITED,
    "server_error": Reason.PROVIDER_UNAVAILABLE,
    "vector_store_timeout": Reason.PROVIDER_TIMEOUT,
}
# Sampling parameters that the API does not have.
UNKNOWN = ("frequency_penalty", "presence_penalty", "seed", "stop", "top_k")
LOGPROBS = "message.output_text.logprobs"


@dataclass(slots=True, frozen=True, kw_only=True)
class Options:
    """What a connection may say about such a server.

    Attributes:
        silence_s: Longest wait for the next byte.
        strict_tools: Whether the server is asked to keep tool calls to their schemas.
    """

    silence_s: float = SILENCE_S
    strict_tools: bool = False


class OpenAIResponses:
    """A dialect."""

    def __init__(self, calls: Calls, options: Options) -> None:
        self._calls = calls
        self._options = options

    async def complete(
        self, request: InferenceRequested, model: str, secret: str | None
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Yields the deltas as they arrive, and the Completion once the answer has ended well."""
        require_answerable(request)
        _require_known(request)
        body = response_body(request, model, strict_tools=self._options.strict_tools)
        events = self._calls.stream(PATH, body, secret)
        async with aclosing(answered(events, Response(model), request)) as pieces:
            async for piece in pieces:
                yield piece

    async def close(self) -> None:
        """Closes the connections."""
        await self._calls.close()


def open_openai_responses(connection: ConnectionSpec) -> OpenAIResponses:
    """Opens a server that speaks OpenAI's Responses API.

    Raises:
        ValueError: The connection has options that do not belong there.
    """
    options = read(connection, Options)
    return OpenAIResponses(Calls(connection, silence_s=options.silence_s), options)


def response_body(
    request: InferenceRequested, model: str, *, strict_tools: bool
) -> dict[str, object]:
    """Returns the body that asks for a streamed response.

    Args:
        request: The request; what it leaves open is left out.
        model: The model as the server names it.
        strict_tools: Whether the server is asked to keep tool calls to their schemas.
    """
    sampling = request.sampling
    given: dict[str, object | None] = {
        "max_output_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_logprobs": sampling.top_logprobs,
        "top_p": sampling.top_p,
    }
    body: dict[str, object] = {
        "model": model,
        "input": [item for message in request.messages for item in _items(message)],
        "stream": True,
        "store": False,
        **{name: value for name, value in given.items() if value is not None},
    }
    if sampling.top_logprobs is not None:
        body["include"] = [LOGPROBS]
    if request.json_schema is not None:
        form = {"name": "completion", "schema": parsed(request.json_schema), "strict": True}
        body["text"] = {"format": {"type": "json_schema", **form}}
    if request.tools:
        body["tools"] = [_tool(tool, strict=strict_tools) for tool in request.tools]
        body["tool_choice"] = (
            request.tool_choice
            if request.tool_choice in TOOL_CHOICES
            else {"type": "function", "name": request.tool_choice}
        )
    return body


@dataclass(slots=True)
class Response(Answer):
    """A response as far as its events have come."""

    _places: dict[int, int] = field(default_factory=dict)

    def take(self, event: object) -> Delta | None:
        """Adds one event and returns what it brings, or None where that is nothing.

        Raises:
            FormInvalid: The event is not in the form.
            ProviderRefused: The response has failed, or is larger than any event may carry.
        """
        form = mapping(event, "event")
        self.begun = True
        take = TAKES.get(text(form.get("type"), "type"))
        return take(self, form) if take else None

    def take_text(self, form: Mapping[str, object]) -> Delta | None:
        """Takes text; a model that declines says so in events of its own."""
        for entry in listing(form.get("logprobs"), "logprobs"):
            self.logprobs.extend(logprobs_of({"content": [entry]}))
        return self.grow(text(form.get("delta"), "delta"))

    def take_item(self, form: Mapping[str, object]) -> Delta | None:
        """Takes the begin of an item, which may be a call."""
        item = mapping(form.get("item"), "item")
        if item.get("type") != "function_call":
            return None
        piece = ToolCallDelta(
            index=self._place(form),
            id=text(item.get("call_id"), "call_id"),
            name=text(item.get("name"), "name"),
            arguments=text(item.get("arguments"), "arguments"),
        )
        return self.grow(calls=(piece,))

    def take_arguments(self, form: Mapping[str, object]) -> Delta | None:
        """Takes a piece of a call's arguments."""
        arguments = text(form.get("delta"), "delta")
        return self.grow(calls=(ToolCallDelta(index=self._place(form), arguments=arguments),))

    def take_begin(self, form: Mapping[str, object]) -> Delta | None:
        """Takes the model that answers."""
        self._told(form)
        return None

    def take_end(self, form: Mapping[str, object]) -> Delta | None:
        """Takes the end of a response that is whole."""
        self._told(form)
        self.finish_reason = FinishReason.TOOL_CALLS if self._places else FinishReason.STOP
        return None

    def take_cut(self, form: Mapping[str, object]) -> Delta | None:
        """Takes the end of a response that is not."""
        response = self._told(form)
        why = inner(response, "incomplete_details")
        reason = text(why.get("reason"), "reason")
        if reason not in INCOMPLETE:
            raise ProviderRefused(failed("the provider did not complete its answer"), self.usage)
        self.finish_reason = INCOMPLETE[reason]
        return None

    def take_failure(self, form: Mapping[str, object]) -> Delta | None:
        """Takes that there will be no response."""
        response = self._told(form)
        error = inner(response, "error")
        raise ProviderRefused(_failure(error), self.usage)

    def take_error(self, form: Mapping[str, object]) -> Delta | None:
        """Takes that the stream has failed."""
        raise ProviderRefused(_failure(form), self.usage)

    def _told(self, form: Mapping[str, object]) -> Mapping[str, object]:
        response = mapping(form.get("response"), "response")
        self.model = text(response.get("model"), "model") or self.model
        if response.get("usage") is not None:
            self.usage = _usage(mapping(response["usage"], "usage"))
        return response

    def _place(self, form: Mapping[str, object]) -> int:
        """Returns which of the calls an event is about: other items are numbered among them."""
        index = int(number(form.get("output_index"), "output_index"))
        return self._places.setdefault(index, len(self._places))


TAKES: dict[str, Callable[[Response, Mapping[str, object]], Delta | None]] = {
    "error": Response.take_error,
    "response.completed": Response.take_end,
    "response.created": Response.take_begin,
    "response.failed": Response.take_failure,
    "response.function_call_arguments.delta": Response.take_arguments,
    "response.incomplete": Response.take_cut,
    "response.output_item.added": Response.take_item,
    "response.output_text.delta": Response.take_text,
    "response.refusal.delta": Response.take_text,
}


def _require_known(request: InferenceRequested) -> None:
    for name in UNKNOWN:
        if getattr(request.sampling, name) not in {None, ()}:
            raise ProviderRefused(
                Refusal(
                    reason=Reason.ROUTE_UNFIT,
                    message=f"the provider behind this route takes no {name}",
                    field=f"sampling.{name}",
                )
            )


def _items(message: Message) -> Iterator[dict[str, object]]:
    if message.role is Role.TOOL:
        yield {
            "type": "function_call_output",
            "call_id": message.tool_call_id or "",
            "output": message.content,
        }
        return
    if message.content or not message.tool_calls:
        yield {"role": message.role.lower(), "content": message.content}
    for call in message.tool_calls:
        yield {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
        }


def _tool(tool: Tool, *, strict: bool) -> dict[str, object]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": parsed(tool.parameters),
        "strict": strict,
    }


def _failure(error: Mapping[str, object]) -> Refusal:
    reason = FAILURES.get(text(error.get("code"), "code"), Reason.PROVIDER_FAILED)
    return Refusal(reason=reason, message="the provider reports that its answer failed")


def _usage(form: Mapping[str, object]) -> Usage:
    read_of = inner(form, "input_tokens_details")
    said_of = inner(form, "output_tokens_details")
    return Usage(
        prompt_tokens=tokens_of(form, "input_tokens"),
        completion_tokens=tokens_of(form, "output_tokens"),
        cached_tokens=tokens_of(read_of, "cached_tokens"),
        reasoning_tokens=tokens_of(said_of, "reasoning_tokens"),
    )
