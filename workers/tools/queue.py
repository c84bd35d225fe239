"""The queue of tool calls: Celery's, in Redis.

It carries and keeps nothing that is not in the journal, too: what it loses is sent again, and what
it gives out twice is begun once.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from celery import Celery
from celery.exceptions import CeleryError
from kombu.exceptions import KombuError

from infra.settings import ToolsSettings
from infra.telemetry import now
from workers.tools.calls import Wanted

NAME = "tools"
CALL = "tools.call"
SENDERS = 4
# How long Redis may take to answer who sends.
ANSWER_S = 5


class QueueUnreachable(RuntimeError):
    """The queue does not answer; it can be asked again."""


class Queue:
    """What calls are sent to. Made inside the running loop.

    Args:
        settings: Where the queue is.
    """

    def __init__(self, settings: ToolsSettings) -> None:
        self._app = _open(
            settings, {"socket_connect_timeout": ANSWER_S, "socket_timeout": ANSWER_S}
        )
        self._threads = ThreadPoolExecutor(SENDERS, "tools-queue")

    async def send(self, wanted: Wanted, attempt: int) -> None:
        """Sends a call to whoever runs it first.

        Args:
            wanted: The call.
            attempt: Which attempt it is hoped to be, from 1.

        Raises:
            QueueUnreachable: The queue does not answer; it may have the call all the same.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self._send, wanted, attempt)

    def close(self) -> None:
        """Sends no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._app.close()

    def _send(self, wanted: Wanted, attempt: int) -> None:
        try:
            self._app.send_task(
                CALL,
                (wanted.model_dump_json(),),
                task_id=f"{wanted.call_id}/{attempt}",
                expires=max((wanted.deadline - now()).total_seconds(), 0.0),
                retry_policy={"max_retries": 1, "interval_start": 0.1},
                # Else Celery writes arguments into the headers, for logs.
                argsrepr="",
                kwargsrepr="",
            )
        except (CeleryError, KombuError, OSError) as problem:
            kind = type(problem).__name__
            raise QueueUnreachable(f"the queue of tool calls does not answer: {kind}") from None


class Taking:
    """Takes calls from the queue, in threads of this process.

    Args:
        settings: Where the queue is, and how many calls at once.
        perform: Performs one; called in a thread, and returns when the call has ended.
        fail: Hears, in a thread, what ended the taking early.
    """

    def __init__(
        self,
        settings: ToolsSettings,
        perform: Callable[[str], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        app = _open(settings, {})
        app.task(perform, name=CALL)
        self._worker = app.WorkController(
            hostname=f"{NAME}-{os.getpid()}@{os.uname().nodename}",
            pool="threads",
            concurrency=settings.at_once,
            without_gossip=True,
            without_mingle=True,
        )
        self._fail = fail
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="celery", daemon=True)

    def start(self) -> None:
        """Takes calls from now on."""
        self._thread.start()

    def stop(self, longest_s: float) -> None:
        """Takes no more; returns when those under way have ended, or after so long."""
        self._closing = True
        self._worker.stop()
        self._thread.join(longest_s)

    def _run(self) -> None:
        reason = "it returned"
        try:
            self._worker.start()
        # Celery ends its worker with one of its own; whatever ends it early ends the process.
        except BaseException as error:  # noqa: BLE001
            reason = type(error).__name__
        if not self._closing:
            self._fail(RuntimeError(f"Celery has ended by itself: {reason}"))


def _open(settings: ToolsSettings, options: dict[str, int]) -> Celery:
    seconds = settings.visibility_ms / 1000
    app = Celery(NAME, broker=settings.broker, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "unacked_restore_interval": min(seconds, 10.0),
            "unacked_restore_throttle": 1,
            "visibility_timeout": seconds,
            **options,
        },
        task_acks_late=True,
        task_default_queue=NAME,
        task_ignore_result=True,
        task_serializer="json",
        timezone="UTC",
        worker_hijack_root_logger=False,
        worker_prefetch_multiplier=1,
    )
    return app
