"""Asks Amazon Bedrock's Converse API, or whatever speaks it.

Amazon's own botocore signs the calls and takes the binary event stream apart; the calls themselves
go over the same HTTP client as those of every other dialect, since botocore would block and look
for credentials wherever it may. Knows the form of the requests, events and errors
(https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html).

The connection's user is an access key's id and its secret the key, and behind white space a session
token where there is one. Without a user the secret is a Bedrock API key.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal
from urllib.parse import quote

import httpx2
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.eventstream import EventStreamBuffer, ParserError

from infra.dialling import SILENCE_S
from schemas.events import (
    Completion,
    Delta,
    FinishReason,
    InferenceRequested,
    Message,
    Refusal,
    Role,
    Task,
    Tool,
    ToolCall,
    Usage,
)
from schemas.kinds import ConnectionSpec
from schemas.openai import listing, mapping, number, parsed, text
from workers.providers import ProviderRefused
from workers.providers.answer import failed
from workers.providers.calls import (
    BROKEN,
    MALFORMED,
    Complained,
    broken,
    complained,
    headed,
    plain_client,
    read_complaint,
)
from workers.providers.chat import inner, tokens_of
from workers.providers.checks import require_answerable
from workers.providers.figures import embedded
from workers.providers.options import read
from workers.providers.turns import (
    Offer,
    Spoken,
    invalid,
    offer,
    require_drawable,
    system_text,
    turns,
)

TASKS = frozenset({Task.CHAT, Task.EMBEDDING})
LACKS = frozenset({"frequency_penalty", "presence_penalty", "seed", "top_k", "top_logprobs"})
HEADERS = ("authorization", "x-amz-date", "x-amz-security-token")
CHOICES: dict[str, dict[str, object]] = {"auto": {"auto": {}}, "required": {"any": {}}}
FINISH_REASONS: dict[str, FinishReason] = {
    "content_filtered": FinishReason.CONTENT_FILTER,
    "end_turn": FinishReason.STOP,
    "guardrail_intervened": FinishReason.CONTENT_FILTER,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "stop_sequence": FinishReason.STOP,
    "tool_use": FinishReason.TOOL_CALLS,
}
# With these the model failed to say what it was about to say.
GIVEN_UP = frozenset({"malformed_model_output", "malformed_tool_use"})
# What status an exception has, whether it comes in the stream or with another status of its own.
EXCEPTIONS: dict[str, int] = {
    "AccessDeniedException": 403,
    "ExpiredTokenException": 403,
    "IncompleteSignature": 403,
    "InternalServerException": 500,
    "InvalidSignatureException": 403,
    "ModelErrorException": 502,
    "ModelNotReadyException": 503,
    "ModelStreamErrorException": 502,
    "ModelTimeoutException": 408,
    "ResourceNotFoundException": 404,
    "ServiceQuotaExceededException": 429,
    "ServiceUnavailableException": 503,
    "ThrottlingException": 429,
    "UnrecognizedClientException": 403,
    "ValidationException": 400,
}
# The one thing that Bedrock calls invalid and that is not the caller's.
NO_MODEL = "model identifier is invalid"


@dataclass(slots=True, frozen=True, kw_only=True)
class Options:
    """What a connection may say beside its address.

    Attributes:
        region: Where the address is; calls are signed for it.
        input_type: What texts are embedded for, to models of Cohere's.
        json_schema: How schemas go there; ``tool`` is for models that know no structured output.
        silence_s: Longest wait for the next byte.
    """

    region: str
    input_type: str = "search_document"
    json_schema: Literal["native", "tool"] = "native"
    silence_s: float = SILENCE_S


class Blocks:
    """How the blocks of a turn are written."""

    def said(self, text: str) -> dict[str, object]:
        """Returns a text block."""
        return {"text": text}

    def called(self, call: ToolCall, arguments: Mapping[str, object]) -> dict[str, object]:
        """Returns a tool use block."""
        return {"toolUse": {"toolUseId": call.id, "name": call.name, "input": arguments}}

    def answered(self, message: Message, call_id: str, tool: str) -> dict[str, object]:
        """Returns a tool result block."""
        return {"toolResult": {"toolUseId": call_id, "content": [{"text": message.content}]}}


class Bedrock:
    """Bedrock behind one connection."""

    def __init__(self, client: httpx2.AsyncClient, user: str, options: Options) -> None:
        self._client = client
        self._user = user
        self._options = options

    async def complete(
        self, request: InferenceRequested, model: str, secret: str | None
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Yields the deltas as they arrive, and the Completion once the stream has ended well."""
        require_answerable(request, TASKS)
        answer = Spoken(model)
        try:
            if request.task is Task.EMBEDDING:
                yield await self._embedded(request, model, secret)
                return
            require_drawable(request, LACKS)
            native = self._options.json_schema == "native"
            offered = offer(request, native=native)
            answer = Spoken(model, answer_tool=offered.answers)
            body = _body(request, offered, native=native)
            call = self._call(model, "converse-stream", body, secret)
            async with aclosing(self._events(call)) as events:
                async for kind, event in events:
                    for delta in _take(kind, event, answer):
                        yield delta
        except (Complained, ParserError, *BROKEN, *MALFORMED) as error:
            raise ProviderRefused(_refusal(error, request, answer), answer.usage) from None
        for piece in answer.rest(request):
            yield piece

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def _events(
        self, call: httpx2.Request
    ) -> AsyncGenerator[tuple[str, Mapping[str, object]], None]:
        """Yields the events of a stream by their kinds.

        Raises:
            Complained: There is no stream, or an exception in it.
            ParserError: A frame is damaged.
        """
        async with aclosing(await self._client.send(call, stream=True)) as response:
            await _require_answered(response)
            frames = EventStreamBuffer()
            async for chunk in response.aiter_bytes():
                frames.add_data(chunk)
                for frame in frames:
                    yield _event(frame.headers, frame.payload)

    async def _embedded(
        self, request: InferenceRequested, model: str, secret: str | None
    ) -> Completion:
        """Returns the vectors by a model of Cohere's in one call, by Amazon's in one for each."""
        if "cohere." in model:
            body = {"texts": request.inputs, "input_type": self._options.input_type}
            answer = await self._invoked(model, body, secret)
            return embedded(request, model, listing(_vectors_of_cohere(answer), "embeddings"), None)
        answers = [
            await self._invoked(model, {"inputText": text}, secret) for text in request.inputs
        ]
        read = sum(tokens_of(answer, "inputTextTokenCount") for answer in answers)
        return embedded(request, model, [answer.get("embedding") for answer in answers], read)

    async def _invoked(
        self, model: str, body: Mapping[str, object], secret: str | None
    ) -> Mapping[str, object]:
        call = self._call(model, "invoke", body, secret)
        async with aclosing(await self._client.send(call, stream=True)) as response:
            await _require_answered(response)
            await response.aread()
        return mapping(response.json(), "answer")

    def _call(
        self, model: str, action: str, body: Mapping[str, object], secret: str | None
    ) -> httpx2.Request:
        content = json.dumps(body).encode()
        # Names hold colons, and those of inference profiles slashes.
        path = f"/model/{quote(model, safe='')}/{action}"
        url = f"{str(self._client.base_url).rstrip('/')}{path}"
        headers = {"Content-Type": "application/json"}
        if secret and not self._user:
            headers["Authorization"] = f"Bearer {headed(secret)}"
        elif secret:
            key, *token = secret.split(maxsplit=1)
            signed = AWSRequest("POST", url, headers, content)
            credentials = Credentials(self._user, key, headed(token[0]) if token else None)
            SigV4Auth(credentials, "bedrock", self._options.region).add_auth(signed)
            headers = dict(signed.headers)
        return self._client.build_request("POST", url, content=content, headers=headers)


def open_bedrock(connection: ConnectionSpec) -> Bedrock:
    """Opens a connection, whose address ends before ``/model/``; nothing is sent yet.

    Raises:
        ValueError: An option is missing, unknown, or not of its kind.
    """
    options = read(connection, Options)
    client = plain_client(connection, *HEADERS, silence_s=options.silence_s)
    return Bedrock(client, connection.user, options)


def _body(request: InferenceRequested, offered: Offer, *, native: bool) -> dict[str, object]:
    sampling = request.sampling
    drawn = {
        "maxTokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "topP": sampling.top_p,
        "stopSequences": list(sampling.stop) or None,
    }
    body: dict[str, object] = {
        "messages": [
            {"role": "assistant" if turn.model else "user", "content": turn.blocks}
            for turn in turns(request, Blocks())
        ],
        "inferenceConfig": {name: value for name, value in drawn.items() if value is not None},
    }
    if system := system_text(request):
        body["system"] = [{"text": system}]
    if request.json_schema is not None and native:
        schema = {"schema": request.json_schema, "name": "completion"}
        form = {"type": "json_schema", "structure": {"jsonSchema": schema}}
        body["outputConfig"] = {"textFormat": form}
    if offered.tools and offered.choice != "none":
        choice = CHOICES.get(offered.choice, {"tool": {"name": offered.choice}})
        tools = [_tool(tool) for tool in offered.tools]
        body["toolConfig"] = {"tools": tools, "toolChoice": choice}
    elif any(turn.role is Role.TOOL or turn.tool_calls for turn in request.messages):
        # Bedrock wants the tools of such a conversation, and then cannot be kept from calling them.
        raise invalid("tool_choice", "this provider goes on from tool calls only with tools")
    return body


def _tool(tool: Tool) -> dict[str, object]:
    spec: dict[str, object] = {
        "name": tool.name,
        "inputSchema": {"json": parsed(tool.parameters)},
    }
    # An empty one is refused.
    return {"toolSpec": {**spec, "description": tool.description} if tool.description else spec}


def _event(headers: Mapping[str, object], payload: bytes) -> tuple[str, Mapping[str, object]]:
    """Returns the kind of a frame and what it says.

    Raises:
        Complained: It is an exception.
    """
    match headers.get(":message-type"):
        case "exception":
            kind = str(headers.get(":exception-type"))
            said = mapping(json.loads(payload or b"{}"), kind)
            # In a stream they begin with a small letter.
            status = EXCEPTIONS.get(f"{kind[:1].upper()}{kind[1:]}", 500)
            raise Complained(status, str(said.get("message") or ""))
        case "error":
            raise Complained(500, str(headers.get(":error-message") or ""))
    return str(headers.get(":event-type")), mapping(json.loads(payload or b"{}"), "event")


async def _require_answered(response: httpx2.Response) -> None:
    """Makes sure that a call was answered.

    Raises:
        Complained: It was not.
    """
    if response.status_code == HTTPStatus.OK:
        return
    said = await read_complaint(response)
    kind = response.headers.get("x-amzn-errortype", "").partition(":")[0]
    message = str(said.get("message") or said.get("Message") or "")
    status = EXCEPTIONS.get(kind, response.status_code)
    if NO_MODEL in message:
        status = HTTPStatus.NOT_FOUND
    raise Complained(status, message, response.headers)


def _take(kind: str, event: Mapping[str, object], answer: Spoken) -> Iterator[Delta]:
    """Adds one event of the stream and yields what it brings.

    Raises:
        FormInvalid: The event is not in the form.
        ProviderRefused: The model has given up.
    """
    answer.begun = True
    place = int(number(event.get("contentBlockIndex"), "contentBlockIndex"))
    match kind:
        case "contentBlockStart":
            if tool := inner(inner(event, "start"), "toolUse"):
                call_id, name = text(tool.get("toolUseId"), "toolUseId"), text(tool["name"], "name")
                yield from answer.call(place, call_id=call_id, name=name)
        case "contentBlockDelta":
            delta = inner(event, "delta")
            yield from answer.say(text(delta.get("text"), "text"))
            if piece := text(inner(delta, "toolUse").get("input"), "input"):
                yield from answer.call(place, arguments=piece)
        case "messageStop":
            reason = text(event.get("stopReason"), "stopReason")
            if reason in GIVEN_UP:
                said = reason.replace("_", " ")
                raise ProviderRefused(failed(f"the model gave up: {said}"), answer.usage)
            answer.finish_reason = FINISH_REASONS.get(reason, FinishReason.UNKNOWN)
        case "metadata":
            answer.usage = _usage(inner(event, "usage"))


def _usage(told: Mapping[str, object]) -> Usage:
    cached = tokens_of(told, "cacheReadInputTokens")
    written = tokens_of(told, "cacheWriteInputTokens")
    return Usage(
        # Bedrock counts these three apart.
        prompt_tokens=tokens_of(told, "inputTokens") + cached + written,
        completion_tokens=tokens_of(told, "outputTokens"),
        cached_tokens=cached,
        cache_write_tokens=written,
    )


def _vectors_of_cohere(answer: Mapping[str, object]) -> object:
    """Returns the vectors; newer models name the kind of their numbers."""
    found = answer.get("embeddings")
    return found.get("float") if isinstance(found, Mapping) else found


def _refusal(error: Exception, request: InferenceRequested, answer: Spoken) -> Refusal:
    match error:
        case Complained():
            return complained(request, error.status, error.message, error.headers)
        case ParserError():
            return failed("the provider's answer is not in its form")
    return broken(error, begun=answer.begun)
