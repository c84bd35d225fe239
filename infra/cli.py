"""``tessera``: the command line over the local stack.

Knows the commands that are about the stack itself, and what to say; `delegates` knows the others.
"""

from __future__ import annotations

import shutil
import sys
from typing import Annotated

import typer

from infra.bootstrap import ROOT, Unready, ensure_environment
from infra.delegates import add_delegates, delegated, run, running_stack
from infra.demo import QUESTION, show
from infra.settings import SettingInvalid
from infra.stack.control import NotRunning, Refused
from infra.stack.jvm import QUICK_START
from infra.stack.local import LocalStack, StackFailed
from infra.stack.services import SERVICES, closure
from infra.stack.settings import StackSettings
from infra.stack.state import GOOD, State

# An OSError is the machine's: a full disk, a folder or a socket that is somebody else's.
EXPECTED = (NotRunning, OSError, Refused, SettingInvalid, StackFailed, Unready)
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
# Tests start hundreds of processes, each of which would compile for three seconds otherwise; and
# their brokers do not live long enough for thorough compiling to pay.
COMPILING_LITTLE = (
    *("env", "-u", "PYTHONDONTWRITEBYTECODE"),
    f"JDK_JAVA_OPTIONS={' '.join(QUICK_START)}",
)
# Groups, and their order, are of tests/conftest.py.
SIDE_BY_SIDE = ("-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder")


class PlainErrors(typer.Typer):
    """Shows what can be expected to go wrong as one message instead of a traceback."""

    def __call__(self, *words: object, **options: object) -> object:
        """Run the command line; exit 1 with the message of an expected failure."""
        try:
            return super().__call__(*words, **options)
        except EXPECTED as failure:
            typer.secho(f"tessera: {failure}", err=True, fg="red")
            raise SystemExit(1) from None


app = PlainErrors(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Run Tessera on this machine: real Kafka, registry, CDC, PostgreSQL, Weaviate and Redis, "
    "with our processes on top; loopback only.",
    epilog="[bold]Examples[/]\n\n"
    "tessera demo                     one question through the whole pipeline\n\n"
    "tessera up --detach              start everything, keep it running\n\n"
    "tessera up --only kafka,registry start two services and what they need\n\n"
    'tessera ask "What is Kafka?"     ask the model\n\n'
    'tessera sql "select * from inferences"\n\n'
    "tessera audit --since 1h         who did what\n\n"
    "tessera usage --by user          how much, and what it costs",
)


def _stack() -> LocalStack:
    return LocalStack(StackSettings())


def _names(only: str | None) -> list[str]:
    names = [name.strip() for name in only.split(",")] if only else list(SERVICES)
    if unknown := sorted(set(names) - set(SERVICES)):
        known = ", ".join(SERVICES)
        raise Refused(f"no service is called {', '.join(unknown)}; there are: {known}")
    return names


def _bring_up(stack: LocalStack, names: list[str], *, detach: bool) -> None:
    from infra import screen  # noqa: PLC0415 - pyarrow is only loaded where rows are shown

    stays = detach or stack.running()
    stack.up(names, detach=detach, wait=False)
    try:
        screen.watch_until_ready(stack, closure(names, stack.services))
    except StackFailed as failure:
        if stays and stack.running():
            raise StackFailed(f"{failure}\nIt keeps trying; stop it: tessera down") from None
        raise
    for folder in stack.data_folders():
        if not folder.is_relative_to(stack.settings.home):
            typer.echo(
                f"PostgreSQL may not run as root and its user may not enter {stack.settings.home}, "
                f"so its data is in {folder}",
                err=True,
            )


@app.command()
def up(
    only: Annotated[str | None, typer.Option(help="Services, by commas; all if left out.")] = None,
    detach: Annotated[bool, typer.Option(help="Return when ready and keep it running.")] = False,
) -> None:
    """Start the stack; Ctrl-C stops it unless --detach.

    Example: tessera up --only kafka,registry --detach
    """
    stack = _stack()
    was_up = stack.running()
    names = _names(only)
    try:
        _bring_up(stack, names, detach=detach)
        if was_up or detach:
            typer.echo(f"ready; logs and data are in {stack.settings.home}. Stop it: tessera down")
            return
        typer.echo(f"ready; logs and data are in {stack.settings.home}. Ctrl-C stops everything.")
        stack.attend()
    except KeyboardInterrupt:
        if was_up:
            typer.echo("left running; stop it: tessera down", err=True)
            return
        typer.echo("stopping", err=True)
        stack.down()


@app.command()
def down() -> None:
    """Stop everything that runs; data stays."""
    stack = _stack()
    was_up = stack.running()
    stack.down()
    typer.echo("stopped" if was_up else "nothing was running")


@app.command()
def restart(
    name: Annotated[str, typer.Argument(help="A service.")],
) -> None:
    """Stop one service in good order, start it again and wait until it is ready.

    Example: tessera restart gateway
    """
    from infra import screen  # noqa: PLC0415

    stack = running_stack()
    [name] = _names(name)
    stack.restart(name)
    screen.watch_until_ready(stack, [name])


@app.command()
def status() -> None:
    """Show every service; exit code 1 if any that was asked for is not ready."""
    from infra import screen  # noqa: PLC0415

    found = running_stack().status()
    screen.out.print(screen.services(found))
    if any(one.state not in (*GOOD, State.STOPPED) for one in found.values()):
        raise typer.Exit(1)


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="A service, or supervisor.")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as it grows.")] = False,
    lines: Annotated[int, typer.Option("-n", help="Lines from the end.")] = 50,
) -> None:
    """Show what a service has said.

    Example: tessera logs kafka -f
    """
    path = _stack().log_path(name)
    if not path.exists():
        known = ", ".join([*SERVICES, "supervisor"])
        raise Refused(f"{name} has no log at {path}; there may be: {known}")
    tail = ["tail", "-n", str(lines), *(["-F"] if follow else []), str(path)]
    raise typer.Exit(run(tail, None, ROOT))


@app.command()
def reset(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete all data of the stack: log, tables, indexes. Environments and downloads stay."""
    stack = _stack()
    if stack.running():
        raise Refused("the stack is running; run: tessera down")
    folders = [folder for folder in stack.data_folders() if folder.exists()]
    listed = ", ".join(map(str, folders)) or "nothing"
    if not yes:
        typer.confirm(f"This deletes {listed}. Go on?", abort=True)
    for folder in folders:
        shutil.rmtree(folder)
    typer.echo(f"deleted {listed}")


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT over the tables of the lake.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Ask the tables in SQL; works while the stack is down, too.

    Example: tessera sql "select tenant, sum(completion_tokens) from inferences group by 1"
    """
    from infra import lake, screen  # noqa: PLC0415 - takes a second to load

    try:
        answer = lake.query(_stack().lake, query)
    except lake.QueryInvalid as failure:
        raise Refused(str(failure)) from None
    if as_json:
        typer.echo(screen.as_json(answer))
    else:
        screen.out.print(screen.rows(answer))


@app.command()
def demo(
    question: Annotated[str, typer.Argument(help="What to ask the model.")] = QUESTION,
    keep: Annotated[bool, typer.Option(help="Leave the stack running afterwards.")] = False,
) -> None:
    """Ask a model, search a table as it changes, and have an agent answer a customer from both.

    A first run takes about 15 minutes and 8 GB; it can be interrupted and goes on.
    """
    from infra import knowledge, support  # noqa: PLC0415 - the bus is only loaded where it is asked

    stack = _stack()
    was_up = stack.running()

    def types(name: str, words: list[str]) -> int:
        return delegated(name, words, stack)

    try:
        _bring_up(stack, list(SERVICES), detach=keep)
        show(stack, question, types)
        if knowledge.show(stack, types):
            support.show(stack, types)
        end = "It keeps running; stop it: tessera down" if was_up or keep else "Keep it: --keep"
        typer.echo(
            f"\nThe tables are in {stack.lake}. Next: tessera up --detach; "
            f'tessera ask "..."; tessera sql "select * from inferences"; tessera usage; '
            f"tessera audit. {end}"
        )
    finally:
        if not was_up and not keep:
            typer.echo("stopping", err=True)
            stack.down()


@app.command(context_settings=PASS_ON)
def test(ctx: typer.Context) -> None:
    """Run the tests on real services, in two processes; further words go to pytest.

    Example: tessera test -n 0 tests/unit -k bootstrap
    """
    stack = _stack()
    ensure_environment("worker", stack.settings.cache)
    stack.prepare(SERVICES)
    command = [*COMPILING_LITTLE, sys.executable, "-m", "pytest", *SIDE_BY_SIDE, *ctx.args]
    raise typer.Exit(run(command, None, ROOT))


add_delegates(app)


if __name__ == "__main__":
    app(prog_name="tessera")
