"""A thread as text, picture and OpenLineage: readable, safe, whole, and the same each time."""

from __future__ import annotations

import json
from collections.abc import Callable
from uuid import UUID
from xml.etree import ElementTree

import attr
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openlineage.client.event_v2 import (
    InputDataset,
    Job,
    OutputDataset,
    Run,
    RunEvent,
    RunState,
)

from catalog.lineage.drawing import as_svg
from catalog.lineage.lineage import Node
from catalog.lineage.openlineage import as_openlineage
from catalog.lineage.thread import Thread, as_text, notices, only, thread_of
from catalog.lineage.walks import Found, Link
from schemas.events import LineageEdge
from tests.catalog.lineage_graphs import NOON, edge

SVG = "{http://www.w3.org/2000/svg}"
RESPONSE = "7d3f0a52-0000-4000-8000-000000000001"
SNAPSHOT = "topic:shop.orders@schema=7;offsets=0:10-20,1:5-9"
GOLDEN = (
    edge(f"response {RESPONSE}", "asked_by", "principal alice", tenant="acme"),
    edge(f"response {RESPONSE}", "decided_by", "policy main.default.safe", verdict="allowed"),
    edge(f"response {RESPONSE}", "called", "tool_call t-1"),
    edge(f"response {RESPONSE}", "retrieved", "chunk c-1", score="0.9"),
    edge(f"response {RESPONSE}", "served_by", "adapter main.default.tone@2"),
    edge(f"response {RESPONSE}", "served_by", "model_version main.default.scorer@3"),
    edge(f"response {RESPONSE}", "routed_by", "route main.default.chat/first"),
    edge(f"response {RESPONSE}", "answered_by", "endpoint main.default.chat", outcome="COMPLETED"),
    edge("tool_call t-1", "called", "function_version main.default.lookup@4"),
    edge("chunk c-1", "made_of", "row main.shop.orders/42@7"),
    edge("adapter main.default.tone@2", "adapter_of", "model_version main.default.scorer@3"),
    edge("adapter main.default.tone@2", "trained_by", "training_run run-9"),
    edge("training_run run-9", "read", f"snapshot {SNAPSHOT}"),
    edge(f"snapshot {SNAPSHOT}", "read", "row main.shop.orders/42@7"),
    edge("model_version main.default.scorer@3", "stored_in", "file file:/models/scorer"),
)


def everything(node: Node) -> bool:
    return True


def found(edges: tuple[LineageEdge, ...]) -> Found:
    links = tuple(
        Link(
            Node(each.downstream_kind, each.downstream),
            each.relation,
            Node(each.upstream_kind, each.upstream),
            dict(each.attributes),
            NOON,
            NOON,
            "test",
        )
        for each in edges
    )
    return Found(links, cut=False)


def golden(visible: Callable[[Node], bool] = everything) -> Thread:
    return thread_of(Node("response", RESPONSE), found(GOLDEN), downstream=False, visible=visible)


def test_the_golden_thread_reads_from_the_endpoint_to_the_source() -> None:
    assert as_text(golden()).splitlines() == [
        f"response {RESPONSE}",
        "├─ answered_by endpoint main.default.chat (outcome=COMPLETED)",
        "├─ routed_by route main.default.chat/first",
        "├─ served_by model_version main.default.scorer@3",
        "│  └─ stored_in file file:/models/scorer",
        "├─ served_by adapter main.default.tone@2",
        "│  ├─ adapter_of model_version main.default.scorer@3 ...",
        "│  └─ trained_by training_run run-9",
        f"│     └─ read snapshot {SNAPSHOT}",
        "│        └─ read row main.shop.orders/42@7",
        "├─ retrieved chunk c-1 (score=0.9)",
        "│  └─ made_of row main.shop.orders/42@7",
        "├─ called tool_call t-1",
        "│  └─ called function_version main.default.lookup@4",
        "├─ decided_by policy main.default.safe (verdict=allowed)",
        "└─ asked_by principal alice (tenant=acme)",
    ]


def test_what_came_from_a_thing_reads_the_other_way_round() -> None:
    row = Node("row", "main.shop.orders/42@7")
    thread = thread_of(row, found(GOLDEN[9:10] + GOLDEN[3:4]), downstream=True, visible=everything)
    assert as_text(thread).splitlines() == [
        "row main.shop.orders/42@7",
        "└─ chunk c-1 made_of it",
        f"   └─ response {RESPONSE} retrieved it (score=0.9)",
    ]


def test_kinds_leave_themselves_and_what_leads_to_them() -> None:
    assert as_text(only(golden(), {"snapshot"})).splitlines() == [
        f"response {RESPONSE}",
        "└─ served_by adapter main.default.tone@2",
        "   └─ trained_by training_run run-9",
        f"      └─ read snapshot {SNAPSHOT}",
    ]
    assert as_text(only(golden(), {"connection"})) == f"response {RESPONSE}"
    assert only(golden(), ()) == golden()


def test_what_is_hidden_has_no_name_and_nothing_behind_it() -> None:
    def visible(node: Node) -> bool:
        return node.kind not in ("adapter", "chunk", "policy")

    thread = golden(visible)
    said = as_text(thread) + as_svg(thread) + thread.model_dump_json()
    said += "".join(as_openlineage(thread))
    for secret in ("tone", "c-1", "0.9", "run-9", "orders", "safe", "verdict"):
        assert secret not in said
    assert "└─ served_by adapter (hidden)" in as_text(only(thread, {"adapter"}))
    assert any("BROWSE" in notice for notice in notices(thread, 10))


def test_hidden_things_in_one_place_are_not_counted() -> None:
    endpoint = Node("endpoint", "main.default.chat")
    answers = tuple(
        edge(f"response r-{number}", "answered_by", "endpoint main.default.chat")
        for number in range(50)
    )
    thread = thread_of(
        endpoint, found(answers), downstream=True, visible=lambda node: node.name == "r-7"
    )
    assert as_text(thread).splitlines() == [
        "endpoint main.default.chat",
        "├─ response (hidden) answered_by it",
        "└─ response r-7 answered_by it",
    ]


def test_a_cut_is_said() -> None:
    thread = golden().model_copy(update={"cut": True})
    assert any("cut at 15 edges" in notice for notice in notices(thread, 15))
    assert list(notices(golden(), 15)) == []


def test_a_thread_survives_its_way_over_the_bus() -> None:
    assert Thread.model_validate(json.loads(golden().model_dump_json())) == golden()


THINGS = [f"row {letter}" for letter in "abcdef"] + ["response <&\"'\x1b[31m\n>", "file ]]>"]
GRAPHS = st.lists(
    st.builds(
        edge,
        st.sampled_from(THINGS),
        st.sampled_from(["read", "called", "<relation>"]),
        st.sampled_from(THINGS),
        note=st.text(max_size=3),
    ),
    min_size=1,
    max_size=20,
    unique_by=lambda each: (each.downstream, each.relation, each.upstream),
).map(tuple)


@given(edges=GRAPHS, downstream=st.booleans(), hidden=st.sets(st.sampled_from(THINGS)))
def test_every_graph_can_be_told_drawn_and_exported(
    edges: tuple[LineageEdge, ...], downstream: bool, hidden: set[str]
) -> None:
    def visible(node: Node) -> bool:
        return f"{node.kind} {node.name}" not in hidden

    kind, _, name = THINGS[0].partition(" ")
    start = Node(kind, name)
    thread = thread_of(start, found(edges), downstream=downstream, visible=visible)
    text = as_text(thread)
    assert len(text.splitlines()) == 1 + len(thread.edges)
    assert "\x1b" not in text
    picture = ElementTree.fromstring(as_svg(thread))
    assert len(picture.findall(f"{SVG}g")) == len(thread.nodes) + len(thread.edges)
    for line in as_openlineage(thread):
        read_event(line)


@given(edges=GRAPHS, kinds=st.sets(st.sampled_from(["row", "response", "file"]), min_size=1))
def test_kinds_keep_exactly_what_leads_to_them(
    edges: tuple[LineageEdge, ...], kinds: set[str]
) -> None:
    start = Node("row", "a")
    whole = thread_of(start, found(edges), downstream=False, visible=everything)
    # A way that leads back to where it began leads nowhere.
    lead = {place for place, node in enumerate(whole.nodes) if place and node.kind in kinds}
    for _ in whole.nodes:
        lead |= {edge.downstream for edge in whole.edges if edge.upstream in lead - {0}}
    kept = only(whole, kinds)
    assert kept.nodes[0] == whole.nodes[0]
    assert set(kept.nodes) == {whole.nodes[place] for place in lead | {0}}
    assert {(kept.label(e.downstream), e.relation, kept.label(e.upstream)) for e in kept.edges} == {
        (whole.label(e.downstream), e.relation, whole.label(e.upstream))
        for e in whole.edges
        if {e.downstream, e.upstream} <= lead | {0}
    }


def test_the_picture_needs_nothing_else_and_is_the_same_each_time() -> None:
    drawn = as_svg(golden())
    assert drawn == as_svg(Thread.model_validate_json(golden().model_dump_json()))
    for outside in ("http://", "https://", "<script", "<image", "href", "@import", "url(http"):
        assert outside not in drawn.replace("http://www.w3.org/2000/svg", "")
    picture = ElementTree.fromstring(drawn)
    titles = [title.text for title in picture.iter(f"{SVG}title")]
    assert f"snapshot {SNAPSHOT}" in titles
    boxes = [(each.get("x"), each.get("y")) for each in picture.iter(f"{SVG}rect")]
    assert len(boxes) == len(set(boxes))


def read_event(line: str) -> RunEvent:
    """The event in a line, by the package's own classes, which check what they take."""
    said = json.loads(line)
    assert attr.fields_dict(RunEvent).keys() >= said.keys()
    datasets = {"inputs": InputDataset, "outputs": OutputDataset}
    return RunEvent(
        eventTime=said["eventTime"],
        producer=said["producer"],
        eventType=RunState(said["eventType"]),
        run=Run(**said["run"]),
        job=Job(**said["job"]),
        **{name: [made(**each) for each in said[name]] for name, made in datasets.items()},
    )


def test_the_export_says_what_ran_what_it_read_and_what_it_made() -> None:
    events = [read_event(line) for line in as_openlineage(golden())]
    starts = {event.run.runId for event in events if event.eventType is RunState.START}
    ends = {event.run.runId: event for event in events if event.eventType is RunState.COMPLETE}
    assert starts == set(ends)
    answer = ends[RESPONSE]
    assert answer.job.name == "main.default.chat"
    assert {(each.namespace, each.name) for each in answer.inputs or ()} == {
        ("tessera.adapter", "main.default.tone"),
        ("tessera.model_version", "main.default.scorer"),
        ("tessera.chunk", "c-1"),
    }
    [training] = [event for event in ends.values() if event.job.name == "training_run"]
    [read], [made] = list(training.inputs or ()), list(training.outputs or ())
    assert (read.name, read.facets["version"]["datasetVersion"]) == (  # type: ignore[index]
        "shop.orders",
        "schema=7;offsets=0:10-20,1:5-9",
    )
    assert (made.name, made.facets["version"]["datasetVersion"]) == (  # type: ignore[index]
        "main.default.tone",
        "2",
    )
    [called] = [event for event in ends.values() if event.job.name == "main.default.lookup@4"]
    parent = called.run.facets["parent"]  # type: ignore[index]
    assert parent["run"]["runId"] == RESPONSE  # type: ignore[index]
    assert {str(UUID(run)) for run in starts} == starts
    tags = {(each["key"], each["value"]) for each in answer.run.facets["tags"]["tags"]}  # type: ignore[index]
    assert tags == {
        ("asked_by", "alice"),
        ("decided_by", "main.default.safe"),
        ("routed_by", "main.default.chat/first"),
    }


@pytest.mark.parametrize("view", [as_text, as_svg])
def test_views_do_not_depend_on_the_order_of_what_was_found(view: Callable[[Thread], str]) -> None:
    start = Node("response", RESPONSE)
    there, back = (
        thread_of(start, found(edges), downstream=False, visible=everything)
        for edges in (GOLDEN, GOLDEN[::-1])
    )
    assert view(there) == view(back)
