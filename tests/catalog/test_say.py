"""Who has the say: over keys, owners and principals, and over what a signed command came to."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from catalog.store.store import Store
from infra.signing import Signer, generate
from infra.telemetry import now
from schemas.events import Reason
from tests.catalog.commanding import Office, told, wanted

pytestmark = pytest.mark.stack


@pytest.fixture
def office(store: Store) -> Office:
    return Office(store)


def test_a_reply_says_which_record_it_is_to(office: Office) -> None:
    office.hire("alice")
    command = wanted("create", kind="catalog", name="one")
    first = office.send(command, office.signers["root"])
    other = office.send(replace(command, principal="alice"), office.signers["alice"])
    assert first.reply.claim
    assert other.reply.claim
    assert first.reply.claim != other.reply.claim


def test_what_was_asked_for_too_early_is_not_done_later(office: Office) -> None:
    deadline = now() + timedelta(days=30)
    command = replace(wanted("create", kind="catalog", name="later"), deadline=deadline)
    first = office.send(command, office.signers["root"])
    assert first.reason is Reason.REQUEST_INVALID
    later = deadline - timedelta(seconds=9)
    office.ask("create", kind="catalog", name="between").result  # noqa: B018
    assert office.send(command, office.signers["root"], at=later).refusal == first.refusal


def test_a_principal_cannot_rid_its_key_of_its_end(office: Office) -> None:
    office.hire("alice")
    first, second, third = (Signer(generate()) for _ in range(3))
    end = now() + timedelta(hours=1)
    public_key = told(first)
    office.ask("key-create", principal="alice", public_key=public_key, expires_at=end.isoformat())
    later = {"expires_at": (end + timedelta(hours=1)).isoformat()}
    rotation = {"key_id": first.key_id, "public_key": told(second)}
    assert office.ask("key-rotate", "alice", **rotation, **later).reason is Reason.PRIVILEGE_MISSING
    made = office.ask("key-rotate", "alice", **rotation).result
    assert made["expires_at"] == end.isoformat()
    again = office.ask("key-rotate", "alice", key_id=first.key_id, public_key=told(third))
    assert again.reason is Reason.KEY_REVOKED
    following = {"key_id": second.key_id, "public_key": told(third)}
    assert office.ask("key-rotate", **following, **later).result["expires_at"] > end.isoformat()


def test_an_expired_key_is_not_rotated(office: Office) -> None:
    office.hire("alice")
    old, new = Signer(generate()), Signer(generate())
    end = now() + timedelta(hours=1)
    office.ask("key-create", principal="alice", public_key=told(old), expires_at=end.isoformat())
    command = wanted("key-rotate", "alice", key_id=old.key_id, public_key=told(new))
    later = end + timedelta(seconds=1)
    ahead = replace(command, deadline=later + timedelta(seconds=9))
    said = office.send(ahead, office.signers["alice"], at=later)
    assert said.reason is Reason.KEY_EXPIRED


def test_a_new_owner_takes_the_say_over_what_lies_above(office: Office) -> None:
    office.hire("alice")
    schema = "main.default"
    office.ask("grant", privileges=["MANAGE"], securable=schema, principal="alice")
    office.ask("grant", privileges=["USE"], securable="main", principal="alice")
    office.ask("deny", privileges=["QUERY"], securable="main", principal="alice")
    taken = office.ask("update", "alice", name=schema, owner="alice")
    assert taken.reason is Reason.PRIVILEGE_MISSING
    documents = [{"kind": "schema", "name": schema, "owner": "alice"}]
    assert office.ask("apply", "alice", documents=documents).reason is Reason.PRIVILEGE_MISSING
    office.ask("grant", privileges=["MANAGE"], securable="main", principal="alice")
    assert office.ask("update", "alice", name=schema, owner="alice").result["owner"] == "alice"
    assert office.ask("update", "alice", name=schema, owner="root").result["owner"] == "root"


def test_whoever_owns_a_thing_may_give_it_away(office: Office) -> None:
    office.hire("alice")
    office.ask("create", kind="catalog", name="hers", owner="alice").result  # noqa: B018
    assert office.ask("update", "alice", name="hers", owner="root").result["owner"] == "root"
    assert office.ask("update", "alice", name="hers", owner="alice").reason is (
        Reason.PRIVILEGE_MISSING
    )


def test_a_catalog_of_a_users_name_shows_nothing_of_the_user(office: Office) -> None:
    office.hire("alice")
    office.hire("bob")
    office.ask("create", kind="catalog", name="alice", owner="bob").result  # noqa: B018
    assert office.ask("get", "bob", name="alice").result["kind"] == "catalog"
    hidden = office.ask("get", "bob", name="alice", kind="user")
    assert hidden.reason is Reason.PRIVILEGE_MISSING
    assert office.ask("get", "alice", name="alice", kind="user").result["keys"]
