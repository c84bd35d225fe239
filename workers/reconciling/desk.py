"""What jobs about indexes know, and do: which are to be compared, and comparing one.

Jobs run in threads of Celery's; all that is asked of the bus and the stores happens in the loop of
the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial

import structlog
from confluent_kafka.admin import AdminClient

from infra.addresses import AddressForbidden
from infra.bus import BusUnreachable, Publisher, PublishFailed
from infra.catalog import CatalogView, Limits
from infra.changes.source import Unfit
from infra.connectors.database import DatabaseUnreachable
from infra.connectors.source import CaptureRefused
from infra.follow import follow
from infra.latest import Latest
from infra.registry import Reader, RegistryUnreachable
from infra.secrets import SecretUnavailable
from infra.settings import JobsSettings, KafkaSettings, VectorSettings
from infra.telemetry import now
from infra.vectors import PlaceUnknown, VectorsRefused, VectorsUnreachable
from schemas.events import IndexReconciled, IndexReported
from schemas.indexes import IndexSpec
from schemas.topics import INDEX_RECONCILED, INDEX_REPORTED, Outgoing
from workers.ending import Ending
from workers.reconciling.due import is_due
from workers.reconciling.reconcile import Behind, Office, reconcile

log = structlog.get_logger()

NAME = "jobs"
SOON_S = 5.0
# What passes, or is told of by the processes whose matter it is: it is tried again later.
LACKS = (
    AddressForbidden,
    Behind,
    BusUnreachable,
    CaptureRefused,
    DatabaseUnreachable,
    LookupError,
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
    """

    def __init__(
        self,
        office: Office,
        publisher: Publisher,
        reports: Latest[IndexReported],
        found: Latest[IndexReconciled],
        settings: JobsSettings,
    ) -> None:
        self._office = office
        self._publisher = publisher
        self._reports = reports
        self._found = found
        self._every = timedelta(milliseconds=settings.reconcile_every_ms)
        self._again = timedelta(milliseconds=settings.reconcile_again_ms)
        self._loop = asyncio.get_running_loop()
        self._under_way: set[str] = set()
        # By the loop's clock: what was compared, or could not be, is left alone for a while.
        self._not_before: dict[str, float] = {}

    def due(self) -> list[str]:
        """Returns the indexes that are to be compared; for any thread."""
        return asyncio.run_coroutine_threadsafe(self._due(), self._loop).result()

    def compare(self, index: str) -> None:
        """Compares an index, if it is still due, and tells what it found; for any thread.

        What is in the way is logged, and it is due again.
        """
        asyncio.run_coroutine_threadsafe(self._compare(index), self._loop).result()

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
        try:
            found = await reconcile(self._office, index, last)
            outgoing = [Outgoing(INDEX_RECONCILED, found)]
            await self._publisher.publish(self._publisher.encode(outgoing))
        except LACKS as lack:
            log.warning("index not compared", index=index, reason=type(lack).__name__)
            return
        finally:
            self._under_way.discard(index)
            # What was found comes back over the log, too.
            self._not_before[index] = self._loop.time() + SOON_S
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
    # No bound of a request matters here.
    view = CatalogView(Limits(max_request_bytes=0, max_deadline_ms=0))
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
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
            admin=admin,
            used=partial(ending.audit, publisher, NAME),
        )
        yield Desk(office, publisher, reports, found, settings)
