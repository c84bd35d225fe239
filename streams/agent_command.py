"""Runs an agent from the command line, and shows its steps as they come.

    tessera agent run main.demo.support "Where is order 7?"
    tessera agent run main.demo.support "And order 8?" --previous RUN
    tessera agent run main.demo.support "Where is order 7?" --json
    tessera agent run main.demo.support "Where is order 7?" --detach

The answer goes to standard output, the steps to standard error. With --json the events go to
standard output instead, one a line, in the form of the OpenAI Responses API's stream. With --detach
only the run's id is printed, as soon as it has begun; then see: tessera runs follow ID.

Ctrl-C cancels the run. The exit code says how it ended: 0 with an answer, 1 without one, 3 with an
answer that is cut, 124 since its time was over, 130 cancelled.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from infra.secrets import SecretUnavailable
from infra.settings import SettingInvalid
from infra.signing import KeyUnusable
from infra.tail import TailBroken
from schemas.events import Reason
from schemas.shapes import length
from streams.ask import LOST, drawn, identity, labels, sampling, tagged, told
from streams.client import Client, EventsMissing, RequestRefused, RunEvent, RunUnknown
from streams.client.saying import DONE
from streams.client.told import CUT
from streams.runs.screen import citations, short, step
from streams.terms import RunTerms

ANSWERED, UNANSWERED, CUT_SHORT, LATE, CANCELLED = 0, 1, 3, 124, 130
# How a run ended that was refused, where that is not just without an answer.
CODES: Mapping[Reason, int] = {Reason.CANCELLED: CANCELLED, Reason.DEADLINE_EXPIRED: LATE}
UNFIT = (EventsMissing, KeyUnusable, RunUnknown, SecretUnavailable, SettingInvalid)


def main(words: Sequence[str]) -> int:
    """Runs what the command line says; returns the exit code."""
    arguments = _arguments(words)
    return outcome("agent", run(arguments))


async def run(arguments: argparse.Namespace) -> int:
    """Runs an agent; returns the exit code."""
    terms: RunTerms = {
        "previous": arguments.previous,
        "previous_turns": arguments.turns,
        "sampling": sampling(arguments),
        "tags": labels(arguments.tag, arguments.session),
        "timeout": arguments.timeout,
    }
    async with client_of(arguments) as client:
        if arguments.detach:
            print(await client.start_run(arguments.agent, arguments.question, **terms))
            return ANSWERED
        events = client.stream_run(arguments.agent, arguments.question, **terms)
        return await show(events, as_lines=arguments.json)


async def show(events: AsyncGenerator[RunEvent, None], *, as_lines: bool) -> int:
    """Shows what a run tells; returns the exit code that says how it ended.

    Raises:
        RequestRefused: It ended without an answer; what it told has been shown.
        Exception: As the events do.
    """
    shown = _line if as_lines else Steps(live=sys.stdout.isatty()).show
    async with aclosing(events):
        async for event in events:
            shown(event)
            if event.reply is not None:
                cut = event.reply.completion.finish_reason in CUT
                return CUT_SHORT if cut else ANSWERED
    raise AssertionError("a run ends with its answer or a refusal")


def _line(event: RunEvent) -> None:
    print(json.dumps(event.to_openai(), ensure_ascii=False), flush=True)


class Steps:
    """Shows events in words: what the model says beside its calls, too, but its answer as such.

    Args:
        live: Whether what the model says is shown as it says it, too, where the answer goes.
    """

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self._said: Mapping[str, Any] | None = None
        # What was shown of the message under way, or of the last one.
        self._shown = ""
        self._is_open = False

    def show(self, event: RunEvent) -> None:
        """Shows what one tells."""
        if event.delta and self._live:
            self._shown = event.delta if not self._is_open else self._shown + event.delta
            self._is_open = True
            print(event.delta, end="", flush=True)
            return
        if self._is_open:
            self._is_open = False
            print(flush=True)
        self._tell(event)

    def _tell(self, event: RunEvent) -> None:
        if event.reply is not None:
            if not self._is_shown(event.reply.content):
                print(event.reply.content, flush=True)
            for line in citations(self._said or {}):
                _say(f"   from {line}")
        elif self._said is not None and not self._is_shown(self._said["content"][0]["text"]):
            _say(f"   {short(self._said['content'][0]['text'])}")
        for line in step(event):
            _say(line)
        item = event.item or {}
        whole = (item.get("type"), item.get("status")) == ("message", "completed")
        self._said = item if whole and event.kind == DONE else None

    def _is_shown(self, text: str) -> bool:
        return bool(text) and text == self._shown


def outcome(name: str, command: Coroutine[Any, Any, int], left: str = "cancelled") -> int:
    """Runs a command and says on standard error what keeps it from its end.

    Args:
        name: The command.
        command: What it does; what that comes to is the exit code.
        left: What is said on Ctrl-C.
    """
    try:
        return asyncio.run(command)
    except RequestRefused as refused:
        _say(f"refused: {refused} (run {refused.request_id})")
        for line in told(refused):
            _say(f"  {line}")
        return CODES.get(refused.refusal.reason, UNANSWERED)
    except UNFIT as problem:
        _say(f"{name}: {problem}")
    except (TailBroken, *LOST) as problem:
        _say(f"{name}: {problem}; is the stack up? try: tessera status")
    except KeyboardInterrupt:
        _say(f"\n{left}")
        return CANCELLED
    return UNANSWERED


def client_of(arguments: argparse.Namespace) -> Client:
    """Returns a client of whom the command line names."""
    return Client(tenant=arguments.tenant, principal=arguments.principal, key=arguments.key)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tessera agent",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser(
        "run",
        help="ask an agent, and show its steps as they come",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    running.add_argument("agent", metavar="NAME", help="three-level name")
    running.add_argument("question", metavar="TEXT", help="what is said to it")
    running.add_argument("--previous", metavar="ID", help="go on with what was said in this run")
    running.add_argument(
        "--turns", type=int, metavar="N", help="of that run only so many turns; all if left out"
    )
    running.add_argument(
        "--timeout", type=seconds, default="10m", metavar="TIME", help="30s, 10m, 1h (10m)"
    )
    shown = running.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="events as JSON, one a line")
    shown.add_argument("--detach", action="store_true", help="only print the run's id")
    drawn(running)
    tagged(running)
    running.add_argument("--session", metavar="NAME", help="the conversation that it belongs to")
    identity(running)
    return parser.parse_args(words)


def seconds(text: str) -> float:
    """Returns a time that a command line says, in seconds."""
    try:
        return length(text).total_seconds()
    except AttributeError:
        raise argparse.ArgumentTypeError(f"{text} is no time: say 30s, 10m or 1h") from None
