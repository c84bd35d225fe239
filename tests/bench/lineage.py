"""What lineage costs on a real PostgreSQL: telling edges, and walks over a million of them.

    python -m tests.bench lineage [EDGES]

The graph is as a year of use leaves it: responses that came from endpoints, models and chunks;
models from runs, runs from snapshots, snapshots from rows; and chains of runs, so that ten steps
lead somewhere. Walks start at random things, hubs and answers, and stop at the limit.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from statistics import quantiles
from time import perf_counter

from sqlalchemy import Engine, text

from catalog.lineage.edges import reading, tell, walk
from catalog.lineage.lineage import Node, edges_of_row
from catalog.lineage.walks import DEPTH, LIMIT, Walk
from schemas.events import InferenceRecorded, LineageEdge, LineageRecorded, Outcome
from tests.catalog.lineage_graphs import database, edge
from tests.conftest import running

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EDGES = 1_000_000
BATCHES = (1, 100, 1000, 5000)
WALKS = 300
VERSIONS = 2000
SEED = 7


def run(edges: str = str(EDGES)) -> None:
    """Prints the figures."""
    draw = random.Random(SEED)
    with running(["postgres"]) as stack, database(stack) as engine:
        told = _told(draw, int(edges))
        began = perf_counter()
        count = sum(_tell(engine, lot) for lot in iter(lambda: list(islice(told, 1000)), []))
        filled = perf_counter() - began
        print(f"{count:,} edges told in {filled:.1f} s: {count / filled:,.0f} edges/s")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE lineage_edge"))
            size = connection.scalar(text("SELECT pg_total_relation_size('lineage_edge')"))
            print(f"table and indexes: {(size or 0) / 2**20:,.0f} MiB")
        _telling(engine, draw)
        _walking(engine, draw)


def _told(draw: random.Random, edges: int) -> Iterator[LineageRecorded]:
    left = edges
    for number in range(VERSIONS):
        made = _version(draw, number)
        left -= len(made.edges)
        yield made
    number = 0
    while left > 0:
        row = edges_of_row(_row(draw, number))
        chunks = tuple(
            edge(f"response r-{number}", "retrieved", f"chunk c-{draw.randrange(50_000)}")
            for _ in range(3)
        )
        told = LineageRecorded(cause_id=row.cause_id, at=row.at, edges=(*row.edges, *chunks))
        left -= len(told.edges)
        number += 1
        yield told


def _version(draw: random.Random, number: int) -> LineageRecorded:
    """A version, the run that made it, its snapshot with rows; most runs begin at another's."""
    name = f"main.default.m{number % 50}@{number}"
    snapshot = f"snapshot lake:orders@version={number}"
    edges: list[LineageEdge] = [
        edge(f"model_version {name}", "trained_by", f"training_run run-{number}"),
        edge(f"training_run run-{number}", "read", snapshot),
        *(edge(snapshot, "read", f"row orders/{draw.randrange(10**6)}@1") for _ in range(100)),
    ]
    if number >= 50:
        earlier = number - 50
        begun = f"model_version main.default.m{earlier % 50}@{earlier}"
        edges.append(edge(f"training_run run-{number}", "began_at", begun))
    return LineageRecorded(cause_id=f"run-{number}", at=NOON, edges=tuple(edges))


def _row(draw: random.Random, number: int) -> InferenceRecorded:
    version = draw.randrange(VERSIONS)
    endpoint = f"main.default.e{version % 20}"
    return InferenceRecorded(
        request_id=f"r-{number}",
        tenant=f"tenant-{number % 20}",
        endpoint=endpoint,
        route="first",
        entity=f"main.default.m{version % 50}@{version}",
        outcome=Outcome.COMPLETED,
        request="",
        requested_at=NOON + timedelta(seconds=number),
    )


def _tell(engine: Engine, lot: Sequence[LineageRecorded]) -> int:
    with engine.begin() as connection:
        return tell(connection, lot)


def _telling(engine: Engine, draw: random.Random) -> None:
    print(f"\n{'rows a batch':>14} {'edges':>7} {'ms':>8} {'edges/s':>9} {'again/s':>9}")
    number = 10**8
    for size in BATCHES:
        lot = [edges_of_row(_row(draw, number + each)) for each in range(size)]
        number += size
        began = perf_counter()
        count = _tell(engine, lot)
        new = perf_counter() - began
        began = perf_counter()
        _tell(engine, lot)
        again = perf_counter() - began
        print(
            f"{size:>14,} {count:>7,} {new * 1e3:>8.1f} {count / new:>9,.0f} {count / again:>9,.0f}"
        )


def _walking(engine: Engine, draw: random.Random) -> None:
    versions = [Node("model_version", f"main.default.m{n % 50}@{n}") for n in range(VERSIONS)]
    starts: dict[str, tuple[bool, list[Node]]] = {
        "chunks": (True, [Node("chunk", f"c-{n}") for n in range(50_000)]),
        "endpoints": (True, [Node("endpoint", f"main.default.e{n}") for n in range(20)]),
        "model versions": (True, versions),
        "model versions, up": (False, versions[-200:]),
        "responses": (False, [Node("response", f"r-{n}") for n in range(100_000)]),
        "rows": (True, [Node("row", f"orders/{n}@1") for n in range(10**6)]),
        "snapshots": (True, [Node("snapshot", f"lake:orders@version={n}") for n in range(500)]),
    }
    year = NOON + timedelta(days=1)
    print(f"\n{WALKS} walks each, depth {DEPTH}, limit {LIMIT}")
    print(
        f"{'from':>20} {'way':>5} {'p50 ms':>8} {'p99 ms':>8} {'edges':>7} {'most':>6} {'cut':>5}"
    )
    for name, (downstream, nodes) in starts.items():
        _line(
            name,
            engine,
            [Walk(start=draw.choice(nodes), downstream=downstream) for _ in range(WALKS)],
        )
    bounded = [
        Walk(
            start=draw.choice(starts["endpoints"][1]),
            downstream=True,
            until=NOON,
            since=NOON - timedelta(days=1),
        )
        for _ in range(20)
    ]
    _line("endpoints, old", engine, bounded)
    late = [Walk(start=draw.choice(versions), downstream=True, since=year) for _ in range(WALKS)]
    _line("versions, since", engine, late)


def _line(name: str, engine: Engine, walks: Sequence[Walk]) -> None:
    spent, sizes, cut = [], [], 0
    for wanted in walks:
        began = perf_counter()
        with reading(engine) as connection:
            found = walk(connection, wanted)
        spent.append((perf_counter() - began) * 1e3)
        sizes.append(len(found.links))
        cut += found.cut
    cents = quantiles(spent, n=100)
    way = "down" if walks[0].downstream else "up"
    print(
        f"{name:>20} {way:>5} {cents[49]:>8.1f} {cents[98]:>8.1f} "
        f"{sum(sizes) // len(sizes):>7,} {max(sizes):>6,} {cut:>5}"
    )
