"""Laws of the view of the catalog: order, repetition and compaction change nothing."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.catalog import CatalogView
from schemas.events import CatalogChanged
from schemas.kinds import Grant, Key, Privilege, Version
from tests.seed import LIMITS, SEEDED, changed, described
from tests.unit.test_catalog_view import PUBLIC, route
from tests.unit.viewing import applied, decided

NAMES = st.sampled_from(["a", "b"])
MEMBERS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=2).map(tuple)
VERSIONS = st.sampled_from(["main.tests.a", "main.tests.a@1", "main.tests.a@2", "main.tests.a@x"])


@st.composite
def histories(draw: st.DrawFn) -> list[CatalogChanged]:
    """What a few entries went through; all kinds that decide, also under names they share."""
    described_ = st.builds(
        lambda owner, spec, aliases: described({"owner": owner, "spec": spec, "aliases": aliases}),
        NAMES,
        st.one_of(
            st.builds(lambda of: {"routes": [route(entity=of)]}, VERSIONS),
            st.just({"tenant": "c"}),
            st.just({}),
        ),
        st.dictionaries(st.just("x"), st.integers(1, 2)),
    )
    made: dict[str, Any] = {"created_at": SEEDED, "created_by": "a"}
    source = {"language": "python", "source": "pass"}
    bodies: dict[str, st.SearchStrategy[Any]] = {
        "grant": st.builds(Grant, allow=st.just((Privilege.QUERY,)), deny=st.just(())),
        "group": st.builds(lambda of: described({"spec": {"members": of}}), MEMBERS),
        "key": st.just(
            Key(principal="a", public_key=base64.b64encode(PUBLIC).decode(), not_before=SEEDED)
        ),
        "agent": described_ | st.just(described({"spec": {"endpoint": "main.tests.e"}})),
        "version": st.sampled_from(
            [
                Version(kind="function", spec=source, **made),
                Version(kind="model", spec={}, **made),
                Version(kind="prompt", spec={"template": "{{a}}"}, **made),
            ]
        ),
    }
    names = {
        "endpoint": st.sampled_from(["main.tests.a", "main.tests.e"]),
        "grant": st.sampled_from(["main/a", "main.tests.e/b", "*/everyone"]),
        **dict.fromkeys(("agent", "index"), st.sampled_from(["main.tests.a", "main.tests.i"])),
        **dict.fromkeys(("function", "model", "prompt"), st.just("main.tests.a")),
        "version": st.sampled_from(["main.tests.a@1", "main.tests.a@2"]),
    }
    kinds = st.sampled_from(
        [
            "agent",
            "catalog",
            "endpoint",
            "function",
            "grant",
            "group",
            "index",
            "key",
            "model",
            "prompt",
            "tenant",
            "user",
            "version",
        ]
    )
    history = []
    for position in range(1, draw(st.integers(1, 25)) + 1):
        kind = draw(kinds)
        body = draw(st.none() | bodies.get(kind, described_))
        change = changed(kind, draw(names.get(kind, NAMES)), body)
        history.append(replace(change, position=position))
    return history


def last_of_each(history: list[CatalogChanged]) -> list[CatalogChanged]:
    return list({(each.kind, each.name): each for each in history}.values())


patient = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@patient
@given(history=histories(), data=st.data())
def test_repetition_order_and_compaction_change_nothing(
    history: list[CatalogChanged], data: st.DataObject
) -> None:
    expected = applied(last_of_each(history))
    # As compaction leaves it: of each entry, the last and any earlier ones.
    last = set(map(id, last_of_each(history)))
    kept = [each for each in history if id(each) in last or data.draw(st.booleans())]
    repeated = [each for each in kept for _ in range(data.draw(st.integers(1, 2)))]
    shuffled = data.draw(st.permutations(repeated))
    for way in (history, kept, repeated, shuffled):
        view = applied(way)
        assert decided(view) == decided(expected)
        assert sorted(view.entries()) == sorted(expected.entries())
        assert view.position == expected.position


@patient
@given(history=histories())
def test_an_older_record_is_refused_by_its_own_entry_alone(history: list[CatalogChanged]) -> None:
    view, newest = CatalogView(LIMITS), dict[tuple[str, str], int]()
    for change in [*history, *reversed(history)]:
        key = (change.kind, change.name)
        assert view.apply(change) is (change.position > newest.get(key, 0))
        newest[key] = max(change.position, newest.get(key, 0))
