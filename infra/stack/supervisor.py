"""The supervisor: one process per home that owns all services of the stack.

Knows the order, the control socket and the state file. Does not know what any service is; that is
``services.py``. It ends, and all services with it, on SIGTERM, SIGINT, a ``shutdown`` request or,
when bound, as soon as the process that started it is gone.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

import psutil

from infra.stack import state
from infra.stack.control import listen
from infra.stack.service import run_folder
from infra.stack.services import build, closure
from infra.stack.settings import StackSettings
from infra.stack.unit import Unit


class Supervisor:
    """All units of one home and the requests made to them."""

    def __init__(self, settings: StackSettings) -> None:
        self._run = run_folder(settings)
        self._services = build(settings)
        self._stopping = asyncio.Event()
        self._units = {
            name: Unit(
                service,
                settings=settings,
                log_path=settings.home.resolve() / "logs" / f"{name}.log",
                note=self._write,
                dependencies=self._wait_for(service.depends_on),
            )
            for name, service in self._services.items()
        }

    async def run(self, *, bound: bool) -> None:
        """Serve requests until asked to end; returns when every service is gone."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        if bound:
            # The starter holds the other end of this pipe: its end is the starter's end.
            loop.add_reader(sys.stdin.fileno(), self._stopping.set)
        _reap(state.read(self._run / "state.json"))
        self._write()
        async with listen(self._run, self.answer):
            await self._stopping.wait()
            if bound:
                loop.remove_reader(sys.stdin.fileno())
            await self._stop_all()

    async def answer(self, line: bytes) -> bytes:
        """Carry out one request ``{"verb": ..., "name": ...}``; the reply is one line too."""
        if not line:  # Somebody only wanted to know whether anybody is here.
            return b""
        request = json.loads(line)
        verb, name = request.get("verb"), request.get("name")
        if verb == "shutdown":
            self._stopping.set()
            return b"{}\n"
        if verb not in VERBS or name not in self._units:
            return json.dumps({"error": f"cannot {verb} {name}: no such thing"}).encode() + b"\n"
        await VERBS[verb](self, name)
        return b"{}\n"

    async def start(self, name: str) -> None:
        """Keep a service and what it depends on running."""
        for each in closure([name], self._services):
            self._units[each].start()

    async def stop(self, name: str) -> None:
        """End one service and leave it down; those that depend on it go on."""
        await self._units[name].stop()

    async def restart(self, name: str) -> None:
        """End one service in good order, then start it."""
        await self.stop(name)
        await self.start(name)

    async def kill(self, name: str) -> None:
        """Crash one service; it is started again."""
        self._units[name].kill()

    def _wait_for(self, names: tuple[str, ...]) -> Callable[[], Awaitable[None]]:
        async def wait() -> None:
            for name in names:
                await self._units[name].good.wait()

        return wait

    async def _stop_all(self) -> None:
        """Stop everything, each service after those that depend on it."""
        tasks: dict[str, asyncio.Task[None]] = {}

        async def stop(name: str) -> None:
            users = [n for n, service in self._services.items() if name in service.depends_on]
            await asyncio.gather(*(tasks[user] for user in users))
            await self._units[name].stop()

        for name in reversed(closure(self._services, self._services)):
            tasks[name] = asyncio.create_task(stop(name))
        await asyncio.gather(*tasks.values())

    def _write(self) -> None:
        state.write(
            self._run / "state.json", {name: unit.status for name, unit in self._units.items()}
        )


VERBS: dict[str, Callable[[Supervisor, str], Awaitable[None]]] = {
    "kill": Supervisor.kill,
    "restart": Supervisor.restart,
    "start": Supervisor.start,
    "stop": Supervisor.stop,
}


def _reap(statuses: dict[str, state.Status]) -> None:
    """Kill what a supervisor that died uncleanly has left running."""
    for status in statuses.values():
        if status.pid is None:
            continue
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if psutil.Process(status.pid).create_time() == status.born:
                os.killpg(status.pid, signal.SIGKILL)
                psutil.Process(status.pid).wait(10)


def supervise(settings: StackSettings, *, bound: bool) -> int:
    """Run the supervisor of this home; returns its exit status, 3 if another one is running."""
    folder = run_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with (folder / "supervisor.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 3
        asyncio.run(Supervisor(settings).run(bound=bound))
    return 0
