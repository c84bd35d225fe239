"""Commands of `tessera` that another process answers: each runs with the stack's variables.

Knows which process that is, and whether the stack must run for it. The process knows its options,
so it is asked for help, too.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from types import FrameType

import typer

from infra.stack.control import NotRunning
from infra.stack.local import LocalStack
from infra.stack.settings import StackSettings

# How long a process has that is left by Ctrl-C: it may have to cancel what it asked for. Another
# Ctrl-C kills it.
LEAVE_S = 10.0
INTERRUPTED = 130
HELP = frozenset({"--help", "-h"})
# Options are the process's own affair, its help included.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegate:
    """A command that another process answers.

    Attributes:
        process: What runs it: a module, and the first words that it is given.
        help: One line for the list of all commands, and more where that helps.
        group: Whether it is several commands: by itself it says which.
        live: Options with which the stack must run; None where it must for any.
    """

    process: tuple[str, ...]
    help: str
    group: bool = False
    live: frozenset[str] | None = None


DELEGATES: dict[str, Delegate] = {
    "agent": Delegate(
        process=("streams", "agent"),
        help="Run an agent and watch it.\n\n"
        'Example: tessera agent run main.default.support "Where is my order 1002?"',
        group=True,
    ),
    "apply": Delegate(
        process=("catalog", "apply"),
        help="Make the catalog as YAML files say, after showing what would change.",
    ),
    "approvals": Delegate(
        process=("streams", "approvals"),
        help="Show what waits for a person's approval, and decide.\n\n"
        'Example: tessera approvals approve 5f2c --reason "a drill"',
        group=True,
    ),
    "ask": Delegate(
        process=("streams", "ask"),
        help='Ask the model and print its answer: tessera ask --stream "What is Kafka?"',
    ),
    "audit": Delegate(
        process=("infra.audit",),
        help="Show who did what, newest first, or verify who asked.\n\n"
        "Works while the stack is down, save --verify.",
        live=frozenset({"--verify"}),
    ),
    "calls": Delegate(
        process=("workers", "calls"),
        help="Show calls of tools that a person must settle, and settle them.",
        group=True,
    ),
    "catalog": Delegate(
        process=("catalog", "catalog"),
        help="Make, find, change and delete what the catalog holds.",
        group=True,
    ),
    "deny": Delegate(
        process=("catalog", "deny"),
        help="Keep a principal from something: tessera deny QUERY on main.lab to interns",
    ),
    "effective": Delegate(
        process=("catalog", "effective"),
        help="Show what a principal may do to something, and why.",
    ),
    "export": Delegate(
        process=("catalog", "export"),
        help="Write what the catalog holds as YAML documents.",
    ),
    "grant": Delegate(
        process=("catalog", "grant"),
        help="Let a principal do something: tessera grant QUERY on main.lab to analysts",
    ),
    "index": Delegate(
        process=("catalog", "index"),
        help="Keep tables searchable by meaning, and see how that stands.",
        group=True,
    ),
    "key": Delegate(
        process=("catalog", "key"),
        help="Make, rotate and revoke keys that requests are signed with.",
        group=True,
    ),
    "limits": Delegate(
        process=("streams", "limits"),
        help="Show which limits hold for somebody, and what is left.\n\n"
        "Example: tessera limits alice main.default.smollm2",
    ),
    "lineage": Delegate(
        process=("catalog", "lineage"),
        help="Show what an answer came from: tessera lineage RESPONSE_ID",
    ),
    "mcp": Delegate(
        process=("streams", "mcp"),
        help="Serve tools of the catalog to any client of MCP, on standard streams.\n\n"
        'Example: tessera mcp "main.demo.*" main.demo.support',
    ),
    "memory": Delegate(
        process=("streams", "memory"),
        help="Show what agents remember of somebody, or have them forget it.",
        group=True,
    ),
    "revoke": Delegate(
        process=("catalog", "revoke"),
        help="Take back what was granted or denied.",
    ),
    "runs": Delegate(
        process=("streams", "runs"),
        help="Show what agents did, step by step: tessera runs show ID",
        group=True,
    ),
    "search": Delegate(
        process=("streams", "search"),
        help="Search an index by meaning or by words.\n\n"
        'Example: tessera search main.kb.notes "How salt is the sea?"',
        group=True,
    ),
    "source": Delegate(
        process=("catalog", "source"),
        help="Capture tables of PostgreSQL, and see how that stands.",
        group=True,
    ),
    "usage": Delegate(
        process=("infra.usage",),
        help="Show how much is asked and what it costs, over time or live.\n\n"
        "Works while the stack is down, save --follow.",
        live=frozenset({"--follow", "-f"}),
    ),
}


def add_delegates(app: typer.Typer) -> None:
    """Makes a command of each."""
    for name, delegate in DELEGATES.items():
        app.command(name, help=delegate.help, context_settings=PASS_ON)(_command)


def delegated(name: str, words: list[str], stack: LocalStack | None) -> int:
    """Runs a command in its process, in the foreground; returns its exit code.

    Args:
        name: Of the command.
        words: What is typed behind it.
        stack: Whose variables the process is given; None for none.
    """
    # Where the caller stands, so that the files it names are found.
    return run([sys.executable, "-P", "-m", *DELEGATES[name].process, *words], stack, folder=None)


def run(command: list[str], stack: LocalStack | None, folder: Path | None) -> int:
    """Runs a command in the foreground; returns its exit code.

    Args:
        command: Its words.
        stack: Whose variables it is given; None for none.
        folder: Where it stands; None for where the caller does.
    """
    extra = stack.environment() if stack else {}
    inherited = StackSettings().inherited
    environment = {**inherited, **extra}
    return _awaited(lambda: subprocess.Popen(command, cwd=folder, env=environment))


def running_stack() -> LocalStack:
    """Returns the stack of this home.

    Raises:
        NotRunning: It does not run.
    """
    stack = LocalStack(StackSettings())
    if not stack.running():
        raise NotRunning("the stack is not running; run: tessera up")
    return stack


def _awaited(begin: Callable[[], subprocess.Popen[bytes]]) -> int:
    """Begins a process and returns its exit code; 130 after Ctrl-C, which it hears, too."""
    process: subprocess.Popen[bytes] | None = None
    interrupts = 0

    def kill() -> None:
        if process is not None:
            process.kill()

    killing = Timer(LEAVE_S, kill)

    # An exception could be raised anywhere, and leave the process running.
    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts == 1:
            killing.start()
        else:
            kill()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        process = begin()
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
        killing.cancel()
    return INTERRUPTED if interrupts else code


def _command(ctx: typer.Context) -> None:
    name = str(ctx.info_name)
    delegate = DELEGATES[name]
    words = ctx.args or (["--help"] if delegate.group else [])
    raise typer.Exit(delegated(name, words, _stack(delegate, words)))


def _stack(delegate: Delegate, words: list[str]) -> LocalStack | None:
    """Returns the stack that a command is given; one that is asked for help needs none."""
    if HELP.intersection(words):
        return None
    if delegate.live is None or delegate.live.intersection(words):
        return running_stack()
    return LocalStack(StackSettings())
