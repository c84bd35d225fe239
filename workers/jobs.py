"""Jobs that come by the clock: Celery has the clock and the queue, Redis keeps what is queued.

Every process has both; of several, one takes a job, and what was done is not due any more. A job
that is lost with its process is found due again.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.beat import Scheduler
from celery.beat import Service as Clock

from infra.bus import Publisher
from infra.health import Health
from infra.registry import Reader
from infra.settings import HealthSettings, JobsSettings, KafkaSettings, VectorSettings
from workers.ending import Ending
from workers.reconciling.desk import NAME, Desk, open_desk

# How often it is looked for what is due, and how long a look is worth having.
LOOK_S = 5.0
# How long a comparison is worth having in the queue: it is found due again.
WORTH_S = 60
# How long a job may take before Redis gives it to another.
LONGEST_S = 900
AT_ONCE = 2
STOP_S = 20.0
DUE, COMPARE = "indexes.due", "indexes.compare"


def open_app(settings: JobsSettings, desk: Desk) -> Celery:
    """Returns the application: its queue, its clock, and the jobs by name.

    Args:
        settings: Where the queue is.
        desk: Knows what is due, and does it.
    """
    app = Celery(NAME, broker=settings.broker, set_as_current=False)
    app.conf.update(
        beat_schedule={"due": {"task": DUE, "schedule": LOOK_S, "options": {"expires": LOOK_S}}},
        broker_connection_retry_on_startup=True,
        broker_transport_options={"visibility_timeout": LONGEST_S},
        task_acks_late=True,
        task_default_queue=NAME,
        task_ignore_result=True,
        timezone="UTC",
        worker_hijack_root_logger=False,
        worker_prefetch_multiplier=1,
    )

    def compare(index: str) -> None:
        desk.compare(index)

    comparing = _task(app, compare, COMPARE)

    def due() -> None:
        for index in desk.due():
            comparing.apply_async((index,), expires=WORTH_S)

    _task(app, due, DUE)
    return app


# `Any`: Celery is untyped.
def _task(app: Celery, work: Callable[..., None], name: str) -> Any:
    return app.task(work, name=name)


class Jobs:
    """The process. Made inside the running loop.

    Args:
        kafka: Where the broker is.
        vectors: Where the vector store is.
        settings: Where the queue is, and how often jobs are due.
        health: Where to answer about health.
        publisher: Takes what jobs find.
        reader: Decodes records.
    """

    def __init__(  # noqa: PLR0917 - all that it stands on
        self,
        kafka: KafkaSettings,
        vectors: VectorSettings,
        settings: JobsSettings,
        health: HealthSettings,
        publisher: Publisher,
        reader: Reader,
    ) -> None:
        self._settings = settings
        self._where = (kafka, vectors)
        self._publisher = publisher
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._ending = Ending()
        self._health = Health(health, kafka)

    async def run(self) -> None:
        """Works until SIGTERM or SIGINT.

        Raises:
            Exception: What ended the work early; the process must end non-zero.
        """
        self._ending.listen()
        settings, (kafka, vectors) = self._settings, self._where
        async with open_desk(
            kafka, vectors, settings, self._publisher, self._reader, self._ending
        ) as desk:
            celery = _Celery(open_app(settings, desk), self._told)
            celery.start()
            self._health.start()
            self._health.begin()
            await self._ending.come()
            self._health.drain()
            desk.close()
            await asyncio.to_thread(celery.stop)
        self._health.close()
        self._ending.check()

    def _told(self, error: BaseException) -> None:
        self._loop.call_soon_threadsafe(self._ending.fail, error)


class _Celery:
    """Celery's worker and its clock, in threads of this process."""

    def __init__(self, app: Celery, fail: Callable[[BaseException], None]) -> None:
        host = f"{NAME}-{os.getpid()}@{os.uname().nodename}"
        self._worker = app.WorkController(
            hostname=host,
            pool="threads",
            concurrency=AT_ONCE,
            without_gossip=True,
            without_mingle=True,
        )
        self._clock = Clock(app, max_interval=1, scheduler_cls=Scheduler)
        self._fail = fail
        self._closing = False
        self._threads = [
            threading.Thread(target=self._run, args=(work.start,), name="celery", daemon=True)
            for work in (self._worker, self._clock)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends what is under way, as far as it can be in time."""
        self._closing = True
        self._clock.stop(wait=False)
        self._worker.stop()
        for thread in self._threads:
            thread.join(STOP_S)

    def _run(self, start: Callable[[], None]) -> None:
        reason = "it returned"
        try:
            start()
        # Celery ends its worker with one of its own; whatever ends it early ends the process.
        except BaseException as error:  # noqa: BLE001
            reason = type(error).__name__
        if not self._closing:
            self._fail(RuntimeError(f"Celery has ended by itself: {reason}"))
