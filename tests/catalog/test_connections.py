"""Who may make a connection that has a secret or is private, and who may change it."""

from __future__ import annotations

from typing import Any

import pytest

from catalog.declared.documents import documents_of, parse, write
from catalog.store.store import Store
from schemas.events import Reason
from tests.catalog.commanding import Office

pytestmark = pytest.mark.stack

OUT = "main.default.out"
PLAIN: dict[str, Any] = {"type": "openai", "url": "https://models.invalid/v1"}
KEYED = {**PLAIN, "secret": "env:PROVIDER_KEY"}
NEAR = {**PLAIN, "private": True}
ELSEWHERE = {"url": "https://elsewhere.invalid/v1"}
# What is there (or nothing), what it shall be, and whether that takes MANAGE on the root.
CHANGES: dict[str, tuple[dict[str, Any] | None, dict[str, Any], bool]] = {
    "another secret": (KEYED, {**KEYED, "secret": "env:GATEWAY_SEAL"}, True),
    "elsewhere with a secret": (KEYED, {**KEYED, **ELSEWHERE}, True),
    "elsewhere with nothing": (PLAIN, {**PLAIN, **ELSEWHERE}, False),
    "elsewhere without its secret": (KEYED, {**PLAIN, **ELSEWHERE}, False),
    "elsewhere, private": (NEAR, {**NEAR, **ELSEWHERE}, True),
    "made plain": (None, PLAIN, False),
    "made private": (None, NEAR, True),
    "made with a secret": (None, KEYED, True),
    "no longer private": (NEAR, PLAIN, False),
    "now private": (PLAIN, NEAR, True),
    "now with a secret": (PLAIN, KEYED, True),
    "other options": (KEYED, {**KEYED, "options": {"strict_tools": "true"}}, False),
    "private with a secret": (KEYED, {**KEYED, "private": True}, True),
}


@pytest.fixture
def office(store: Store) -> Office:
    """A catalog in which alice may do all on main, and nothing on the root."""
    office = Office(store)
    office.hire("alice")
    may = {"securable": "main", "principal": "alice"}
    office.ask("grant", privileges=["USE", "CREATE", "MODIFY", "MANAGE"], **may).result  # noqa: B018
    return office


def asked(spec: dict[str, Any], there: bool, way: str) -> tuple[str, dict[str, Any]]:
    """Returns the command that makes a connection so, or changes it so."""
    if way == "apply":
        document = {"kind": "connection", "name": OUT, "spec": spec}
        return "apply", {"documents": [document]}
    return "update" if there else "create", {"kind": "connection", "name": OUT, "spec": spec}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("way", ["apply", "command"])
def test_a_secret_and_a_private_network_are_opened_only_by_whoever_manages_the_root(
    office: Office, way: str, what: str
) -> None:
    before, after, opens = CHANGES[what]
    if before:
        office.ask("create", kind="connection", name=OUT, spec=before).result  # noqa: B018
    action, body = asked(after, before is not None, way)
    said = office.ask(action, "alice", **body)
    if opens:
        assert said.reason is Reason.PRIVILEGE_MISSING
        assert "takes MANAGE on *: leave secret and private out, or have it" in said.refusal.message
        may = {"privileges": ["MANAGE"], "securable": "*", "principal": "alice"}
        office.ask("grant", **may).result  # noqa: B018
        said = office.ask(action, "alice", **body)
    assert said.result


def test_what_a_plan_makes_around_a_connection_opens_nothing_for_it(office: Office) -> None:
    schema = {"kind": "schema", "name": "main.own"}
    inside = {"kind": "connection", "name": "main.own.out", "spec": KEYED}
    refused = office.ask("apply", "alice", documents=[schema, inside]).refusal
    assert (refused.reason, refused.field) == (Reason.PRIVILEGE_MISSING, "documents.1")


def test_what_is_said_of_a_connection_with_a_secret_is_its_owners(office: Office) -> None:
    office.ask("create", kind="connection", name=OUT, spec=KEYED, owner="alice").result  # noqa: B018
    assert office.ask("update", "alice", name=OUT, comment="Ours").result["comment"] == "Ours"
    documents = office.ask("export", "alice", prefix=OUT).result["documents"]
    again = write(documents_of(documents)).replace("Ours", "Theirs")
    wants = [each.model_dump(mode="json", exclude_unset=True) for each in parse(again, "f")]
    assert office.ask("apply", "alice", documents=wants).result["steps"]
