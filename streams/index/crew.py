"""Which generations of which indexes are kept, as the catalog says, and what is told of them.

Every process of the group looks by itself, once a second. Who has the first partition of a source
tells of its index; where nobody takes up records, whoever sees a difference does.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.asker import Asker
from infra.bus import BusUnreachable
from infra.latest import Latest
from infra.registry import Reader
from infra.secrets import resolve
from infra.settings import ClientSettings, RedisSettings, VectorSettings
from infra.signing import Signer
from infra.telemetry import DRIFT, now
from infra.vectors import Counted, Place, PlaceUnknown, Vectors, VectorsRefused, VectorsUnreachable
from schemas.events import IndexReconciled, IndexReported, IndexState, SourceReported
from schemas.indexes import IndexSpec, drift_of
from schemas.topics import INDEX_RECONCILED, INDEX_REPORTED, REPLY, SOURCE_REPORTED, Outgoing
from streams.index.keeping import Keeping, Office, Progress, forget
from streams.index.mending import Mending
from streams.index.report import Seen, generations, obsolete, report, same
from streams.index.standing import GroupHeld, Standing
from streams.processor import Processor
from streams.steps import Runtime

log = structlog.get_logger()

LOOK_S = 1.0
# Looks for which a place must be without an index, or obsolete, before it goes: queries that began
# before may still see it, and another process may know of an index that is not known here yet.
GRACE_LOOKS = 10
# How long what another process has told of an index stands against what is seen here.
HEARSAY = timedelta(seconds=5)
SILENT = (BusUnreachable, KafkaException, TimeoutError, VectorsRefused, VectorsUnreachable)


class Crew:
    """Keeps all indexes that have a source.

    Args:
        runtime: What the process has at hand.
        vectors: Where the vector store is.
        client: As whom embedding endpoints are asked.
        redis: Where vectors are cached.
    """

    def __init__(
        self,
        runtime: Runtime,
        vectors: VectorSettings,
        client: ClientSettings,
        redis: RedisSettings,
    ) -> None:
        self._runtime = runtime
        self._settings = (vectors, client, redis)
        self._open = AsyncExitStack()
        self._keepings: dict[Place, tuple[IndexSpec, Keeping]] = {}
        self._ending: dict[Place, asyncio.Task[None]] = {}
        self._telling: dict[str, asyncio.Task[None]] = {}
        # Whose rows could not be counted when that was due.
        self._uncounted: set[str] = set()
        self._strays: dict[Place, int] = {}
        self._cleaning: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    async def start(self, processor: Processor) -> None:
        """Begins to keep what is to be kept.

        Raises:
            BusUnreachable: No broker answers.
            LookupError: A topic is missing: provisioning has not run.
            SecretUnavailable: The key of whom endpoints are asked as is not there.
        """
        runtime, client = self._runtime, self._settings[1]
        reader = Reader(runtime.codec, runtime.registry)
        follow = (runtime.kafka, reader)
        self._indexes = Latest[IndexReported](*follow, INDEX_REPORTED, runtime.name, processor.fail)
        self._sources = Latest[SourceReported](
            *follow, SOURCE_REPORTED, runtime.name, processor.fail
        )
        self._reconciled = Latest[IndexReconciled](
            *follow, INDEX_RECONCILED, runtime.name, processor.fail
        )
        for latest in (self._indexes, self._reconciled, self._sources):
            await latest.start()
            self._open.push_async_callback(latest.close)
        asker = Asker(
            runtime.kafka,
            runtime.registry,
            client.tenant,
            REPLY.member(client.tenant).name,
            Signer(resolve(client.key)) if client.key else None,
        )
        await self._open.enter_async_context(asker)
        self._mending = Mending(processor.fail)
        self._open.push_async_callback(self._mending.close)
        self._looking = asyncio.create_task(self._watch(processor, asker))

    async def close(self) -> None:
        """Keeps nothing any more."""
        others = [*self._telling.values(), self._looking, self._cleaning]
        tasks = [task for task in others if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for place in tuple(self._keepings):
            self._end(place)
        await asyncio.gather(*self._ending.values())
        await self._open.aclose()

    async def _watch(self, processor: Processor, asker: Asker) -> None:
        try:
            self._office = await self._opened(processor, asker)
            while True:
                self._look(self._office)
                await asyncio.sleep(LOOK_S)
        # What is looked after no more must not seem so.
        except Exception as error:  # noqa: BLE001
            processor.fail(error)

    async def _opened(self, processor: Processor, asker: Asker) -> Office:
        """Returns what all keepings share, once the store answers."""
        runtime, (vectors, client, redis) = self._runtime, self._settings
        while True:
            try:
                opened = await self._open.enter_async_context(Vectors.open(vectors))
            except VectorsUnreachable as lack:
                standing = Standing()
                standing.complain(lack)
                for name, spec in self._specs().items():
                    seen = Seen(
                        spec=spec,
                        last=self._indexes.get(name),
                        generation=spec.generation,
                        standing=standing,
                    )
                    await self._publish(report(name, seen, 0, now()))
                await asyncio.sleep(LOOK_S)
            else:
                break
        return Office(
            runtime=runtime,
            processor=processor,
            vectors=opened,
            asker=asker,
            client=client,
            redis=redis,
            admin=AdminClient(
                {"bootstrap.servers": runtime.kafka.bootstrap_servers, "log_level": 0}
            ),
        )

    def _specs(self) -> dict[str, IndexSpec]:
        """Returns the indexes that are to be kept."""
        return {name: spec for name, spec in self._runtime.view.indexes.items() if spec.source}

    def _look(self, office: Office) -> None:
        specs = self._specs()
        wanted = {
            Place(name, generation): _kept(spec)
            for name, spec in specs.items()
            for generation in generations(spec, self._indexes.get(name))
        }
        for place, (spec, keeping) in tuple(self._keepings.items()):
            if wanted.get(place) != spec or keeping.standing.lost:
                self._end(place)
        for place, (_, keeping) in self._keepings.items():
            keeping.follow(specs[place.index].trigger)
        for place, spec in wanted.items():
            if place not in self._keepings and place not in self._ending:
                keeping = Keeping(office, place, specs[place.index])
                self._keepings[place] = (spec, keeping)
                keeping.start()
        for place, (_, keeping) in self._keepings.items():
            self._mending.follow(place, keeping, self._reconciled.get(place.index))
        for name, spec in specs.items():
            if name not in self._telling:
                self._telling[name] = task = asyncio.create_task(self._tell(name, spec, office))
                task.add_done_callback(partial(self._told, name))
        if self._cleaning is None or self._cleaning.done():
            self._cleaning = asyncio.create_task(self._clean(office))

    def _told(self, name: str, _: asyncio.Task[None]) -> None:
        del self._telling[name]

    def _end(self, place: Place) -> None:
        _, keeping = self._keepings.pop(place)
        self._mending.leave(place)
        self._ending[place] = task = asyncio.create_task(self._stop(keeping))
        task.add_done_callback(lambda _: self._ending.pop(place, None))

    async def _stop(self, keeping: Keeping) -> None:
        try:
            await keeping.stop()
        # A member that does not leave cannot be joined again.
        except Exception as error:  # noqa: BLE001
            self._office.processor.fail(error)

    async def _tell(self, name: str, spec: IndexSpec, office: Office) -> None:
        """Tells of an index where something has changed."""
        try:
            seen, trigger = await self._seen(name, spec, office)
            told = report(name, seen, trigger, now()) if seen else None
            if told is not None:
                await self._publish(told)
        except SILENT as lack:
            log.warning("index not told of", index=name, reason=type(lack).__name__)
        # A surprise ends the process.
        except Exception as error:  # noqa: BLE001
            self._office.processor.fail(error)

    async def _seen(self, name: str, spec: IndexSpec, office: Office) -> tuple[Seen | None, int]:
        """Returns what is known of an index; None where another process may know better."""
        last = self._indexes.get(name)
        generation, keeping = self._newest(name, spec)
        progress: Progress | None = None
        counted: Counted | None = None
        trigger = 0
        if keeping is not None and keeping.joined:
            if not keeping.leads:
                return None, 0
            progress = await keeping.look()
            # Before another may come, of which this says nothing.
            trigger = keeping.trigger
            serving = generation if progress.complete else (last.generation if last else 0)
            due = last is None or name in self._uncounted or _moved(progress, serving, last)
            if serving and due:
                counted = await _counted(office.vectors, Place(name, serving))
                self._uncounted.discard(name)
                if counted is None:
                    # Else it would stand with the rows of before until its next record.
                    self._uncounted.add(name)
        elif keeping is not None and last is not None and not _tells(keeping, last):
            return None, 0
        seen = Seen(
            spec=spec,
            last=last,
            generation=generation,
            standing=keeping.standing if keeping else None,
            progress=progress,
            counted=counted,
            source=self._sources.get(spec.source or ""),
            reconciled=self._compared(name, last),
        )
        return seen, trigger

    def _compared(self, name: str, last: IndexReported | None) -> IndexReconciled | None:
        """Returns what the last comparison of the generation that queries see has found."""
        found = self._reconciled.get(name)
        if found is None or last is None or found.generation != last.generation:
            return None
        DRIFT.labels(name).set(drift_of(found))
        return found

    def _newest(self, name: str, spec: IndexSpec) -> tuple[int, Keeping | None]:
        """Returns the generation that an index is told of by: the wanted one, if it is kept."""
        mine = {
            place.generation: keeping
            for place, (_, keeping) in self._keepings.items()
            if place.index == name
        }
        generation = max(
            mine, key=lambda each: (each == spec.generation, each), default=spec.generation
        )
        return generation, mine.get(generation)

    async def _publish(self, told: IndexReported) -> None:
        """Tells of an index, unless it was told already."""
        before = self._indexes.get(told.index)
        if same(told, before):
            return
        publisher = self._runtime.publisher
        await publisher.publish(publisher.encode([Outgoing(INDEX_REPORTED, told)]))
        if before is None or before.state is not told.state:
            log.info("index stands", index=told.index, state=told.state, building=told.building)

    async def _clean(self, office: Office) -> None:
        """Drops what neither queries nor the catalog need any more."""
        try:
            places = await office.vectors.places()
            strays = {place for place in places if self._stray(place)}
            self._strays = {place: self._strays.get(place, 0) + 1 for place in strays}
            for place, looks in self._strays.items():
                busy = place in self._keepings or place in self._ending
                if looks >= GRACE_LOOKS and not busy:
                    await self._drop(place, office)
        except SILENT as lack:
            log.warning("vectors not cleaned up", reason=type(lack).__name__)
        # A surprise ends the process.
        except Exception as error:  # noqa: BLE001
            office.processor.fail(error)

    async def _drop(self, place: Place, office: Office) -> None:
        # The group goes first: a place that is made anew must not begin where this one ended.
        try:
            await asyncio.to_thread(forget, office.admin, place)
        except GroupHeld:
            return
        await office.vectors.drop(place)
        log.info("generation dropped", index=place.index, generation=place.generation)
        if self._gone(place.index):
            unknown = IndexReported(index=place.index, state=IndexState.UNKNOWN, reported_at=now())
            await self._publish(unknown)

    def _stray(self, place: Place) -> bool:
        spec = self._specs().get(place.index)
        if spec is None:
            return self._gone(place.index)
        return obsolete(place.generation, spec, self._indexes.get(place.index))

    def _gone(self, index: str) -> bool:
        """Returns whether the catalog has no such index; one that cannot be read here is there."""
        entry = self._runtime.view.entry("index", index)
        return entry is None or entry[1] is None


def open_index(
    runtime: Runtime, vectors: VectorSettings, client: ClientSettings, redis: RedisSettings
) -> Crew:
    """Returns what keeps all indexes that have a source.

    Args:
        runtime: What the process has at hand.
        vectors: Where the vector store is.
        client: As whom embedding endpoints are asked.
        redis: Where vectors are cached.
    """
    return Crew(runtime, vectors, client, redis)


def _kept(spec: IndexSpec) -> IndexSpec:
    """Returns what of an index matters to its keeping: who sees it, and when, does not."""
    return spec.model_copy(
        update={
            "column_masks": (),
            "generation": 1,
            "paused": False,
            "reconcile": 0,
            "row_filters": (),
            "trigger": 0,
        }
    )


async def _counted(vectors: Vectors, place: Place) -> Counted | None:
    try:
        return await vectors.count(place)
    except (PlaceUnknown, VectorsUnreachable):
        return None


def _tells(keeping: Keeping, last: IndexReported) -> bool:
    """Returns whether a keeping that takes no records up has something to tell all the same.

    Whether something answers, others may find otherwise: what they have told stands for a while.
    """
    state = keeping.standing.state
    if state is IndexState.DEGRADED:
        return now() - last.reported_at > HEARSAY
    return state is IndexState.FAILED


def _moved(progress: Progress, serving: int, last: IndexReported) -> bool:
    """Returns whether the generation that queries see may hold something else than was told."""
    # What is being built has no counts of its own; the serving one's group is not looked at.
    return (
        serving != last.generation
        or progress.read != last.read
        or progress.waiting != last.waiting
        or last.building is not None
    )
