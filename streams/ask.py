"""Asks an endpoint from the command line."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from math import ceil
from pathlib import Path

from infra.bus import BusUnreachable, PublishFailed
from infra.registry import RegistryUnreachable
from infra.secrets import SecretUnavailable
from infra.settings import SettingInvalid
from infra.signing import KeyUnusable
from schemas.events import Message, Reason, Role, Sampling
from streams.client import Client, NoReply, Part, RepliesLost, RequestRefused

LOST = (
    BusUnreachable,
    LookupError,
    NoReply,
    PublishFailed,
    RegistryUnreachable,
    RepliesLost,
)

ENDPOINT = "main.default.smollm2"
# The tag that names a conversation, wherever one is told from another.
SESSION = "session"

# What a person can do about a refusal beyond what it says itself; the rule's policy is put in.
ADVICE: dict[Reason, str] = {
    Reason.APPROVAL_DENIED: "somebody decided so, or nobody did in time: tessera approvals list",
    Reason.BUDGET_EXCEEDED: "see what is left: tessera limits",
    Reason.LIMIT_EXCEEDED: "see what is left: tessera limits",
    Reason.POLICY_DENIED: "see what it forbids: tessera catalog get {policy}",
    Reason.POLICY_FAILED: "see what it asks for: tessera catalog get {policy}",
    Reason.PRICE_UNKNOWN: "see how prices are set: tessera catalog kinds connection",
    Reason.PRIVILEGE_MISSING: "see what is granted, and why: tessera effective PRINCIPAL ENDPOINT",
}

EXAMPLES = """examples:
  tessera ask "Why is the sky blue?"
  tessera ask --stream --max-tokens 64 "Tell me a story."
  tessera ask --system "Answer in one word." "What is the capital of France?"
  tessera ask --json-schema person.json "Invent a person."
  tessera ask --session trip-7 --tag team=blue "And how do I get there?"

A tag is counted and limited by: tessera usage --by tag:team. A session keeps its route where
the endpoint says so (sticky: session).
"""


def main(words: Sequence[str]) -> int:
    """Asks what the command line says; returns the exit code."""
    arguments = _arguments(words)
    try:
        asyncio.run(ask(arguments))
    except RequestRefused as refused:
        print(f"refused: {refused} (request {refused.request_id})", file=sys.stderr)
        for line in told(refused):
            print(f"  {line}", file=sys.stderr)
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


def told(refused: RequestRefused) -> Iterator[str]:
    """Yields in words what a refusal tells beyond its message, and what can be done about it."""
    if refused.rule:
        yield f"rule: {refused.rule}"
    if refused.limit is not None and refused.used is not None:
        yield f"used: {refused.used:f} of {refused.limit:f}"
    if refused.retry_after is not None:
        yield f"try again: in {span(refused.retry_after)}"
    for failed in refused.tried:
        yield f"tried before: {failed.route.name} ({failed.refusal.reason})"
    if advice := ADVICE.get(refused.refusal.reason):
        yield advice.format(policy=(refused.rule or "").partition("/")[0])


def span(length: timedelta) -> str:
    """Returns a length of time in the largest unit that it fills, never as too short."""
    seconds = max(1, ceil(length.total_seconds()))
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{-(-seconds // size)} {unit}"
    return f"{seconds} s"


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
            sampling=replace(sampling(arguments), stop=tuple(arguments.stop)),
            json_schema=arguments.json_schema,
            tags=labels(arguments.tag, arguments.session),
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
    parser.add_argument("--endpoint", default=ENDPOINT, help="three-level name")
    identity(parser)
    parser.add_argument("--system", help="what the model is told first")
    drawn(parser, max_tokens=128)
    parser.add_argument("--stop", action="append", default=[], help="text that ends the answer")
    parser.add_argument("--json-schema", type=_text, help="file with a JSON Schema for the answer")
    tagged(parser)
    parser.add_argument("--session", metavar="NAME", help="the conversation that it belongs to")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds until the deadline")
    return parser.parse_args(words)


def identity(parser: argparse.ArgumentParser) -> None:
    """Lets a command say as whom it asks."""
    parser.add_argument("--tenant", help="who pays; CLIENT_TENANT when left out")
    parser.add_argument("--principal", help="who acts; whose key it is when left out")
    parser.add_argument(
        "--key", help="where the signing key is, as file:PATH; CLIENT_KEY if left out"
    )


def drawn(parser: argparse.ArgumentParser, *, max_tokens: int | None = None) -> None:
    """Lets a command say how tokens are drawn."""
    parser.add_argument(
        "--max-tokens", type=int, default=max_tokens, help="most tokens to produce at once"
    )
    parser.add_argument("--temperature", type=float, help="0 is greedy; at most 2")
    parser.add_argument("--seed", type=int, help="makes drawing repeatable")


def sampling(arguments: argparse.Namespace) -> Sampling:
    """Returns how tokens are drawn, as a command line says."""
    return Sampling(
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
        seed=arguments.seed,
    )


def tagged(parser: argparse.ArgumentParser) -> None:
    """Lets a command label what it asks."""
    parser.add_argument(
        "--tag",
        action="append",
        default=[],
        type=tag,
        metavar="NAME=VALUE",
        help="your own label, for cost, limits and search; may be repeated",
    )


def labels(tags: Iterable[tuple[str, str]], session: str | None) -> dict[str, str]:
    """Returns the tags of a request: the caller's, and the one that names the conversation."""
    return {**dict(tags), **({} if session is None else {SESSION: session})}


def tag(text: str) -> tuple[str, str]:
    """Returns the name and the value of a tag that is written NAME=VALUE.

    Raises:
        ArgumentTypeError: It is not written so.
    """
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise argparse.ArgumentTypeError(f"{text}: write it as NAME=VALUE, such as team=blue")
    return name, value


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as failure:
        raise argparse.ArgumentTypeError(f"{path} cannot be read: {failure}") from None
