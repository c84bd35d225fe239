"""What can be asked of the catalog, and what comes of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from catalog.store.store import Store
from infra.signing import Signer, generate
from infra.telemetry import now
from schemas.events import AuditOutcome, AuditRecorded, Reason
from tests.catalog.commanding import CODEC, Office, endpoint, told, wanted

pytestmark = pytest.mark.stack

CHAT = "main.default.chat"
SCORER = "main.default.scorer"


@pytest.fixture
def office(store: Store) -> Office:
    return Office(store)


def test_what_is_made_is_found(office: Office) -> None:
    made = office.ask(
        "create", kind="endpoint", name=CHAT, spec=endpoint(), comment="To try", tags={"a": "b"}
    ).result
    got = office.ask("get", name=CHAT).result
    assert got == {**made, "grants": {}}
    assert got["owner"] == "root"
    listed = office.ask("list", prefix="main.default").result["entries"]
    assert [each["name"] for each in listed] == ["main.default", CHAT]
    assert office.ask("search", text="TRY b").result["entries"][0]["name"] == CHAT
    assert office.ask("search", text="try nowhere").result["entries"] == []


def test_a_list_comes_in_pages(office: Office) -> None:
    for number in range(7):
        office.ask("create", kind="prompt", name=f"main.default.p{number}").result  # noqa: B018
    names: list[str] = []
    page: str | None = ""
    while page is not None:
        found = office.ask("list", kind="prompt", limit=3, page=page).result
        names += [each["name"] for each in found["entries"]]
        page = found["page"]
    assert names == [f"main.default.p{number}" for number in range(7)]


def test_an_update_with_an_old_etag_is_a_conflict(office: Office) -> None:
    office.ask("create", kind="endpoint", name=CHAT, spec=endpoint())
    etag = office.ask("get", name=CHAT).result["etag"]
    office.ask("update", name=CHAT, comment="first", etag=etag).result  # noqa: B018
    assert office.ask("update", name=CHAT, comment="second", etag=etag).reason is Reason.CONFLICT
    assert office.ask("delete", name=CHAT, etag=etag).reason is Reason.CONFLICT
    assert office.ask("get", name=CHAT).result["comment"] == "first"


def test_tags_are_set_and_taken_away(office: Office) -> None:
    office.ask("tag", name="main", set={"a": "1", "b": "2"})
    assert office.ask("tag", name="main", set={"c": "3"}, unset=["a"]).result["tags"] == {
        "b": "2",
        "c": "3",
    }


def test_a_version_is_found_by_number_and_by_alias(office: Office) -> None:
    office.ask("create", kind="model", name=SCORER)
    for uri in ("file:/a", "file:/b"):
        office.ask("version", name=SCORER, spec={"uri": uri}).result  # noqa: B018
    office.ask("alias", name=SCORER, set={"prod": 2}).result  # noqa: B018
    assert office.ask("get", name=f"{SCORER}@prod").result["spec"]["uri"] == "file:/b"
    assert office.ask("get", name=f"{SCORER}@1").result["spec"]["uri"] == "file:/a"
    missing = office.ask("get", name=f"{SCORER}@canary").refusal
    assert missing.reason is Reason.NOT_FOUND
    assert "there are: 1, 2, prod" in missing.message


def test_a_grant_lets_and_a_deny_keeps_and_a_revoke_takes_both_back(office: Office) -> None:
    office.hire("alice")
    office.ask("create", kind="endpoint", name=CHAT, spec=endpoint())

    def query() -> dict[str, Any]:
        told = office.ask("effective", "alice", principal="alice", securable=CHAT).result
        found: dict[str, Any] = told["privileges"]["QUERY"]
        return found

    pair = {"securable": "main", "principal": "alice"}
    assert not query()["allowed"]
    assert office.ask("get", "alice", name=CHAT).reason is Reason.PRIVILEGE_MISSING
    office.ask("grant", privileges=["USE", "QUERY"], **pair).result  # noqa: B018
    assert query() == {"allowed": True, "because": "QUERY on main is granted to alice"}
    assert office.ask("get", "alice", name=CHAT).result["name"] == CHAT
    office.ask("deny", privileges=["QUERY"], **pair).result  # noqa: B018
    assert query()["because"] == "QUERY on main is denied to alice"
    taken = office.ask("revoke", privileges=["QUERY"], **pair).result
    assert (taken["allow"], taken["deny"]) == (["USE"], [])
    assert query()["because"] == f"QUERY on {CHAT} is missing"


def test_whoever_may_not_see_a_thing_is_told_the_same_whether_it_is_there(office: Office) -> None:
    office.hire("alice")
    office.ask("create", kind="endpoint", name=CHAT, spec=endpoint())
    wants: dict[str, dict[str, str]] = {"delete": {}, "get": {}, "update": {"comment": "x"}}
    for action, more in wants.items():
        there = office.ask(action, "alice", name=CHAT, **more).refusal
        absent = office.ask(action, "alice", name="main.default.gone", **more).refusal
        assert there.message.replace(CHAT, "") == absent.message.replace("main.default.gone", "")
        assert there.reason is Reason.PRIVILEGE_MISSING
    there_ = office.ask("effective", "alice", principal="alice", securable=CHAT).result
    absent_ = office.ask("effective", "alice", principal="alice", securable=f"{CHAT}x").result
    assert str(there_).replace(CHAT, "") == str(absent_).replace(f"{CHAT}x", "")
    assert office.ask("get", name="main.default.gone").reason is Reason.NOT_FOUND


DENIED: dict[str, tuple[str, dict[str, Any]]] = {
    "another's key": ("key-create", {"principal": "root", "public_key": "A" * 43 + "="}),
    "another's privileges": ("effective", {"principal": "root", "securable": "main"}),
    "catalog": ("create", {"kind": "catalog", "name": "own"}),
    "deletion": ("delete", {"name": "main.default"}),
    "deny": ("deny", {"privileges": ["USE"], "securable": "*", "principal": "root"}),
    "grant to oneself": (
        "grant",
        {"privileges": ["MANAGE"], "securable": "*", "principal": "alice"},
    ),
    "group": ("create", {"kind": "group", "name": "mine", "spec": {"members": ["alice"]}}),
    "object": ("create", {"kind": "endpoint", "name": CHAT, "spec": endpoint()}),
    "owner": ("update", {"name": "main", "owner": "alice"}),
    "plan": ("apply", {"documents": [{"kind": "catalog", "name": "own"}], "dry_run": True}),
    "principal": ("create", {"kind": "user", "name": "eve", "spec": {"tenant": "demo"}}),
    "tenant": ("update", {"name": "demo", "spec": {"accept_unsigned": True}}),
}


@pytest.mark.parametrize("what", DENIED)
def test_without_a_privilege_nothing_is_done_and_an_auditor_hears_of_it(
    office: Office, what: str
) -> None:
    office.hire("alice")
    action, body = DENIED[what]
    before = office.store.snapshot()
    said = office.ask(action, "alice", **body)
    assert said.reason is Reason.PRIVILEGE_MISSING
    assert office.store.snapshot() == before
    [audit] = said.audits
    assert (audit.action, audit.outcome) == (f"catalog.{action}", AuditOutcome.DENIED)
    assert (audit.principal, audit.tenant, audit.source) == ("alice", "demo", "catalog")
    assert audit.key_id == office.signers["alice"].key_id
    assert audit.reason is not None
    assert audit.reason.startswith("PRIVILEGE_MISSING: ")


WRONG: dict[str, tuple[str, dict[str, Any], Reason, str]] = {
    "a circle of groups": (
        "update",
        {"name": "inner", "spec": {"members": ["outer"]}},
        Reason.REQUEST_INVALID,
        "a group would contain itself",
    ),
    "a field nobody knows": (
        "create",
        {"kind": "schema", "name": "main.x", "coment": "x"},
        Reason.REQUEST_INVALID,
        "did you mean comment?",
    ),
    "a kind nobody knows": (
        "create",
        {"kind": "endpont", "name": CHAT},
        Reason.REQUEST_INVALID,
        "did you mean endpoint?",
    ),
    "a key that is none": (
        "key-create",
        {"principal": "root", "public_key": "abc"},
        Reason.REQUEST_INVALID,
        "32 bytes of Ed25519 in base64",
    ),
    "a name of the wrong form": (
        "create",
        {"kind": "endpoint", "name": "main.my endpoint"},
        Reason.REQUEST_INVALID,
        "three levels: catalog.schema.name",
    ),
    "a parent that is not there": (
        "create",
        {"kind": "schema", "name": "gone.x"},
        Reason.NOT_FOUND,
        "there is no gone",
    ),
    "a place in a spec": (
        "create",
        {"kind": "endpoint", "name": CHAT, "spec": endpoint(modell="x")},
        Reason.REQUEST_INVALID,
        "spec.routes[0].modell: there is no field modell; did you mean model?",
    ),
    "a principal that is not there": (
        "grant",
        {"privileges": ["USE"], "securable": "main", "principal": "nobody"},
        Reason.NOT_FOUND,
        "there is no principal nobody",
    ),
    "a privilege nobody knows": (
        "grant",
        {"privileges": ["QUERRY"], "securable": "main", "principal": "root"},
        Reason.REQUEST_INVALID,
        "did you mean QUERY?",
    ),
    "a reference that is not there": (
        "create",
        {"kind": "endpoint", "name": CHAT, "spec": endpoint(entity="main.default.gone@1")},
        Reason.NOT_FOUND,
        "there is no main.default.gone",
    ),
    "an action nobody knows": ("grand", {}, Reason.REQUEST_INVALID, "did you mean grant?"),
    "something that others lie in": (
        "delete",
        {"name": "main"},
        Reason.REFERENCED,
        "main.default",
    ),
    "something that is there": (
        "create",
        {"kind": "catalog", "name": "main"},
        Reason.ALREADY_EXISTS,
        "main",
    ),
    "versions of what has none": (
        "version",
        {"name": "main.default", "spec": {}},
        Reason.REQUEST_INVALID,
        "these have: function, model, prompt",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_with_place_and_remedy(office: Office, what: str) -> None:
    office.ask("create", kind="group", name="inner").result  # noqa: B018
    office.ask("create", kind="group", name="outer", spec={"members": ["inner"]}).result  # noqa: B018
    action, body, reason, words = WRONG[what]
    before = office.store.snapshot()
    refusal = office.ask(action, **body).refusal
    assert refusal.reason is reason
    assert words in refusal.message
    assert office.store.snapshot() == before


def test_a_privilege_nobody_knows_is_told_once(office: Office) -> None:
    said = office.ask("grant", privileges=["FLY"], securable="main", principal="root")
    assert said.refusal.message.count("privileges") == 1


def test_a_command_that_comes_twice_is_done_once_and_answered_alike(office: Office) -> None:
    office.ask("create", kind="model", name=SCORER)
    command = wanted("version", name=SCORER, spec={"uri": "file:/a"})
    first = office.send(command, office.signers["root"])
    office.restart()
    again = office.send(command, office.signers["root"], at=now() + timedelta(hours=2))
    assert again.result == first.result
    assert [each["number"] for each in office.ask("get", name=SCORER).result["versions"]] == [1]


def test_what_was_refused_is_refused_again_whatever_has_changed(office: Office) -> None:
    office.hire("alice")
    command = wanted("create", "alice", kind="catalog", name="own")
    refused = office.send(command, office.signers["alice"])
    office.ask("grant", privileges=["CREATE"], securable="*", principal="alice").result  # noqa: B018
    assert office.send(command, office.signers["alice"]).refusal == refused.refusal
    assert office.ask("create", "alice", kind="catalog", name="own").result["owner"] == "alice"


def test_nobody_hears_what_came_of_anothers_command(office: Office) -> None:
    office.hire("alice")
    command = wanted("create", kind="catalog", name="secret", comment="hush")
    office.send(command, office.signers["root"]).result  # noqa: B018
    said = office.send(replace(command, principal="alice"), office.signers["alice"])
    assert said.reason is Reason.PRIVILEGE_MISSING
    assert "hush" not in str(said)


def test_a_command_proves_who_sends_it(office: Office) -> None:
    office.hire("alice")
    root, alice = office.signers["root"], office.signers["alice"]
    command = wanted("list")
    assert office.send(command, None).reason is Reason.SIGNATURE_MISSING
    assert office.send(command, Signer(generate())).reason is Reason.KEY_UNKNOWN
    assert office.send(command, alice).reason is Reason.PRINCIPAL_FOREIGN
    # Nobody could be told.
    [unheard] = office.carried_out(replace(command, tenant="other"), root)
    assert isinstance(unheard.event, AuditRecorded)
    assert (unheard.event.reason or "").startswith("TENANT_UNKNOWN")
    office.ask("create", kind="tenant", name="other").result  # noqa: B018
    foreign = office.send(wanted("list", "root", "other"), root)
    assert foreign.reason is Reason.PRINCIPAL_FOREIGN
    assert foreign.reply.claim
    late = office.send(command, root, at=now() + timedelta(minutes=1))
    assert late.reason is Reason.DEADLINE_EXPIRED
    far = replace(command, deadline=now() + timedelta(days=1))
    assert office.send(far, root).reason is Reason.REQUEST_INVALID
    elsewhere = office.send(replace(command, reply_to="reply.v1.other"), root)
    assert elsewhere.reason is Reason.REPLY_ADDRESS_FORBIDDEN
    assert office.send(replace(command, principal=""), root).result["entries"]


def test_keys_are_rotated_by_their_principal_and_end(office: Office) -> None:
    office.hire("alice")
    old, new = office.signers["alice"], Signer(generate())
    rotated = office.ask(
        "key-rotate", "alice", key_id=old.key_id, public_key=told(new), overlap_s=600
    ).result
    assert rotated["replaces"] == old.key_id
    command = wanted("list", "alice")
    assert office.send(command, old).result == office.send(command, new).result
    later = now() + timedelta(seconds=601)
    ahead = replace(command, deadline=later + timedelta(seconds=9))
    assert office.send(ahead, old, at=later).reason is Reason.KEY_REVOKED
    assert office.send(ahead, new, at=later).result["entries"]
    office.ask("key-revoke", key_id=new.key_id).result  # noqa: B018
    assert office.send(command, new).reason is Reason.KEY_REVOKED


def test_the_last_key_that_manages_everything_is_not_revoked(office: Office) -> None:
    last = office.signers["root"].key_id
    office.hire("alice")
    refused = office.ask("key-revoke", key_id=last).refusal
    assert (refused.reason, refused.field) == (Reason.REQUEST_INVALID, "key_id")
    assert "first create the next one" in refused.message
    office.ask("grant", privileges=["MANAGE"], securable="*", principal="alice").result  # noqa: B018
    assert office.ask("key-revoke", key_id=last).result["revoked_at"]
    assert office.ask("key-revoke", "alice", key_id=office.signers["alice"].key_id).refusal


def test_a_key_that_ends_soon_does_not_stand_in_for_the_last(office: Office) -> None:
    next_ = Signer(generate())
    last = office.signers["root"].key_id
    office.ask("key-rotate", key_id=last, public_key=told(next_), overlap_s=600).result  # noqa: B018
    refused = office.ask("key-revoke", key_id=next_.key_id).refusal
    assert "first create the next one" in refused.message
    assert office.ask("key-revoke", key_id=last).result["revoked_at"]


def test_a_key_is_nobodys_business_but_its_principals_and_its_owners(office: Office) -> None:
    office.hire("alice")
    office.hire("bob")
    key_id = office.signers["alice"].key_id
    assert office.ask("key-revoke", "bob", key_id=key_id).reason is Reason.NOT_FOUND
    office.ask("update", name="alice", kind="user", owner="bob").result  # noqa: B018
    assert office.ask("key-revoke", "bob", key_id=key_id).result["revoked_at"]


def test_an_owner_may_not_bring_a_principal_into_another_tenant(office: Office) -> None:
    office.hire("bob")
    office.ask("create", kind="tenant", name="bank").result  # noqa: B018
    office.ask("create", kind="user", name="carl", spec={"tenant": "demo"}, owner="bob").result  # noqa: B018
    moved = office.ask("update", "bob", name="carl", spec={"tenant": "bank"})
    assert moved.reason is Reason.PRIVILEGE_MISSING
    assert office.ask("update", name="carl", spec={"tenant": "bank"}).result


def test_a_connection_is_named_only_by_whoever_may_use_it(office: Office) -> None:
    office.hire("alice")
    spec = {"type": "openai", "url": "https://models.invalid", "secret": "env:NOWHERE"}
    office.ask("create", kind="connection", name="main.default.out", spec=spec).result  # noqa: B018
    office.ask("grant", privileges=["USE", "CREATE"], securable="main", principal="alice")
    wants: dict[str, Any] = {
        "kind": "endpoint",
        "name": CHAT,
        "spec": endpoint(connection="main.default.out"),
    }
    assert office.ask("create", "alice", **wants).reason is Reason.PRIVILEGE_MISSING
    may = {"privileges": ["EXECUTE"], "securable": "main.default.out", "principal": "alice"}
    office.ask("grant", **may)
    assert office.ask("create", "alice", **wants).result["owner"] == "alice"


HOSTILE: dict[str, str] = {
    "a deep body": '{"name": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "a list": "[]",
    "a long name": '{"name": "' + "x" * 1_000_000 + '"}',
    "a NUL": '{"name": "main.\\u0000"}',
    "a number": "1e999",
    "half a character": '{"name": "\\ud800"}',
    "half a character of a kind": '{"name": "main", "kind": "\\ud800"}',
    "no JSON": "{",
    "nothing": "",
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("action", ["get", "update", "delete", "tag", "apply", "search", "\0"])
def test_whatever_stands_in_a_command_its_answer_can_be_told(
    office: Office, what: str, action: str
) -> None:
    command = replace(wanted(action), body=HOSTILE[what])
    for signer in (office.signers["root"], None):
        for each in office.carried_out(command, signer):
            assert len(CODEC.encode(each.event)) < 100_000
