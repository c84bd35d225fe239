"""The table of edges on a real PostgreSQL: telling in any order, and walks against a naive one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import permutations
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlmodel import SQLModel

from catalog.lineage.edges import Edge, kinds_of, reading, tell, tenants_of, walk
from catalog.lineage.lineage import MOST_OF_A_KIND, NAMES, Node
from catalog.lineage.walks import Found, Walk
from tests.catalog.lineage_graphs import NOON, Told, database, edge, minute, naive_walk, told
from tests.conftest import running

pytestmark = pytest.mark.stack

# Small enough for cycles, and for things that many others came from.
THINGS = [f"row t/{number}@1" for number in range(9)]
EDGES = st.lists(
    st.tuples(
        st.sampled_from(THINGS),
        st.sampled_from(["read", "called", NAMES]),
        st.sampled_from(THINGS),
        st.integers(0, 5),
    ),
    max_size=30,
    unique_by=lambda each: each[:3],
)
TIMES = st.none() | st.integers(0, 6).map(minute)
WALKS = st.builds(
    Walk,
    start=st.sampled_from(THINGS).map(lambda thing: Node(*thing.split(" "))),
    downstream=st.booleans(),
    depth=st.integers(1, 10),
    since=TIMES,
    until=TIMES,
)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running(["postgres"]) as stack, database(stack) as engine:
        yield engine


@pytest.fixture
def fresh(engine: Engine) -> Engine:
    empty(engine)
    return engine


def empty(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE lineage_edge"))


def store(engine: Engine, edges: list[Told]) -> None:
    empty(engine)
    with engine.begin() as connection:
        tell(connection, [told(edge(*each[:3]), at=minute(each[3])) for each in edges])


def walked(engine: Engine, wanted: Walk) -> Found:
    with reading(engine) as connection:
        return walk(connection, wanted)


def shown(found: Found) -> list[tuple[str, str, str]]:
    return [
        (" ".join(link.downstream), link.relation, " ".join(link.upstream)) for link in found.links
    ]


def table(engine: Engine) -> list[tuple[object, ...]]:
    columns = ", ".join(Edge.model_fields)
    with engine.begin() as connection:
        rows = connection.execute(text(f"SELECT {columns} FROM lineage_edge ORDER BY 1, 2, 3"))
        return [tuple(row) for row in rows]


@given(edges=EDGES, wanted=WALKS)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_walk_finds_what_a_naive_one_finds(
    engine: Engine, edges: list[Told], wanted: Walk
) -> None:
    store(engine, edges)
    found = walked(engine, wanted)
    assert not found.cut
    assert len(shown(found)) == len(set(shown(found)))
    assert set(shown(found)) == naive_walk(edges, wanted)


@given(edges=EDGES, wanted=WALKS, limit=st.integers(1, 8))
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_limited_walk_finds_the_first_of_what_the_whole_one_finds_and_says_so(
    engine: Engine, edges: list[Told], wanted: Walk, limit: int
) -> None:
    store(engine, edges)
    whole = walked(engine, wanted)
    limited = Walk(
        start=wanted.start,
        downstream=wanted.downstream,
        depth=wanted.depth,
        since=wanted.since,
        until=wanted.until,
        limit=limit,
    )
    found = walked(engine, limited)
    assert found.links == whole.links[:limit]
    assert found.cut == (len(whole.links) > limit)


def test_telling_in_any_order_and_any_number_of_times_leaves_one_table(fresh: Engine) -> None:
    tellings = [
        told(edge("response r", "served_by", "model_version a.b.c@1", n="1"), at=minute(2)),
        told(edge("response r", "served_by", "model_version a.b.c@1", n="2"), at=minute(1)),
        told(
            edge("response r", "served_by", "model_version a.b.c@1", n="3"),
            at=minute(2),
            cause="zulu",
        ),
        told(
            edge("response r", "served_by", "model_version a.b.c@1", n="4"),
            at=minute(2),
            cause="zulu",
        ),
    ]
    outcomes = set()
    for order in permutations(tellings):
        for together in (True, False):
            empty(fresh)
            for lot in [[*order]] if together else [[each] for each in (*order, order[0])]:
                with fresh.begin() as connection:
                    tell(connection, lot)
            outcomes.add(json.dumps(table(fresh), default=str, sort_keys=True))
    assert len(outcomes) == 1
    [row] = table(fresh)
    stored = dict(zip(Edge.model_fields, row, strict=True))
    assert (stored["first_at"], stored["last_at"]) == (minute(1), minute(2))
    assert (stored["cause_id"], stored["attributes"]) == ("zulu", {"n": "4"})


def test_telling_again_writes_nothing(fresh: Engine) -> None:
    said = [told(edge("response r", "read", "file f", x="1"))]
    versions = set()
    for _ in range(3):
        with fresh.begin() as connection:
            tell(connection, said)
            versions.add(
                tuple(connection.execute(text("SELECT xmin, ctid FROM lineage_edge")).one())
            )
    assert len(versions) == 1


def test_names_of_any_length_and_letters_are_kept(fresh: Engine) -> None:
    relation = "ü" * MOST_OF_A_KIND
    name = "topic:t@schema=1;offsets=" + ",".join(f"{n}:0-9" for n in range(1000)) + "ßλ'\"\\{},"
    with fresh.begin() as connection:
        tell(connection, [told(edge("training_run r", relation, f"snapshot {name}", note=name))])
    [link] = walked(fresh, Walk(start=Node("training_run", "r"))).links
    assert link.upstream == Node("snapshot", name)
    assert link.attributes == {"note": name}


def test_the_newest_of_what_came_from_a_thing_is_found_first(fresh: Engine) -> None:
    with fresh.begin() as connection:
        tell(
            connection,
            [
                told(edge(f"response {uuid4()}", "served_by", "endpoint a.b.c"), at=minute(number))
                for number in range(50)
            ],
        )
    found = walked(fresh, Walk(start=Node("endpoint", "a.b.c"), downstream=True, limit=7))
    assert found.cut
    assert [link.last_at for link in found.links] == [minute(49 - each) for each in range(7)]


def test_a_name_is_found_under_its_kinds(fresh: Engine) -> None:
    with fresh.begin() as connection:
        tell(
            connection,
            [
                told(
                    edge("response x", "called", "tool_call x"),
                    edge("response x", "asked_by", "principal p", tenant="acme"),
                )
            ],
        )
        assert kinds_of(connection, "x") == ["response", "tool_call"]
        assert kinds_of(connection, "y") == []
        assert tenants_of(connection, ["x", "y"]) == {"x": {"acme"}}
    assert walked(fresh, Walk(start=Node("response", "y"))) == Found((), cut=False)
    assert walked(fresh, Walk(start=Node("response", "x"), since=minute(1))).links == ()
    assert walked(fresh, Walk(start=Node("response", "x"), until=NOON)).links == ()


def test_the_migration_makes_the_tables_that_the_code_says(fresh: Engine) -> None:
    with fresh.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, SQLModel.metadata) == []
