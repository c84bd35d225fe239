"""The OpenAI forms: what models, clients and the inference table speak.

Chat and embeddings are OpenAI's; it has no reranking, whose form is the one that Cohere began and
vLLM serves. Nor has it searches of and writes to an index, which keep to the form of
schemas/search.py. An agent is asked as a chat is; a tool's call is its arguments.

Knows the events and the form's field names; knows nothing of HTTP, tokens or time. Turning an
event into the form never fails. Reading the form fails with ``FormInvalid``, which names the place
and never the value: the value may be a prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite

from schemas.events import (
    Completion,
    FinishReason,
    InferenceRequested,
    Message,
    Role,
    Sampling,
    Task,
    TokenLogprob,
    Tool,
    ToolCall,
    Usage,
)

FINISH_REASONS: dict[str, FinishReason] = {
    "content_filter": FinishReason.CONTENT_FILTER,
    "function_call": FinishReason.TOOL_CALLS,
    "length": FinishReason.LENGTH,
    "stop": FinishReason.STOP,
    "tool_calls": FinishReason.TOOL_CALLS,
}
ROLES: dict[str, Role] = {
    "assistant": Role.ASSISTANT,
    "developer": Role.SYSTEM,
    "system": Role.SYSTEM,
    "tool": Role.TOOL,
    "user": Role.USER,
}
TOOL_CHOICES = frozenset({"auto", "none", "required"})
# Deeper than any schema of use, and far from where parsers give up.
MAX_NESTING = 100


class FormInvalid(ValueError):
    """Something is not in the form; the message names the place and what belongs there."""


def request_to_openai(request: InferenceRequested, model: str) -> dict[str, object]:
    """Returns the body of a request, in the form of what is asked for.

    A schema that is no JSON goes in as the text it is: refusing it is not this function's affair.

    Args:
        request: The request; what it leaves open is left out.
        model: The model as the reader of the body names it.
    """
    if request.task is Task.EMBEDDING:
        return {"model": model, "input": list(request.inputs)}
    if request.task is Task.RERANK:
        return {"model": model, "query": request.query, "documents": list(request.inputs)}
    if request.task is Task.SEARCH:
        return {"model": model, "query": request.query, "search": parsed(request.search or "")}
    if request.task is Task.TOOL:
        arguments = [parsed(each) for each in request.inputs]
        return {"model": model, "arguments": arguments[0] if len(arguments) == 1 else arguments}
    if request.task is Task.WRITE:
        return {"model": model, "write": parsed(request.search or "")}
    body: dict[str, object] = {
        "model": model,
        "messages": [_message(message) for message in request.messages],
        "stream": request.stream,
        **_sampling(request.sampling),
    }
    if request.json_schema is not None:
        form = {"name": "completion", "schema": parsed(request.json_schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        body["tool_choice"] = (
            request.tool_choice
            if request.tool_choice in TOOL_CHOICES
            else {"type": "function", "function": {"name": request.tool_choice}}
        )
    return body


def completion_to_openai(completion: Completion, request_id: str) -> dict[str, object]:
    """Returns an answer; ``created`` is left to whoever knows the time."""
    if completion.found is not None:
        return _found(completion, completion.found, request_id)
    if completion.vectors:
        return _embeddings(completion)
    if completion.scores:
        return _ranking(completion, request_id)
    message: dict[str, object] = {"role": "assistant", "content": completion.content}
    if completion.tool_calls:
        message["tool_calls"] = [_tool_call(call) for call in completion.tool_calls]
    logprobs = {"content": [_logprob(entry) for entry in completion.logprobs]}
    usage = completion.usage
    return {
        "id": request_id,
        "object": "chat.completion",
        "model": completion.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": completion.finish_reason.lower(),
                "logprobs": logprobs if completion.logprobs else None,
            }
        ],
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        },
    }


def messages_from_openai(messages: Sequence[Mapping[str, object]]) -> tuple[Message, ...]:
    """Returns the conversation that a chat completion request carries.

    Content may be text or a list of text parts; images and sound are refused.

    Raises:
        FormInvalid: A message is not in the form, or is not text.
    """
    return tuple(
        _read_message(message, f"messages[{index}]") for index, message in enumerate(messages)
    )


def parsed(document: str) -> object:
    """Returns what a JSON text says, or the text itself where not every reader would take it.

    That is: where it is no JSON, holds NaN, a number beyond a double or half a surrogate pair, or
    is nested deeper than ``MAX_NESTING``.
    """
    try:
        value = json.loads(document)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return document
    level = [value]
    for _ in range(MAX_NESTING + 1):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return value
    return document


def mapping(value: object, place: str) -> Mapping[str, object]:
    """Returns an object of the form.

    Raises:
        FormInvalid: It is none.
    """
    if not isinstance(value, Mapping):
        raise FormInvalid(f"{place}: an object belongs here")
    return value


def listing(value: object, place: str) -> Sequence[object]:
    """Returns a list of the form; null is an empty one.

    Raises:
        FormInvalid: It is neither.
    """
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise FormInvalid(f"{place}: a list belongs here")
    return value


def text(value: object, place: str) -> str:
    """Returns a text of the form; null is an empty one.

    Raises:
        FormInvalid: It is neither.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise FormInvalid(f"{place}: text belongs here")
    return value


def number(value: object, place: str) -> float:
    """Returns a finite number of the form; null is 0.

    Raises:
        FormInvalid: It is neither.
    """
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise FormInvalid(f"{place}: a number belongs here")
    return value


def _embeddings(completion: Completion) -> dict[str, object]:
    return {
        "object": "list",
        "model": completion.model,
        "data": [
            {"object": "embedding", "index": index, "embedding": list(vector)}
            for index, vector in enumerate(completion.vectors)
        ],
        "usage": _read(completion.usage),
    }


def _found(completion: Completion, found: str, request_id: str) -> dict[str, object]:
    return {
        "id": request_id,
        "model": completion.model,
        "found": parsed(found),
        "usage": _read(completion.usage),
    }


def _ranking(completion: Completion, request_id: str) -> dict[str, object]:
    return {
        "id": request_id,
        "model": completion.model,
        "results": [
            {"index": index, "relevance_score": score}
            for index, score in enumerate(completion.scores)
        ],
        "usage": _read(completion.usage),
    }


def _read(usage: Usage) -> dict[str, object]:
    total = usage.prompt_tokens + usage.completion_tokens
    return {"prompt_tokens": usage.prompt_tokens, "total_tokens": total}


def _message(message: Message) -> dict[str, object]:
    form: dict[str, object] = {"role": message.role.lower(), "content": message.content}
    if message.name is not None:
        form["name"] = message.name
    if message.tool_calls:
        form["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        form["tool_call_id"] = message.tool_call_id
    return form


def _tool_call(call: ToolCall) -> dict[str, object]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _tool(tool: Tool) -> dict[str, object]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": parsed(tool.parameters),
    }
    return {"type": "function", "function": function}


def _sampling(sampling: Sampling) -> dict[str, object]:
    given: dict[str, object | None] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_tokens": sampling.max_tokens,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "logprobs": None if sampling.top_logprobs is None else True,
        "top_logprobs": sampling.top_logprobs,
    }
    return {name: value for name, value in given.items() if value is not None}


def _logprob(entry: TokenLogprob) -> dict[str, object]:
    top = [{"token": other.token, "logprob": other.logprob} for other in entry.top]
    return {"token": entry.token, "logprob": entry.logprob, "top_logprobs": top}


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _read_message(message: Mapping[str, object], place: str) -> Message:
    role = ROLES.get(text(message.get("role"), f"{place}.role"))
    if role is None:
        raise FormInvalid(f"{place}.role: one of {', '.join(sorted(ROLES))} belongs here")
    name = message.get("name")
    tool_call_id = message.get("tool_call_id")
    calls = listing(message.get("tool_calls"), f"{place}.tool_calls")
    return Message(
        role=role,
        content=_read_content(message.get("content"), f"{place}.content"),
        name=None if name is None else text(name, f"{place}.name"),
        tool_calls=tuple(_read_calls(calls, f"{place}.tool_calls")),
        tool_call_id=None if tool_call_id is None else text(tool_call_id, f"{place}.tool_call_id"),
    )


def _read_content(content: object, place: str) -> str:
    if not isinstance(content, list):
        return text(content, place)
    parts = [mapping(part, f"{place}[{index}]") for index, part in enumerate(content)]
    for index, part in enumerate(parts):
        if part.get("type") != "text":
            raise FormInvalid(f"{place}[{index}].type: only text can be asked here")
    return "".join(text(part.get("text"), f"{place}[{i}].text") for i, part in enumerate(parts))


def _read_calls(calls: Sequence[object], place: str) -> Iterable[ToolCall]:
    for index, call in enumerate(calls):
        where = f"{place}[{index}]"
        form = mapping(call, where)
        function = mapping(form.get("function"), f"{where}.function")
        yield ToolCall(
            id=text(form.get("id"), f"{where}.id"),
            name=text(function.get("name"), f"{where}.function.name"),
            arguments=text(function.get("arguments"), f"{where}.function.arguments"),
        )
