"""What the store does, what it refuses and in which words; on a real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from operator import methodcaller
from typing import Any

import pytest

from catalog.store.store import CatalogRefused, Change, Store
from schemas.events import AuditRecorded, CatalogChanged, Reason
from schemas.kinds import EVERYONE, ROOT, Described, Key, Privilege, Version
from tests.catalog.acting import (
    ACTOR,
    ENDPOINT,
    MODEL,
    NOON,
    WEIGHTS,
    begun,
    live,
    new_key,
    route,
)

pytestmark = pytest.mark.stack


def refusal(store: Store, wanted: Callable[[Change], object]) -> CatalogRefused:
    """Returns how a change is refused; nothing of it may be left."""
    before = live(store)
    with pytest.raises(CatalogRefused) as caught, store.change(ACTOR) as change:
        wanted(change)
    assert live(store) == before
    return caught.value


def with_model(store: Store) -> Store:
    """Returns a store with a model of one version, called prod, that an endpoint serves."""
    with begun(store).change(ACTOR) as change:
        change.create("model", MODEL, owner="root", tags={"stage": "gold"})
        assert change.add_version("model", MODEL, WEIGHTS, "the first") == 1
        change.update("model", MODEL, aliases={"prod": 1})
        change.create("endpoint", ENDPOINT, owner="root", spec=route(entity=f"{MODEL}@prod"))
    return store


def body(store: Store, kind: str, name: str) -> Any:
    """Returns the body of an entry."""
    return json.loads(live(store)[(kind, name)][1] or "null")


def audits(store: Store) -> list[AuditRecorded]:
    """Returns what the outbox tells of audits."""
    events = [each.outgoing.event for each in store.waiting()]
    return [event for event in events if isinstance(event, AuditRecorded)]


def test_what_is_made_is_told_in_the_shape_of_its_kind(store: Store) -> None:
    with_model(store)
    model = Described.model_validate(body(store, "model", MODEL))
    assert model.tags == {"stage": "gold"}
    assert model.aliases == {"prod": 1}
    assert (model.created_at, model.created_by) == (NOON, "root")
    version = Version.model_validate(body(store, "version", f"{MODEL}@1"))
    assert (version.kind, version.spec["uri"], version.comment) == (
        "model",
        WEIGHTS["uri"],
        "the first",
    )
    assert Described.model_validate(body(store, "root", ROOT)).owner == "root"


def test_each_change_is_audited_with_what_was_and_what_is(store: Store) -> None:
    begun(store)
    store.forget(1_000_000)
    actor = replace(ACTOR, key_id="k", trace_id="t")
    with store.change(actor) as change:
        change.update("catalog", "main", comment="new")
        change.grant("main", EVERYONE, [Privilege.BROWSE], [])
        change.grant("main", EVERYONE, [Privilege.BROWSE], [Privilege.USE])
        change.grant("main", EVERYONE, [], [])
        change.delete("schema", "main.default")
    told = audits(store)
    assert [audit.action for audit in told] == [
        "catalog.update",
        "catalog.grant",
        "catalog.deny",
        "catalog.revoke",
        "catalog.delete",
    ]
    first, *_, last = told
    assert json.loads(first.before or "")["comment"] == ""
    assert json.loads(first.after or "")["comment"] == "new"
    assert (last.before is not None, last.after) == (True, None)
    assert (first.principal, first.key_id, first.request_id, first.trace_id) == (
        "root",
        "k",
        "r-1",
        "t",
    )


def test_an_update_keeps_what_it_does_not_name(store: Store) -> None:
    with_model(store)
    with store.change(ACTOR) as change:
        change.update("model", MODEL, comment="better")
    after = body(store, "model", MODEL)
    assert (after["comment"], after["tags"], after["aliases"]) == (
        "better",
        {"stage": "gold"},
        {"prod": 1},
    )


def test_an_update_that_changes_nothing_is_not_told(store: Store) -> None:
    with_model(store)
    with store.change(ACTOR) as change:
        change.update("model", MODEL, tags={"stage": "gold"}, spec={"task": "chat"})
        change.grant(MODEL, EVERYONE, [], [])
        assert change.changes == []


def test_an_update_of_what_was_read_too_early_is_a_conflict(store: Store) -> None:
    with_model(store)
    old = body(store, "model", MODEL)["etag"]
    with store.change(ACTOR) as change:
        change.update("model", MODEL, etag=old, comment="mine")
    new = body(store, "model", MODEL)["etag"]
    refused = refusal(store, lambda change: change.update("model", MODEL, etag=old, comment="his"))
    assert refused.reason is Reason.CONFLICT
    assert old in refused.message
    assert new in refused.message
    assert "read it again" in refused.message


@pytest.mark.parametrize(
    ("kind", "name", "needed_by"),
    [
        ("catalog", "main", "schema main.default"),
        ("model", MODEL, f"endpoint {ENDPOINT}"),
        ("schema", "main.default", f"model {MODEL}"),
        ("tenant", "demo", "user root"),
        ("user", "root", f"endpoint {ENDPOINT}"),
        ("version", f"{MODEL}@1", "alias prod"),
    ],
)
def test_what_others_need_is_not_deleted(
    store: Store, kind: str, name: str, needed_by: str
) -> None:
    with_model(store)
    refused = refusal(store, lambda change: change.delete(kind, name))
    assert refused.reason is Reason.REFERENCED
    assert needed_by in refused.message


def test_an_alias_by_which_somebody_names_a_version_stays_but_moves(store: Store) -> None:
    with_model(store)
    refused = refusal(store, lambda change: change.update("model", MODEL, aliases={}))
    assert refused.reason is Reason.REFERENCED
    assert f"endpoint {ENDPOINT}" in refused.message
    with store.change(ACTOR) as change:
        change.add_version("model", MODEL, WEIGHTS)
        change.update("model", MODEL, aliases={"prod": 2, "old": 1})
    assert body(store, "model", MODEL)["aliases"] == {"old": 1, "prod": 2}


def test_a_version_pinned_by_number_stays(store: Store) -> None:
    with_model(store)
    with store.change(ACTOR) as change:
        change.add_version("model", MODEL, WEIGHTS)
        change.update("endpoint", ENDPOINT, spec=route(entity=f"{MODEL}@2"))
        change.update("model", MODEL, aliases={})
        change.delete("version", f"{MODEL}@1")
    refused = refusal(store, lambda change: change.delete("version", f"{MODEL}@2"))
    assert f"endpoint {ENDPOINT}" in refused.message


def test_a_deleted_object_takes_its_grants_and_versions_with_it(store: Store) -> None:
    with_model(store)
    with store.change(ACTOR) as change:
        change.grant(MODEL, EVERYONE, [Privilege.BROWSE], [])
        change.delete("endpoint", ENDPOINT)
        change.delete("model", MODEL)
        gone = {(each.kind, each.name) for each in change.changes if each.body is None}
    assert {("grant", f"{MODEL}/{EVERYONE}"), ("version", f"{MODEL}@1"), ("model", MODEL)} <= gone
    assert not gone & set(live(store))


def test_the_number_of_a_version_is_never_given_again(store: Store) -> None:
    with_model(store)
    with store.change(ACTOR) as change:
        change.delete("endpoint", ENDPOINT)
        change.delete("model", MODEL)
        change.create("model", MODEL, owner="root")
        assert change.add_version("model", MODEL, WEIGHTS) == 2


def test_a_group_that_would_contain_itself_is_refused_with_the_way_round(store: Store) -> None:
    with begun(store).change(ACTOR) as change:
        for name, member in (("a", "root"), ("b", "a"), ("c", "b")):
            change.create("group", name, owner="root", spec={"members": [member]})
    refused = refusal(
        store, lambda change: change.update("group", "a", spec={"members": ["root", "c"]})
    )
    assert refused.reason is Reason.REQUEST_INVALID
    assert "a > c > b > a" in refused.message


def test_many_ways_down_to_one_group_are_no_burden(store: Store) -> None:
    with begun(store).change(ACTOR) as change:
        below = ["root"]
        for level in range(30):
            for side in "lr":
                change.create("group", f"{side}{level}", owner="root", spec={"members": below})
            below = [f"l{level}", f"r{level}"]
    refused = refusal(store, lambda change: change.update("group", "l0", spec={"members": ["l29"]}))
    assert refused.message.endswith("> l0")


SECRET = "sesame-open-9000"


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("spec.secret", {"type": "http", "url": "http://there", "secret": SECRET}),
        ("spec.url", {"type": "http", "url": f"http://me:{SECRET}@there"}),
        ("spec.password", {"type": "http", "url": "http://there", "password": SECRET}),
        ("spec.user", {"type": "http", "url": "http://there", "user": [SECRET]}),
    ],
)
def test_a_secret_in_a_connection_is_refused_and_not_repeated(
    store: Store, field: str, spec: dict[str, object]
) -> None:
    begun(store)
    refused = refusal(
        store,
        lambda change: change.create("connection", "main.default.there", owner="root", spec=spec),
    )
    assert (refused.reason, refused.field) == (Reason.REQUEST_INVALID, field)
    assert SECRET not in f"{refused.message} {refused!r} {refused.__cause__!r}"
    assert refused.__context__ is None or refused.__suppress_context__


@pytest.mark.parametrize(
    ("kind", "name", "more", "expected"),
    [
        ("catalog", "main", {}, (Reason.ALREADY_EXISTS, "name")),
        ("catalog", "main.x", {}, (Reason.REQUEST_INVALID, "name")),
        ("catalog", "other\n", {}, (Reason.REQUEST_INVALID, "name")),
        ("endpoint", "main.default.x", {"spec": {}}, (Reason.REQUEST_INVALID, "spec.routes")),
        ("group", "g", {"spec": {"members": [EVERYONE]}}, (Reason.REQUEST_INVALID, "spec.members")),
        ("group", "g", {"spec": {"members": ["nix"]}}, (Reason.NOT_FOUND, "spec.members")),
        ("model", "main.default.x", {"aliases": {"a": 1}}, (Reason.NOT_FOUND, "aliases")),
        ("model", "main.default.x", {"comment": "\0"}, (Reason.REQUEST_INVALID, "the entry")),
        ("model", "main.default.x", {"comment": "\ud800"}, (Reason.REQUEST_INVALID, "the entry")),
        ("model", "main.default.x", {"comment": 7}, (Reason.REQUEST_INVALID, "comment")),
        ("model", "main.default.x", {"owner": "nix"}, (Reason.NOT_FOUND, "owner")),
        ("model", "main.default.x", {"tags": {"a": 1}}, (Reason.REQUEST_INVALID, "tags.a")),
        ("model", "main.nowhere.x", {}, (Reason.NOT_FOUND, "name")),
        ("nonsense", "x", {}, (Reason.REQUEST_INVALID, "kind")),
        ("root", ROOT, {}, (Reason.REQUEST_INVALID, "kind")),
        ("user", EVERYONE, {"spec": {"tenant": "demo"}}, (Reason.ALREADY_EXISTS, "name")),
        ("user", "x", {"spec": {"tenant": "root"}}, (Reason.NOT_FOUND, "spec.tenant")),
        ("user", "x", {}, (Reason.REQUEST_INVALID, "spec.tenant")),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(
    store: Store, kind: str, name: str, more: dict[str, Any], expected: tuple[Reason, str]
) -> None:
    begun(store)
    refused = refusal(store, lambda change: change.create(kind, name, **{"owner": "root"} | more))
    assert (refused.reason, refused.field) == expected, refused.message


@pytest.mark.parametrize("reference", [f"{MODEL}@7", f"{MODEL}@dev", "main.default.nix", "a.b.c@1"])
def test_what_a_spec_names_must_exist(store: Store, reference: str) -> None:
    with_model(store)
    refused = refusal(
        store, lambda change: change.update("endpoint", ENDPOINT, spec=route(entity=reference))
    )
    assert refused.reason is Reason.NOT_FOUND
    assert refused.message.endswith((reference, reference.partition("@")[0]))


def test_grants_name_what_exists(store: Store) -> None:
    begun(store)
    ends = {
        ("main", "\ud800"): Reason.REQUEST_INVALID,
        ("main", "nix"): Reason.NOT_FOUND,
        ("main.nix", "root"): Reason.NOT_FOUND,
    }
    for (securable, principal), reason in ends.items():
        wanted = methodcaller("grant", securable, principal, [Privilege.USE], [])
        assert refusal(store, wanted).reason is reason
    with store.change(ACTOR) as change:
        change.grant(ROOT, EVERYONE, [Privilege.BROWSE], [Privilege.MANAGE])
    assert body(store, "grant", f"{ROOT}/{EVERYONE}") == {"allow": ["BROWSE"], "deny": ["MANAGE"]}


def test_a_key_is_revoked_for_good_and_keeps_its_principal(store: Store) -> None:
    begun(store)
    key_id, key = new_key("root")
    with store.change(ACTOR) as change:
        change.create("user", "other", owner="root", spec={"tenant": "demo"})
        change.key(key_id, key)
        change.revoke_key(key_id)
        change.revoke_key(key_id, NOON + timedelta(days=1))
    told = Key.model_validate(body(store, "key", key_id))
    assert (told.public_key, told.revoked_at) == (key.public_key, NOON)
    other_id, other = new_key("other")
    with store.change(ACTOR) as change:
        change.key(other_id, other)
    refused = refusal(store, lambda change: change.delete("user", "other"))
    assert f"key {other_id}" in refused.message
    assert refusal(store, lambda change: change.delete("key", key_id)).reason is (
        Reason.REQUEST_INVALID
    )
    assert refusal(store, lambda change: change.key(key_id, key)).reason is Reason.ALREADY_EXISTS


def test_a_key_is_one_and_of_somebody_who_acts(store: Store) -> None:
    begun(store)
    key_id, key = new_key("root")
    wrong: dict[str, Key] = {
        "key_id": new_key("root")[1],
        "principal": key.model_copy(update={"principal": "demo"}),
        "public_key": key.model_copy(update={"public_key": "AAAA"}),
        "not_before": key.model_copy(update={"not_before": NOON.replace(tzinfo=None)}),
        "expires_at": key.model_copy(update={"expires_at": NOON - timedelta(days=1)}),
    }
    found = {
        field: refusal(store, methodcaller("key", key_id, each)).field
        for field, each in wrong.items()
    }
    assert found == {**{field: field for field in wrong}, "public_key": found["public_key"]}
    assert found["public_key"] in {"key_id", "public_key"}


def test_a_command_done_once_is_answered_alike_for_seven_days(store: Store) -> None:
    begun(store)
    with store.change(ACTOR) as change:
        assert change.replied("r-1") is None
        change.reply("r-1", "done")
        change.reply("r-1", "done otherwise")
    with store.change(ACTOR) as change:
        assert change.replied("r-1") == "done"
    with store.change(replace(ACTOR, principal="other")) as change:
        assert change.replied("r-1") is None
    with store.change(replace(ACTOR, at=NOON + timedelta(days=8))) as change:
        change.reply("r-2", "later")
        assert change.replied("r-1") is None


def test_a_change_sees_what_it_has_done(store: Store) -> None:
    with begun(store).change(ACTOR) as change:
        assert change.entry("model", MODEL) is None
        change.create("model", MODEL, owner="root")
        found = change.entry("model", MODEL)
        assert isinstance(found, CatalogChanged)
        assert found == change.changes[-1]


def test_everything_has_an_owner_who_can_be_replaced(store: Store) -> None:
    with begun(store).change(ACTOR) as change:
        change.create("user", "heir", owner="root", spec={"tenant": "demo"})
        change.own_root("heir")
        change.update("tenant", "demo", owner="heir")
    assert body(store, "root", ROOT)["owner"] == "heir"
    assert refusal(store, lambda change: change.delete("root", ROOT)).reason is (
        Reason.REQUEST_INVALID
    )


def test_an_entry_that_no_record_could_hold_is_refused(store: Store) -> None:
    begun(store)
    refused = refusal(
        store, lambda change: change.update("catalog", "main", comment="x" * 2 * 1024 * 1024)
    )
    assert refused.reason is Reason.REQUEST_TOO_LARGE


def test_a_refusal_that_is_swallowed_commits_nothing(store: Store) -> None:
    begun(store)
    before = live(store)

    def swallow() -> None:
        with store.change(ACTOR) as change:
            change.update("catalog", "main", comment="half")
            with pytest.raises(CatalogRefused):
                change.create("group", "g", owner="root", spec={"members": ["g"]})

    with pytest.raises(RuntimeError, match="refused in part"):
        swallow()
    assert live(store) == before
