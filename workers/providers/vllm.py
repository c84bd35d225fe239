"""Runs a model in this process's own vLLM engine.

The only file that imports vLLM. It uses the OpenAI serving layer that ``vllm serve`` puts behind
HTTP, without the HTTP: chat template, validation, sampling, structured output and tool calls are
vLLM's own. That layer is no stable interface, so vLLM's version is pinned.

Knows nothing of the environment: the variables that vLLM reads are set by whoever starts the
process. The engine runs in child processes, so the main module must be importable without effect.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import is_dataclass
from types import SimpleNamespace
from typing import cast

from pydantic import ValidationError
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.exceptions import GracefulHTTPError, VLLMClientError
from vllm.platforms import current_platform
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from infra.settings import InferenceSettings
from schemas.events import Completion, Delta, InferenceRequested, Refusal, Route
from schemas.openai import mapping, text
from workers.providers import ProviderBroken, ProviderRefused
from workers.providers.chat import Complaint, Transcript, refusal, streaming_body
from workers.providers.checks import require_answerable, require_kept
from workers.providers.turns import offer

SERVING: dict[str, object] = {
    "enable_auto_tool_choice": True,
    "enable_prompt_tokens_details": True,
    # Small models lose themselves in the whitespace that JSON allows.
    "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    "tool_call_parser": "hermes",
}
# Measured on processors without AVX-512: bfloat16 is 1.5 to 3 times slower than float32 there.
CPU: dict[str, object] = {
    "dtype": "float32",
    "enable_prefix_caching": True,
    "enforce_eager": True,
    "max_model_len": 1024,
    "max_num_seqs": 32,
}
DEAD = "vLLM's engine has ended"
# How the serving layer says that a request is at fault. Anything else is a surprise.
REFUSED = (GracefulHTTPError, OverflowError, ValueError, VLLMClientError)


class VLLM:
    """A provider that owns an engine.

    Attributes:
        engine: The engine; it is idle when no request is under way.
        arguments: What the engine and the serving layer were started with.
    """

    def __init__(self, engine: AsyncLLM, arguments: Namespace, chat: OpenAIServingChat) -> None:
        self.engine = engine
        self.arguments = arguments
        self._chat = chat

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Yields the deltas as the engine draws them, and last the Completion.

        Raises:
            ProviderRefused: The request cannot be served.
            ProviderBroken: The engine is gone; only a new process helps.
        """
        require_answerable(request)
        # vLLM holds every turn to a schema, so beside one it would call no tool.
        beside = bool(request.tools) and request.tool_choice == "auto"
        offered = offer(request, native=not beside)
        transcript = Transcript(route.model, answer_tool=offered.answers)
        async with aclosing(await self._stream(offered.asked(request), route.model)) as events:
            async for event in events:
                if (chunk := _chunk(event)) is None:
                    break
                if "error" in chunk:
                    raise self._failure(mapping(chunk["error"], "error"), request)
                if delta := transcript.take(chunk):
                    yield delta
        completion = transcript.completion()
        require_kept(completion, request)
        yield completion

    async def close(self) -> None:
        """Ends the engine's processes."""
        self.engine.shutdown()

    async def _stream(self, request: InferenceRequested, model: str) -> AsyncGenerator[str, None]:
        try:
            body = streaming_body(request, model, strict_tools=True)
            asked = ChatCompletionRequest.model_validate(body)
            answer = await self._chat.create_chat_completion(asked)
        except REFUSED as error:
            raise ProviderRefused(_refused(error, request)) from None
        except EngineDeadError as error:
            raise ProviderBroken(DEAD) from error
        if isinstance(answer, ErrorResponse):
            raise self._failure(answer.error.model_dump(), request)
        return cast(AsyncGenerator[str, None], answer)

    def _failure(self, error: Mapping[str, object], request: InferenceRequested) -> Exception:
        """Returns what to raise for an error that the serving layer reports as a value."""
        if self.engine.errored:
            # The serving layer has turned the engine's death into one more error text.
            return ProviderBroken(DEAD)
        return ProviderRefused(refusal(_complaint(error), request))


async def open_vllm(settings: InferenceSettings) -> VLLM:
    """Starts the engine and waits until it can serve; without a GPU that takes a minute or more.

    Raises:
        ValueError: An argument for the engine is unknown.
    """
    arguments = _arguments(settings)
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs.from_cli_args(arguments))
    state = SimpleNamespace()
    await init_app_state(engine, state, arguments, await engine.get_supported_tasks())
    return VLLM(engine, arguments, state.openai_serving_chat)


def _arguments(settings: InferenceSettings) -> Namespace:
    arguments: Namespace = make_arg_parser(FlexibleArgumentParser()).parse_args([])
    if unknown := sorted(settings.engine.keys() - vars(arguments).keys()):
        raise ValueError(f"INFERENCE_ENGINE: vLLM has no argument {', '.join(unknown)}")
    chosen = {
        **SERVING,
        **(CPU if current_platform.is_cpu() else {}),
        **settings.engine,
        "model": settings.model,
        "served_model_name": [settings.model_name],
    }
    for name, value in chosen.items():
        setattr(arguments, name, _converted(value, getattr(arguments, name)))
    validate_parsed_serve_args(arguments)
    return arguments


def _converted(value: object, default: object) -> object:
    """Returns an argument as vLLM keeps it: a group of arguments is a dataclass there."""
    if is_dataclass(default) and not isinstance(default, type) and isinstance(value, dict):
        return type(default)(**value)
    return value


def _chunk(event: str) -> Mapping[str, object] | None:
    """Returns what one server-sent event carries, or None for the end."""
    data = event.removeprefix("data: ").strip()
    return None if data == "[DONE]" else mapping(json.loads(data), "chunk")


def _refused(error: Exception, request: InferenceRequested) -> Refusal:
    if isinstance(error, ValidationError):
        fault = error.errors(include_input=False, include_url=False)[0]
        param = str(next(iter(fault["loc"]), ""))
        complaint = Complaint(status=400, message=fault["msg"], param=param)
        return refusal(complaint, request)
    return refusal(_complaint(create_error_response(error).error.model_dump()), request)


def _complaint(error: Mapping[str, object]) -> Complaint:
    return Complaint(
        status=int(str(error["code"])),
        message=text(error.get("message"), "message"),
        param=text(error.get("param"), "param"),
    )
