"""What jobs about indexes know, and do: which are to be compared, and comparing one.

Jobs run in threads of Celery's; all that is asked of the bus and the stores happens in the loop of
the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import structlog

from infra.bus import BusUnreachable, Publisher, PublishFailed
from infra.catalog import CatalogView
from infra.changes.source import Unfit
from infra.follow import follow
from infra.latest import Latest
from infra.registry import Reader, RegistryUnreachable
from infra.secrets import SecretUnavailable
from infra.settings import JobsSettings, KafkaSettings, VectorSettings
from infra.telemetry import now
from infra.vectors import PlaceUnknown, VectorsRefused, VectorsUnreachable
from schemas.events import IndexReconciled, IndexReported
from schemas.indexes import IndexSpec, drift_of
from schemas.topics import INDEX_RECONCILED, INDEX_REPORTED, Outgoing
from workers.ending import Ending
from workers.reconciling.due import is_due
from workers.reconciling.reconcile import Behind, Office, reconcile

log = structlog.get_logger()

T = TypeVar("T")

NAME = "jobs"
SOON_S = 5.0
# What passes, or is told of by the processes whose matter it is: it is tried again later.
LACKS = (
    Behind,
    BusUnreachable,
    OSError,
    PlaceUnknown,
    PublishFailed,
    RegistryUnreachable,
    SecretUnavailable,
    Unfit,
    VectorsRefused,
    VectorsUnreachable,
)


class Desk:
    """Opened inside the loop of the process; see ``open_desk``.

    Args:
        office: What comparisons share.
        publisher: Takes what they find.
        reports: How indexes stand.
        found: What the last comparisons found.
        settings: How often to compare.
        fail: Told of a surprise, which ends the process.
    """

    def __init__(  # noqa: PLR0917 - all that it stands on
        self,
        office: Office,
        publisher: Publisher,
        reports: Latest[IndexReported],
        found: Latest[IndexReconciled],
        settings: JobsSettings,
        fail: Callable[[BaseException], None],
    ) -> None:
        self._fail = fail
        self._office = office
        self._publisher = publisher
        self._reports = reports
        self._found = found
        self._every = timedelta(milliseconds=settings.reconcile_every_ms)
        self._again = timedelta(milliseconds=settings.reconcile_again_ms)
        self._loop = asyncio.get_running_loop()
        self._under_way: set[str] = set()
        # By the loop's clock: what was compared, or could not be, is left alone for a while, and
        # for longer each time that it was for nothing.
        self._not_before: dict[str, float] = {}
        self._waits: dict[str, float] = {}
        self._asked: set[Future[Any]] = set()
        self._closed = False

    def due(self) -> list[str]:
        """Returns the indexes that are to be compared; for any thread."""
        return self._ask(self._due()) or []

    def close(self) -> None:
        """Ends what is under way, and begins nothing more; in the loop."""
        self._closed = True
        for asked in tuple(self._asked):
            asked.cancel()

    def compare(self, index: str) -> None:
        """Compares an index, if it is still due, and tells what it found; for any thread.

        What is in the way is logged, and it is due again.
        """
        self._ask(self._compare(index))

    def _ask(self, work: Coroutine[None, None, T]) -> T | None:
        """Returns what comes of work in the loop; None where the desk closes before."""
        if self._closed:
            work.close()
            return None
        asked = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._asked.add(asked)
        try:
            return asked.result()
        except CancelledError:
            return None
        # A surprise ends the process.
        except Exception as error:  # noqa: BLE001
            self._loop.call_soon_threadsafe(self._fail, error)
            return None
        finally:
            self._asked.discard(asked)

    async def _due(self) -> list[str]:
        return [
            name for name, spec in self._office.view.indexes.items() if self._is_due(name, spec)
        ]

    def _is_due(self, index: str, spec: IndexSpec) -> bool:
        if index in self._under_way or self._loop.time() < self._not_before.get(index, 0.0):
            return False
        last, found = self._reports.get(index), self._found.get(index)
        return is_due(spec, last, found, every=self._every, again=self._again, now=now())

    async def _compare(self, index: str) -> None:
        spec, last = self._office.view.indexes.get(index), self._reports.get(index)
        # Another process may have compared it since it was queued.
        if spec is None or last is None or not self._is_due(index, spec):
            return
        self._under_way.add(index)
        began, well = self._loop.time(), False
        try:
            found = await reconcile(self._office, index, last)
            outgoing = [Outgoing(INDEX_RECONCILED, found)]
            await self._publisher.publish(self._publisher.encode(outgoing))
            well = not drift_of(found)
        except LACKS as lack:
            log.warning("index not compared", index=index, reason=type(lack).__name__)
            return
        finally:
            self._under_way.discard(index)
            self._rest(index, self._loop.time() - began, well=well)
        log.info(
            "index compared",
            index=index,
            compared=found.compared,
            missing=found.missing,
            stale=found.stale,
            surplus=found.surplus,
            unreachable=found.unreachable,
            missed=found.missed,
        )

    def _rest(self, index: str, took_s: float, *, well: bool) -> None:
        """Leaves an index alone for a while."""
        # What was found comes back over the log, too.
        wait = max(SOON_S, took_s)
        if not well:
            longest = max(wait, self._every.total_seconds())
            wait = min(max(wait, 2 * self._waits.get(index, 0.0)), longest)
        self._waits[index] = 0.0 if well else wait
        self._not_before[index] = self._loop.time() + wait


@asynccontextmanager
async def open_desk(  # noqa: PLR0917 - where everything is, and who hears of its end
    kafka: KafkaSettings,
    vectors: VectorSettings,
    settings: JobsSettings,
    publisher: Publisher,
    reader: Reader,
    ending: Ending,
) -> AsyncIterator[Desk]:
    """Opens a desk for as long as the block lasts.

    Args:
        kafka: Where the broker is.
        vectors: Where the store is.
        settings: How often to compare.
        publisher: Takes what is found.
        reader: Decodes records.
        ending: Told what ended it early.

    Raises:
        BusUnreachable: No broker answers.
        CatalogLost: The catalog cannot be followed.
        LookupError: A topic is missing: provisioning has not run.
    """
    view = CatalogView()
    async with AsyncExitStack() as held:
        following = await follow(kafka, reader, view, NAME, ending.fail)
        held.push_async_callback(following.close)
        reports = Latest[IndexReported](kafka, reader, INDEX_REPORTED, NAME, ending.fail)
        found = Latest[IndexReconciled](kafka, reader, INDEX_RECONCILED, NAME, ending.fail)
        for latest in (reports, found):
            await latest.start()
            held.push_async_callback(latest.close)
        office = Office(
            kafka=kafka,
            reader=reader,
            view=view,
            vectors=vectors,
            used=partial(ending.audit, publisher, NAME),
        )
        yield Desk(office, publisher, reports, found, settings, ending.fail)
