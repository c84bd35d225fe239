"""Asks an endpoint from the command line."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.bus import BusUnreachable, PublishFailed
from infra.registry import RegistryUnreachable
from infra.secrets import SecretUnavailable
from infra.settings import SettingInvalid
from infra.signing import KeyUnusable
from schemas.events import Message, Role, Sampling
from streams.client import Client, NoReply, Part, RepliesLost, RequestRefused

LOST = (
    BusUnreachable,
    LookupError,
    NoReply,
    PublishFailed,
    RegistryUnreachable,
    RepliesLost,
)

EXAMPLES = """examples:
  tessera ask "Why is the sky blue?"
  tessera ask --stream --max-tokens 64 "Tell me a story."
  tessera ask --system "Answer in one word." "What is the capital of France?"
  tessera ask --json-schema person.json "Invent a person."
"""


def main(words: Sequence[str]) -> int:
    """Asks what the command line says; returns the exit code."""
    arguments = _arguments(words)
    try:
        asyncio.run(ask(arguments))
    except RequestRefused as refused:
        print(f"refused: {refused} (request {refused.request_id})", file=sys.stderr)
        return 1
    except (KeyUnusable, SecretUnavailable, SettingInvalid) as problem:
        print(f"ask: {problem}", file=sys.stderr)
        return 1
    except LOST as problem:
        print(f"ask: {problem}; is the stack up? try: tessera status", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ncancelled", file=sys.stderr)
        return 130
    return 0


async def ask(arguments: argparse.Namespace) -> None:
    """Asks and prints the answer on standard output, what it took on standard error."""
    messages = [Message(role=Role.USER, content=arguments.question)]
    if arguments.system:
        messages.insert(0, Message(role=Role.SYSTEM, content=arguments.system))
    who = {"tenant": arguments.tenant, "principal": arguments.principal, "key": arguments.key}
    async with Client(**who) as client:
        # Also without --stream the answer comes in parts: they are only held back.
        whole: Part | None = None
        async for part in client.stream(
            arguments.endpoint,
            messages,
            sampling=Sampling(
                max_tokens=arguments.max_tokens,
                temperature=arguments.temperature,
                seed=arguments.seed,
                stop=tuple(arguments.stop),
            ),
            json_schema=arguments.json_schema,
            timeout=arguments.timeout,
        ):
            whole = part
            if arguments.stream:
                print(("\n" if part.restarted else "") + part.content, end="", flush=True)
    if whole is None or whole.reply is None:
        raise AssertionError("a stream ends with its reply")
    print("" if arguments.stream else whole.reply.content, flush=True)
    usage = whole.reply.completion.usage
    print(
        f"request {whole.reply.request_id}  model {whole.reply.completion.model}  "
        f"{usage.prompt_tokens} + {usage.completion_tokens} tokens  "
        f"finished: {whole.reply.completion.finish_reason.lower()}",
        file=sys.stderr,
    )


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tessera ask",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("question", help="what the user says")
    parser.add_argument("--stream", action="store_true", help="print the answer as it grows")
    parser.add_argument("--endpoint", default="main.default.smollm2", help="three-level name")
    parser.add_argument("--tenant", help="who pays; CLIENT_TENANT when left out")
    parser.add_argument("--principal", help="who acts; whose key it is when left out")
    parser.add_argument(
        "--key", help="where the signing key is, as file:PATH; CLIENT_KEY if left out"
    )
    parser.add_argument("--system", help="what the model is told first")
    parser.add_argument("--max-tokens", type=int, default=128, help="most tokens to produce")
    parser.add_argument("--temperature", type=float, help="0 is greedy; at most 2")
    parser.add_argument("--seed", type=int, help="makes drawing repeatable")
    parser.add_argument("--stop", action="append", default=[], help="text that ends the answer")
    parser.add_argument("--json-schema", type=_text, help="file with a JSON Schema for the answer")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds until the deadline")
    return parser.parse_args(words)


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as failure:
        raise argparse.ArgumentTypeError(f"{path} cannot be read: {failure}") from None
