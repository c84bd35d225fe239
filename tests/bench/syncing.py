"""A table in PostgreSQL and the index that follows it: loaded, changed, and written anew."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median

import redis

from infra.conditions import parse
from infra.telemetry import now
from infra.vectors import Place, PlaceUnknown, Vectors
from schemas.events import SourceState
from schemas.indexes import IndexSpec
from schemas.search import Search
from schemas.topics import INFERENCE_COMPLETED, INFERENCE_REQUESTED, captured
from tests.bench.embedding import SENTENCES, SHORTEST, WORDS, Bare
from tests.bench.figures import Spent, family, millis
from tests.broker.capturing import Town
from tests.harness import eventually, unique
from tests.seed import changed, changes, publish

LOCATION = "public.docs"
DIMENSIONS = 384
# How often it is looked whether changes are found: looking takes processor time, too.
LOOK_S, LOOK_LESS_S = 0.02, 0.1
MANY = 10  # changes a second
COUNT_S = 0.25
WARM_S = 4
LATEST_S = 240.0
PART = 100  # of the rows, one changes its text when all are rewritten
KINDS = {"price": "long", "stamp": "long"}


def texts(many: int, longest: int, drawn: random.Random) -> Iterator[str]:
    """Yields texts as of titles and of chunks, of at most so many words."""
    for number in range(many):
        words = drawn.choices(WORDS, k=drawn.randint(SHORTEST, longest))
        yield f"{number} {drawn.random()} {' '.join(words)}"


@dataclass
class Changes:
    """Changes of rows, one after the other at a rate; a stamp of their own tells each.

    Attributes:
        committed: When each was committed, by the clock that runs evenly.
        wall: The same by the clock on the wall.
        found: When each was seen, or a later state of its row.
        gaps: How long it was between two looks.
    """

    committed: dict[int, float] = field(default_factory=dict)
    wall: dict[int, float] = field(default_factory=dict)
    stamps: dict[int, list[int]] = field(default_factory=dict)
    found: dict[int, float] = field(default_factory=dict)
    gaps: list[float] = field(default_factory=list)
    done: bool = False

    def see(self, row: int, stamp: int, at: float) -> None:
        """Notes that a row was found as it was at a stamp."""
        for each in self.stamps.get(row, []):
            if each <= stamp:
                self.found.setdefault(each, at)

    def waiting(self) -> list[int]:
        """Returns the stamps of what was committed and not found yet."""
        return sorted(set(self.committed) - set(self.found))


class Followed:
    """The table, and an index that follows it.

    Args:
        town: The database, and the bus.
        vectors: Where the index is.
        rows: How many rows there are.
        longest: Most words of a text.
        processes: Ids of those whose processor time is told, by name.
    """

    def __init__(
        self, town: Town, vectors: Vectors, rows: int, longest: int, processes: dict[str, int]
    ) -> None:
        self._town = town
        self._vectors = vectors
        self._processes = processes
        self._drawn = random.Random(7)
        self._longest = longest
        self.texts = list(texts(rows, longest, self._drawn))
        self._stamp = 0
        self._spec = IndexSpec()
        self._place = Place("", 1)

    def capture(self) -> None:
        """Makes the table and has it captured."""
        self._town.connection("main.tests.shop")
        self._town.runs(
            "CREATE TABLE docs (id int PRIMARY KEY, body text, price bigint, stamp bigint)"
        )
        with (
            self._town.session() as session,
            session.cursor() as cursor,
            cursor.copy("COPY docs FROM STDIN") as copy,
        ):
            for number, text in enumerate(self.texts):
                copy.write_row((number, text, number, 0))
        began = time.perf_counter()
        self._table = self._town.table("docs", LOCATION)
        self._town.stands(self._table, SourceState.STREAMING)
        self.topic = captured(self._table, LOCATION)
        eventually(lambda: len(self._town.bus.records(self.topic)) >= len(self.texts), 120)
        passed = time.perf_counter() - began
        print(f"{len(self.texts):,} rows captured {passed:.1f} s after the table was told of")

    async def follow(self) -> tuple[float, float]:
        """Defines an index and waits until it has all; returns rows a second and its first's wait.

        The rate is from the first rows that are found to the last.
        """
        self._forget()
        self._place = Place(f"main.tests.{unique('docs')}", 1)
        plain = {
            "source": self._table,
            "text": "body",
            "columns": [{"name": name, "type": kind} for name, kind in KINDS.items()],
            "endpoint": SENTENCES,
        }
        self._spec = IndexSpec.model_validate(plain)
        published = time.perf_counter()
        publish(
            self._town.bus,
            *changes([{"kind": "index", "name": self._place.index, "spec": plain}]),
        )
        first: tuple[float, int] | None = None
        while (rows := await self._rows()) < len(self.texts):
            if rows and first is None:
                first = time.perf_counter(), rows
            await asyncio.sleep(COUNT_S)
        began, had = first or (published, 0)
        return (len(self.texts) - had) / (time.perf_counter() - began), began - published

    def _forget(self) -> None:
        """Removes the index before, and all vectors that are known."""
        if self._place.index:
            publish(self._town.bus, changed("index", self._place.index, None))
        self.empty_cache()

    def empty_cache(self) -> None:
        """Forgets all vectors that are known."""
        with redis.Redis.from_url(self._town.bus.environment["REDIS_URL"]) as cache:
            cache.flushdb()

    async def _rows(self) -> int:
        with suppress(PlaceUnknown):
            return (await self._vectors.count(self._place)).rows
        return 0

    async def load(self, bare: Bare, turns: int) -> None:
        """Prints how fast an index fills, against the model alone."""
        many, before = len(self.texts), family(bare.pid)
        alone, ratios, rates = [bare.rate(self.texts)], [], []
        for turn in range(turns):
            spent = Spent(self._processes)
            rate, wait = await self.follow()
            told = spent.told(many, "row")
            alone.append(bare.rate(self.texts))
            rates.append(rate)
            ratios.append(rate / ((alone[-2] + alone[-1]) / 2))
            print(
                f"  turn {turn + 1}: {rate:,.1f} rows/s after {wait:.1f} s; the model alone before "
                f"and after {alone[-2]:,.1f} and {alone[-1]:,.1f} texts/s\n  {told}",
                flush=True,
            )
        took = 1000 * (family(bare.pid) - before) / many / len(alone)
        print(
            f"load: {median(rates):,.1f} rows/s, the model alone {median(alone):,.1f} texts/s with "
            f"{took:.1f} ms of processor time each\n"
            f"  ratio {median(ratios):.2f} (wanted: at least 0.8)",
            flush=True,
        )

    async def freshness(self, rates: Sequence[int], seconds: int) -> None:
        """Prints how long changes take from their commit until a search finds them."""
        for rate in rates:
            made, began, spent = Changes(), now(), Spent(self._processes)
            first = self._stamp + 1
            writer = threading.Thread(target=self._change, args=(made, rate, seconds))
            writer.start()
            await self._look(made, LOOK_S if rate < MANY else LOOK_LESS_S)
            writer.join()
            told = spent.told(len(made.committed), "change")
            counted = [stamp for stamp in made.committed if stamp >= first + rate * WARM_S]
            late = [made.found[each] - made.committed[each] for each in counted]
            times = [made.committed[each] for each in counted]
            had = (len(times) - 1) / (times[-1] - times[0])
            print(
                f"freshness at {rate}/s (had {had:.1f}/s, {len(late)} changes): {millis(late)}, "
                f"at most {max(late) * 1e3:,.0f} ms; looked every {millis(made.gaps)}"
            )
            self._explain(made, counted, began)
            print(f"  {told}", flush=True)

    def _change(self, made: Changes, rate: int, seconds: int) -> None:
        """Changes one row after the other; blocks until all are changed."""
        fresh = list(texts(rate * (seconds + WARM_S), self._longest, self._drawn))
        began = time.perf_counter()
        with self._town.session() as session:
            for number, text in enumerate(fresh):
                time.sleep(max(0.0, began + number / rate - time.perf_counter()))
                self._stamp += 1
                row = self._stamp % len(self.texts)
                made.stamps.setdefault(row, []).append(self._stamp)
                session.execute(
                    "UPDATE docs SET body = %s, stamp = %s WHERE id = %s", (text, self._stamp, row)
                )
                made.wall[self._stamp] = time.time()
                made.committed[self._stamp] = time.perf_counter()
        made.done = True

    async def _look(self, made: Changes, every_s: float) -> None:
        """Searches for what has changed until all is found."""
        deadline, last = time.perf_counter() + LATEST_S, 0.0
        while not made.done or made.waiting():
            waiting = made.waiting()
            if waiting:
                for row, stamp in await self._newer(waiting[0]):
                    made.see(row, stamp, time.perf_counter())
            looked = time.perf_counter()
            assert looked < deadline, f"{len(waiting)} changes are not found"
            if last:
                made.gaps.append(looked - last)
            last = looked
            await asyncio.sleep(every_s)

    async def _newer(self, stamp: int) -> list[tuple[int, int]]:
        """Returns rows and stamps that a search by vector finds, from a stamp on."""
        search = Search(k=min(len(self.texts), 10_000), columns=("stamp",))
        where = parse({"stamp >=": stamp}, {"stamp": "long"})
        vector = (1.0,) * DIMENSIONS
        found = await self._vectors.search(
            self._place, self._spec, search, query="", vector=vector, where=where
        )
        return [(hit.key["id"], hit.columns["stamp"]) for hit in found.hits]

    def _explain(self, made: Changes, counted: Sequence[int], began: datetime) -> None:
        """Prints where the time of changes went."""
        records = self._town.bus.records(self.topic)
        decoded = self._town.changes(self._table, LOCATION)
        arrived = {
            change.after["stamp"]: record.dated / 1000
            for record, change in zip(records, decoded, strict=True)
            if change.op == "u"
        }
        captured_s = [arrived[each] - made.wall[each] for each in counted]
        done = [
            each
            for each in self._town.bus.events(INFERENCE_COMPLETED)
            if each.routed.request.requested_at >= began
        ]
        took = [(e.completed_at - e.routed.request.requested_at).total_seconds() for e in done]
        many = [len(each.routed.request.inputs) for each in done]
        print(
            f"  commit to topic {millis(captured_s)}; embedding {millis(took)}, "
            f"{sum(many) / len(many):.1f} texts a request, at most {max(many)}"
        )

    async def rewrite(self) -> None:
        """Prints how many texts are embedded when all rows are written and few change."""
        for name in ("", ", nothing in the cache"):
            if name:
                self.empty_cache()
            began, self._stamp, spent = now(), self._stamp + 1, Spent(self._processes)
            self._town.runs(
                f"UPDATE docs SET price = price + 1, stamp = {self._stamp}, body = CASE WHEN "
                f"id % {PART} = 0 THEN body || ' again' ELSE body END"
            )
            wrote = time.perf_counter()
            while await self._older(self._stamp):
                await asyncio.sleep(COUNT_S)
            passed, told = time.perf_counter() - wrote, spent.told(len(self.texts), "row")
            asked = [
                each
                for each in self._town.bus.events(INFERENCE_REQUESTED)
                if each.requested_at >= began
            ]
            embedded, rows = sum(len(each.inputs) for each in asked), len(self.texts)
            print(
                f"rewrite{name}: {rows:,} rows, {-(-rows // PART)} texts changed: {embedded} texts "
                f"embedded in {len(asked)} requests, {100 * embedded / rows:.2f} % (wanted: at "
                f"most 1.1 %)\n  all found after {passed:.1f} s, {rows / passed:,.0f} rows/s\n"
                f"  {told}",
                flush=True,
            )

    async def _older(self, stamp: int) -> bool:
        """Returns whether some row is not found as it is from a stamp on."""
        where = parse({"stamp <": stamp}, {"stamp": "long"})
        search = Search(k=1, columns=())
        found = await self._vectors.search(
            self._place, self._spec, search, query="", vector=None, where=where
        )
        return bool(found.hits)
