"""``LocalStack``: the stack as an object; the command line and the tests stand on it.

Knows how to start the supervisor and what to ask of it. Everything it tells is read from the state
file; everything it changes is asked over the control socket, so any number of these may look at
one home.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from infra import artifacts
from infra.bootstrap import ROOT, ensure_environment
from infra.stack import connect, control, postgres, state
from infra.stack.places import bus, cache, client, jobs, tools, vectors
from infra.stack.service import is_free, lake_folder, run_folder
from infra.stack.services import build, closure
from infra.stack.settings import StackSettings
from infra.stack.state import GOOD, State, Status

POLL_S = 0.05
START_S = 600.0
RELEASE_S = 60.0
GIVE_UP_AFTER = 4


class StackFailed(Exception):
    """A service did not come up; the message names it, its reason and the end of its log."""


class LocalStack:
    """The services of one home.

    Example:
        >>> stack = LocalStack(free_ports(home))  # doctest: +SKIP
        >>> stack.up(only=["registry"])  # Kafka comes along: the registry depends on it
        >>> stack.environment()["KAFKA_BOOTSTRAP_SERVERS"]
        >>> stack.down()
    """

    def __init__(self, settings: StackSettings) -> None:
        # A relative home is one of this clone, wherever the command was given.
        home = (ROOT / settings.home).resolve()
        self.settings = settings.model_copy(update={"home": home})
        self.services = build(self.settings)
        self._run = run_folder(self.settings)
        self._supervisor: subprocess.Popen[bytes] | None = None

    def up(
        self,
        only: Iterable[str] | None = None,
        *,
        detach: bool = False,
        wait: bool = True,
        timeout: float = START_S,
    ) -> None:
        """Start services and what they depend on; those that run already are left alone.

        Args:
            only: Names from the table; all when ``None``.
            detach: Keep running when this process ends. Otherwise the stack ends with it.
            wait: Return when all are ready, not at once.
            timeout: Seconds to wait.

        Raises:
            Unready: an artifact or the worker environment could not be made.
            StackFailed: a service did not become ready.
        """
        names = closure(self.services if only is None else only, self.services)
        self.prepare(names)
        self._ensure_supervisor(detach=detach)
        for name in names:
            control.ask(self._run, "start", name)
        if wait:
            self.wait_ready(names, timeout)

    def prepare(self, names: Iterable[str]) -> None:
        """Make what the services need before a first start: artifacts, the worker environment."""
        wanted = [self.services[name] for name in names]
        if any(service.needs_worker for service in wanted):
            ensure_environment("worker", self.settings.cache)
        for artifact in sorted({each for service in wanted for each in service.artifacts}):
            artifacts.ensure(artifact, self.settings)

    def down(self, timeout: float = 120.0) -> None:
        """Stop everything, in reverse order; returns when no process is left."""
        try:
            control.ask(self._run, "shutdown")
        except control.NotRunning:
            return
        until(lambda: not self.running(), timeout, lambda: "the stack did not stop")
        self._let_go(timeout)

    def attend(self) -> None:
        """Wait until a stack that ends with this process has ended."""
        if self._supervisor is not None:
            self._supervisor.wait()

    def data_folders(self) -> list[Path]:
        """Everything that ``reset`` deletes."""
        elsewhere = postgres.places(self.settings)[1]
        home = self.settings.home
        outside = [] if elsewhere.is_relative_to(home) else [elsewhere]
        return [home / "data", self.lake, *outside]

    @property
    def lake(self) -> Path:
        """Where the tables lie."""
        return lake_folder(self.settings)

    def running(self) -> bool:
        """Whether a supervisor is there."""
        return self._run.exists() and control.listening(self._run)

    def status(self) -> dict[str, Status]:
        """Every service as it is now; empty when no supervisor is there."""
        return state.read(self._run / "state.json") if self.running() else {}

    def start(self, name: str) -> None:
        """Start one service and what it depends on; does not wait."""
        control.ask(self._run, "start", name)

    def stop(self, name: str) -> None:
        """Stop one service and leave it down; returns when it is gone."""
        control.ask(self._run, "stop", name)

    def restart(self, name: str) -> None:
        """Stop one service in good order and start it again; does not wait for it."""
        control.ask(self._run, "restart", name)

    def kill(self, name: str) -> None:
        """SIGKILL one service's process group, as a crash would; the supervisor restarts it."""
        control.ask(self._run, "kill", name)

    def pid(self, name: str) -> int | None:
        """The process id of a service, or ``None`` while it has none."""
        found = self.status().get(name)
        return found.pid if found else None

    def wait_ready(self, names: Iterable[str], timeout: float = START_S) -> None:
        """Wait until all named services are ready.

        Raises:
            StackFailed: one keeps failing, or ``timeout`` seconds are over.
        """
        names = list(names)

        def ready() -> bool:
            found = self.status()
            if not found:
                raise StackFailed(self.diagnosis(names))
            for name in names:
                if name in found and found[name].restarts >= GIVE_UP_AFTER:
                    raise StackFailed(self.diagnosis([name]))
            return all(name in found and found[name].state in GOOD for name in names)

        until(ready, timeout, lambda: self.diagnosis(names))

    def diagnosis(self, names: Iterable[str]) -> str:
        """Which of the services fail, or else are not ready, why, and the ends of their logs."""
        found = self.status()
        if not found:
            return f"the supervisor ended; its log:\n{self.log_tail('supervisor')}"
        late = [found[n] for n in names if n in found and found[n].state not in GOOD]
        failing = [one for one in late if one.reason and one.state is not State.WAITING]
        return "\n".join(
            f"{one.name} is {one.state}: {one.reason or 'no reason known'}; "
            f"the end of {self.log_path(one.name)}:\n{self.log_tail(one.name)}"
            for one in failing or late
        )

    def log_path(self, name: str) -> Path:
        """Where a service's output goes."""
        return self.settings.home / "logs" / f"{name}.log"

    def log_tail(self, name: str, lines: int = 15) -> str:
        """The last lines of a service's output."""
        path = self.log_path(name)
        return (
            "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
            if path.exists()
            else ""
        )

    def environment(self) -> Mapping[str, str]:
        """Where everything is, as variables for settings; a secret is a reference to its file."""
        s = self.settings
        return {
            **bus(s),
            **client(s),
            **postgres.reached(s),
            **cache(s),
            **vectors(s),
            **connect.reached(s),
            **jobs(s),
            **tools(s),
        }

    def _ensure_supervisor(self, *, detach: bool) -> None:
        if self.running():
            return
        self._let_go(RELEASE_S)
        log_path = self.log_path("supervisor")
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as out:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-m", "infra.stack", *([] if detach else ["--bound"])],
                cwd=ROOT,
                env={**self.settings.inherited, **_as_environment(self.settings)},
                stdin=subprocess.DEVNULL if detach else subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        until(self._listening_or_over, 60.0, lambda: self.diagnosis([]))

    def _let_go(self, timeout: float) -> None:
        """Wait for the end of a supervisor of ours that listens no more; close its pipe."""
        if self._supervisor is not None:
            self._supervisor.communicate(timeout=timeout)
            self._supervisor = None

    def _listening_or_over(self) -> bool:
        assert self._supervisor is not None
        # 3: another one was faster, and is about to listen.
        if self._supervisor.poll() not in (None, 3):
            raise StackFailed(self.diagnosis([]))
        return self.running()


def until(condition: Callable[[], bool], timeout: float, failure: Callable[[], str]) -> None:
    """Wait for a condition.

    Raises:
        StackFailed: it did not come true within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise StackFailed(f"not after {timeout:.0f} s: {failure()}")
        time.sleep(POLL_S)


def _as_environment(settings: StackSettings) -> dict[str, str]:
    values = settings.model_dump(exclude={"cache", "inherited", "lake"})
    named = {f"STACK_{name.upper()}": str(value) for name, value in values.items()}
    return {**named, "LAKE_ROOT": str(lake_folder(settings)), "TESSERA_CACHE": str(settings.cache)}


# Below the range from which the system draws ports for outgoing connections.
FREE_FROM, FREE_TO = 20_000, 32_000
# Processes that look at the same time look in different places, mostly.
PLACES = 12


def free_ports(home: Path) -> StackSettings:
    """Settings for a second stack beside the usual one: its own home, ports that are free now."""
    names = [name for name in StackSettings.model_fields if name.endswith("_port")]
    ports: dict[str, int] = {}
    start = FREE_FROM + 2 * (os.getpid() % PLACES)
    candidates = iter(random.sample(range(start, FREE_TO, 2 * PLACES), 400))
    for name in names:
        ports[name] = next(port for port in candidates if is_free(port) and is_free(port + 1))
    return StackSettings().model_copy(update={"home": home, "lake": None, **ports})
