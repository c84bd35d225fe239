"""What holds for every request holds for searches: policies, limits, who sees what, lineage."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from catalog.lineage.lineage import Node
from infra.vectors import chunk_id, document_id
from schemas.events import IndexState, InferenceRecorded, Outcome, Reason, Task
from schemas.indexes import IndexSpec
from schemas.search import Hit
from schemas.topics import INFERENCE_RECORDED, INFERENCE_REQUESTED, INFERENCE_ROUTED
from streams.client import Client, RequestRefused
from tests.broker.approving import approve, officers, wanted
from tests.catalog.lineage_graphs import database
from tests.catalog.test_lineage_ingest import ingesting, reaches
from tests.conftest import running as running_stack
from tests.harness import Bus, Process, eventually, running, unique
from tests.index.feeding import Table, rows_on_a_topic
from tests.index.indexing import answers, define, indexer, stands
from tests.index.test_search import SEARCH
from tests.seed import changes, publish

pytestmark = [pytest.mark.stack, pytest.mark.usefixtures("town")]

NOTES = unique("main.tests.governed")
MAIL = "ada@example.com"
MASKED, RESTORED = "[EMAIL_ADDRESS]", "<EMAIL_ADDRESS_1>"
# Somebody decides meanwhile, with a command.
HELD_S = 300.0
ROWS: list[dict[str, Any]] = [
    {"id": 1, "body": "salt water and waves", "dept": "hr", "email": MAIL},
    {"id": 2, "body": f"letter of {MAIL} about moss", "dept": "it"},
    {"id": 3, "body": "green grass and stones", "dept": "it"},
]
RULES: dict[str, dict[str, Any]] = {
    "careful": {"type": "keywords", "words": ["wire transfer"], "action": "ask", "on": ["input"]},
    "counted": {"type": "limit", "unit": "requests", "most": 4, "window": "10m", "per": "tenant"},
    "discreet": {"type": "pii", "entities": {"EMAIL_ADDRESS": "mask"}},
    "silent": {"type": "keywords", "words": ["moss"], "action": "deny", "on": ["output"]},
}
PEOPLE = {"cara": "careful", "ann": "index", "bob": "index", "eve": "index", "olga": "index"}


@pytest.fixture(scope="module", autouse=True)
def searcher(index_bus: Bus, folder: Path, town: list[Process]) -> Iterator[Process]:
    """The worker behind indexes, tenants with a policy each, and an index."""
    rules = {name: {"name": "rule", **rule} for name, rule in RULES.items()}
    policies = [
        {
            "kind": "policy",
            "name": f"main.tests.{name}",
            "spec": {"rules": [rule]},
            "grants": {"boss": ["MANAGE"]},
        }
        for name, rule in rules.items()
    ]
    tenants = [
        {
            "kind": "tenant",
            "name": name,
            "spec": {"accept_unsigned": True, "policies": [f"main.tests.{name}"]},
        }
        for name in RULES
    ]
    users = [
        {"kind": "user", "name": name, "spec": {"tenant": tenant}}
        for name, tenant in PEOPLE.items()
    ]
    filters = [
        {"to": ["careful"], "where": "dept = 'it'"},
        {"to": ["counted", "discreet", "index", "silent"], "where": "id > 0"},
    ]
    index = {
        "kind": "index",
        "name": NOTES,
        "spec": {
            "key_columns": ["id"],
            "text": "{body}",
            "columns": [{"name": "id", "type": "long"}, {"name": "dept"}, {"name": "email"}],
            "endpoint": "main.tests.words",
            "row_filters": filters,
        },
    }
    publish(index_bus, *changes([*officers(folder), *policies, *tenants, *users, index]))
    with running(
        index_bus, SEARCH, folder, CLIENT_KEY="", CLIENT_PRINCIPAL="", CLIENT_TENANT="index"
    ) as process:
        yield process


@asynccontextmanager
async def asking(bus: Bus, tenant: str, principal: str = "") -> AsyncIterator[Client]:
    async with Client(
        tenant=tenant,
        principal=principal,
        key="",
        kafka=bus.kafka,
        registry=bus.registry_settings,
    ) as client:
        yield client


@pytest.fixture
async def notes(index_bus: Bus) -> str:
    async with asking(index_bus, "index") as client:
        assert (await client.upsert(NOTES, ROWS)).written == len(ROWS)
    return NOTES


def ids(hits: Any) -> set[int]:
    return {hit.key["id"] for hit in hits}


def recorded(bus: Bus, tags: dict[str, str], many: int = 1) -> list[InferenceRecorded]:
    """Returns the rows of requests with these tags once there are so many of them."""
    rows: list[InferenceRecorded] = []

    def there() -> bool:
        found = {each.row_id: each for each in bus.events(INFERENCE_RECORDED) if each.tags == tags}
        rows[:] = found.values()
        return len(rows) >= many

    eventually(there, 120.0, f"{many} rows")
    assert len(rows) == many
    return rows


async def test_a_search_that_a_policy_holds_goes_on_once_approved_with_what_its_asker_may_see(
    index_bus: Bus, folder: Path, notes: str
) -> None:
    tag = unique("held")
    async with asking(index_bus, "careful", "cara") as client:
        asked = asyncio.create_task(client.search(notes, f"wire transfer {tag}", timeout=HELD_S))
        waits = await wanted(index_bus, "careful", tag)
        assert not asked.done()
        await asyncio.to_thread(approve, index_bus, folder, waits.approval_id)
        assert ids((await asked).hits) == {2, 3}


async def test_a_search_that_a_policy_holds_is_refused_when_somebody_denies(
    index_bus: Bus, folder: Path, notes: str
) -> None:
    tag = unique("denied")
    async with asking(index_bus, "careful") as client:
        asked = asyncio.create_task(client.search(notes, f"wire transfer {tag}", timeout=HELD_S))
        waits = await wanted(index_bus, "careful", tag)
        await asyncio.to_thread(approve, index_bus, folder, waits.approval_id, "deny")
        with pytest.raises(RequestRefused) as refused:
            await asked
    assert refused.value.refusal.reason is Reason.APPROVAL_DENIED


async def test_a_write_that_a_policy_holds_changes_nothing_before_it_is_approved(
    index_bus: Bus, folder: Path, notes: str
) -> None:
    tag, row = unique("written"), {"id": 9, "dept": "it"}
    async with asking(index_bus, "careful") as client:
        body = f"wire transfer {tag}"
        asked = asyncio.create_task(client.upsert(notes, [{**row, "body": body}], timeout=HELD_S))
        waits = await wanted(index_bus, "careful", tag)
        assert await client.fetch(notes, [{"id": 9}]) == ()
        await asyncio.to_thread(approve, index_bus, folder, waits.approval_id)
        assert (await asked).written == 1
        [hit] = await client.fetch(notes, [{"id": 9}])
        assert hit.text == body
        await client.delete(notes, [{"id": 9}])


async def test_personal_data_of_a_search_goes_no_further_than_the_gateway(
    index_bus: Bus, notes: str
) -> None:
    tags = {"test": unique("masked")}
    async with asking(index_bus, "discreet") as client:
        found = await client.search(notes, f"letter of {MAIL} about moss", k=1, tags=tags)
    [hit] = found.hits
    assert (hit.key, hit.text) == ({"id": 2}, f"letter of {MASKED} about moss")
    [row] = await asyncio.to_thread(recorded, index_bus, tags)
    assert json.loads(row.request)["query"] == f"letter of {RESTORED} about moss"
    assert MAIL not in (row.response or "")
    routed = [
        record.value or b""
        for pool in ("search", "words")
        for record in index_bus.records(INFERENCE_ROUTED.member(pool).name)
    ]
    of_this = [value for value in routed if row.request_id.encode() in value]
    assert of_this
    assert not any(MAIL.encode() in value for value in of_this)
    # What the worker asked the endpoint for was made of what it got.
    asked = [
        each
        for each in index_bus.events(INFERENCE_REQUESTED, "index")
        if each.task is Task.EMBEDDING and each.endpoint == "main.tests.words"
    ]
    assert [each for each in asked if f"letter of {RESTORED} about moss" in each.inputs]


async def test_personal_data_in_columns_of_hits_is_masked_for_those_whom_a_policy_binds(
    index_bus: Bus, notes: str
) -> None:
    shown: dict[str, list[Hit]] = {}
    for tenant in ("discreet", "index"):
        async with asking(index_bus, tenant) as client:
            shown[tenant] = [
                *(await client.search(notes, "salt water and waves", k=1)).hits,
                *(await client.fetch(notes, [{"id": 1}])),
                *[hit async for hit in client.scan(notes, filters="id = 1")],
            ]
    emails = {name: [hit.columns["email"] for hit in hits] for name, hits in shown.items()}
    assert emails == {"discreet": [MASKED] * 3, "index": [MAIL] * 3}


async def test_hits_that_a_policy_forbids_are_not_shown(index_bus: Bus, notes: str) -> None:
    async with asking(index_bus, "silent") as client:
        with pytest.raises(RequestRefused) as refused:
            await client.search(notes, "letter about moss", k=1)
        assert ids((await client.search(notes, "green grass and stones", k=1)).hits) == {3}
    said = refused.value.refusal
    assert (said.reason, said.rule) == (Reason.POLICY_DENIED, "main.tests.silent/rule")


async def test_searches_and_writes_count_against_limits_once_each(
    index_bus: Bus, notes: str
) -> None:
    tags = {"test": unique("counted")}
    async with asking(index_bus, "counted") as client:
        outcomes = await asyncio.gather(
            *(client.search(notes, f"salt water {each}", tags=tags) for each in range(6)),
            client.upsert(notes, [ROWS[0]], tags=tags),
            *(client.fetch(notes, [{"id": 1}], tags=tags) for _ in range(2)),
            return_exceptions=True,
        )
    refused = [each for each in outcomes if isinstance(each, RequestRefused)]
    assert {each.refusal.reason for each in refused} == {Reason.LIMIT_EXCEEDED}
    assert len(outcomes) - len(refused) == RULES["counted"]["most"]
    rows = await asyncio.to_thread(recorded, index_bus, tags, len(outcomes))
    assert Counter(each.outcome for each in rows) == {
        Outcome.COMPLETED: RULES["counted"]["most"],
        Outcome.REFUSED: len(refused),
    }


@pytest.fixture(scope="module")
def keeper(index_bus: Bus, folder: Path, town: list[Process]) -> Iterator[Process]:
    with indexer(index_bus, folder) as process:
        yield process


def over(table: str, **more: Any) -> IndexSpec:
    plain = {
        "source": table,
        "key_columns": ["id"],
        "text": "{body}",
        "columns": [{"name": "dept"}, {"name": "price", "type": "long"}],
        "endpoint": "main.tests.words",
        **more,
    }
    return IndexSpec.model_validate(plain)


@pytest.mark.usefixtures("keeper")
async def test_an_index_over_a_topic_shows_each_caller_the_rows_that_both_grant(
    index_bus: Bus,
) -> None:
    table, index = unique("main.tests.rows"), unique("main.tests.over")
    columns = {"id": "long", "body": "string", "dept": "string", "price": "long"}
    rows = [
        {"id": at, "body": "salt water", "dept": dept, "price": at}
        for at, dept in enumerate(["hr", "it", "it", "law", "hr"])
    ]
    topic = rows_on_a_topic(index_bus, columns, rows)
    filters = {
        "row_filters": [
            {"to": ["readers"], "where": "dept = 'it'"},
            {"to": ["ann"], "where": "dept = 'hr'"},
        ]
    }
    publish(
        index_bus,
        *changes(
            [
                {"kind": "group", "name": "readers", "spec": {"members": ["bob"]}},
                {
                    "kind": "table",
                    "name": table,
                    "spec": {"location": f"topic:{topic}", **filters},
                    "grants": {"olga": ["MANAGE"]},
                },
            ]
        ),
    )
    of_index = [{"to": ["ann", "bob", "olga"], "where": "price >= 2"}]
    define(index_bus, index, over(table, row_filters=of_index))
    publish(index_bus, *changes([{"kind": "root", "name": index, "denies": {"eve": ["QUERY"]}}]))
    stands(index_bus, index, IndexState.READY, generation=1, waiting=0)
    found: dict[str, Any] = {}
    async with AsyncExitStack() as opened:
        for who in ("", "ann", "bob", "eve", "olga"):
            client = await opened.enter_async_context(asking(index_bus, "index", who))
            await answers(client, index, Reason.PRIVILEGE_MISSING if who == "eve" else None)
            try:
                hits = (await client.search(index, "salt water", k=10)).hits
            except RequestRefused as refused:
                found[who] = refused.refusal.reason
            else:
                found[who] = ids(hits)
                assert {hit.source for hit in hits} <= {table}
                assert ids([hit async for hit in client.scan(index)]) == found[who]
    assert found == {
        "": set(),
        "ann": {4},
        "bob": {2},
        "eve": Reason.PRIVILEGE_MISSING,
        # Who may MANAGE the table sees all of its rows, and of the index what its filter lets pass.
        "olga": {2, 3, 4},
    }


@pytest.mark.usefixtures("keeper")
async def test_an_answer_leads_by_its_chunks_and_rows_to_its_table(index_bus: Bus) -> None:
    table, index = Table(index_bus), unique("main.tests.traced")
    table.write(1, title="sea", body="salt water")
    table.write(2, title="hill", body="green grass")
    table.write(1, title="sea", body="sweet water", price=7)
    table.settle()
    spec = over(table.name, columns=[{"name": "price", "type": "long"}])
    define(index_bus, index, spec)
    stands(index_bus, index, IndexState.READY, generation=1, waiting=0)
    tags = {"test": unique("traced")}
    async with asking(index_bus, "index") as client:
        await answers(client, index)
        [hit] = (await client.search(index, "sweet water", k=1, tags=tags)).hits
    assert (hit.key, hit.text, hit.source) == ({"id": 1}, "sweet water", table.name)
    [row] = await asyncio.to_thread(recorded, index_bus, tags)
    thread = {
        f"answered_by endpoint {index}",
        "asked_by principal index",
        f"retrieved chunk {chunk_id(document_id(index, {'id': 1}), 0)}",
        f"made_of row {table.name}/1@{hit.version}",
        f"belonged_to table {table.name}",
    }
    with (
        running_stack(["postgres"]) as stack,
        database(stack) as engine,
        ingesting(index_bus, engine),
    ):
        answer = Node("response", row.request_id)
        await asyncio.to_thread(
            eventually, lambda: thread <= reaches(engine, answer), 120, "the answer's thread"
        )
        assert not any("chunk" in each for each in reaches(engine, answer) - thread)
