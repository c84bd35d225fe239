"""The view of the catalog: what entries become, and that order and repetition do not matter."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from infra.bootstrap import ROOT
from infra.catalog import CatalogView, Endpoint, EntryUnreadable, Principal, Tenant
from infra.provision import members, members_of
from infra.settings import GatewaySettings, SettingInvalid
from infra.signing import key_id
from schemas.events import CatalogChanged, Route
from schemas.kinds import Described, Grant, Key, Privilege, Version
from schemas.routing import EndpointSpec
from tests.seed import LIMITS, SEEDED, changed, changes, described, documents, view_of

CHAT = "main.tests.chat"
SCORER = "main.tests.scorer"
PUBLIC = bytes(range(32))


def endpoint(*routes: dict[str, str], **spec: Any) -> dict[str, Any]:
    return {"kind": "endpoint", "name": CHAT, "spec": {"routes": list(routes), **spec}}


def route(name: str = "only", **more: str) -> dict[str, str]:
    return {"name": name, "pool": f"pool-{name}", "model": "m", **more}


def scorer(versions: int, **aliases: int) -> dict[str, Any]:
    uris = [{"spec": {"uri": f"file:/{number}"}} for number in range(versions)]
    return {"kind": "model", "name": SCORER, "versions": uris, "aliases": aliases}


def apply(view: CatalogView, *documents: dict[str, Any]) -> None:
    for change in changes(documents):
        assert view.apply(change)


def test_an_endpoint_is_what_its_entry_says() -> None:
    first, second = route("large"), route("edge")
    said = endpoint(first, second, output_policy=True, policies=["main.tests.rule"])
    view, spec = view_of([said]), EndpointSpec.model_validate(said["spec"])
    large, edge = (Route(name=name, pool=f"pool-{name}", model="m") for name in ("large", "edge"))
    assert view.endpoints[CHAT] == Endpoint(
        name=CHAT,
        routes=(large, edge),
        spec=spec,
        ways={"large": spec.routes[0], "edge": spec.routes[1]},
        output_policy=True,
        policies=("main.tests.rule",),
    )
    assert view.pools == ("pool-edge", "pool-large")
    assert view_of([endpoint(first)]).endpoints[CHAT].output_policy is False


def test_a_tenant_is_answered_on_its_own_name_unless_its_entry_names_others() -> None:
    view = view_of(
        [
            {"kind": "tenant", "name": "acme"},
            {"kind": "tenant", "name": "blue", "spec": {"replies": ["b1", "b2"]}},
            {"kind": "tenant", "name": "open", "spec": {"accept_unsigned": True}},
        ]
    )
    assert view.tenants == {
        "acme": Tenant(name="acme", reply_topics=("reply.v1.acme",)),
        "blue": Tenant(name="blue", reply_topics=("reply.v1.b1", "reply.v1.b2")),
        "open": Tenant(name="open", reply_topics=("reply.v1.open",), accept_unsigned=True),
    }


def test_who_acts_is_known_with_kind_and_tenant() -> None:
    view = view_of(
        [
            {"kind": "tenant", "name": "acme"},
            {"kind": "user", "name": "ann", "spec": {"tenant": "acme"}},
            {"kind": "service_principal", "name": "bot", "spec": {"tenant": "acme"}},
            {"kind": "group", "name": "team", "spec": {"members": ["ann"]}},
        ]
    )
    assert view.principals == {
        "acme": Principal(name="acme", kind="tenant", tenant="acme"),
        "ann": Principal(name="ann", kind="user", tenant="acme"),
        "bot": Principal(name="bot", kind="service_principal", tenant="acme"),
        "team": Principal(name="team", kind="group", tenant=None),
    }
    assert view.access.identities("ann") == {"ann", "acme", "team", "everyone"}


def test_a_key_is_kept_with_its_times_also_when_it_is_revoked() -> None:
    text = base64.b64encode(PUBLIC).decode()
    ann = {"kind": "user", "name": "ann", "spec": {"tenant": "acme"}}
    view = view_of([{**ann, "keys": [{"public_key": text, "revoked_at": SEEDED}]}])
    [key] = view.keys.values()
    assert (key.key_id, key.principal, key.public_key) == (key_id(PUBLIC), "ann", PUBLIC)
    assert (key.not_before, key.expires_at, key.revoked_at) == (SEEDED, None, SEEDED)
    assert view.apply(changed("key", key.key_id, None))
    assert not view.keys


def test_grants_and_owners_decide_until_they_are_gone() -> None:
    view = view_of(
        [
            {"kind": "catalog", "name": "main", "grants": {"everyone": ["USE"]}},
            {"kind": "schema", "name": "main.tests", "grants": {"everyone": ["USE", "QUERY"]}},
            {**endpoint(route()), "owner": "ann", "denies": {"bob": ["QUERY"]}},
            *({"kind": "user", "name": n, "spec": {"tenant": "acme"}} for n in ("ann", "bob")),
        ]
    )

    def may(principal: str, privilege: Privilege) -> bool:
        return view.access.may(principal, privilege, CHAT)

    assert may("ann", Privilege.MANAGE)
    assert not may("bob", Privilege.QUERY)
    view.apply(changed("grant", f"{CHAT}/bob", None))
    assert may("bob", Privilege.QUERY)
    view.apply(changed("grant", "main.tests/everyone", Grant(allow=(Privilege.USE,))))
    assert not may("bob", Privilege.QUERY)
    view.apply(changed("user", "ann", None))
    assert not may("ann", Privilege.MANAGE)


def test_a_route_names_the_version_that_an_alias_or_the_newest_is_now() -> None:
    view = view_of([endpoint(route(entity=f"{SCORER}@best", adapter=SCORER)), scorer(2, best=1)])

    def served() -> list[tuple[str, str]]:
        endpoints = view.endpoints.values()
        return [(each.entity, each.adapter) for one in endpoints for each in one.routes]

    assert served() == [(f"{SCORER}@1", f"{SCORER}@2")]
    apply(view, scorer(3, best=2))
    assert served() == [(f"{SCORER}@2", f"{SCORER}@3")]
    view.apply(changed("version", f"{SCORER}@3", None))
    assert served() == [(f"{SCORER}@2", f"{SCORER}@2")]
    apply(view, {**scorer(0), "aliases": {}})
    assert served() == []
    assert view.pools == ()
    apply(view, scorer(0, best=2))
    assert served() == [(f"{SCORER}@2", f"{SCORER}@2")]
    view.apply(changed("model", SCORER, None))
    assert served() == []


def test_a_version_is_named_by_number_or_not_at_all() -> None:
    first, second = route("one", entity=f"{SCORER}@1"), route("two", entity=f"{SCORER}@7")
    view = view_of([scorer(1), endpoint(first, second)])
    assert [each.name for each in view.endpoints[CHAT].routes] == ["one"]
    assert view.pools == ("pool-one",)
    function = Version(kind="function", spec={}, created_at=SEEDED, created_by="ann")
    view.apply(changed("version", f"{SCORER}@7", function))
    assert len(view.endpoints[CHAT].routes) == 1


def test_an_entry_tells_position_and_body_as_they_came() -> None:
    view = CatalogView(LIMITS)
    made = changed("prompt", "main.tests.greeting", '{"new": "shape"}')
    assert view.apply(made)
    assert view.entry("prompt", made.name) == (made.position, made.body)
    assert view.entry("prompt", "main.tests.other") is None
    assert list(view.entries()) == [("prompt", made.name, made.position, made.body)]
    gone = changed("prompt", made.name, None)
    view.apply(gone)
    assert view.entry("prompt", made.name) == (gone.position, None)
    assert list(view.entries()) == []
    assert view.position == gone.position


# Bodies that some other version wrote, by the entry that they replace.
FOREIGN: dict[str, tuple[str, str, str]] = {
    "an endpoint that is no JSON": ("endpoint", CHAT, "{"),
    "an endpoint with a field more": (
        "endpoint",
        CHAT,
        described({**endpoint(route(), speed=9)}).model_dump_json(),
    ),
    "a key of another length": (
        "key",
        key_id(PUBLIC),
        Key(principal="ann", public_key="AAAA", not_before=SEEDED).model_dump_json(),
    ),
    "a key in another code": (
        "key",
        key_id(PUBLIC),
        Key(principal="ann", public_key="ü", not_before=SEEDED).model_dump_json(),
    ),
    "a tenant with a field more": (
        "tenant",
        "acme",
        described({"spec": {"quota": 1}}).model_dump_json(),
    ),
    "a user without a tenant": ("user", "ann", described({}).model_dump_json()),
    "a version of another shape": ("version", f"{SCORER}@1", "[]"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_an_entry_that_cannot_be_read_counts_as_gone_and_never_as_what_it_was(what: str) -> None:
    known = [
        scorer(1),
        endpoint(route(entity=SCORER)),
        {"kind": "tenant", "name": "acme"},
        {
            "kind": "user",
            "name": "ann",
            "spec": {"tenant": "acme"},
            "keys": [{"public_key": base64.b64encode(PUBLIC).decode()}],
        },
    ]
    kind, name, body = FOREIGN[what]
    view, without = view_of(known), view_of(known)
    view.apply(changed(kind, name, body))
    without.apply(changed(kind, name, None))
    assert decided(view) == decided(without)
    assert decided(view) != decided(view_of(known))
    [(_, kept)] = [view.entry(kind, name) or (0, None)]
    assert kept == body


def test_a_grant_that_cannot_be_read_denies_everything() -> None:
    view = view_of(
        [
            {"kind": "catalog", "name": "main", "grants": {"ann": ["MANAGE"]}},
            {"kind": "user", "name": "ann", "spec": {"tenant": "acme"}},
        ]
    )
    assert view.access.may("ann", Privilege.BROWSE, "main")
    view.apply(changed("grant", "*/ann", '{"allow": ["FLY"], "deny": ["QUERY"]}'))
    assert not any(view.access.may("ann", each, "main") for each in Privilege)


@pytest.mark.parametrize("body", ["{", described({"spec": {"people": []}}).model_dump_json()])
def test_a_group_that_cannot_be_read_ends_the_view(body: str) -> None:
    with pytest.raises(EntryUnreadable, match="members of group team"):
        CatalogView(LIMITS).apply(changed("group", "team", body))


def test_what_stands_under_a_name_is_the_kind_that_changed_last() -> None:
    view = CatalogView(LIMITS)
    [old] = changes([{"kind": "user", "name": "ann", "spec": {"tenant": "acme"}}])
    gone = changed("user", "ann", None)
    [new] = changes([{"kind": "group", "name": "ann", "spec": {"members": ["bob"]}}])
    for change in (new, old, gone):
        view.apply(change)
    assert view.principals["ann"].kind == "group"
    table = {"kind": "table", "name": CHAT, "owner": "bob", "spec": {"location": "lake:x"}}
    [was] = changes([table])
    [now] = changes([{**endpoint(route()), "owner": "cid"}])
    for change in (now, was, replace(was, position=was.position + 100, body=None)):
        view.apply(change)
    assert CHAT in view.endpoints
    assert (
        view.access.explain("ann", Privilege.QUERY, CHAT).because == f"QUERY on {CHAT} is missing"
    )


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
    bodies: dict[str, st.SearchStrategy[Any]] = {
        "grant": st.builds(Grant, allow=st.just((Privilege.QUERY,)), deny=st.just(())),
        "group": st.builds(lambda of: described({"spec": {"members": of}}), MEMBERS),
        "key": st.just(
            Key(principal="a", public_key=base64.b64encode(PUBLIC).decode(), not_before=SEEDED)
        ),
        "version": st.just(Version(kind="model", spec={}, created_at=SEEDED, created_by="a")),
    }
    names = {
        "endpoint": st.sampled_from(["main.tests.a", "main.tests.e"]),
        "grant": st.sampled_from(["main/a", "main.tests.e/b", "*/everyone"]),
        "model": st.just("main.tests.a"),
        "version": st.sampled_from(["main.tests.a@1", "main.tests.a@2"]),
    }
    kinds = st.sampled_from(
        ["catalog", "endpoint", "grant", "group", "key", "model", "tenant", "user", "version"]
    )
    history = []
    for position in range(1, draw(st.integers(1, 25)) + 1):
        kind = draw(kinds)
        body = draw(st.none() | bodies.get(kind, described_))
        change = changed(kind, draw(names.get(kind, NAMES)), body)
        history.append(replace(change, position=position))
    return history


def decided(view: CatalogView) -> dict[str, Any]:
    """Returns everything that decisions are made by."""
    principals = ("a", "b", "c", "acme", "ann")
    securables = ("a", "main", "main.tests.a", "main.tests.e", CHAT)
    return {
        "effective": [view.access.effective(p, s) for p in principals for s in securables],
        "endpoints": view.endpoints,
        "identities": [view.access.identities(p) for p in principals],
        "keys": view.keys,
        "pools": view.pools,
        "principals": view.principals,
        "tenants": view.tenants,
    }


def applied(history: list[CatalogChanged]) -> CatalogView:
    view = CatalogView(LIMITS)
    for change in history:
        view.apply(change)
    return view


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


def test_the_topics_of_an_entry_are_those_of_the_view() -> None:
    made = changes(documents(ROOT / "tests" / "catalog.yaml"))
    named = {topic.name for change in made for topic in members(change)}
    assert named == {topic.name for topic in members_of(applied(made))}
    assert {"inference.routed.v1.echo", "reply.v1.acme", "reply.v1.faults2"} <= named
    assert members(changed("tenant", "acme", None)) == []
    with pytest.raises(ValidationError):
        members(changed("tenant", "acme", "{}"))


WRONG_LIMITS = {
    "GATEWAY_MAX_DEADLINE_MS": ("0", "3600001"),
    "GATEWAY_MAX_REQUEST_BYTES": ("-1", "16777216", "many"),
}


@pytest.mark.parametrize("variable", WRONG_LIMITS)
def test_a_limit_that_cannot_hold_is_refused_by_its_name(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in WRONG_LIMITS[variable]:
        monkeypatch.setenv(variable, value)
        with pytest.raises(SettingInvalid, match=variable):
            GatewaySettings()


def test_documents_of_tests_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text("kind: tenant\nname: acme\n---\nkind: root\nname: '*'\ngrants: {acme: [USE]}\n")
    [tenant, grant] = changes(documents(path))
    assert Described.model_validate(json.loads(tenant.body or "")).owner == "admin"
    assert (grant.kind, grant.name) == ("grant", "*/acme")
    assert tenant.position < grant.position
