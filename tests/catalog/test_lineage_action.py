"""Asking for lineage: who sees what, what is said where nothing is known, and where a walk ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine

from catalog.lineage.ancestry import Lineage
from catalog.lineage.edges import tell
from catalog.lineage.thread import Thread, as_text
from catalog.registrar.actions import read
from catalog.registrar.call import Call
from catalog.store.ledger import Actor
from catalog.store.refusals import CatalogRefused
from catalog.store.store import Store
from infra.catalog import CatalogView, Limits
from schemas.events import Reason
from schemas.kinds import ROOT, Privilege
from tests.catalog.acting import ACTOR, NOON, begin, route
from tests.catalog.lineage_graphs import edge, minute, told

pytestmark = pytest.mark.stack

CHAT = "main.default.chat"
EDGES = (
    edge("response r-1", "asked_by", "principal alice", tenant="acme"),
    edge("response r-1", "answered_by", f"endpoint {CHAT}"),
    edge("response r-1", "routed_by", f"route {CHAT}/local"),
    edge("response r-1", "served_by", "model_version main.default.scorer@1"),
    edge("response r-1", "retrieved", "chunk c-1"),
    edge("response r-1", "decided_by", "policy admission"),
    edge("chunk c-1", "made_of", "row main.default.orders/42@7"),
    edge("model_version main.default.scorer@1", "trained_by", "training_run run-1"),
    edge("training_run run-1", "read", "file file:/data/one.jsonl"),
    edge("response r-2", "asked_by", "principal bob", tenant="globex"),
    edge("response r-2", "answered_by", f"endpoint {CHAT}"),
    # Two callers chose one id: it is nobody's.
    edge("response r-3", "asked_by", "principal alice", tenant="acme"),
    edge("response r-3", "asked_by", "principal bob", tenant="globex"),
    edge("tool_call r-1", "called", "function_version main.default.gone@1"),
)


@pytest.fixture
def view(store: Store) -> CatalogView:
    with store.change(ACTOR) as change:
        begin(change)
        change.grant(ROOT, "root", [Privilege.MANAGE], [])
        for tenant, user in (("acme", "alice"), ("globex", "bob")):
            change.create("tenant", tenant, owner="root")
            change.create("user", user, owner="root", spec={"tenant": tenant})
        change.create("endpoint", CHAT, owner="root", spec=route())
        change.create("model", "main.default.scorer", owner="root")
        change.create("table", "main.default.orders", owner="root", spec={"location": "lake:o"})
        change.grant(CHAT, "acme", [Privilege.QUERY], [])
    with store.engine.begin() as connection:
        tell(connection, [told(*EDGES)])
    return seen(store)


def seen(store: Store) -> CatalogView:
    view = CatalogView(Limits(max_request_bytes=1, max_deadline_ms=1))
    for changed in store.entries():
        view.apply(changed)
    return view


def ask(engine: Engine, view: CatalogView, who: str, **arguments: object) -> Thread:
    action, read_arguments = read("lineage", json.dumps(arguments, default=str))
    assert isinstance(read_arguments, Lineage)
    assert not read_arguments.changes()
    actor = Actor(principal=who, tenant=view.principals[who].tenant or "", at=NOON)
    return Thread.model_validate(action.run(Call(view, actor, engine), read_arguments))


def lines(thread: Thread) -> list[str]:
    return as_text(thread).splitlines()


def test_whoever_manages_the_root_sees_all_of_it(store: Store, view: CatalogView) -> None:
    assert lines(ask(store.engine, view, "root", name="r-1", kind="response")) == [
        "response r-1",
        f"├─ answered_by endpoint {CHAT}",
        f"├─ routed_by route {CHAT}/local",
        "├─ served_by model_version main.default.scorer@1",
        "│  └─ trained_by training_run run-1",
        "│     └─ read file file:/data/one.jsonl",
        "├─ retrieved chunk c-1",
        "│  └─ made_of row main.default.orders/42@7",
        "├─ decided_by policy admission",
        "└─ asked_by principal alice (tenant=acme)",
    ]


def test_the_tenant_of_an_answer_sees_of_it_what_it_may_browse(
    store: Store, view: CatalogView
) -> None:
    assert lines(ask(store.engine, view, "alice", name="r-1")) == [
        "response r-1",
        f"├─ answered_by endpoint {CHAT}",
        f"├─ routed_by route {CHAT}/local",
        "├─ served_by model_version (hidden)",
        "├─ retrieved chunk c-1",
        "│  └─ made_of row (hidden)",
        "├─ decided_by policy admission",
        "└─ asked_by principal alice (tenant=acme)",
    ]


def test_a_row_takes_select_on_its_table(store: Store, view: CatalogView) -> None:
    def row(*privileges: Privilege) -> str:
        with store.change(ACTOR) as change:
            change.grant("main.default.orders", "alice", privileges, [])
            change.grant("main", "alice", [Privilege.USE], [])
        return lines(ask(store.engine, seen(store), "alice", name="r-1", kinds=["row"]))[-1]

    assert row(Privilege.BROWSE).endswith("row (hidden)")
    assert row(Privilege.SELECT).endswith("row main.default.orders/42@7")


UNSEEN = [
    ("bob", "r-1"),
    ("alice", "r-2"),
    ("alice", "r-3"),
    ("alice", "c-1"),
    ("alice", "run-1"),
    ("alice", "file:/data/one.jsonl"),
    ("alice", "main.default.scorer@1"),
    ("alice", "admission"),
    ("alice", "alice"),
    ("alice", "r-99"),
    ("root", "r-99"),
]


def test_what_the_caller_may_not_see_is_said_to_be_unknown(store: Store, view: CatalogView) -> None:
    for who, name in UNSEEN:
        nobody = "x" * len(name) if name.isidentifier() else name.replace("e", "f") + "f"
        with pytest.raises(CatalogRefused) as refused:
            ask(store.engine, view, who, name=name)
        with pytest.raises(CatalogRefused) as unknown:
            ask(store.engine, view, who, name=nobody)
        assert refused.value.reason is Reason.NOT_FOUND
        assert refused.value.message.replace(name, "it") == unknown.value.message.replace(
            nobody, "it"
        )


def test_nothing_recorded_says_what_to_try(store: Store, view: CatalogView) -> None:
    with pytest.raises(CatalogRefused, match=r"seconds after the reply.*tessera sql"):
        ask(store.engine, view, "alice", name="r-99")
    with pytest.raises(CatalogRefused) as refused:
        ask(store.engine, view, "alice", name="'; drop table inferences; --")
    assert "tessera sql" not in refused.value.message


def test_an_object_that_may_be_browsed_shows_the_answers_of_ones_own_tenant(
    store: Store, view: CatalogView
) -> None:
    thread = ask(store.engine, view, "alice", name=CHAT, downstream=True)
    assert lines(thread) == [
        f"endpoint {CHAT}",
        "├─ response (hidden) answered_by it",
        "└─ response r-1 answered_by it",
    ]
    assert not any("r-2" in str(node) for node in thread.nodes)


def test_a_name_of_several_things_asks_for_the_kind(store: Store, view: CatalogView) -> None:
    with pytest.raises(CatalogRefused, match="a response and a tool_call: say which"):
        ask(store.engine, view, "root", name="r-1")
    thread = ask(store.engine, view, "root", name="r-1", kind="tool_call")
    assert lines(thread)[0] == "tool_call r-1"


def test_a_kind_that_is_none_is_told_the_nearest(store: Store, view: CatalogView) -> None:
    for arguments in ({"kind": "respons"}, {"kinds": ["respons"]}):
        with pytest.raises(CatalogRefused, match="did you mean response"):
            ask(store.engine, view, "alice", name="r-1", **arguments)


def test_depth_time_and_limit_bound_the_walk(store: Store, view: CatalogView) -> None:
    near = ask(store.engine, view, "root", name="r-1", kind="response", depth=1)
    assert {edge.downstream for edge in near.edges} == {0}
    later = ask(
        store.engine, view, "root", name="r-1", kind="response", since=minute(10**9 // 1000)
    )
    assert (later.edges, len(later.nodes)) == ((), 1)
    few = ask(store.engine, view, "root", name="r-1", kind="response", limit=2)
    assert few.cut
    assert len(few.edges) == 2


@pytest.mark.parametrize(
    "wrong", [{"depth": 0}, {"depth": 1000}, {"limit": 0}, {"since": "yesterday"}, {"deep": 1}, {}]
)
def test_arguments_of_another_shape_are_refused(wrong: dict[str, object]) -> None:
    named = {"name": "r-1"} if wrong else {}
    with pytest.raises(CatalogRefused) as refused:
        read("lineage", json.dumps({**named, **wrong}))
    assert refused.value.reason is Reason.REQUEST_INVALID


def test_a_walk_that_takes_too_long_is_refused(store: Store, view: CatalogView) -> None:
    with locked(store.engine), pytest.raises(CatalogRefused, match="takes too long"):
        ask(store.engine, view, "root", name="r-1", kind="response")


@contextmanager
def locked(engine: Engine) -> Iterator[None]:
    """Holds the table of edges, so that whoever reads it waits."""
    with engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE lineage_edge IN ACCESS EXCLUSIVE MODE")
        yield
