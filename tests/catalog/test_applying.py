"""Declarative apply on the real store: all or nothing, once, and only what was agreed to."""

from __future__ import annotations

from typing import Any

import pytest

from catalog.declared.documents import documents_of, parse, write
from catalog.store.store import Store
from schemas.events import Reason
from tests.catalog.commanding import Office, wanted
from tests.catalog.pictures import public_key

pytestmark = pytest.mark.stack

TEAM = f"""
kind: group
name: analysts
spec: {{members: [ann, inner]}}
---
kind: group
name: inner
spec: {{members: [bot]}}
---
kind: endpoint
name: shop.lab.ask
comment: For trials
tags: {{stage: trial}}
spec:
  routes:
    - {{name: local, pool: echo, model: echo, entity: shop.lab.judge@prod}}
grants: {{analysts: [QUERY]}}
denies: {{bot: [MODIFY]}}
---
kind: model
name: shop.lab.judge
versions:
  - spec: {{uri: "file:/models/judge-1"}}
  - spec: {{uri: "file:/models/judge-2", adapter_of: shop.lab.judge@1}}
    comment: better
aliases: {{prod: 2}}
---
kind: schema
name: shop.lab
owner: ann
---
kind: catalog
name: shop
grants: {{analysts: [USE]}}
---
kind: user
name: ann
owner: ann
spec: {{tenant: shop}}
keys:
  - public_key: {public_key("ann")}
    expires_at: 2030-01-01T00:00:00Z
---
kind: service_principal
name: bot
spec: {{tenant: shop}}
---
kind: tenant
name: shop
owner: ann
"""


@pytest.fixture
def office(store: Store) -> Office:
    return Office(store)


def said(text: str) -> list[dict[str, Any]]:
    return [each.model_dump(mode="json", exclude_unset=True) for each in parse(text, "f")]


def test_documents_in_any_order_become_the_catalog_and_again_nothing(office: Office) -> None:
    told = office.ask("apply", documents=said(TEAM)).result
    assert told["applied"]
    assert told["position"] == office.store.snapshot().position
    before = office.store.snapshot()
    again = office.ask("apply", documents=said(TEAM)).result
    assert again["steps"] == []
    assert office.store.snapshot() == before
    judge = office.ask("get", name="shop.lab.judge@prod").result
    assert judge["name"] == "shop.lab.judge@2"
    assert office.ask("get", name="shop", kind="tenant").result["owner"] == "ann"
    may = office.ask("effective", principal="bot", securable="shop.lab.ask").result["privileges"]
    assert may["QUERY"]["allowed"]
    assert not may["MODIFY"]["allowed"]


def test_an_export_says_what_is_there_and_applying_it_changes_nothing(office: Office) -> None:
    office.ask("apply", documents=said(TEAM)).result  # noqa: B018
    exported = office.ask("export").result["documents"]
    text = write(documents_of(exported))
    assert office.ask("apply", documents=said(text), dry_run=True).result["steps"] == []
    part = office.ask("export", prefix="shop.lab").result["documents"]
    assert [each["name"] for each in part] == ["shop.lab", "shop.lab.ask", "shop.lab.judge"]


def test_a_dry_run_changes_nothing(office: Office) -> None:
    before = office.store.snapshot()
    planned = office.ask("apply", documents=said(TEAM), dry_run=True).result
    assert not planned["applied"]
    assert len(planned["steps"]) > 9
    assert office.store.snapshot() == before


def test_one_document_that_cannot_be_had_undoes_all(office: Office) -> None:
    before = office.store.snapshot()
    gone = (
        "kind: endpoint\nname: shop.lab.more\nspec:\n  routes:\n    - {name: r, pool: p, model: m, "
    )
    text = f"{TEAM}---\n{gone}entity: shop.lab.judge@9}}\n"
    refused = office.ask("apply", documents=said(text)).refusal
    assert (refused.reason, refused.field) == (Reason.NOT_FOUND, "documents.9")
    assert office.store.snapshot() == before


def test_nobody_is_answered_where_another_tenant_is(office: Office) -> None:
    thief = {"kind": "tenant", "name": "thief", "spec": {"replies": ["demo"]}}
    for action, body in (("apply", {"documents": [thief]}), ("create", thief)):
        refused = office.ask(action, **body).refusal
        assert refused.reason is Reason.REQUEST_INVALID
        assert "demo is a reply topic of demo already" in refused.message


def test_what_others_changed_since_the_plan_is_a_conflict(office: Office) -> None:
    office.ask("apply", documents=said(TEAM)).result  # noqa: B018
    wants = said("kind: endpoint\nname: shop.lab.ask\ncomment: Mine\n")
    seen = office.ask("apply", documents=wants, dry_run=True).result
    agreed = {"base": seen["position"], "digest": seen["digest"]}
    office.ask("tag", name="shop.lab.judge", set={"other": "thing"}).result  # noqa: B018
    again = office.ask("apply", documents=wants, dry_run=True).result
    assert again["digest"] == seen["digest"]
    office.ask("update", name="shop.lab.ask", comment="Yours").result  # noqa: B018
    refused = office.ask("apply", documents=wants, **agreed).refusal
    assert refused.reason is Reason.CONFLICT
    assert "endpoint shop.lab.ask changed since the plan was made" in refused.message
    seen = office.ask("apply", documents=wants, dry_run=True).result
    agreed = {"base": seen["position"], "digest": seen["digest"]}
    office.ask("tag", name="shop.lab.judge", set={"more": "things"}).result  # noqa: B018
    assert office.ask("apply", documents=wants, **agreed).result["applied"]


def test_what_went_since_the_plan_is_a_conflict_also_after_a_restart(office: Office) -> None:
    office.ask("create", kind="catalog", name="gone", comment="x").result  # noqa: B018
    wants = said("kind: catalog\nname: gone\ncomment: y\n")
    seen = office.ask("apply", documents=wants, dry_run=True).result
    office.ask("delete", name="gone").result  # noqa: B018
    agreed = {"base": seen["position"], "digest": seen["digest"]}
    assert office.ask("apply", documents=wants, **agreed).reason is Reason.CONFLICT
    office.restart()
    assert office.ask("apply", documents=wants, **agreed).reason is Reason.CONFLICT


def test_a_version_that_is_there_never_changes(office: Office) -> None:
    office.ask("apply", documents=said(TEAM)).result  # noqa: B018
    refused = office.ask("apply", documents=said(TEAM.replace("judge-1", "judge-x"))).refusal
    assert refused.reason is Reason.REQUEST_INVALID
    assert refused.field == "documents.3.versions.0"
    assert "versions never change: " in refused.message
    assert "add yours as version 3" in refused.message


def test_a_plan_takes_what_its_steps_take(office: Office) -> None:
    office.hire("alice")
    office.ask("grant", privileges=["USE", "CREATE"], securable="main", principal="alice").result  # noqa: B018
    prompt = "kind: prompt\nname: main.own.p\ngrants: {demo: [BROWSE]}\n"
    own = f"kind: schema\nname: main.own\n---\n{prompt}"
    office.ask("apply", "alice", documents=said(own)).result  # noqa: B018
    assert office.ask("get", name="main.own.p").result["owner"] == "alice"
    more = f"{own}---\nkind: schema\nname: main.default\ncomment: Mine now\n"
    refused = office.ask("apply", "alice", documents=said(more)).refusal
    assert refused.reason is Reason.PRIVILEGE_MISSING
    assert refused.field == "documents.2"


def test_a_plan_tells_nothing_of_what_its_caller_may_not_see(office: Office) -> None:
    office.ask("apply", documents=said(TEAM)).result  # noqa: B018
    office.hire("alice")
    office.ask("grant", privileges=["USE", "CREATE"], securable="main", principal="alice").result  # noqa: B018
    there = "kind: catalog\nname: shop\ncomment: ''\n"
    for text in (there, there.replace("shop", "gone")):
        refused = office.ask("apply", "alice", documents=said(text), dry_run=True).refusal
        assert refused.message.startswith("CREATE on * is missing")
    named = "kind: schema\nname: main.own\n---\nkind: endpoint\nname: main.own.e\n"
    spec = "spec: {routes: [{name: r, pool: p, model: m, entity: shop.lab.judg}]}\n"
    refused = office.ask("apply", "alice", documents=said(named + spec)).refusal
    assert "there is no shop.lab.judg in" in refused.message
    assert "did you mean" not in refused.message
    shared = "kind: schema\nname: main.own\ngrants: {bot: [USE]}\n"
    assert office.ask("apply", "alice", documents=said(shared)).result["applied"]


def test_a_command_to_apply_that_comes_twice_is_done_once(office: Office) -> None:
    command = wanted("apply", documents=said(TEAM))
    first = office.send(command, office.signers["root"]).result
    assert office.send(command, office.signers["root"]).result == first


def test_whoever_sees_little_exports_little(office: Office) -> None:
    office.ask("apply", documents=said(TEAM)).result  # noqa: B018
    office.hire("carl")
    office.ask("grant", privileges=["BROWSE"], securable="shop.lab.ask", principal="carl").result  # noqa: B018
    exported = office.ask("export", "carl").result["documents"]
    assert {each["name"] for each in exported} == {"carl", "demo", "shop.lab.ask"}
    assert [each["name"] for each in exported if "grants" in each or "keys" in each] == ["carl"]
    assert office.ask("export", "carl", prefix="shop.lab.judge").reason is Reason.PRIVILEGE_MISSING


def test_of_many_slips_the_first_are_told(store: Store) -> None:
    office = Office(store)
    slips = {f"slip{number}": 1 for number in range(50_000)}
    said = office.ask("apply", documents=[{"kind": "catalog", "name": "x", **slips}] * 2)
    assert said.reason is Reason.REQUEST_INVALID
    assert said.refusal.message.count("there is no field") == 100
    many = office.ask("apply", documents=[{"kind": "catalog", "name": "x"}] * 10_001)
    assert many.reason is Reason.REQUEST_INVALID
