"""How Gemini's requests, and the chunks of its answers, are written (https://ai.google.dev/api).

Knows the form; knows nothing of calls. Thoughts are not passed on; the signature that comes with
one and must go back with its tool call travels in the id of the call.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from uuid import uuid4

from google.genai import types

from schemas.events import (
    Alternative,
    Delta,
    FinishReason,
    InferenceRequested,
    Message,
    TokenLogprob,
    ToolCall,
    Usage,
)
from schemas.openai import FormInvalid, parsed
from workers.providers import ProviderRefused
from workers.providers.answer import failed
from workers.providers.chat import tokens_of
from workers.providers.turns import Offer, Spoken, system_text, top_k, turns

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


def contents_of(request: InferenceRequested) -> list[types.ContentUnion]:
    """Returns the conversation.

    Raises:
        ProviderRefused: A turn of it is none.
    """
    return [
        types.Content(role="model" if turn.model else "user", parts=list(turn.blocks))
        for turn in turns(request, Blocks())
    ]


def config_of(
    request: InferenceRequested, offered: Offer, http: types.HttpOptions, *, native: bool
) -> types.GenerateContentConfig:
    """Returns what else belongs to a request.

    Args:
        request: The request.
        offered: The tools that go along.
        http: What concerns the call itself.
        native: Whether a schema goes along.
    """
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


def take(chunk: types.GenerateContentResponse, answer: Spoken) -> Iterator[Delta]:
    """Adds one chunk of the stream and yields what it brings.

    Raises:
        FormInvalid: A number in it cannot be.
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
    form = told.model_dump()
    thoughts = tokens_of(form, "thoughts_token_count")
    prompt = tokens_of(form, "prompt_token_count")
    return Usage(
        prompt_tokens=prompt + tokens_of(form, "tool_use_prompt_token_count"),
        # Gemini counts these two apart.
        completion_tokens=tokens_of(form, "candidates_token_count") + thoughts,
        cached_tokens=tokens_of(form, "cached_content_token_count"),
        reasoning_tokens=thoughts,
    )


def _json(arguments: Mapping[str, object]) -> str:
    try:
        return json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise FormInvalid("functionCall.args: no JSON") from None


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
