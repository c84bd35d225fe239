"""What rows and catalog changes say of where things come from."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.lineage.lineage import (
    MOST_CHARACTERS,
    MOST_OF_A_KIND,
    NAMED,
    Snapshot,
    edges_of_change,
    edges_of_row,
    unfit,
)
from schemas.chunks import chunk_id, document_id
from schemas.events import CatalogChanged, InferenceRecorded, LineageEdge, Outcome
from schemas.indexes import IndexSpec
from schemas.kinds import OBJECTS, AgentMemory, AgentSpec, Described, Version
from schemas.policies import FunctionRule, HttpRule, JudgeRule, PolicySpec
from schemas.routing import EndpointSpec, RouteSpec
from schemas.tables import TableSpec
from tests.catalog.lineage_graphs import NOON, edge, told

ROW = InferenceRecorded(
    request_id="r-1",
    tenant="acme",
    principal="alice",
    endpoint="main.default.chat",
    route="first",
    model="smollm2",
    entity="main.default.scorer@3",
    adapter="main.default.tone@2",
    outcome=Outcome.COMPLETED,
    request="{}",
    requested_at=NOON,
    key_id="k",
)
NAMES = st.sampled_from(["main.default.a", "main.default.b", "main.default.c"])
VERSIONS = st.builds("{}{}".format, NAMES, st.sampled_from(["", "@3", "@champion"]))


def lines(edges: tuple[LineageEdge, ...]) -> list[str]:
    return [
        f"{each.downstream_kind} {each.downstream} {each.relation} "
        f"{each.upstream_kind} {each.upstream}"
        for each in edges
    ]


def changed(kind: str, name: str, body: str | None) -> CatalogChanged:
    return CatalogChanged(position=7, kind=kind, name=name, body=body, changed_at=NOON)


def described(spec: dict[str, Any]) -> str:
    return Described(
        owner="alice",
        etag="1",
        spec=spec,
        created_at=NOON,
        created_by="alice",
        updated_at=NOON,
        updated_by="alice",
    ).model_dump_json()


def version(kind: str, **spec: Any) -> str:
    return Version(kind=kind, spec=spec, created_at=NOON, created_by="alice").model_dump_json()


def test_an_answer_came_from_its_endpoint_route_model_version_adapter_and_principal() -> None:
    recorded = edges_of_row(ROW)
    assert (recorded.cause_id, recorded.at) == ("r-1", NOON)
    assert lines(recorded.edges) == [
        "response r-1 answered_by endpoint main.default.chat",
        "response r-1 asked_by principal alice",
        "response r-1 routed_by route main.default.chat/first",
        "response r-1 served_by model_version main.default.scorer@3",
        "response r-1 served_by adapter main.default.tone@2",
    ]
    assert recorded.edges[0].attributes == {"outcome": "COMPLETED", "model": "smollm2"}
    assert recorded.edges[1].attributes == {"tenant": "acme", "key_id": "k"}


def test_what_a_tool_answered_came_from_the_version_of_its_function() -> None:
    called = replace(ROW, endpoint="main.default.weather", entity="main.default.weather@2")
    assert lines(edges_of_row(called).edges)[3] == (
        "response r-1 served_by function_version main.default.weather@2"
    )


def test_rows_of_one_id_tell_of_one_response_and_are_told_apart_by_cause() -> None:
    first, second = (edges_of_row(replace(ROW, row_id=each)) for each in ("one", "two"))
    assert (first.cause_id, second.cause_id) == ("one", "two")
    assert first.edges == second.edges


def found(*hits: dict[str, Any]) -> str:
    return json.dumps({"found": {"hits": hits}})


def test_an_answer_of_an_index_came_from_chunks_of_rows_of_a_table() -> None:
    first = {
        "key": {"id": 42},
        "position": 1,
        "score": 0.75,
        "version": "7",
        "source": "a.b.orders",
    }
    second = {"key": {"id": 'x"y', "no": 2}, "version": "8"}
    recorded = replace(ROW, endpoint="a.b.index", response=found(first, second, first))
    edges = edges_of_row(recorded).edges[-6:]
    one, two = (edges[at].upstream for at in (0, 3))
    assert one == chunk_id(document_id("a.b.index", {"id": 42}), 1)
    assert lines(edges) == [
        f"response r-1 retrieved chunk {one}",
        f"chunk {one} made_of row a.b.orders/42@7",
        "row a.b.orders/42@7 belonged_to table a.b.orders",
        f"response r-1 retrieved chunk {two}",
        f'chunk {two} made_of row a.b.index/{{"id":"x\\"y","no":2}}@8',
        'row a.b.index/{"id":"x\\"y","no":2}@8 belonged_to index a.b.index',
    ]
    assert edges[0].attributes == {"position": "1", "score": "0.7500"}


@pytest.mark.parametrize(
    "response",
    [
        None,
        "found",
        found({"position": "masked"}),
        '{"found": 1}',
        '["found"]',
        found({"key": {"id": "long" * 5000}, "version": "1"}),
    ],
)
def test_what_is_no_answer_of_an_index_retrieved_nothing(response: str | None) -> None:
    recorded = edges_of_row(replace(ROW, response=response))
    assert recorded == edges_of_row(ROW)
    assert unfit(recorded) is None


def test_a_refusal_was_decided_by_a_policy_for_a_reason() -> None:
    refused = replace(
        ROW, outcome=Outcome.REFUSED, reason="PRIVILEGE_MISSING", route=None, entity=None
    )
    decided = edges_of_row(refused).edges[-1]
    assert lines((decided,)) == ["response r-1 decided_by policy admission"]
    assert decided.attributes == {"reason": "PRIVILEGE_MISSING", "verdict": "refused"}
    late = replace(refused, route="first")
    assert lines(edges_of_row(late).edges)[-1] == "response r-1 decided_by policy serving"


def test_a_tenant_that_acts_itself_is_the_principal() -> None:
    assert "response r-1 asked_by principal acme" in lines(
        edges_of_row(replace(ROW, principal="")).edges
    )


def test_a_model_version_came_from_its_training_run_and_lies_in_a_file() -> None:
    body = version("model", uri="file:/w", training_run="run-9")
    recorded = edges_of_change(changed("version", "main.default.scorer@3", body))
    assert recorded.cause_id == "catalog/7"
    assert lines(recorded.edges) == [
        "model_version main.default.scorer@3 trained_by training_run run-9",
        "model_version main.default.scorer@3 stored_in file file:/w",
    ]


def test_a_version_of_an_adapter_is_an_adapter_of_its_model() -> None:
    body = version("model", uri="file:/a", adapter_of="main.default.scorer@3", training_run="r")
    assert lines(edges_of_change(changed("version", "main.default.tone@2", body)).edges) == [
        "adapter main.default.tone@2 trained_by training_run r",
        "adapter main.default.tone@2 adapter_of model_version main.default.scorer@3",
        "adapter main.default.tone@2 stored_in file file:/a",
    ]


def test_an_alias_in_a_spec_names_the_object_and_keeps_the_alias() -> None:
    spec = {"routes": [{"name": "r", "pool": "p", "model": "m", "entity": "main.default.a@best"}]}
    [edge] = edges_of_change(changed("endpoint", "main.default.chat", described(spec))).edges
    assert lines((edge,)) == ["endpoint main.default.chat names model main.default.a"]
    assert edge.attributes == {"alias": "best"}


@pytest.mark.parametrize(
    "change",
    [
        changed("endpoint", "main.default.chat", None),
        changed("endpoint", "main.default.chat", "{}"),
        changed("endpoint", "main.default.chat", described({"routes": [], "newer": 1})),
        changed("tenant", "acme", described({})),
        changed("version", "main.default.p@1", version("prompt", template="t")),
        changed("version", "main.default.p@1", version("newer", template="t")),
        changed("version", "main.default.p@1", "no json"),
    ],
)
def test_an_entry_that_says_nothing_of_it_has_no_edges(change: CatalogChanged) -> None:
    assert edges_of_change(change).edges == ()


SPECS = {
    "agent": st.builds(
        AgentSpec,
        endpoint=NAMES,
        prompt=st.none() | VERSIONS,
        tools=st.lists(VERSIONS, max_size=2).map(tuple),
        indexes=st.lists(NAMES, max_size=2).map(tuple),
        agents=st.lists(NAMES, max_size=2).map(tuple),
        handoffs=st.lists(NAMES, max_size=2).map(tuple),
        memory=st.none() | st.builds(AgentMemory, index=st.none() | NAMES),
    ),
    "endpoint": st.builds(
        EndpointSpec,
        routes=st.lists(
            st.builds(
                RouteSpec,
                name=st.just("r"),
                pool=st.just("p"),
                model=st.just("m"),
                entity=st.none() | VERSIONS,
                adapter=st.none() | VERSIONS,
                connection=st.none() | NAMES,
            ),
            min_size=1,
            max_size=2,
        ).map(tuple),
        policies=st.lists(NAMES, max_size=2).map(tuple),
    ),
    "index": st.builds(IndexSpec, source=st.none() | NAMES, endpoint=st.none() | NAMES),
    "policy": st.builds(
        PolicySpec,
        rules=st.tuples(
            st.builds(JudgeRule, type=st.just("judge"), name=st.just("judge"), endpoint=NAMES),
            st.builds(
                FunctionRule, type=st.just("function"), name=st.just("function"), function=VERSIONS
            ),
            st.builds(HttpRule, type=st.just("http"), name=st.just("http"), connection=NAMES),
        ),
    ),
    "table": st.builds(TableSpec, location=st.just("lake:t"), connection=st.none() | NAMES),
}


def test_every_kind_of_object_that_refers_to_others_is_told_of() -> None:
    refers = {kind for kind, spec in OBJECTS.items() if "references" in vars(spec)}
    assert set(NAMED) == set(SPECS) == refers


@pytest.mark.parametrize("kind", sorted(NAMED))
@given(data=st.data())
def test_what_an_object_names_is_what_its_spec_refers_to(kind: str, data: st.DataObject) -> None:
    spec = data.draw(SPECS[kind])
    assert sorted(name for _, name in NAMED[kind](spec)) == sorted(spec.references())
    body = described(spec.model_dump(mode="json"))
    edges = edges_of_change(changed(kind, "main.default.it", body)).edges
    assert {each.upstream.partition("@")[0] for each in edges} == {
        name.partition("@")[0] for name in spec.references()
    }
    assert {each.relation for each in edges} <= {"names"}


@pytest.mark.parametrize(
    ("name", "snapshot"),
    [
        ("lake:inferences@version=12", Snapshot("inferences", version=12)),
        (
            "topic:shop.orders@schema=7;offsets=0:10-20,1:5-9",
            Snapshot("shop.orders", schema_id=7, offsets=((0, 10, 20), (1, 5, 9))),
        ),
        ("topic:t@schema=7;offsets=", Snapshot("t", schema_id=7)),
    ],
)
def test_a_snapshots_name_says_where_to_find_it(name: str, snapshot: Snapshot) -> None:
    assert str(snapshot) == name
    assert Snapshot.parse(name) == snapshot


@pytest.mark.parametrize("name", ["", "lake:t", "lake:t@version=x", "topic:t@offsets=0:1-2"])
def test_what_names_no_snapshot_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="names no snapshot"):
        Snapshot.parse(name)


def test_what_the_table_cannot_hold_is_unfit() -> None:
    assert unfit(told(edge("response r", "read", "file f", x=""))) is None
    long = "x" * (MOST_CHARACTERS + 1)
    for wrong in (
        edge("response r", "read", "file f\0"),
        edge("response r", "read", "file f", x="\0"),
        edge("response r", "read", f"file {long}"),
        edge("response ", "read", "file f"),
        edge("response r", "", "file f"),
        edge("response r", "x" * (MOST_OF_A_KIND + 1), "file f"),
    ):
        said = unfit(told(wrong))
        assert said
        assert "\0" not in said
    assert unfit(told(edge("response r", "read", "file f"), cause="\0"))
