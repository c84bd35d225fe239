"""Whatever is killed between a table and its index, the index ends as the table."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg
import pytest

from infra.connectors.source import name_of
from infra.stack import workers
from infra.stack.local import LocalStack
from infra.stack.services import FOUNDATION
from infra.vectors import Counted, Place, PlaceUnknown, Vectors, VectorsUnreachable
from schemas.events import IndexState, SourceState
from schemas.indexes import IndexSpec
from schemas.search import Search
from schemas.topics import DEAD_LETTERS, captured
from tests.broker.capturing import USER, Town
from tests.broker.storing import settings_of
from tests.conftest import CATALOG
from tests.conftest import running as running_stack
from tests.faults.test_kill import Crew
from tests.harness import Bus, eventually, running, soon, unique
from tests.index.indexing import INDEX, compared, define, jobs, stands
from tests.seed import changes, publish, seed

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1800)]

PATIENCE_S = 400.0
CHANGES = 20_000
# Of rows: a key comes back soon after it has gone.
KEYS = [(shelf, number) for shelf in ("ä/1", 'b"', "z") for number in range(1000)]
LIVE = 2000
EMPTIED_AT = 2000
TEXTS = 300
SIZES = (1, 1, 1, 2, 5, 20, 100, 400)
DOCS = "public.docs"
SPEC = {
    "text": "body",
    "columns": [{"name": "price", "type": "long"}],
    "chunking": {"by": "sentence", "size": 64},
    "endpoint": "main.tests.minilm",
}
WORDS = (
    *("bark", "brook", "cliff", "cloud", "dune", "fern", "field", "foam", "frost", "glade"),
    *("grove", "heath", "hill", "lake", "marsh", "moss", "peak", "pond", "rain", "reed"),
    *("ridge", "river", "salt", "sand", "shore", "snow", "stone", "storm", "tide", "wind"),
)

Key = tuple[str, int]
Row = tuple[str, int]


def texts() -> list[str]:
    """Returns texts of a sentence, and now and then of many."""
    drawn = random.Random(300)
    return [
        " ".join(
            f"{' '.join(drawn.choices(WORDS, k=12)).capitalize()}."
            for _ in range(40 if number % 30 == 7 else 1)
        )
        for number in range(TEXTS)
    ]


@dataclass
class Writer:
    """Changes a table at random, in transactions of all sizes."""

    session: psycopg.Connection[Any]
    chance: random.Random = field(default_factory=lambda: random.Random(17))
    texts: list[str] = field(default_factory=texts)
    live: list[Key] = field(default_factory=list)
    free: list[Key] = field(default_factory=lambda: [*KEYS])
    written: int = 0

    def write(self, until: int) -> None:
        """Makes changes until there are so many of them."""
        while self.written < until:
            size = min(self.chance.choice(SIZES), until - self.written)
            with self.session.transaction(), self.session.pipeline():
                for _ in range(size):
                    self._change()
                    self.written += 1
                    if self.written == EMPTIED_AT:
                        self._empty()

    def _change(self) -> None:
        what = self.chance.random()
        if len(self.live) < self.chance.uniform(0.5, 1.0) * LIVE or what < 0.1:
            self._insert()
        elif what < 0.4:
            self._run("UPDATE docs SET body = %s WHERE (shelf, id) = (%s, %s)", self._text())
        elif what < 0.75:
            price = self.chance.randrange(1000)
            self._run("UPDATE docs SET price = %s WHERE (shelf, id) = (%s, %s)", price)
        elif what < 0.85:
            new = self._drawn(self.free)
            old = self._run(
                "UPDATE docs SET shelf = %s, id = %s WHERE (shelf, id) = (%s, %s)", *new
            )
            self.live[self.live.index(old)] = new
            self.free.append(old)
        else:
            old = self._run("DELETE FROM docs WHERE (shelf, id) = (%s, %s)")
            self.live.remove(old)
            self.free.append(old)

    def _insert(self) -> None:
        key = self._drawn(self.free)
        row = (*key, self._text(), self.chance.randrange(1000))
        self.session.execute("INSERT INTO docs VALUES (%s, %s, %s, %s)", row)
        self.live.append(key)

    def _empty(self) -> None:
        self.session.execute("TRUNCATE docs")
        self.free += self.live
        self.live.clear()

    def _run(self, statement: str, *values: object) -> Key:
        """Runs a statement about a row that there is; returns its key."""
        key = self.chance.choice(self.live)
        self.session.execute(statement.encode(), (*values, *key))
        return key

    def _drawn(self, keys: list[Key]) -> Key:
        at = self.chance.randrange(len(keys))
        keys[at], keys[-1] = keys[-1], keys[at]
        return keys.pop()

    def _text(self) -> str:
        """Returns one of the texts; there are new ones to the end."""
        return self.texts[self.chance.randrange(10 + (TEXTS - 10) * self.written // CHANGES)]


@pytest.fixture(scope="module")
def whole_stack() -> Iterator[LocalStack]:
    """Everything that is not ours, to be killed."""
    with running_stack(FOUNDATION) as stack:
        yield stack


@pytest.fixture(scope="module")
def town(whole_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Town:
    """A database with a table, and an endpoint that embeds."""
    bus = Bus(whole_stack)
    seed(bus, CATALOG)
    route = {"name": "local", "pool": "embedding", "model": workers.EMBEDDER}
    endpoint = {"kind": "endpoint", "name": "main.tests.minilm", "spec": {"routes": [route]}}
    publish(bus, *changes([endpoint]))
    town = Town(whole_stack, bus, tmp_path_factory.mktemp("index"))
    town.connection("main.tests.shop")
    town.runs(
        "CREATE TABLE docs (shelf text, id int, body text, price int, PRIMARY KEY (shelf, id))",
        # So that large values are left out of the log where they do not change.
        "ALTER TABLE docs ALTER body SET STORAGE EXTERNAL",
    )
    return town


@pytest.fixture(scope="module")
def crew(town: Town) -> Iterator[Crew]:
    """All of ours between a table and its index, revived when they end."""
    town.stack.prepare(["embedding"])
    service = workers.embedding(town.stack.settings)
    python, *embedding = service.command
    client = {"CLIENT_KEY": "", "CLIENT_PRINCIPAL": "", "CLIENT_TENANT": "faults"}
    bus, folder = town.bus, town.folder
    with ExitStack() as opened:

        def run(command: list[str], **more: Any) -> Any:
            return opened.enter_context(running(bus, command, folder, **more))

        crew = Crew(
            {
                "embedding": run(
                    embedding,
                    python=python,
                    start_s=300,
                    **{**service.environment, **bus.environment},
                ),
                "gateway": run(["-m", "streams", "gateway"]),
                "indexer": run(INDEX, **client),
                "sources": run(["-m", "workers", "sources"], SOURCES_EVERY_MS="500"),
            }
        )
        yield crew
        crew.close()


async def held(vectors: Vectors, place: Place, spec: IndexSpec) -> dict[Key, Row]:
    """Returns what an index holds: text and price by key; no text where a chunk is missing.

    A store that was killed may have lost some of a row, until it is told again.
    """
    pieces: defaultdict[Key, list[str]] = defaultdict(list)
    torn: set[Key] = set()
    prices: dict[Key, int] = {}
    after: str | None = None
    while True:
        search = Search(operation="scan", k=1000, after=after)
        page = await vectors.scan(place, spec, search, where=None)
        for hit in page.hits:
            key = (hit.key["shelf"], hit.key["id"])
            alike = prices.setdefault(key, hit.columns["price"]) == hit.columns["price"]
            if hit.position != len(pieces[key]) or not alike:
                torn.add(key)
            pieces[key].append(hit.text)
        after = page.next
        if after is None:
            return {
                key: ("" if key in torn else " ".join(pieces[key]), price)
                for key, price in prices.items()
            }


@dataclass(frozen=True)
class Strike:
    """Who is killed, and when: once so many records are taken in, or at least lie there."""

    victim: str
    at: int
    taken: bool = True


STRIKES = (
    # Not long after the table was emptied, so that this is told twice.
    Strike("connect", 3000, taken=False),
    Strike("embedding", 2000),
    Strike("weaviate", 8000),
    Strike("indexer", 13_000),
)


@dataclass(frozen=True)
class Watch:
    """How far an index is."""

    bus: Bus
    place: Place
    topic: str

    @property
    def group(self) -> str:
        """The group that keeps it."""
        return f"index-{self.place.index}-{self.place.generation}"

    def reaches(self, strike: Strike) -> bool:
        """Returns whether a strike is due, in the midst of the work."""
        taken, lying = self.look()
        return (taken if strike.taken else lying) >= strike.at and taken < lying

    def caught_up(self) -> bool:
        """Returns whether all that lies there is taken in."""
        return self.bus.lag(self.group, self.topic) == 0

    def look(self) -> tuple[int, int]:
        """Returns how many records are taken in, and how many lie there."""
        committed = self.bus.committed(self.group, self.topic).values()
        taken = sum(max(each, 0) for each in committed)
        return taken, taken + self.bus.lag(self.group, self.topic)


def strike(town: Town, crew: Crew, watch: Watch) -> None:
    """Kills each of them in the midst of the work."""
    for each in STRIKES:
        due = partial(watch.reaches, each)
        eventually(due, PATIENCE_S, f"{each.at} records, to kill {each.victim}")
        if each.victim in crew.processes:
            crew.processes[each.victim].kill()
        else:
            town.stack.kill(each.victim)


async def test_four_kills_amid_twenty_thousand_changes_leave_the_index_as_its_table(
    town: Town, crew: Crew
) -> None:
    table, index = town.table("docs", DOCS), f"main.tests.{unique('index')}"
    spec = IndexSpec.model_validate({**SPEC, "source": table})
    define(town.bus, index, spec)
    town.stands(table, SourceState.STREAMING)
    began = time.monotonic()
    watch = Watch(town.bus, Place(index, 1), captured(table, DOCS))
    with town.session() as session:
        session.execute(f"SET ROLE {USER}".encode())
        await asyncio.gather(
            asyncio.to_thread(Writer(session).write, CHANGES),
            asyncio.to_thread(strike, town, crew, watch),
        )
        kept = session.execute("SELECT * FROM docs").fetchall()
    written = town.asks("SELECT pg_current_wal_lsn()::text")
    rows = {(shelf, number): (body, price) for shelf, number, body, price in kept}
    assert len(rows) > LIVE / 2

    def captured_all() -> bool:
        query = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots"
        return bool(town.asks(f"{query} WHERE slot_name = %s", written, name_of(table)))

    await asyncio.to_thread(town.stack.wait_ready, ["connect", "weaviate"], PATIENCE_S)
    await asyncio.to_thread(eventually, captured_all, PATIENCE_S, "that all is captured")
    await asyncio.to_thread(eventually, watch.caught_up, PATIENCE_S, "that all is taken in")
    async with Vectors.open(settings_of(town.stack)) as vectors:

        async def differing() -> list[str]:
            counted = await vectors.count(watch.place)
            found = await held(vectors, watch.place, spec)
            lacking, surplus = rows.keys() - found.keys(), found.keys() - rows.keys()
            stale = [key for key in rows.keys() & found.keys() if rows[key] != found[key]]
            seen = {"lacking": lacking, "surplus": surplus, "stale": stale}
            told = [f"{len(keys)} {what}" for what, keys in seen.items() if keys]
            return told if counted.rows == len(rows) else [*told, f"{counted} for {len(rows)}"]

        async def equal() -> bool:
            try:
                return not await differing()
            # The store is started, or the place made anew.
            except (PlaceUnknown, VectorsUnreachable):
                return False

        try:
            await soon(equal, PATIENCE_S, "the index is as the table")
        except AssertionError as late:
            raise AssertionError(f"{late}: {', '.join(await differing())}") from None
        print(f"{CHANGES} changes and {len(STRIKES)} kills in {time.monotonic() - began:.0f} s")
        report = await asyncio.to_thread(
            partial(stands, town.bus, index, IndexState.READY, waiting=0, rows=len(rows))
        )
        counted = await vectors.count(watch.place)
        assert counted == Counted(rows=len(rows), chunks=report.chunks)
    define(town.bus, index, spec.model_copy(update={"reconcile": 1}))
    with jobs(town.bus, town.folder):
        found = await asyncio.to_thread(compared, town.bus, index, 1)
    # All chunks are looked for by their vectors. A killed store may have left some out of its
    # graph that it took in long before: only a comparison finds them, and has them mended.
    print(f"out of reach: {', then '.join(str(each.unreachable) for each in found)}")
    assert found[-1].unreachable == 0
    first = found[0]
    assert (first.missing, first.stale, first.surplus, first.missed) == (0, 0, 0, 0)
    assert first.table_rows == first.indexed_rows == len(rows)
    # Whoever was killed has been of use again.
    assert report.embedded > 0
    letters = [each for each in town.bus.events(DEAD_LETTERS) if each.processor == watch.group]
    # Of rows that had other keys, or were gone, when their large values were looked up.
    assert all("did not change and was left out" in each.message for each in letters)
