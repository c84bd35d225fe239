"""Functions in Python, kind and hostile, each in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import psutil
import pytest

from infra.bootstrap import ROOT
from tests.unit.sandboxes import BOUNDS, call, fails, nothing_left_behind, relatives
from workers.tools import Fault
from workers.tools.sandbox import SandboxUnavailable, check

BRIEF = replace(BOUNDS, wall_s=2)


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    with nothing_left_behind():
        yield


async def test_a_function_gets_its_arguments_and_returns_json() -> None:
    source = """
        import datetime, decimal, re, statistics, zoneinfo

        def act(numbers, unit="m"):
            mean = statistics.mean(numbers)
            return {"mean": mean, "unit": unit, "ok": True, "none": None, "text": "ü€\\n"}
    """
    said = await call(source, numbers=[1, 2, 6])
    assert said == {"mean": 3, "unit": "m", "ok": True, "none": None, "text": "ü€\n"}


async def test_an_asynchronous_function_is_awaited() -> None:
    source = """
        import asyncio

        async def act(numbers):
            async def double(number):
                await asyncio.sleep(0.01)
                return 2 * number
            return await asyncio.gather(*map(double, numbers))
    """
    assert await call(source, numbers=[1, 2]) == [2, 4]


async def test_the_key_is_handed_over_where_it_is_asked_for() -> None:
    takes = "def act(name, idempotency_key): return [name, idempotency_key]"
    assert await call(takes, key="run/3", name="n") == ["n", "run/3"]
    forged = await call(takes, key="run/3", name="n", idempotency_key="forged")
    assert forged == ["n", "run/3"]
    assert await call("def act(name): return name", key="run/3", name="n") == "n"


async def test_files_threads_and_pipes_of_its_own_work() -> None:
    source = """
        import concurrent.futures, json, os, pathlib, shutil, sqlite3, tempfile, zipfile

        def act():
            here = os.listdir(".")
            pathlib.Path("a.json").write_text(json.dumps({"a": 1}))
            shutil.copy("a.json", "b.json")
            with zipfile.ZipFile("z.zip", "w") as packed:
                packed.write("b.json")
            with tempfile.NamedTemporaryFile() as file:
                file.write(b"x")
            with sqlite3.connect("x.db") as base:
                base.execute("create table t as select 42 as n")
                rows = base.execute("select n from t").fetchone()
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                squares = list(pool.map(lambda n: n * n, range(5)))
            home = os.path.expanduser("~") == os.getcwd() == tempfile.gettempdir()
            return [here, home, rows, squares, sorted(os.listdir("."))]
    """
    files = ["a.json", "b.json", "x.db", "z.zip"]
    assert await call(source) == [[], True, [42], [0, 1, 4, 9, 16], files]


async def test_twenty_calls_at_once_do_not_meet() -> None:
    source = """
        import os, pathlib

        def act(number):
            pathlib.Path("mine").write_text(str(number))
            return [os.listdir("."), int(pathlib.Path("mine").read_text())]
    """
    said = await asyncio.gather(
        *(call(source, replace(BOUNDS, wall_s=120), number=number) for number in range(20))
    )
    assert said == [[["mine"], number] for number in range(20)]


@pytest.mark.parametrize(
    ("source", "arguments", "fault", "words"),
    [
        ("def act(a, b): return a", {"a": 1}, Fault.ARGUMENTS, "'b'"),
        ("def act(a): return a", {"a": 1, "c": 1}, Fault.ARGUMENTS, "'c'"),
        ("def act(:", {}, Fault.SOURCE, "SyntaxError at line 1"),
        ("x = 1\nimport numpy", {}, Fault.SOURCE, "ModuleNotFoundError at line 2"),
        ("import confining", {}, Fault.SOURCE, "ModuleNotFoundError at line 1"),
        ("import seccomp", {}, Fault.SOURCE, "ModuleNotFoundError at line 1"),
        ("secret = 'tiger'\nint(secret)", {}, Fault.SOURCE, "ValueError at line 2"),
        ("def other(): pass", {}, Fault.SOURCE, "no function act"),
        ("act = 1", {}, Fault.SOURCE, "no function act"),
        ("def act(): return {}['k']", {}, Fault.RAISED, "KeyError: 'k'"),
        ("def act(): return object()", {}, Fault.RAISED, "not JSON"),
        ("def act(): return b'x'", {}, Fault.RAISED, "not JSON"),
        ("def act(): return float('nan')", {}, Fault.RAISED, "not JSON"),
        ("def act(): return [float('inf')]", {}, Fault.RAISED, "not JSON"),
        ("def act(): return '\\ud800'", {}, Fault.RAISED, "not JSON"),
        ("def act():\n a = []\n a.append(a)\n return a", {}, Fault.RAISED, "not JSON"),
        ("def act(): return 10 ** 5000", {}, Fault.RAISED, "not JSON"),
        ("def act(): raise SystemExit(3)", {}, Fault.RAISED, "SystemExit"),
        ("def act(): raise KeyboardInterrupt", {}, Fault.RAISED, "KeyboardInterrupt"),
        ("raise SystemExit", {}, Fault.SOURCE, "SystemExit at line 1"),
        ("def act(): return act()", {}, Fault.RAISED, "RecursionError"),
        ("import os\ndef act(): os._exit(0)", {}, Fault.RAISED, "status 0"),
        ("import os\ndef act(): os.abort()", {}, Fault.RAISED, "SIGABRT"),
        ("import os\ndef act(): os.closerange(0, 999)", {}, Fault.RAISED, "no result"),
        (
            "import os, time\ndef act():\n os.closerange(0, 999)\n time.sleep(999)",
            {},
            Fault.RAISED,
            "closed the channel",
        ),
        (
            "class E(Exception):\n def __str__(self): raise self\ndef act(): raise E",
            {},
            Fault.RAISED,
            "E",
        ),
    ],
)
async def test_what_goes_wrong_is_told_by_its_kind(
    source: str,
    arguments: dict[str, Any],
    fault: Fault,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if words == "no result":
        monkeypatch.setattr("workers.tools.sandbox.LAST_BREATH_S", 60.0)
    failed = await fails(source, **arguments)
    assert (failed.fault, words in failed.message) == (fault, True), failed
    assert "tiger" not in failed.message


WITHOUT_END = {
    "loops": "while True: pass",
    "loops past signals": "import signal\nfor n in (14, 24): signal.signal(n, 1)\nwhile 1: pass",
    "loops in one long call": "x = 3 ** 3 ** 19",
    "sleeps": "import time\ntime.sleep(999)",
    "waits for a thread": "import threading\nthreading.Event().wait()",
}


@pytest.mark.parametrize("body", WITHOUT_END.values(), ids=WITHOUT_END)
async def test_what_never_ends_is_ended(body: str) -> None:
    source = "def act():\n" + "\n".join(f"    {line}" for line in body.splitlines())
    began = time.monotonic()
    failed = await fails(source, BRIEF)
    assert failed.fault is Fault.LIMIT
    assert time.monotonic() - began < 60


async def test_cpu_time_is_bounded_even_for_what_ignores_the_warning() -> None:
    bounds = replace(BOUNDS, cpu_s=1)
    assert "CPU time" in (await fails("def act():\n while True: pass", bounds)).message
    stubborn = "import signal\ndef act():\n signal.signal(24, signal.SIG_IGN)\n while True: pass"
    assert (await fails(stubborn, bounds)).fault is Fault.LIMIT


async def test_prints_go_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    source = """
        import os, sys

        def act():
            print("a secret"), print("a secret", file=sys.stderr)
            for _ in range(20_000):
                os.write(1, bytes(100_000)), os.write(2, bytes(1000))
            return sys.stdin.read()
    """
    assert await call(source) == ""
    assert capfd.readouterr() == ("", "")


async def test_the_secrets_of_the_worker_are_not_in_its_surroundings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("A_SECRET", "tiger")
    seen = await call("import os\ndef act(): return dict(os.environ)")
    assert set(seen) <= {"HOME", "LANG", "LC_CTYPE", "MALLOC_ARENA_MAX", "PATH"}


async def test_it_inherits_no_descriptor() -> None:
    mine = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(mine, True)
    source = """
        import os

        def act():
            read = []
            for descriptor in range(64):
                try:
                    read.append(os.read(descriptor, 100).decode())
                except OSError:
                    pass
            return "".join(read)
    """
    try:
        assert await call(source) == ""
    finally:
        os.close(mine)


async def test_with_the_network_granted_it_reaches_an_address() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    source = """
        import socket

        def act(port):
            with socket.create_connection(("localhost", port)) as line:
                return line.recv(99).decode()
    """
    async with await asyncio.start_server(greet, "localhost", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await call(source, replace(BOUNDS, network=True), port=port) == "hello"
        assert (await fails(source, port=port)).fault is Fault.FORBIDDEN


async def test_without_a_disk_it_writes_nothing() -> None:
    bounds = replace(BOUNDS, disk_mib=0)
    assert await call("def act(): return 1", bounds) == 1
    for path in ("/tmp/x", "x", "/dev/shm/x"):
        failed = await fails("def act(path): open(path, 'w')", bounds, path=path)
        assert failed.fault is Fault.FORBIDDEN


def confined(pid: int) -> bool:
    return "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()


async def test_a_cancelled_call_leaves_no_process() -> None:
    before = relatives()
    waiting = asyncio.create_task(call("import time\ndef act(): time.sleep(999)"))
    async with asyncio.timeout(60):
        while relatives() <= before:
            await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_a_killed_worker_leaves_no_process() -> None:
    script = """
        import asyncio
        from workers.tools.sandbox import Bounds, run
        source = "import time\\ndef act(): time.sleep(999)"
        asyncio.run(run(source, "act", {}, Bounds(wall_s=60), ""))
    """
    worker = subprocess.Popen([sys.executable, "-c", dedent(script)], cwd=ROOT)
    one = psutil.Process(worker.pid)
    until = time.monotonic() + 90
    while not any(confined(child.pid) for child in one.children()):
        assert time.monotonic() < until
    [child] = one.children()
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    # Whoever takes its status, we or a dying thread of its worker: it is gone.
    child.wait(30)


async def test_a_machine_that_cannot_confine_says_so_at_the_start() -> None:
    await check(replace(BOUNDS, wall_s=60))
    with pytest.raises(SandboxUnavailable, match="folder in memory"):
        await check(replace(BOUNDS, wall_s=60, disk_mib=-1))
