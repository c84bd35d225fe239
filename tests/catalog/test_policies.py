"""Policies, prices and routes in the catalog: kept as they are said, and refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from catalog.declared.problems import Invalid, spec_of
from catalog.store.store import Store
from schemas.events import Reason
from tests.catalog.commanding import Office
from tests.catalog.test_applying import said

POLICY = """
kind: catalog
name: rules
owner: root
---
kind: schema
name: rules.all
owner: root
---
kind: policy
name: rules.all.fair
owner: root
spec:
  rules:
    - {type: limit, name: a, unit: cost, most: "25.5", window: 30d, per: user, unpriced: "0.01"}
    - {type: pii, name: mail, entities: {EMAIL_ADDRESS: restore}}
---
kind: tenant
name: held
owner: root
spec: {policies: [rules.all.fair]}
"""


@pytest.mark.stack
def test_a_budget_is_kept_and_told_as_it_was_said(store: Store) -> None:
    office = Office(store)
    assert office.ask("apply", documents=said(POLICY)).result["steps"]
    assert office.ask("apply", documents=said(POLICY)).result["steps"] == []
    got = office.ask("get", kind="policy", name="rules.all.fair").result
    [budget, mail] = got["spec"]["rules"]
    assert (budget["most"], budget["window"], budget["unpriced"]) == ("25.5", "30d", "0.01")
    assert mail["entities"] == {"EMAIL_ADDRESS": "restore"}


@pytest.mark.stack
def test_a_policy_that_a_tenant_is_held_to_is_not_deleted_under_it(store: Store) -> None:
    office = Office(store)
    office.ask("apply", documents=said(POLICY))
    refused = office.ask("delete", kind="policy", name="rules.all.fair")
    assert refused.reason is Reason.REFERENCED
    assert "tenant held" in refused.refusal.message
    office.ask("apply", documents=said(POLICY.replace("[rules.all.fair]", "[]"))).result  # noqa: B018
    assert office.ask("delete", kind="policy", name="rules.all.fair").result is not None


@pytest.mark.stack
def test_a_tenant_is_held_to_policies_that_there_are(store: Store) -> None:
    text = "kind: tenant\nname: held\nowner: root\nspec: {policies: [rules.all.none]}\n"
    refused = Office(store).ask("apply", documents=said(text))
    assert "rules.all.none" in refused.refusal.message


WRONG: dict[str, tuple[str, str, str]] = {
    "a budget with an unknown field": (
        "policy",
        "rules: [{type: limit, name: a, unit: cost, most: 1, windw: 1d, per: user}]",
        "spec.rules[0].windw: there is no field windw; did you mean window",
    ),
    "a duration that is none": (
        "endpoint",
        "{routes: [{name: a, pool: b, model: c, idle: 3 sec}]}",
        "spec.routes[0].idle: this does not have the form of a duration",
    ),
    "a limit without a window": (
        "policy",
        "rules: [{type: limit, name: a, unit: requests, most: 1, per: user}]",
        "spec.rules[0]: a window belongs to every unit",
    ),
    "a pattern that can take for ever": (
        "policy",
        r"rules: [{type: regex, name: a, patterns: ['(a+)\1']}]",
        "spec.rules[0]: patterns know no look-around",
    ),
    "a price for one token": (
        "connection",
        "{type: openai, url: 'https://a.example', prices: {m: [{input: 0.0000025}]}}",
        "spec.prices.m[0].input: a price is in US dollars for a million tokens",
    ),
    "a price for one token that is far too high for a million": (
        "model",
        "prices: [{output: 8000}]",
        "spec.prices[0].output: a price is in US dollars for a million tokens",
    ),
    "a rule of no known type": (
        "policy",
        "rules: [{type: limits, name: a}]",
        "spec.rules[0]: limits is no type that may stand here; did you mean limit",
    ),
    "an entity that nobody finds": (
        "policy",
        "rules: [{type: pii, name: a, entities: {EMAIL: mask}}]",
        "spec.rules[0].entities.EMAIL: EMAIL is none of what may stand here",
    ),
    "two rules of one name": (
        "policy",
        "rules: [{type: secrets, name: a}, {type: secrets, name: a}]",
        "spec: each rule needs a name of its own",
    ),
    "tools of a catalog": (
        "agent",
        "{endpoint: a.b.c, tools: ['main.*']}",
        "with @ and a version behind it; or catalog.schema.*",
    ),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_what_makes_no_sense_is_told_with_place_and_remedy(case: str) -> None:
    kind, text, message = WRONG[case]
    spec: dict[str, Any] = yaml.safe_load(text)
    with pytest.raises(Invalid) as refused:
        spec_of(kind, spec)
    assert message in str(refused.value)
