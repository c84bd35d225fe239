"""Indexes are searched and written to over the real bus, in the real store, as the catalog lets."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from infra.bootstrap import ROOT
from schemas.events import InferenceRecorded, Message, Reason, Role
from schemas.search import Found, Hit, Rerank, Sort
from schemas.topics import INFERENCE_RECORDED
from streams.client import Client, RequestRefused
from tests.harness import Bus, Process, eventually, running, unique
from tests.index.words import DIMENSIONS, vector_of
from tests.seed import changes, publish

pytestmark = [pytest.mark.stack, pytest.mark.usefixtures("searcher")]

SEARCH = ["-m", "workers", "inference", "--provider", "search", "--pool", "search"]
PEOPLE = ["ann", "bob", "eve"]
NOTES, STAFF = unique("main.tests.notes"), unique("main.tests.staff")
UNREADABLE, OWN = unique("main.tests.unreadable"), unique("main.tests.own")
COLUMNS = [
    {"name": "id", "type": "long"},
    {"name": "dept"},
    {"name": "email"},
    {"name": "price", "type": "double"},
]
SPEC: dict[str, Any] = {
    "key_columns": ["id"],
    "text": "{title}: {body}",
    "columns": COLUMNS,
    "endpoint": "main.tests.words",
}
ROWS: list[dict[str, Any]] = [
    {"id": at, "title": title, "body": body, "dept": dept, "price": price}
    for at, (title, body, dept, price) in enumerate(
        [
            ("sea", "salt water and waves", "hr", 1.0),
            ("hill", "green grass and stones", "it", 2.0),
            ("lake", "sweet water and reeds", "it", 3.0),
            ("wood", "moss and fern", None, 4.0),
            ("rain", "water from clouds", "hr", None),
        ]
    )
]


def index(name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "index", "name": name, "spec": {**SPEC, **more}}


@pytest.fixture(scope="module", autouse=True)
def searcher(index_bus: Bus, folder: Path, town: list[Process]) -> Iterator[Process]:
    """The worker behind indexes, and two of them."""
    users = [{"kind": "user", "name": name, "spec": {"tenant": "index"}} for name in PEOPLE]
    guarded = {
        "row_filters": [
            {"to": ["ann"], "where": "dept = 'hr'"},
            {"to": ["ann", "bob"], "where": "dept = 'it' AND price >= 3"},
        ],
        "column_masks": [{"column": "email", "mask": "last4", "unless": ["bob"]}],
    }
    unreadable = {"row_filters": [{"to": ["everyone"], "where": "colour = 'red'"}]}
    indexes = [
        index(NOTES),
        index(OWN, endpoint=None, dimensions=2),
        index(STAFF, **guarded),
        index(UNREADABLE, **unreadable),
    ]
    publish(index_bus, *changes([*users, *indexes]))
    with running(
        index_bus, SEARCH, folder, CLIENT_KEY="", CLIENT_PRINCIPAL="", CLIENT_TENANT="index"
    ) as process:
        yield process


@pytest.fixture
async def clients(index_bus: Bus) -> AsyncIterator[dict[str, Client]]:
    """A client for each of the people, and one for the tenant."""
    async with AsyncExitStack() as opened:
        yield {
            who or "tenant": await opened.enter_async_context(
                Client(
                    tenant="index",
                    principal=who,
                    key="",
                    kafka=index_bus.kafka,
                    registry=index_bus.registry_settings,
                )
            )
            for who in ["", *PEOPLE]
        }


@pytest.fixture
def client(clients: dict[str, Client]) -> Client:
    return clients["tenant"]


@pytest.fixture
async def notes(client: Client) -> str:
    """An index with the rows as they were written, whatever other tests have done to it."""
    written = await client.upsert(NOTES, ROWS)
    assert (written.status, written.written) == ("SUCCESS", len(ROWS))
    return NOTES


def ids(hits: Found | tuple[Hit, ...]) -> list[int]:
    return [hit.key["id"] for hit in (hits.hits if isinstance(hits, Found) else hits)]


async def refusal(asking: Any) -> tuple[Reason, str | None, str]:
    with pytest.raises(RequestRefused) as refused:
        await asking
    said = refused.value.refusal
    return said.reason, said.field, said.message


async def test_what_is_written_is_found_by_meaning_by_words_and_by_both(
    client: Client, notes: str
) -> None:
    by_meaning = await client.search(notes, "sweet water and reeds", k=2)
    assert by_meaning.hits[0].text == "lake: sweet water and reeds"
    assert by_meaning.hits[0].columns == {"id": 2, "dept": "it", "email": None, "price": 3.0}
    scores = [hit.score or 0.0 for hit in by_meaning.hits]
    assert 1.0 >= scores[0] > scores[1] > 0.0
    by_words = await client.search(notes, "clouds", mode="full_text")
    assert ids(by_words) == [4]
    by_both = await client.search(notes, "moss clouds", mode="hybrid", k=2)
    assert set(ids(by_both)) == {3, 4}


async def test_a_vector_is_searched_for_as_its_text_is(client: Client, notes: str) -> None:
    text = "salt water"
    assert ids(await client.search(notes, vector=vector_of(text))) == ids(
        await client.search(notes, text)
    )


@pytest.mark.parametrize(
    ("pairs", "condition", "expected"),
    [
        ({"price <": 3}, "price < 3", {0, 1}),
        ({"dept": ["hr", "law"]}, "dept IN ('hr', 'law')", {0, 4}),
        ({"dept NOT": "hr", "price >=": 3}, "NOT dept = 'hr' AND price >= 3", {2}),
        ({"dept": None}, "dept IS NULL", {3}),
        ({"dept OR id": ["hr", 3]}, "dept = 'hr' OR id = 3", {0, 3, 4}),
    ],
)
async def test_filters_of_both_forms_let_the_same_hits_pass(
    client: Client, notes: str, pairs: dict[str, Any], condition: str, expected: set[int]
) -> None:
    assert set(ids(await client.search(notes, "water", filters=pairs))) == expected
    assert set(ids(await client.search(notes, "water", filters=condition))) == expected


async def test_pages_of_hits_are_the_hits(client: Client, notes: str) -> None:
    whole = ids(await client.search(notes, "water and moss", k=5))
    pages = [await client.search(notes, "water and moss", k=2, offset=at) for at in (0, 2, 4)]
    assert [each for page in pages for each in ids(page)] == whole
    assert sorted(whole) == [0, 1, 2, 3, 4]


async def test_hits_are_sorted_and_counted_by_columns(client: Client, notes: str) -> None:
    found = await client.search(
        notes, "water", sort=[Sort(column="price", descending=True)], facets=["dept"]
    )
    assert ids(found) == [3, 2, 1, 0, 4]
    assert {each.value: each.count for each in found.facets["dept"]} == {"hr": 2, "it": 2}


async def test_hits_are_ranked_anew_by_who_reads_them(client: Client, notes: str) -> None:
    ranks = Rerank(endpoint="main.tests.words", top=5)
    found = await client.search(notes, "fern moss stones", k=3, rerank=ranks)
    assert [hit.score for hit in found.hits[:2]] == [pytest.approx(2 / 3), pytest.approx(1 / 3)]
    assert ids(found)[:2] == [3, 1]


async def test_a_scan_yields_all_rows_by_key_and_a_fetch_those_that_are_named(
    client: Client, notes: str
) -> None:
    assert [hit.key["id"] async for hit in client.scan(notes, page=2)] == [0, 1, 2, 3, 4]
    scanned = [hit.key["id"] async for hit in client.scan(notes, filters={"dept": "it"})]
    assert scanned == [1, 2]
    keys: list[dict[str, Any]] = [{"id": "3"}, {"id": 99}, {"id": 0}]
    fetched = await client.fetch(notes, keys, columns=["price"])
    assert [(hit.key["id"], hit.columns) for hit in fetched] == [
        (3, {"price": 4.0}),
        (0, {"price": 1.0}),
    ]


async def test_what_is_deleted_is_found_no_more_until_it_is_written_again(
    client: Client, notes: str
) -> None:
    gone = await client.delete(notes, [{"id": 4}, {"id": 1234}])
    assert (gone.status, gone.written) == ("SUCCESS", 2)
    assert 4 not in ids(await client.search(notes, "water from clouds"))
    await client.upsert(notes, [{**ROWS[4], "body": "snow"}])
    [hit] = await client.fetch(notes, [{"id": 4}])
    assert hit.text == "rain: snow"


async def test_rows_that_cannot_be_written_are_told_and_the_others_are_written(
    client: Client, notes: str
) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 10, "title": "good", "body": "row"},
        {"id": 11, "title": "bad", "body": "price", "price": "dear"},
        {"title": "no", "body": "key"},
        {"id": 12, "title": "odd", "body": "column", "colour": "red"},
        {"id": 13, "vector": [1.0, 2.0]},
        {"id": 14, "title": "taken", "vector": vector_of("good row")},
    ]
    written = await client.upsert(notes, rows)
    assert (written.status, written.written) == ("PARTIAL", 2)
    reasons = {str(each.key.get("id")): each.reason for each in written.failed}
    assert reasons == {
        "11": 'column "price" is kept as double, which text here is not',
        "None": 'key column "id" takes text or a whole number',
        "12": 'column "colour" is none of the index: it is no key, not in its text, not kept',
        "13": f"a vector has 2 dimensions, and those of the index {DIMENSIONS}",
    }
    assert sorted(ids(await client.search(notes, "good: row", filters="id >= 10"))) == [10, 14]
    failed = await client.upsert(notes, rows[1:3])
    assert (failed.status, failed.written, len(failed.failed)) == ("FAILURE", 0, 2)
    await client.delete(notes, [{"id": 10}, {"id": 14}])


async def test_an_index_without_an_endpoint_takes_vectors_and_words(client: Client) -> None:
    rows = [
        {"id": 1, "title": "east", "body": "sun", "vector": [1.0, 0.0]},
        {"id": 2, "title": "north", "body": "moss", "vector": [0.0, 1.0]},
        {"id": 3, "title": "west", "body": "wind"},
    ]
    written = await client.upsert(OWN, rows)
    assert (written.status, written.written) == ("PARTIAL", 2)
    assert "give the row a vector" in written.failed[0].reason
    assert ids(await client.search(OWN, vector=[0.1, 0.9], k=1)) == [2]
    assert ids(await client.search(OWN, "sun", mode="full_text")) == [1]
    reason, _, message = await refusal(client.search(OWN, "sun"))
    assert reason is Reason.REQUEST_INVALID
    assert "has no embedding endpoint: give a vector" in message


async def test_whoever_may_not_see_the_nearest_rows_finds_the_nearest_of_the_others(
    clients: dict[str, Client],
) -> None:
    rows = [
        {"id": at, "title": "secret", "body": "plan", "dept": "law", "price": 9.0}
        for at in range(100)
    ]
    rows += [
        {"id": 100, "title": "far", "body": "away", "dept": "hr", "price": 1.0},
        {"id": 101, "title": "far", "body": "off", "dept": "it", "price": 3.0},
        {"id": 102, "title": "far", "body": "out", "dept": "it", "price": 2.0},
    ]
    written = await clients["tenant"].upsert(STAFF, rows)
    assert written.status == "SUCCESS"
    for mode in ("vector", "hybrid", "full_text"):
        query = "secret plan" if mode != "full_text" else "far"
        found = {
            who: set(ids(await client.search(STAFF, query, k=5, mode=mode)))
            for who, client in clients.items()
        }
        # Nobody is named but ann and bob, and the tenant does not own the index.
        assert found == {"tenant": set(), "ann": {100, 101}, "bob": {101}, "eve": set()}
    assert [hit.key["id"] async for hit in clients["ann"].scan(STAFF)] == [100, 101]
    assert ids(await clients["bob"].fetch(STAFF, [{"id": 0}, {"id": 100}, {"id": 101}])) == [101]
    counts = (await clients["bob"].search(STAFF, "secret", facets=["dept"])).facets["dept"]
    assert [(each.value, each.count) for each in counts] == [("it", 1)]


async def test_a_masked_column_is_shown_masked_and_gives_nothing_away(
    clients: dict[str, Client],
) -> None:
    row = {"id": 101, "title": "far", "body": "off", "dept": "it", "price": 3.0}
    await clients["tenant"].upsert(STAFF, [{**row, "email": "carol@example.org"}])
    [masked] = (await clients["ann"].search(STAFF, "far", filters="id = 101")).hits
    [whole] = (await clients["bob"].search(STAFF, "far", filters="id = 101")).hits
    assert (masked.columns["email"], whole.columns["email"]) == ("****.org", "carol@example.org")
    for more in ({"filters": {"email LIKE": "carol%"}}, {"facets": ["email"]}):
        reason, _, message = await refusal(clients["ann"].search(STAFF, "far", **more))
        assert reason is Reason.REQUEST_INVALID
        assert "email is masked for you" in message


async def test_nothing_is_shown_where_a_row_filter_cannot_be_applied(client: Client) -> None:
    await client.upsert(UNREADABLE, ROWS)
    reason, _, message = await refusal(client.search(UNREADABLE, "water"))
    assert reason is Reason.ROUTE_UNFIT
    assert "must keep all columns in the index that row filters name" in message


@pytest.mark.parametrize(
    ("how", "field", "said"),
    [
        ({"filters": {"colour": "red"}}, "search", 'no column "colour" is kept'),
        ({"filters": "price = 'dear'"}, "search", '"price" is a double: write a number'),
        (
            {"vector": (1.0, 2.0)},
            "search",
            f"has 2 dimensions, and those of the index {DIMENSIONS}",
        ),
        ({"columns": ["colour"]}, "search", 'no column "colour" is kept'),
    ],
)
async def test_a_search_that_cannot_be_answered_is_refused_with_what_is_wrong(
    client: Client, notes: str, how: Any, field: str, said: str
) -> None:
    reason, at, message = await refusal(client.search(notes, "water", **how))
    assert (reason, at) == (Reason.REQUEST_INVALID, field)
    assert said in message


async def test_an_index_is_no_endpoint_and_an_endpoint_no_index(client: Client, notes: str) -> None:
    turn = Message(role=Role.USER, content="hello")
    reason, at, message = await refusal(client.chat(notes, [turn]))
    assert (reason, at) == (Reason.REQUEST_INVALID, "task")
    assert "is an index: search it" in message
    reason, at, message = await refusal(client.search("main.tests.words", "hello"))
    assert (reason, at) == (Reason.REQUEST_INVALID, "endpoint")
    assert "name an index" in message


async def test_an_index_over_a_table_is_neither_written_to_nor_asked_before_it_is_built(
    index_bus: Bus, client: Client
) -> None:
    table, name = unique("main.tests.table"), unique("main.tests.over")
    location = {"kind": "table", "name": table, "spec": {"location": "topic:nothing"}}
    publish(index_bus, *changes([location, index(name, source=table)]))

    reason = Reason.UNKNOWN
    # The gateway hears of it a moment later.
    while reason in (Reason.UNKNOWN, Reason.PRIVILEGE_MISSING, Reason.ENDPOINT_UNKNOWN):
        reason, _, message = await refusal(client.search(name, "hello"))
    assert reason is Reason.PROVIDER_UNAVAILABLE
    assert f"{name} is not built" in message
    reason, _, message = await refusal(client.upsert(name, ROWS))
    assert reason is Reason.REQUEST_INVALID
    assert f"follows its table {table}" in message


async def test_a_search_leaves_a_row_with_its_hits_and_without_vectors(
    index_bus: Bus, client: Client, notes: str
) -> None:
    tags = {"test": unique("row")}
    await client.search(notes, "salt water", k=1, vectors=True, tags=tags)
    rows: dict[str, InferenceRecorded] = {}

    def recorded() -> bool:
        rows.update((e.row_id, e) for e in index_bus.events(INFERENCE_RECORDED) if e.tags == tags)
        return bool(rows)

    eventually(recorded, 120.0, "the row of a search")
    [row] = rows.values()
    asked, answered = json.loads(row.request), json.loads(row.response or "")
    assert (asked["query"], asked["search"]) == ("salt water", {"k": 1, "vectors": True})
    [hit] = answered["found"]["hits"]
    assert (hit["key"], hit["position"]) == ({"id": 0}, 0)
    assert "vector" not in hit
    assert (row.endpoint, row.prompt_tokens, row.cost) == (notes, 2, Decimal(0))


async def test_a_search_from_the_command_line_is_a_table_or_lines_of_json(
    index_bus: Bus, notes: str
) -> None:
    def run(*words: str) -> tuple[str, str]:
        environment = {"CLIENT_KEY": "", "CLIENT_PRINCIPAL": "", "CLIENT_TENANT": "index"}
        ran = subprocess.run(
            [sys.executable, "-m", "streams", "search", notes, *words],
            env={**os.environ, **index_bus.environment, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        return ran.stdout, ran.stderr

    shown, _ = await asyncio.to_thread(run, "sweet water and reeds", "--k", "1")
    headings, line = shown.splitlines()
    assert headings.split() == ["score", "key", "chunk", "version", "text"]
    assert line.split()[1:5] == ["id=2", "1", "of", "1"]
    assert line.endswith("lake: sweet water and reeds")
    told, _ = await asyncio.to_thread(run, "water", "--filter", "price >= 3", "--json")
    assert {json.loads(each)["key"]["id"] for each in told.splitlines()} == {2, 3}
    said, complaint = await asyncio.to_thread(run, "water", "--filter", "colour = 1")
    assert (said, complaint.startswith("refused: REQUEST_INVALID")) == ("", True)
