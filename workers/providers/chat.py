"""What providers share that speak OpenAI's chat form: the body sent, the stream and errors read.

Knows the form, the events and which refusal fits which complaint; knows no network, no clock and
no library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

from schemas.events import (
    Alternative,
    Completion,
    Delta,
    FinishReason,
    InferenceRequested,
    Reason,
    Refusal,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from schemas.openai import (
    FINISH_REASONS,
    FormInvalid,
    listing,
    mapping,
    number,
    request_to_openai,
    text,
)
from workers.providers.answer import Answer, whole
from workers.providers.turns import ANSWER

# Which field of the request a parameter of the form comes from.
FIELDS: dict[str, str] = {
    "frequency_penalty": "sampling.frequency_penalty",
    "input_text": "messages",
    "input_tokens": "messages",
    "logprobs": "sampling.top_logprobs",
    "max_completion_tokens": "sampling.max_tokens",
    "max_tokens": "sampling.max_tokens",
    "messages": "messages",
    "model": "endpoint",
    "presence_penalty": "sampling.presence_penalty",
    "response_format": "json_schema",
    "seed": "sampling.seed",
    "stop": "sampling.stop",
    "structured_outputs": "json_schema",
    "temperature": "sampling.temperature",
    "tool_choice": "tool_choice",
    "tools": "tools",
    "top_k": "sampling.top_k",
    "top_logprobs": "sampling.top_logprobs",
    "top_p": "sampling.top_p",
}
CONTEXT = re.compile(r"maximum context length|context_length_exceeded|exceeds.*context", re.I)
GRAMMAR = re.compile(r"schema|grammar|structural|xgrammar", re.I)
VALUE = re.compile(r" \(parameter=.*\)$")
# vLLM's finish reasons for what it did not finish.
GIVEN_UP = frozenset({"abort", "error"})
INVALID = frozenset({400, 422})
STATUSES: dict[int, tuple[Reason, str, str | None]] = {
    401: (Reason.PROVIDER_FAILED, "the provider does not accept the platform's key", None),
    403: (Reason.PROVIDER_FAILED, "the provider does not accept the platform's key", None),
    # Another route may have it, under the name that it has there.
    404: (Reason.PROVIDER_FAILED, "the provider has no such model", None),
    408: (Reason.PROVIDER_TIMEOUT, "the provider did not answer in time", None),
    413: (Reason.REQUEST_TOO_LARGE, "the provider takes no request this large", "messages"),
    429: (Reason.RATE_LIMITED, "the provider takes no more requests for now", None),
    504: (Reason.PROVIDER_TIMEOUT, "the provider did not answer in time", None),
}
SERVER_ERRORS = 500
MOST_TOKENS = 10**9
QUOTED_CHARACTERS = 300
# So many characters in a row of the request are a quotation; so few alone give nothing away.
ECHO_CHARACTERS = 16
WORD_CHARACTERS = 4


def streaming_body(
    request: InferenceRequested, model: str, *, strict_tools: bool
) -> dict[str, object]:
    """Returns the body that asks for a stream which ends with the usage.

    Args:
        request: The request.
        model: The model as the server names it.
        strict_tools: Whether the server is asked to keep tool calls to their schemas. vLLM lets
            even required calls break them otherwise; OpenAI takes only some schemas so.
    """
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    body = {**request_to_openai(request, model), **stream}
    for tool in listing(body.get("tools"), "tools") if strict_tools else ():
        cast(dict[str, dict[str, object]], tool)["function"]["strict"] = True
    return body


class Transcript(Answer):
    """A completion as far as its stream of chunks has come.

    Args:
        model: The model as asked.
        answer_tool: Whether the arguments of the tool ``answer`` are the content, and nothing else.
    """

    def __init__(self, model: str, *, answer_tool: bool = False) -> None:
        super().__init__(model)
        self._answer_tool = answer_tool
        # Indexes of the calls whose arguments are the content.
        self._contents: set[int] = set()

    def completion(self) -> Completion:
        """Returns the whole completion.

        Raises:
            ProviderRefused: The stream ended before the completion did.
        """
        told = super().completion()
        if self._contents and not told.tool_calls and told.finish_reason is FinishReason.TOOL_CALLS:
            return replace(told, finish_reason=FinishReason.STOP)
        return told

    def take(self, chunk: object) -> Delta | None:
        """Adds one chunk of the stream and returns what it brings, or None where that is nothing.

        Raises:
            FormInvalid: The chunk is not in the form.
            ProviderRefused: The answer is larger than any event may carry.
        """
        form = mapping(chunk, "chunk")
        self.begun = True
        self.model = text(form.get("model"), "model") or self.model
        if form.get("usage") is not None:
            self.usage = usage_of(mapping(form["usage"], "usage"))
        for choice in listing(form.get("choices"), "choices"):
            # One choice was asked for: a second one would be another completion.
            return self._take_choice(mapping(choice, "choices[0]"))
        return None

    def _take_choice(self, choice: Mapping[str, object]) -> Delta | None:
        reason = text(choice.get("finish_reason"), "finish_reason")
        if reason and reason not in GIVEN_UP:
            self.finish_reason = FINISH_REASONS.get(reason, FinishReason.UNKNOWN)
        if choice.get("logprobs") is not None:
            self.logprobs.extend(logprobs_of(mapping(choice["logprobs"], "logprobs")))
        form = inner(choice, "delta")
        # A model that declines says so in a field of its own; to the caller it is what was said.
        content = text(form.get("content"), "content") + text(form.get("refusal"), "refusal")
        said = listing(form.get("tool_calls"), "tool_calls")
        pieces = [_piece(piece, place) for place, piece in enumerate(said)]
        if not self._answer_tool:
            return self.grow(content, pieces)
        self._contents |= {piece.index for piece in pieces if piece.name == ANSWER}
        answers = [piece.arguments for piece in pieces if piece.index in self._contents]
        calls = [piece for piece in pieces if piece.index not in self._contents]
        # Beside a tool that is demanded, text is the model's talk about it.
        return self.grow("".join(answers), calls)


@dataclass(slots=True, frozen=True, kw_only=True)
class Complaint:
    """What an OpenAI-compatible server says when it gives no completion.

    Attributes:
        status: HTTP status.
        message: Its words; they may quote the prompt.
        param: The parameter of the form at fault.
        code: Its machine-readable kind, such as ``context_length_exceeded``.
    """

    status: int
    message: str = ""
    param: str = ""
    code: str = ""


def refusal(
    complaint: Complaint, request: InferenceRequested, retry_after_ms: int | None = None
) -> Refusal:
    """Returns what the caller is told about a server's complaint, without the server's secrets."""
    if complaint.status in INVALID:
        return _invalid(complaint, request)
    reason, message, at_fault = STATUSES.get(complaint.status) or _unlisted(complaint.status)
    return Refusal(reason=reason, message=message, field=at_fault, retry_after_ms=retry_after_ms)


def quotable(message: str, request: InferenceRequested) -> str:
    """Returns a server's words cut to 300 characters, or nothing where they quote the request."""
    # vLLM appends the value at fault, whatever it is.
    said = VALUE.sub("", " ".join(message.split()))[:QUOTED_CHARACTERS]
    return "" if _echoes(said, request) else said


def _unlisted(status: int) -> tuple[Reason, str, str | None]:
    message = f"the provider answered with status {status}"
    if status >= SERVER_ERRORS:
        return Reason.PROVIDER_UNAVAILABLE, message, None
    return Reason.PROVIDER_FAILED, message, None


def _invalid(complaint: Complaint, request: InferenceRequested) -> Refusal:
    said = quotable(complaint.message, request)
    if CONTEXT.search(f"{complaint.code} {complaint.message}"):
        return Refusal(
            reason=Reason.CONTEXT_EXCEEDED,
            message=said or "the conversation is longer than the model's context",
            field="messages",
        )
    at_fault = _field(complaint, request)
    message = f"the provider refuses the request{f' for its {at_fault}' if at_fault else ''}"
    return Refusal(
        reason=Reason.REQUEST_INVALID,
        # Without a parameter at fault the words may be about anything, the prompt included.
        message=f"{message}: {said}" if said and at_fault else message,
        field=at_fault,
    )


def _field(complaint: Complaint, request: InferenceRequested) -> str | None:
    param = re.split(r"[.\[]", complaint.param)[0]
    if param in FIELDS:
        return FIELDS[param]
    # Not every server fills in the parameter; most then begin with its name, or quote it.
    for name in sorted(FIELDS, key=len, reverse=True):
        if re.search(rf"^\W*{name}\b|['\"`]{name}['\"`]", complaint.message):
            return FIELDS[name]
    if GRAMMAR.search(complaint.message):
        if request.json_schema is not None:
            return "json_schema"
        if request.tools:
            return "tools"
    return None


def _echoes(said: str, request: InferenceRequested) -> bool:
    given = "\n".join(" ".join(passage.split()) for passage in _passages(request))
    windows = range(max(1, len(said) - ECHO_CHARACTERS + 1))
    if len(said) >= ECHO_CHARACTERS and any(
        said[start : start + ECHO_CHARACTERS] in given for start in windows
    ):
        return True
    short = (passage for passage in given.split("\n") if len(passage) < ECHO_CHARACTERS)
    return any(passage in said for passage in short if len(passage) >= WORD_CHARACTERS)


def _passages(request: InferenceRequested) -> Iterator[str]:
    for message in request.messages:
        yield message.content
        yield message.name or ""
        for call in message.tool_calls:
            yield call.arguments
    for tool in request.tools:
        yield tool.description
        yield tool.parameters
    if request.json_schema is not None:
        yield request.json_schema
    yield request.query or ""
    yield from request.inputs
    yield from request.sampling.stop


def usage_of(form: Mapping[str, object]) -> Usage:
    """Returns the tokens of a ``usage`` object.

    Raises:
        FormInvalid: It is not in the form.
    """
    prompt = inner(form, "prompt_tokens_details")
    completion = inner(form, "completion_tokens_details")
    return Usage(
        prompt_tokens=tokens_of(form, "prompt_tokens"),
        completion_tokens=tokens_of(form, "completion_tokens"),
        cached_tokens=tokens_of(prompt, "cached_tokens"),
        reasoning_tokens=tokens_of(completion, "reasoning_tokens"),
    )


def _piece(piece: object, place: int) -> ToolCallDelta:
    form = mapping(piece, "tool_calls[]")
    function = inner(form, "function")
    return ToolCallDelta(
        index=place if form.get("index") is None else int(number(form["index"], "index")),
        id=text(form.get("id"), "id"),
        name=text(function.get("name"), "name"),
        arguments=text(function.get("arguments"), "arguments"),
    )


def inner(form: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Returns an object that another one holds; null is an empty one.

    Raises:
        FormInvalid: It is none.
    """
    return mapping(form.get(name) or {}, name)


def tokens_of(form: Mapping[str, object], name: str) -> int:
    """Returns a number of tokens; null is 0.

    Raises:
        FormInvalid: It is none, or more than can be.
    """
    tokens = number(form.get(name), name)
    if not 0 <= tokens <= MOST_TOKENS:
        raise FormInvalid(f"{name}: a number of tokens belongs here")
    return int(tokens)


def logprobs_of(form: Mapping[str, object]) -> Iterator[TokenLogprob]:
    """Yields the entries of a ``logprobs`` object, one a token.

    Raises:
        FormInvalid: It is not in the form.
    """
    for entry in listing(form.get("content"), "logprobs.content"):
        drawn = _alternative(entry)
        others = listing(mapping(entry, "logprobs.content[]").get("top_logprobs"), "top_logprobs")
        top = tuple(_alternative(other) for other in others)
        yield TokenLogprob(token=drawn.token, logprob=drawn.logprob, top=top)


def _alternative(entry: object) -> Alternative:
    form = mapping(entry, "logprobs[]")
    token, logprob = form.get("token"), form.get("logprob")
    return Alternative(token=whole(text(token, "token")), logprob=float(number(logprob, "logprob")))
