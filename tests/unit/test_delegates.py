"""Commands that another process answers, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from infra.bootstrap import ROOT

WAIT_S = 60.0
# As a terminal does, whatever is ignored where the tests run.
INTERRUPTED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
COMMAND = """
import sys
from infra.delegates import run
sys.exit(run([sys.executable, "-u", "-c", sys.argv[1]], None, None))
"""
SLOW = """
import time
try:
    print("ready")
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    print("left in order")
"""
STUBBORN = """
import signal
signal.signal(signal.SIGINT, lambda *_: print("told"))
print("ready")
while True:
    signal.pause()
"""


@contextmanager
def command(child: str) -> Iterator[subprocess.Popen[str]]:
    """Runs a command in the foreground of a terminal of its own, once it is ready."""
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED + COMMAND, INTERRUPTED + child],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    ) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
            yield running
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)


def test_a_command_that_is_interrupted_has_time_to_leave_in_order() -> None:
    with command(SLOW) as running:
        os.killpg(running.pid, signal.SIGINT)
        said, _ = running.communicate(timeout=WAIT_S)
        assert (said, running.returncode) == ("left in order\n", 130)


def test_a_command_that_will_not_leave_is_killed_by_another_interrupt() -> None:
    with command(STUBBORN) as running:
        os.killpg(running.pid, signal.SIGINT)
        until = time.monotonic() + WAIT_S
        # Several in a row may count as one.
        for _ in running.stdout or ():
            assert time.monotonic() < until
            os.killpg(running.pid, signal.SIGINT)
        assert running.wait(WAIT_S) != 0
