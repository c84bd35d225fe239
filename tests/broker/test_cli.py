"""The command line as it is typed, on a stack of one small service, and once on a first start."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra import lake
from infra.bootstrap import ROOT
from infra.delegates import DELEGATES
from infra.demo import CAREFUL, PERSONAL, show
from infra.stack.local import LocalStack, free_ports, until
from infra.stack.places import OPERATOR
from infra.stack.secret import key_path
from tests.harness import Process, eventually

pytestmark = pytest.mark.stack

TESSERA = str(Path(sys.executable).parent / "tessera")
WAIT_S = 180.0


class Terminal:
    """Types commands for one home."""

    def __init__(self, home: Path) -> None:
        self.settings = free_ports(home)
        self.stack = LocalStack(self.settings)
        ports = self.settings.model_dump(exclude={"cache", "inherited", "lake"})
        self.environment = {
            **os.environ,
            **{f"STACK_{name.upper()}": str(value) for name, value in ports.items()},
        }

    def types(self, *words: str, folder: Path = Path("/")) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TESSERA, *words],
            check=False,
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=folder,
            timeout=2 * WAIT_S,
        )

    def attached(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [TESSERA, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self.environment,
        )


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    home = Path(tempfile.mkdtemp(prefix="tessera-"))
    terminal = Terminal(home)
    try:
        yield terminal
    finally:
        terminal.stack.down()
        shutil.rmtree(home)


def test_a_detached_stack_runs_until_it_is_told_to_stop(terminal: Terminal) -> None:
    up = terminal.types("up", "--only", "redis", "--detach")
    assert up.returncode == 0, up.stderr
    status = terminal.types("status")
    assert "ready" in status.stdout
    assert status.returncode == 0, "the others were not asked for"
    before = terminal.stack.pid("redis")
    assert terminal.types("restart", "redis").returncode == 0
    assert terminal.stack.pid("redis") not in (before, None)
    assert "ready to accept" in terminal.types("logs", "redis", "-n", "5").stdout.lower()
    refused = terminal.types("reset", "--yes")
    assert refused.returncode == 1
    assert "tessera down" in refused.stderr
    assert terminal.types("down").stdout == "stopped\n"
    assert not terminal.stack.running()


def test_reset_deletes_the_data_and_nothing_else(terminal: Terminal) -> None:
    home = terminal.settings.home
    for folder in ("data/redis", "lake/inferences", "logs", "envs"):
        (home / folder).mkdir(parents=True)
    asked = terminal.types("reset")
    assert asked.returncode != 0
    assert (home / "data").exists()
    assert terminal.types("reset", "--yes").returncode == 0
    assert sorted(path.name for path in home.iterdir()) == ["envs", "logs"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_attached_stack_ends_with_its_terminal(
    terminal: Terminal, number: signal.Signals
) -> None:
    with terminal.attached("up", "--only", "redis") as process:
        assert process.stdout is not None
        assert "Ctrl-C stops everything" in process.stdout.readline()
        redis = psutil.Process(terminal.stack.pid("redis"))
        process.send_signal(number)
        process.wait(WAIT_S)
    until(lambda: not redis.is_running(), WAIT_S, lambda: "redis still runs")
    until(lambda: not terminal.stack.running(), WAIT_S, lambda: "the supervisor still runs")


def test_a_detached_stack_that_fails_says_that_it_keeps_trying(terminal: Terminal) -> None:
    with socket.create_server(("127.0.0.1", terminal.settings.redis_port)):
        up = terminal.types("up", "--only", "redis", "--detach")
    assert up.returncode == 1
    assert "STACK_REDIS_PORT" in up.stderr
    assert up.stderr.strip().endswith("It keeps trying; stop it: tessera down")
    assert terminal.types("down").stdout == "stopped\n"


def test_a_schema_is_looked_for_where_the_caller_stands(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "wrong.json").write_bytes(b"\xff")
    assert terminal.types("up", "--only", "redis", "--detach").returncode == 0
    done = terminal.types("ask", "--json-schema", "wrong.json", "hello", folder=tmp_path)
    assert "wrong.json cannot be read: 'utf-8'" in done.stderr


@pytest.mark.timeout(1200)
def test_a_first_start_makes_whom_it_asks_as_and_what_may_be_asked(
    terminal: Terminal, tmp_path: Path
) -> None:
    # PostgreSQL runs as another user and must get through.
    terminal.settings.home.chmod(0o755)
    up = terminal.types("up", "--only", "catalog,gateway,outside,recorder", "--detach")
    assert up.returncode == 0, up.stderr
    words = ["-m", "workers", "inference", "--provider", "echo", "--pool", "smollm2"]
    worker = Process(words, terminal.stack.environment(), tmp_path / "worker.log")
    try:
        worker.ready()
        said = terminal.types("ask", "Is anybody there?")
        assert_the_demo_masks(terminal)
    finally:
        worker.stop()
    assert said.stdout == "Is anybody there?\n", said.stderr
    request_id = said.stderr.split()[1]

    def proved() -> bool:
        verified = terminal.types("audit", "--verify", request_id)
        return verified.stdout.startswith(f"operator signed request {request_id}, completed at ")

    eventually(proved, WAIT_S, "the proof of who asked")
    what = ("--on", "main.default.smollm2", "--what", "catalog.*")
    seeded = "operator  catalog.create  endpoint main.default.smollm2  DONE"
    eventually(lambda: seeded in terminal.types("audit", *what).stdout, WAIT_S, "who made it")
    key = key_path(OPERATOR, terminal.settings).read_text().splitlines()[1]
    for log in (terminal.settings.home / "logs").iterdir():
        assert key not in log.read_text(errors="replace"), log


def assert_the_demo_masks(terminal: Terminal) -> None:
    """What the demo shows, by a model that repeats what it hears."""
    heard: list[str] = []

    def types(name: str, words: list[str]) -> int:
        done = terminal.types(name, *words)
        heard.append(done.stdout)
        assert done.returncode == 0, done.stderr
        return done.returncode

    show(terminal.stack, "What is a log?", types)
    # Who asked gets back what nobody else has seen.
    assert heard == ["What is a log?\n", f"{PERSONAL}\n"]
    row = lake.query(terminal.stack.lake, f"select * from inferences where endpoint = '{CAREFUL}'")
    [kept] = row.to_pylist()
    assert "<EMAIL_ADDRESS_1>" in kept["request"]
    assert kept["cost"] > 0
    left = terminal.types("limits", OPERATOR, CAREFUL)
    assert "main.default.privacy/budget" in left.stdout, left.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("ask", "hello"), "run: tessera up"),
        (("audit", "--who", "alice"), "no table"),
        (("audit", "--verify", "request"), "run: tessera up"),
        (("logs", "redis"), "has no log"),
        (("sql", "select 1"), "no table"),
        (("restart", "redis"), "run: tessera up"),
        (("status",), "run: tessera up"),
        (
            ("up", "--only", "kafa"),
            "no service is called kafa; there are: agents, catalog, connect",
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    terminal: Terminal, words: tuple[str, ...], says: str
) -> None:
    done = terminal.types(*words)
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [*DELEGATES, "demo", "down", "logs", "reset", "restart", "sql", "status", "test", "up"],
)
def test_every_command_explains_itself(terminal: Terminal, command: str) -> None:
    done = terminal.types(command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout or "usage" in done.stdout
    assert list(terminal.settings.home.iterdir()) == []


def test_no_command_loads_torch() -> None:
    code = "import sys, infra.cli, infra.screen, infra.lake; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
