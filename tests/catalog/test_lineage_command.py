"""``tessera lineage`` against a registrar that runs: from an answer's row to its thread."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4
from xml.etree import ElementTree

import pytest

from infra.settings import PostgresSettings
from schemas.events import InferenceRecorded, Outcome
from schemas.topics import CATALOG_CHANGED, INFERENCE_RECORDED, LINEAGE_RECORDED
from tests.catalog.lineage_graphs import NOON, edge, told
from tests.catalog.relaying import anew
from tests.catalog.towns import Town
from tests.harness import Bus, eventually

pytestmark = pytest.mark.stack


@pytest.fixture
def town(bus: Bus, postgres: PostgresSettings, tmp_path: Path) -> Town:
    anew(bus, CATALOG_CHANGED)
    return Town(bus, postgres, tmp_path)


def test_the_thread_of_an_answer_is_told_drawn_and_exported(town: Town, tmp_path: Path) -> None:
    request = str(uuid4())
    answer = InferenceRecorded(
        request_id=request,
        tenant=town.tenant,
        endpoint="main.default.chat",
        route="first",
        outcome=Outcome.COMPLETED,
        request="{}",
        requested_at=NOON,
    )
    with town.registrar():
        unknown = town.run("lineage", request)
        assert unknown.returncode == 1
        assert f"nothing is recorded of {request}" in unknown.stderr
        assert "it takes a few seconds after the reply" in unknown.stderr

        town.bus.send(INFERENCE_RECORDED, answer)
        town.bus.send(
            LINEAGE_RECORDED, told(edge(f"response {request}", "retrieved", "chunk c-1", score="1"))
        )

        def thread() -> list[str]:
            return town.run("lineage", request).stdout.splitlines()

        whole = [
            f"response {request}",
            "├─ answered_by endpoint main.default.chat (outcome=COMPLETED)",
            "├─ routed_by route main.default.chat/first",
            "├─ retrieved chunk c-1 (score=1)",
            f"└─ asked_by principal {town.tenant} (tenant={town.tenant})",
        ]
        eventually(lambda: thread() == whole, 180)

        as_json = json.loads(town.run("lineage", request, "--json", "--kind", "chunk").stdout)
        assert [node["name"] for node in as_json["nodes"]] == [request, "c-1"]
        picture = tmp_path / "thread.svg"
        drawn = town.run("lineage", request, "--svg", str(picture))
        assert drawn.stdout == f"drawn: 5 things, 4 edges in {picture}\n"
        ElementTree.fromstring(picture.read_text())
        events = town.run("lineage", request, "--openlineage").stdout.splitlines()
        assert [json.loads(event)["eventType"] for event in events] == ["START", "COMPLETE"]
        below = town.run("lineage", "c-1", "--of", "chunk", "--downstream")
        assert below.stdout.splitlines()[1].startswith(f"└─ response {request} retrieved it")
        few = town.run("lineage", request, "--limit", "1")
        assert "cut at 1 edges" in few.stderr
        assert (
            town.run("lineage", request, "--until", "2026-03-01").stdout.splitlines() == whole[:1]
        )
        for wrong, said in (
            (("--json", "--openlineage"), "only one of --json"),
            (("--since", "yesterday"), "yesterday is no instant"),
            (("--kind", "chunks"), "did you mean chunk"),
            (("--svg", "/proc/none/thread.svg"), "cannot be written"),
        ):
            refused = town.run("lineage", request, *wrong)
            assert refused.returncode == 1
            assert said in refused.stderr
