"""An agent searches an index in the real store, and cites the rows that it found there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from streams.client import Client
from tests.agents.identity import AGENTS, identity
from tests.broker.pools import PATIENCE_S
from tests.harness import Bus, Process, running, unique
from tests.seed import changes, publish

pytestmark = pytest.mark.stack

SEARCHER = ["-m", "workers", "inference", "--provider", "search", "--pool", "search"]
MODEL = [
    *("-m", "workers", "inference"),
    *("--provider", "tests.agents.playing:open_model", "--pool", "played"),
]
SIGHTS, GUIDE = unique("main.tests.sights"), unique("main.tests.guide")
ROWS: list[dict[str, Any]] = [
    {"id": 1, "body": "salt water and waves", "place": "sea"},
    {"id": 2, "body": "sweet water and reeds", "place": "lake"},
    {"id": 3, "body": "moss and fern", "place": "wood"},
]
DOCUMENTS: list[dict[str, Any]] = [
    {
        "kind": "index",
        "name": SIGHTS,
        "spec": {
            "key_columns": ["id"],
            "text": "{body}",
            "columns": [{"name": "id", "type": "long"}, {"name": "place"}],
            "endpoint": "main.tests.words",
        },
    },
    {
        "kind": "endpoint",
        "name": "main.tests.played",
        "spec": {"routes": [{"name": "local", "pool": "played", "model": "played"}]},
    },
    {
        "kind": "agent",
        "name": GUIDE,
        "spec": {"endpoint": "main.tests.played", "indexes": [SIGHTS]},
        "grants": {"everyone": ["EXECUTE"]},
    },
]


@pytest.fixture(scope="module")
def guide(index_bus: Bus, folder: Path, town: list[Process]) -> Iterator[None]:
    """The worker behind the index, the processor of agents, and a model that is played."""
    known, asks = identity(folder)
    publish(index_bus, *changes([*known, *DOCUMENTS]))
    with ExitStack() as opened:

        def start(command: list[str], **more: str) -> None:
            opened.enter_context(running(index_bus, command, folder, start_s=PATIENCE_S, **more))

        start(SEARCHER, CLIENT_KEY="", CLIENT_PRINCIPAL="", CLIENT_TENANT="index")
        start(MODEL)
        start(AGENTS, **asks)
        yield


@pytest.fixture
async def client(index_bus: Bus, guide: None) -> AsyncIterator[Client]:
    kafka, registry = index_bus.kafka, index_bus.registry_settings
    async with Client(tenant="index", key="", kafka=kafka, registry=registry) as client:
        yield client


async def test_an_agent_finds_rows_by_meaning_within_its_filters_and_cites_them(
    client: Client,
) -> None:
    await client.upsert(SIGHTS, ROWS)
    tool = SIGHTS.rpartition(".")[2]
    by_meaning = [tool, {"query": "sweet water and reeds", "k": 1}]
    filtered = [tool, {"query": "water", "filters": {"place LIKE": "%ea", "id <": 3}}]
    script = {"turns": [[by_meaning, filtered], "Reeds [1.1], and salt [2.1]."]}
    events = [event async for event in client.stream_run(GUIDE, json.dumps(script))]
    end = events[-1]
    assert end.reply is not None
    assert end.reply.content == "Reeds [1.1], and salt [2.1]."
    cited = (end.item or {})["output"][0]["content"][0]["annotations"]
    assert [(each["type"], each["key"], each["index"]) for each in cited] == [
        ("file_citation", {"id": 2}, 6),
        ("file_citation", {"id": 1}, 22),
    ]
