"""One service under supervision: started, asked, watched, started again, ended with its group."""

from __future__ import annotations

import asyncio
import ctypes
import os
import pwd
import signal
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import structlog

from infra.stack.service import Service, is_free
from infra.stack.settings import StackSettings
from infra.stack.state import GOOD, State, Status

log = structlog.get_logger()

PR_SET_PDEATHSIG = 1
ASK_EVERY_S = 0.1
LIVE_EVERY_S = 5.0
LIVE_FAILURES = 3
BACKOFF_S = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
SETTLED_S = 60.0
LOG_KEPT_BYTES = 16 * 1024 * 1024

_libc = ctypes.CDLL(None)


def _end_with_parent(number: signal.Signals) -> None:
    """Runs in the child, after any change of user (which would clear the setting)."""
    _libc.prctl(PR_SET_PDEATHSIG, number)


class Unit:
    """Keeps one service running; ``note`` is called at each change of its status."""

    def __init__(
        self,
        service: Service,
        *,
        settings: StackSettings,
        log_path: Path,
        note: Callable[[], None],
        dependencies: Callable[[], Awaitable[None]],
    ) -> None:
        self.service = service
        self._settings = settings
        self._log_path = log_path
        self._note = note
        self._dependencies = dependencies
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._restarts = 0
        self._reason = ""
        self._state = State.STOPPED
        self.good = asyncio.Event()

    @property
    def status(self) -> Status:
        """The service as it is now."""
        pid = self._process.pid if self._process and self._process.returncode is None else None
        born = None
        if pid is not None:
            with suppress(psutil.NoSuchProcess):
                born = psutil.Process(pid).create_time()
        return Status(
            name=self.service.name,
            state=self._state,
            pid=pid,
            born=born,
            port=self.service.port,
            restarts=self._restarts,
            reason=self._reason,
        )

    def start(self) -> None:
        """Keep it running from now on; nothing happens if it already is."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep(), name=self.service.name)
            self._task.add_done_callback(_end_on_surprise)

    async def stop(self) -> None:
        """End it and its process group and stay down; returns when it is gone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            # The task may have been ending the process when it was cancelled.
            await self._end()
        self._restarts = 0
        self._become(State.STOPPED)

    def kill(self) -> None:
        """SIGKILL the process group, as a crash would; it is then started again."""
        if self._process is not None and self._process.returncode is None:
            _signal_group(self._process.pid, signal.SIGKILL)

    async def _keep(self) -> None:
        delays = iter(BACKOFF_S)
        while True:
            began = time.monotonic()
            try:
                reason = await self._live()
            finally:
                await self._end()
            if reason is None:
                self._become(State.DONE)
                return
            if time.monotonic() - began > SETTLED_S:
                delays = iter(BACKOFF_S)
            self._restarts += 1
            self._become(State.FAILING, reason)
            await asyncio.sleep(next(delays, BACKOFF_S[-1]))

    async def _live(self) -> str | None:
        """One life. Returns why it ended, or ``None`` for a one-shot that ended well."""
        self._become(State.WAITING, self._reason)
        await self._dependencies()
        self._become(State.PREPARING, self._reason)
        for port in self.service.ports:
            if not is_free(port):
                return (
                    f"port {port} is taken by another program: stop that (another stack: tessera "
                    f"down) or choose another port with {self._settings.variable_of(port)}"
                )
        try:
            await asyncio.to_thread(self.service.prepare)
            self._process = await self._spawn()
        except (OSError, RuntimeError) as failure:
            return str(failure)
        self._become(State.STARTING, self._reason)
        ended = asyncio.create_task(self._process.wait())
        if self.service.ready is None:
            code = await ended
            return None if code == 0 else f"ended with {code}"
        if reason := await self._until_ready(ended):
            return reason
        self._become(State.READY)
        return await self._while_alive(ended)

    async def _until_ready(self, ended: asyncio.Task[int]) -> str | None:
        assert self.service.ready is not None
        deadline = time.monotonic() + self.service.start_s
        while not await self.service.ready.passes():
            if await _over(ended, ASK_EVERY_S):
                return f"ended with {ended.result()} before it was ready"
            if time.monotonic() > deadline:
                return f"was not ready after {self.service.start_s:.0f} s"
        return None

    async def _while_alive(self, ended: asyncio.Task[int]) -> str:
        failures = 0
        while failures < LIVE_FAILURES:
            if await _over(ended, LIVE_EVERY_S):
                return f"ended with {ended.result()}"
            passes = self.service.live is None or await self.service.live.passes()
            failures = 0 if passes else failures + 1
        return f"did not answer {LIVE_FAILURES} times in a row"

    async def _spawn(self) -> Process:
        _rotate(self._log_path)
        identity = _identity(self.service.user)
        secrets = {name: path.read_text() for name, path in self.service.secrets.items()}
        with self._log_path.open("ab") as out:
            return await asyncio.create_subprocess_exec(
                *self.service.command,
                env={**self._settings.inherited, **self.service.environment, **secrets},
                stdin=DEVNULL,
                stdout=out,
                stderr=out,
                process_group=0,
                preexec_fn=partial(_end_with_parent, self.service.stop_signal),
                user=identity and identity.pw_uid,
                group=identity and identity.pw_gid,
                extra_groups=identity and [],
            )

    async def _end(self) -> None:
        """Ask the process to end, then make its whole group end."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            self._become(State.STOPPING, self._reason)
            # Only the leader is asked: servers end their own children in their own order.
            with suppress(ProcessLookupError):
                process.send_signal(self.service.stop_signal)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self.service.stop_grace_s)
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()
        self._process = None

    def _become(self, state: State, reason: str = "") -> None:
        self._state, self._reason = state, reason
        if state in GOOD:
            self.good.set()
        else:
            self.good.clear()
        log.info("service changed", service=self.service.name, state=state.value, reason=reason)
        self._note()


def _end_on_surprise(task: asyncio.Task[None]) -> None:
    """A mistake of ours must not look like a service that waits: end, and let the log tell."""
    if not task.cancelled() and (surprise := task.exception()):
        log.error("supervision failed", service=task.get_name(), exc_info=surprise)
        signal.raise_signal(signal.SIGTERM)


async def _over(ended: asyncio.Task[int], within_s: float) -> bool:
    """Whether the process ends within the given time."""
    done, _ = await asyncio.wait([ended], timeout=within_s)
    return bool(done)


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _identity(user: str | None) -> pwd.struct_passwd | None:
    """Whom the child becomes; only root can become somebody else, and only then is it needed."""
    return pwd.getpwnam(user) if user is not None and os.geteuid() == 0 else None


def _rotate(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_KEPT_BYTES:
        os.replace(path, path.with_suffix(".log.1"))
