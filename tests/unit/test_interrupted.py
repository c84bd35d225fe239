"""Commands that ask a database, and are left by Ctrl-C while it keeps silent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from infra.bootstrap import ROOT

WAIT_S = 120.0


@pytest.mark.parametrize(
    "words", [("streams", "memory", "conversations"), ("workers", "calls", "list")]
)
def test_a_command_that_is_left_says_so_in_a_line(words: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(WAIT_S)
        where = {"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": str(silent.getsockname()[1])}
        with subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=ROOT,
            env={**os.environ, **where, "POSTGRES_PASSWORD": ""},
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            asked, _ = silent.accept()
            running.send_signal(signal.SIGINT)
            # What still waits for an answer has none to wait for any more.
            asked.close()
            _, said = running.communicate(timeout=WAIT_S)
    assert (running.returncode, said) == (130, "\nleft; what had begun may be done\n")
