"""Following the catalog: a view that is complete, stays so, and never silently misses a change.

What cannot be followed ends the process, which starts again with a new view: reading that ends, a
record that is none of the catalog's, a group in an unknown shape, a topic that was deleted, made
anew or trimmed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import NoReturn

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from infra.bus import TRANSFER_S, BusUnreachable, Record
from infra.catalog import CatalogView, EntryUnreadable
from infra.registry import Reader, SchemaMissing
from infra.settings import KafkaSettings
from infra.tail import BEGINNING, Tail, TailBroken
from schemas.codec import Unreadable
from schemas.events import CatalogChanged
from schemas.topics import CATALOG_CHANGED

log = structlog.get_logger()

WATCH_S = 1.0
# A broker that has just started may not know its topics yet.
LOOKS = 3

GONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID)


class CatalogLost(RuntimeError):
    """The view can no longer be trusted; the message says why."""


def ignore(changed: CatalogChanged) -> None:
    """Lets a change be."""


async def follow(  # noqa: PLR0917 - what is followed, and who hears of it
    kafka: KafkaSettings,
    reader: Reader,
    view: CatalogView,
    name: str,
    fail: Callable[[BaseException], None],
    changed: Callable[[CatalogChanged], None] = ignore,
) -> Following:
    """Fills a view and keeps it up to date.

    Returns when the view has all that lay on the topic at the time of the call.

    Args:
        kafka: Where the broker is.
        reader: Decodes the records.
        view: An empty view; nobody else may feed it.
        name: Client id.
        fail: Called in the loop, once, with what ended the following later; the process must end.
        changed: Called in the loop with each change when it has been applied.

    Raises:
        BusUnreachable: No broker answers.
        CatalogLost: The topic cannot be followed, or is not there.
    """
    following = Following(kafka, reader, view, name, fail=fail, changed=changed)
    try:
        await following.start()
    except BaseException:
        await following.close()
        raise
    log.info("catalog followed", position=view.position, endpoints=len(view.endpoints))
    return following


async def look(kafka: KafkaSettings, reader: Reader, view: CatalogView, name: str) -> None:
    """Fills a view with all that lies on the topic now; arguments and errors as with ``follow``."""

    def end(error: BaseException) -> NoReturn:
        # All is known by then, and no more is wanted.
        raise error

    following = await follow(kafka, reader, view, name, end)
    await following.close()


def topic_id(admin: AdminClient, name: str) -> str | None:
    """Returns what tells a topic from a later one of the same name; None where none is. Blocks.

    Raises:
        BusUnreachable: No broker answers.
    """
    asked = admin.describe_topics(TopicCollection([name]), request_timeout=TRANSFER_S)
    try:
        return str(asked[name].result().topic_id)
    except KafkaException as problem:
        if problem.args[0].code() in GONE:
            return None
        raise BusUnreachable(f"no broker answers: {problem.args[0].str()}") from None


class Following:
    """A view on its way; see ``follow``."""

    def __init__(
        self,
        kafka: KafkaSettings,
        reader: Reader,
        view: CatalogView,
        name: str,
        *,
        fail: Callable[[BaseException], None],
        changed: Callable[[CatalogChanged], None],
    ) -> None:
        self._reader = reader
        self._view = view
        self._fail = fail
        self._changed = changed
        self._ended = False
        self._admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
        # Lots of records in their order; None where the topic ended when following began.
        self._arrived: asyncio.Queue[list[Record] | None] = asyncio.Queue()
        self._complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tail = Tail(
            kafka,
            [CATALOG_CHANGED.name],
            BEGINNING,
            self._arrived.put_nowait,
            f"{name}-catalog",
            fail=self._end_tail,
            caught_up=lambda: self._arrived.put_nowait(None),
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns when the view is complete."""
        first_id = await asyncio.to_thread(topic_id, self._admin, CATALOG_CHANGED.name)
        try:
            await self._tail.start()
        except LookupError as problem:
            raise CatalogLost(str(problem)) from None
        self._tasks = [
            asyncio.create_task(self._guarded(self._apply())),
            asyncio.create_task(self._guarded(self._watch(first_id))),
        ]
        await self._complete

    async def close(self) -> None:
        """Stops following; the view stays as it is."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._tail.close()

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        # Whatever it is: a view that changes no more must not be decided by.
        except Exception as error:  # noqa: BLE001
            self._end(error)

    async def _apply(self) -> None:
        while True:
            lot = await self._arrived.get()
            if lot is None and not self._complete.done():
                self._complete.set_result(None)
            for record in lot or ():
                await self._take(record)
            # A long backlog must not keep the loop from all else.
            await asyncio.sleep(0)

    async def _take(self, record: Record) -> None:
        place = f"{record.topic} at offset {record.offset}"
        try:
            changed = await self._reader.read(record.value, CatalogChanged)
        except (Unreadable, SchemaMissing) as problem:
            raise CatalogLost(f"{place} is no change of the catalog: {problem}") from None
        if record.key != CATALOG_CHANGED.key(changed).encode():
            raise CatalogLost(f"{place} does not lie under its key: compaction would lose entries")
        try:
            is_new = self._view.apply(changed)
        except EntryUnreadable as problem:
            raise CatalogLost(f"{place}: {problem}") from None
        if is_new:
            self._changed(changed)

    async def _watch(self, first_id: str | None) -> None:
        missed = 0
        while missed < LOOKS:
            await asyncio.sleep(WATCH_S)
            with suppress(BusUnreachable):
                found = await asyncio.to_thread(topic_id, self._admin, CATALOG_CHANGED.name)
                if found not in (first_id, None):
                    raise CatalogLost(f"{CATALOG_CHANGED.name} was made anew")
                missed = missed + 1 if found is None else 0
        raise CatalogLost(f"{CATALOG_CHANGED.name} is gone")

    def _end_tail(self, error: BaseException) -> None:
        self._end(CatalogLost(str(error)) if isinstance(error, TailBroken) else error)

    def _end(self, error: BaseException) -> None:
        if not self._complete.done():
            self._complete.set_exception(error)
        elif not self._ended:
            self._fail(error)
        self._ended = True
