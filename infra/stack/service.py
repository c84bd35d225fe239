"""The shape that every service of the stack has, and the one way to ask whether it answers."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from infra.bootstrap import ROOT
from infra.stack.settings import StackSettings

LOOPBACK = "127.0.0.1"
PROBE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A question over TCP: send ``ask`` to ``port``; it passes if ``answer`` is in the reply."""

    port: int
    ask: bytes
    answer: bytes

    async def passes(self) -> bool:
        """Ask once; ``False`` on any refusal, silence of ``PROBE_TIMEOUT_S`` or other answer."""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                return self.answer in await self._reply()
        except (OSError, TimeoutError):
            return False

    async def _reply(self) -> bytes:
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        try:
            writer.write(self.ask)
            await writer.drain()
            return await reader.read(4096)
        finally:
            writer.close()


def http_ok(port: int, path: str) -> Probe:
    """A probe that passes when GET ``path`` answers 200."""
    ask = f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\nConnection: close\r\n\r\n"
    return Probe(port=port, ask=ask.encode(), answer=b" 200 ")


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of loopback; one that was just left counts as free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def no_preparation() -> None:
    """For a service that needs nothing written before it starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What the supervisor must know about one child process.

    Attributes:
        secrets: Variables whose values are read from files at each start, so that they are in no
            table and no log.
        prepare: Called before each start, in a thread; may block; must be safe to repeat.
        ready: Asked until it passes; ``None`` means one-shot: ready is ending with 0.
        live: Asked every few seconds afterwards; several failures in a row mean a restart.
        artifacts: Names in ``infra.artifacts`` that must be there before the first start.
        other_ports: What it listens on besides ``port``.
        user: Whom to become when the supervisor is root, or ``None`` to stay.
        start_s: How long it may take to become ready before it is restarted.
        stop_grace_s: How long it may take to end on ``stop_signal`` before it is killed.
    """

    name: str
    command: tuple[str, ...]
    port: int | None
    ready: Probe | None
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Path] = field(default_factory=dict)
    prepare: Callable[[], None] = no_preparation
    live: Probe | None = None
    depends_on: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()
    needs_worker: bool = False
    other_ports: tuple[int, ...] = ()
    user: str | None = None
    start_s: float = 120.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace_s: float = 15.0

    @property
    def ports(self) -> tuple[int, ...]:
        """Everything that it listens on."""
        return (*([] if self.port is None else [self.port]), *self.other_ports)


def package_folder(name: str) -> Path:
    """Where a package that carries a program lies; it is found without being imported.

    Raises:
        ModuleNotFoundError: the environment lacks the package.
    """
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the service environment lacks {name}; run: python3 -m infra up")
    return Path(spec.origin).parent


def data_folder(name: str, settings: StackSettings) -> Path:
    """Where a service keeps what must survive a restart."""
    return settings.home.resolve() / "data" / name


def lake_folder(settings: StackSettings) -> Path:
    """Where the tables lie: the one place that says so for all of the stack."""
    return (ROOT / settings.lake).resolve() if settings.lake else settings.home.resolve() / "lake"


def private(folder: Path) -> None:
    """Make a folder for the owner alone; one that is there already stays as it is."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def run_folder(settings: StackSettings) -> Path:
    """Where state, secrets and the control socket of the running stack lie."""
    return settings.home.resolve() / "run"
