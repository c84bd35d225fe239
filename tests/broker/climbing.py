"""A function that goes up a stair, a step after the other, each as long as its test has it take."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

STEPS = 6
# Says which step it takes, and in which executor; the step is done when it has had an answer.
CLIMB = f"""
import os, socket

def climb(port, checkpoint):
    done = checkpoint.last or 0
    for step in range(done, {STEPS}):
        with socket.create_connection(("127.0.0.1", int(port))) as line:
            line.sendall(f"{{step}} {{os.getppid()}}".encode())
            if not line.recv(1):
                raise EOFError
        checkpoint.save(step + 1)
    return [done, {STEPS}]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step that is being taken.

    Attributes:
        number: Which, from 0.
        pid: Of the executor.
        line: Where whoever takes it waits for an answer.
    """

    number: int
    pid: int
    line: socket.socket

    def end(self) -> None:
        """Lets whoever takes it go on."""
        with self.line:
            self.line.sendall(b".")

    def drop(self) -> None:
        """Forgets it; whoever takes it must be gone."""
        with self.line:
            assert self.line.recv(1) == b""


class Stair:
    """The stair, from which steps come as they are taken.

    Attributes:
        port: Where those who climb say so, on this machine.
    """

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.port: int = listening.getsockname()[1]

    def step(self) -> Step:
        """Returns the next step that somebody takes, when somebody does."""
        line, _ = self._listening.accept()
        line.settimeout(self._listening.gettimeout())
        number, pid = map(int, line.recv(99).split())
        return Step(number=number, pid=pid, line=line)

    def empty(self) -> bool:
        """Returns whether nobody takes a step now that the test has not seen."""
        self._listening.setblocking(False)
        try:
            self._listening.accept()
        except BlockingIOError:
            return True
        return False


@contextmanager
def climbed(patience_s: float) -> Iterator[Stair]:
    """Gives a stair, whose steps are waited for so long."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(patience_s)
        yield Stair(listening)
