"""The view of the catalog: what entries become, and that order and repetition do not matter."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from infra.bootstrap import ROOT
from infra.catalog import CatalogView, Endpoint, EntryUnreadable, Principal, Tenant
from infra.provision import members, members_of
from infra.settings import GatewaySettings, SettingInvalid
from infra.signing import key_id
from schemas.events import Route
from schemas.kinds import Described, Grant, Key, Privilege, Version
from schemas.routing import EndpointSpec, Price
from tests.seed import LIMITS, SEEDED, changed, changes, described, documents, view_of
from tests.unit.viewing import CHAT, applied, decided

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


def test_the_topics_of_an_entry_are_those_of_the_view() -> None:
    made = changes(documents(ROOT / "tests" / "catalog.yaml"))
    named = {topic.name for change in made for topic in members(change)}
    assert named == {topic.name for topic in members_of(applied(made))}
    assert {"inference.routed.v1.echo", "reply.v1.acme", "reply.v1.faults2"} <= named
    assert {"agent.told.v1.acme", "agent.told.v1.faults2"} <= named
    assert members(changed("tenant", "acme", None)) == []
    with pytest.raises(ValidationError):
        members(changed("tenant", "acme", "{}"))


FUNCTION, PROMPT = "main.tests.weather", "main.tests.greeting"


def weather(*sources: str, **aliases: int) -> dict[str, Any]:
    specs = [{"spec": {"language": "python", "source": source}} for source in sources]
    return {"kind": "function", "name": FUNCTION, "versions": specs, "aliases": aliases}


def test_a_function_is_found_by_number_by_alias_or_as_its_newest() -> None:
    view = view_of([weather("a", "b", "c", prod=2, gone=9)])

    def found(reference: str, which: str | None = None) -> tuple[int, str] | None:
        of = view.functions.find(reference, which)
        return (of.number, of.version.source) if of else None

    assert found(FUNCTION) == (3, "c")
    assert found(FUNCTION, "1") == found(f"{FUNCTION}@1") == (1, "a")
    assert found(FUNCTION, "prod") == found(f"{FUNCTION}@prod") == (2, "b")
    for which in ("4", "gone", "other", "", "0", "01", "-1"):
        assert found(FUNCTION, which) is None
    assert found("main.tests.none") is None
    assert (dict(view.functions.aliases(FUNCTION)), [*view.functions]) == (
        {"prod": 2, "gone": 9},
        [FUNCTION],
    )
    view.apply(changed("version", f"{FUNCTION}@3", None))
    assert found(FUNCTION) == (2, "b")
    view.apply(changed("function", FUNCTION, None))
    assert found(FUNCTION) is None
    assert not view.endpoints
    assert not view.pools


def test_a_function_is_an_endpoint_whose_route_has_its_newest_version() -> None:
    view = view_of([weather()])
    assert (view.endpoints, [*view.functions]) == ({}, [FUNCTION])
    apply(view, weather("a", "b"))
    [route_] = view.endpoints[FUNCTION].routes
    assert (route_.pool, route_.model, route_.entity) == ("tools", FUNCTION, f"{FUNCTION}@2")
    assert (view.endpoints[FUNCTION].kind, view.pools) == ("function", ("tools",))
    assert view.prices(route_) == (Price(),)
    apply(view, weather("a", "b", "c"))
    assert view.endpoints[FUNCTION].routes[0].entity == f"{FUNCTION}@3"


def test_a_newest_version_in_an_unknown_shape_lets_no_older_one_be_the_newest() -> None:
    view = view_of([weather("a", "b")])
    strange = Version(kind="function", spec={"speed": 9}, created_at=SEEDED, created_by="ann")
    view.apply(changed("version", f"{FUNCTION}@2", strange))
    assert view.functions.find(FUNCTION) is None
    assert FUNCTION not in view.endpoints
    older = view.functions.find(f"{FUNCTION}@1")
    assert older is not None
    assert older.version.source == "a"
    view.apply(changed("version", f"{FUNCTION}@2", None))
    assert view.functions.find(FUNCTION) == older


def test_an_agent_is_an_endpoint_of_one_route_to_those_who_run_agents() -> None:
    spec = {"endpoint": CHAT, "tools": [f"{FUNCTION}@prod"]}
    view = view_of([{"kind": "agent", "name": "main.tests.agent", "spec": spec}])
    assert view.agents["main.tests.agent"].tools == (f"{FUNCTION}@prod",)
    asked = view.endpoints["main.tests.agent"]
    assert [(each.pool, each.model, each.entity) for each in asked.routes] == [
        ("agents", "main.tests.agent", "")
    ]
    assert (asked.kind, asked.spec.fall_back_on, asked.spec.cache) == ("agent", (), None)
    assert view.prices(asked.routes[0]) == (Price(),)
    assert view.pools == ("agents",)
    view.apply(changed("agent", "main.tests.agent", None))
    assert not view.agents
    assert not view.endpoints
    assert not view.pools


def test_prompts_are_known_by_version_and_what_things_are_for_by_their_comments() -> None:
    texts = [{"spec": {"template": text}} for text in ("hello", "good day")]
    prompt = {"kind": "prompt", "name": PROMPT, "versions": texts, "aliases": {"old": 1}}
    view = view_of([prompt, weather("a")])
    found = view.prompts.find(f"{PROMPT}@old")
    assert found is not None
    assert (found.number, found.version.template) == (1, "hello")
    assert view.prompts.find(FUNCTION) is None
    assert view.comment("function", FUNCTION) == ""
    said = described(weather()).model_copy(update={"comment": "tells the weather"})
    view.apply(changed("function", FUNCTION, said))
    assert view.comment("function", FUNCTION) == "tells the weather"
    view.apply(changed("function", FUNCTION, None))
    assert view.comment("function", FUNCTION) == ""


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
