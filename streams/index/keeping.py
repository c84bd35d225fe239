"""Keeping one generation of one index: a consumer group of its own, from its beginning to its end.

Progress is where the group stands; so what is kept goes on where it stopped, and one that is kept
anew reads its topic from the beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from infra.asker import Asker
from infra.bus import TRANSFER_S, BusUnreachable, Record
from infra.changes.source import Source, Unfit, source_of
from infra.embedding import Embedder, Vector
from infra.health import Place as Stand
from infra.health import Progress as Seen
from infra.health import standing, waits
from infra.past import stepped, those
from infra.registry import Plain, Reader, SchemaMissing
from infra.settings import ClientSettings, RedisSettings
from infra.vectors import DimensionsWrong, Place, Vectors
from schemas.codec import Unreadable
from schemas.indexes import IndexSpec
from streams.group import Feed, Group
from streams.index.definition import Definition, endpoint_of
from streams.index.indexing import Indexing
from streams.index.standing import LACKS, GroupHeld, Standing
from streams.index.work import MOST_RECORDS, Batches, Mended
from streams.processor import Processor
from streams.steps import Runtime, Taken

log = structlog.get_logger()

TRY_AGAIN_S = 2.0
# After which a partition that does not move, with records waiting, is told of.
STALL_S = 30.0
# Embedded to learn how long the vectors of an endpoint are.
PROBE = "dimensions"
ABSENT = (KafkaError.GROUP_ID_NOT_FOUND, KafkaError.UNKNOWN_TOPIC_OR_PART)


@dataclass(frozen=True, kw_only=True)
class Office:
    """What all keepings of a process share."""

    runtime: Runtime
    processor: Processor
    vectors: Vectors
    asker: Asker
    client: ClientSettings
    redis: RedisSettings
    admin: AdminClient


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a generation is.

    Attributes:
        read: Records that it has taken in.
        waiting: Records that it has yet to take in.
        complete: Whether it has taken in all that lay there when it began, and what came since.
        stalled: Partitions of which records wait, and nobody takes any in.
    """

    read: int
    waiting: int
    complete: bool
    stalled: int = 0


class Keeping:
    """Keeps a generation from ``start`` to ``stop``.

    Args:
        office: What all keepings share.
        place: Index and generation.
        spec: The index.

    Attributes:
        standing: How it goes.
        trigger: Of the catalog, when the goals were set.
        complete: Whether all was taken in that lay there then, and what came since.
    """

    def __init__(self, office: Office, place: Place, spec: IndexSpec) -> None:
        self.standing = Standing()
        self.trigger = spec.trigger
        self._office = office
        self._place = place
        self._spec = spec
        self._embedder = Embedder(office.asker, office.client, office.runtime.view, office.redis)
        self._group: Group | None = None
        self._feeds: dict[str, Feed] = {}
        self._begun: asyncio.Task[None] | None = None
        # Where the partitions ended at first, and then when that was reached; None when that is.
        self._goals: list[dict[tuple[str, int], int]] = []
        self._seen = Seen(STALL_S)
        self.complete = False

    @property
    def leads(self) -> bool:
        """Whether this process has the first partition, and so tells of the index."""
        return self._group is not None and any(at == 0 for _, at in self._group.assigned)

    async def mend(self, wanted: Iterable[tuple[int, int]]) -> int:
        """Takes records in once more; returns how many.

        Args:
            wanted: Partitions and offsets; those of other processes are theirs to take in.

        Raises:
            BusUnreachable: No broker answers.
        """
        assert self._group is not None
        [(topic, feed)] = self._feeds.items()
        mine = [each for each in wanted if (topic, each[0]) in self._group.assigned]
        many = 0
        async with aclosing(stepped(those(self._office.runtime.kafka, topic, mine))) as records:
            async for record in records:
                # Whose it is by now may store it at this moment.
                if (topic, record.partition) in self._group.assigned:
                    many += await _take_again(feed, record)
        return many

    @property
    def joined(self) -> bool:
        """Whether records are taken up."""
        return self._group is not None

    @property
    def holds(self) -> bool:
        """Whether partitions are this process's."""
        return self._group is not None and bool(self._group.assigned)

    def start(self) -> None:
        """Begins; what is in the way is waited for."""
        self._begun = asyncio.create_task(self._begin())

    async def stop(self) -> None:
        """Ends; what is not stored will be read again."""
        if self._begun is not None:
            self._begun.cancel()
            await asyncio.gather(self._begun, return_exceptions=True)
        if self._group is not None:
            await self._office.processor.leave(self._group)
        await self._embedder.__aexit__(None, None, None)

    def follow(self, trigger: int) -> None:
        """Has somewhere to come to anew where the index was triggered since this began."""
        if trigger > self.trigger:
            self.trigger, self.complete, self._goals = trigger, False, []

    async def look(self) -> Progress:
        """Asks the broker how far the group is.

        Raises:
            KafkaException: The broker does not answer.
            TimeoutError: It does not answer in time.
        """
        assert self._group is not None
        member = self._group.member
        stands, _ = await asyncio.to_thread(standing, self._office.admin, member)
        ends = {(each.topic, each.partition): each.end for each in stands}
        if not self._goals:
            self._goals = [ends]
        elif not self.complete and await self._reached(stands, self._goals[-1]):
            self.complete = len(self._goals) > 1
            self.standing.anew &= not self.complete
            self._goals.append(ends)
        # Of all partitions, whoever has them.
        self._seen.observe([replace(each, mine=True) for each in stands], True, monotonic())
        stalled = [each for each in stands if self._stands_still(each) and await self._waits(each)]
        return Progress(
            read=sum(each.committed for each in stands),
            waiting=sum(each.lag for each in stands),
            complete=self.complete,
            stalled=len(stalled),
        )

    async def _reached(self, stands: Sequence[Stand], goals: dict[tuple[str, int], int]) -> bool:
        for each in stands:
            key = (each.topic, each.partition)
            # What has not moved may have only a transaction's marker before it.
            known = self._seen.since.get(key, (-1, 0.0))[0]
            if each.committed >= goals.get(key, 0):
                continue
            if known != each.committed or await self._waits(each):
                return False
        return True

    def _stands_still(self, stand: Stand) -> bool:
        return (stand.topic, stand.partition) in self._seen.stalled(monotonic())

    async def _waits(self, stand: Stand) -> bool:
        kafka, name = self._office.runtime.kafka, group_of(self._place)
        at = (stand.topic, stand.partition, stand.committed)
        return await asyncio.to_thread(waits, kafka, name, *at)

    async def _begin(self) -> None:
        while True:
            try:
                await self._join()
            except LACKS as lack:
                if str(lack) != self.standing.reason:
                    log.warning("index waits", index=self._place.index, reason=type(lack).__name__)
                self.standing.complain(lack)
            # A surprise ends the process.
            except Exception as error:  # noqa: BLE001
                self._office.processor.fail(error)
                return
            else:
                return
            await asyncio.sleep(TRY_AGAIN_S)

    async def _join(self) -> None:
        spec, runtime = self._spec, self._office.runtime
        source = source_of(spec, runtime.view)
        endpoint = endpoint_of(spec, runtime.view)
        await asyncio.to_thread(self._find, source)
        definition = Definition(runtime.registry, source.topic, spec)
        await definition.check()
        dimensions = await self._dimensions(endpoint)
        if self._place not in await self._office.vectors.places():
            await asyncio.to_thread(forget, self._office.admin, self._place)
            self.standing.anew = True
        await self._office.vectors.ensure(self._place, spec, dimensions)
        embed = partial(self._embed, endpoint, dimensions)
        fail = self._office.processor.fail
        work = Batches(
            runtime,
            self._place.index,
            group_of(self._place),
            Indexing[Taken](self._place, spec, self._office.vectors, embed),
            definition,
            key_columns=spec.key_columns,
            captured=source.captured,
            standing=self.standing,
            fail=fail,
        )
        reader = Reader(runtime.codec, runtime.registry)
        self._feeds = {source.topic: Feed(partial(_read, reader), work)}
        self._group = group = Group(
            runtime, group_of(self._place), self._feeds, fail, reread=MOST_RECORDS, lost=work.drop
        )
        await self._office.processor.join(group)
        self.standing.well()
        log.info("index kept", index=self._place.index, generation=self._place.generation)

    def _find(self, source: Source) -> None:
        """Returns if the source's topic is there; blocks."""
        try:
            found = self._office.admin.list_topics(source.topic, timeout=TRANSFER_S).topics
        except KafkaException as problem:
            raise BusUnreachable(f"no broker answers: {problem.args[0].str()}") from None
        if found[source.topic].error is not None:
            raise Unfit(
                f"there is no topic {source.topic}",
                "see how the source stands: it makes the topic once it is captured"
                if source.captured
                else "make the topic, or name another one",
            )

    async def _dimensions(self, endpoint: str) -> int:
        [vector] = await self._embed(endpoint, None, [PROBE])
        wanted = self._spec.dimensions or len(vector)
        if len(vector) != wanted:
            raise DimensionsWrong(
                f"{endpoint} makes vectors of {len(vector)} numbers, and the index is of {wanted}"
            )
        return wanted

    async def _embed(
        self, endpoint: str, dimensions: int | None, texts: Sequence[str]
    ) -> Sequence[Vector]:
        tags = {"index": self._place.index}
        prefix = self._spec.document_prefix
        try:
            return await self._embedder.embed(endpoint, prefix, texts, dimensions, tags)
        finally:
            self.standing.embedded = self._embedder.embedded


def group_of(place: Place) -> str:
    """Returns the consumer group that keeps a place."""
    return f"index-{place.index}-{place.generation}"


def forget(admin: AdminClient, place: Place) -> None:
    """Removes the group of a place, so that whoever keeps it begins at the beginning; blocks.

    Raises:
        BusUnreachable: The broker does not answer.
        GroupHeld: Others keep it at this moment.
    """
    group = group_of(place)
    try:
        admin.delete_consumer_groups([group], request_timeout=TRANSFER_S)[group].result(TRANSFER_S)
    except KafkaException as problem:
        error = problem.args[0]
        if error.code() in ABSENT:
            return
        if error.code() == KafkaError.NON_EMPTY_GROUP:
            raise GroupHeld(f"the group {group} must begin anew, and has members") from None
        raise BusUnreachable(f"no broker answers: {error.str()}") from None


async def _take_again(feed: Feed, record: Record) -> bool:
    """Takes a record in that was settled before; what cannot be read was given up then."""
    try:
        event = await feed.read(record)
    except (SchemaMissing, Unreadable):
        return False
    await feed.work.take(Mended(record, event, record.headers, _settled, again=True))
    return True


def _settled() -> None:
    """Was settled when it came first."""


async def _read(reader: Reader, record: Record) -> Plain:
    return await reader.plain(record.key, record.value)
