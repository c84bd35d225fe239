"""When a process ends: once it is told to, or something of it has failed."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import structlog

from infra.bus import Publisher, PublishFailed
from infra.telemetry import described, now
from schemas.events import AuditOutcome, AuditRecorded
from schemas.topics import AUDIT_RECORDED, Outgoing

log = structlog.get_logger()


class Ending:
    """The end of this process. Made inside the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told = asyncio.Event()
        self._failed: asyncio.Future[None] = self._loop.create_future()

    @property
    def failed(self) -> bool:
        """Whether it ends for something that has failed."""
        return self._failed.done()

    def fail(self, error: BaseException) -> None:
        """Ends the process: what is unfinished is left to another."""
        if not self._failed.done():
            log.error("worker failed", error=described(error), reason=type(error).__name__)
            self._failed.set_exception(error)

    def listen(self) -> None:
        """Takes SIGTERM and SIGINT from now on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._told.set)

    async def come(self) -> None:
        """Returns when the process is to end; SIGTERM and SIGINT count since ``listen``."""
        told: asyncio.Future[Any] = asyncio.ensure_future(self._told.wait())
        await asyncio.wait([told, self._failed], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()

    def check(self) -> None:
        """Returns if nothing has failed.

        Raises:
            Exception: What failed; the process must end non-zero.
        """
        if self._failed.done():
            self._failed.result()

    def audit(self, publisher: Publisher, source: str, table: str, reference: str) -> None:
        """Notes that a secret was used for a table; what is not noted ends the process."""
        instant = now()
        recorded = AuditRecorded(
            audit_id=f"secret.used/{table}/{int(instant.timestamp() * 1000)}/{reference}",
            at=instant,
            source=source,
            action="secret.used",
            kind="secret",
            name=reference,
            outcome=AuditOutcome.DONE,
        )

        def settled(failed: PublishFailed | None) -> None:
            if failed is not None:
                self.fail(failed)

        publisher.post(publisher.encode([Outgoing(AUDIT_RECORDED, recorded)]), (), settled)
