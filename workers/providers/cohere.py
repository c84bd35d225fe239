"""Asks Cohere's API (v2), or whatever speaks it: chat, embeddings, ranking.

Knows the form of the requests, events and errors (https://docs.cohere.com/reference/chat). Cohere's
own client is not used: it takes in a tokenizer, the client of a model hub and a second HTTP
library, over which addresses would have to be guarded anew. The messages are in OpenAI's form.

What is billed is what is told of tokens; Cohere bills ranking by searches and tells no tokens then.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Literal

import httpx2

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
    Task,
    Usage,
)
from schemas.kinds import ConnectionSpec
from schemas.openai import listing, mapping, number, parsed, request_to_openai, text
from workers.providers import ProviderRefused
from workers.providers.calls import (
    BROKEN,
    MALFORMED,
    Complained,
    broken,
    complained,
    events_of,
    headed,
    plain_client,
    read_complaint,
)
from workers.providers.chat import inner, tokens_of
from workers.providers.checks import require_answerable
from workers.providers.figures import embedded, ranked
from workers.providers.options import read
from workers.providers.turns import (
    Offer,
    Spoken,
    arguments_of,
    call_answered,
    offer,
    require_drawable,
    top_k,
)

TASKS = frozenset({Task.CHAT, Task.EMBEDDING, Task.RERANK})
# It tells the log probability of what is drawn, but of no alternatives.
LACKS = frozenset({"top_logprobs"})
FAULTS = (Complained, *BROKEN, *MALFORMED)
CHOICES: dict[str, str] = {"none": "NONE", "required": "REQUIRED"}
FINISH_REASONS: dict[str, FinishReason] = {
    "COMPLETE": FinishReason.STOP,
    "ERROR_TOXIC": FinishReason.CONTENT_FILTER,
    "MAX_TOKENS": FinishReason.LENGTH,
    "STOP_SEQUENCE": FinishReason.STOP,
    "TOOL_CALL": FinishReason.TOOL_CALLS,
}
# With these the model failed to say what it was about to say.
GIVEN_UP: dict[str, Reason] = {
    "ERROR": Reason.PROVIDER_FAILED,
    "TIMEOUT": Reason.PROVIDER_TIMEOUT,
}
# Cohere's own statuses, by those that HTTP has.
STATUSES: dict[int, int] = {498: 401}


@dataclass(slots=True, frozen=True, kw_only=True)
class Options:
    """What a connection may say beside its address.

    Attributes:
        input_type: What texts are embedded for: ``search_document``, ``search_query``,
            ``classification`` or ``clustering``.
        json_schema: How schemas go there; beside tools always as those of one more tool.
        silence_s: Longest wait for the next byte.
    """

    input_type: str = "search_document"
    json_schema: Literal["native", "tool"] = "native"
    silence_s: float = SILENCE_S


class Cohere:
    """Cohere behind one connection."""

    def __init__(self, client: httpx2.AsyncClient, options: Options) -> None:
        self._client = client
        self._options = options

    async def complete(
        self, request: InferenceRequested, model: str, secret: str | None
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Yields the deltas as they arrive, and the Completion once the stream has ended well."""
        require_answerable(request, TASKS)
        answer = Spoken(model)
        try:
            if request.task is not Task.CHAT:
                yield await self._figured(request, model, secret)
                return
            require_drawable(request, LACKS)
            # Cohere takes no schema beside tools.
            native = self._options.json_schema == "native" and not request.tools
            offered = offer(request, native=native)
            answer = Spoken(model, answer_tool=offered.answers)
            call = self._call("/v2/chat", _body(request, model, offered, native=native), secret)
            async with aclosing(self._events(call)) as events:
                async for event in events:
                    for delta in _take(event, answer):
                        yield delta
        except FAULTS as error:
            raise ProviderRefused(_refusal(error, request, answer), answer.usage) from None
        for piece in answer.rest(request):
            yield piece

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def _events(self, call: httpx2.Request) -> AsyncGenerator[object, None]:
        async with aclosing(await self._client.send(call, stream=True)) as response:
            await _require_answered(response)
            async with aclosing(events_of(response)) as events:
                async for event in events:
                    yield event

    async def _figured(
        self, request: InferenceRequested, model: str, secret: str | None
    ) -> Completion:
        if request.task is Task.RERANK:
            asked = {"model": model, "query": request.query, "documents": list(request.inputs)}
            told = await self._told("/v2/rerank", asked, secret)
            return ranked(request, model, listing(told.get("results"), "results"), Usage())
        body = {
            "model": model,
            "texts": list(request.inputs),
            "input_type": self._options.input_type,
            "embedding_types": ["float"],
        }
        told = await self._told("/v2/embed", body, secret)
        vectors = listing(inner(told, "embeddings").get("float"), "float")
        billed = inner(inner(told, "meta"), "billed_units")
        return embedded(request, model, vectors, tokens_of(billed, "input_tokens"))

    async def _told(
        self, path: str, body: Mapping[str, object], secret: str | None
    ) -> Mapping[str, object]:
        call = self._call(path, body, secret)
        async with aclosing(await self._client.send(call, stream=True)) as response:
            await _require_answered(response)
            await response.aread()
        return mapping(response.json(), "answer")

    def _call(self, path: str, body: Mapping[str, object], secret: str | None) -> httpx2.Request:
        headers = {"Authorization": f"Bearer {headed(secret)}"} if secret else {}
        return self._client.build_request("POST", path, json=body, headers=headers)


def open_cohere(connection: ConnectionSpec) -> Cohere:
    """Opens a connection, whose address ends before ``/v2/chat``; nothing is sent yet.

    Raises:
        ValueError: An option is unknown, or not of its kind.
    """
    options = read(connection, Options)
    client = plain_client(connection, "authorization", silence_s=options.silence_s)
    return Cohere(client, options)


def _body(
    request: InferenceRequested, model: str, offered: Offer, *, native: bool
) -> dict[str, object]:
    spoken = tuple(map(_turn, request.messages))
    form = request_to_openai(replace(request, messages=spoken, tools=offered.tools), model)
    sampling = request.sampling
    given: dict[str, object] = {
        "temperature": sampling.temperature,
        "p": sampling.top_p,
        "k": top_k(sampling),
        "max_tokens": sampling.max_tokens,
        "stop_sequences": list(sampling.stop) or None,
        "seed": sampling.seed,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        **_tools(form, offered),
    }
    if request.json_schema is not None and native:
        schema = parsed(request.json_schema)
        given["response_format"] = {"type": "json_object", "json_schema": schema}
    body = {name: value for name, value in given.items() if value is not None}
    return {"model": model, "messages": list(_messages(form)), "stream": True, **body}


def _turn(message: Message) -> Message:
    """Returns a turn without the name, for which Cohere has no place.

    Raises:
        ProviderRefused: The turn answers no call, or calls with what is no JSON object.
    """
    if message.role is Role.TOOL:
        call_answered(message)
    calls = tuple(
        replace(call, arguments=call.arguments if arguments_of(call) else "{}")
        for call in message.tool_calls
    )
    return replace(message, name=None, tool_calls=calls)


def _messages(form: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Yields the messages; one that only calls says nothing."""
    for message in listing(form["messages"], "messages"):
        said = mapping(message, "messages[]")
        silent = "tool_calls" in said and not said["content"]
        yield {name: value for name, value in said.items() if name != "content" or not silent}


def _tools(form: Mapping[str, object], offered: Offer) -> dict[str, object]:
    tools = listing(form.get("tools"), "tools")
    if not tools or offered.choice == "auto":
        return {"tools": tools or None}
    if offered.choice in CHOICES:
        return {"tools": tools, "tool_choice": CHOICES[offered.choice]}
    # No tool can be named: it is the only one.
    named = [
        tool
        for tool, known in zip(tools, offered.tools, strict=True)
        if known.name == offered.choice
    ]
    return {"tools": named, "tool_choice": CHOICES["required"]}


async def _require_answered(response: httpx2.Response) -> None:
    """Makes sure that a call was answered.

    Raises:
        Complained: It was not.
    """
    if response.status_code == HTTPStatus.OK:
        return
    said = await read_complaint(response)
    status = STATUSES.get(response.status_code, response.status_code)
    raise Complained(status, str(said.get("message") or ""), response.headers)


def _take(event: object, answer: Spoken) -> Iterator[Delta]:
    """Adds one event of the stream and yields what it brings.

    Raises:
        FormInvalid: The event is not in the form.
        ProviderRefused: The model has given up.
    """
    form = mapping(event, "event")
    answer.begun = True
    delta = inner(form, "delta")
    message = inner(delta, "message")
    match form.get("type"):
        case "content-start" | "content-delta":
            # What is thought stands in a field of its own.
            yield from answer.say(text(inner(message, "content").get("text"), "text"))
        case "tool-call-start" | "tool-call-delta":
            yield from _call(int(number(form.get("index"), "index")), message, answer)
        case "message-end":
            answer.usage = _usage(inner(delta, "usage"))
            reason = text(delta.get("finish_reason"), "finish_reason")
            if reason in GIVEN_UP:
                refusal = Refusal(reason=GIVEN_UP[reason], message="the model gave up")
                raise ProviderRefused(refusal, answer.usage)
            answer.finish_reason = FINISH_REASONS.get(reason, FinishReason.UNKNOWN)


def _call(place: int, message: Mapping[str, object], answer: Spoken) -> Iterator[Delta]:
    call = inner(message, "tool_calls")
    function = inner(call, "function")
    yield from answer.call(
        place,
        call_id=text(call.get("id"), "id"),
        name=text(function.get("name"), "name"),
        arguments=text(function.get("arguments"), "arguments"),
    )


def _usage(told: Mapping[str, object]) -> Usage:
    billed = inner(told, "billed_units") or inner(told, "tokens")
    read = tokens_of(billed, "input_tokens")
    return Usage(
        prompt_tokens=read,
        completion_tokens=tokens_of(billed, "output_tokens"),
        # Of all tokens, while not all of them are billed.
        cached_tokens=min(read, tokens_of(told, "cached_tokens")),
    )


def _refusal(error: Exception, request: InferenceRequested, answer: Spoken) -> Refusal:
    if isinstance(error, Complained):
        return complained(request, error.status, error.message, error.headers)
    return broken(error, begun=answer.begun)
