"""What the demo says of the question that holds personal data."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from infra.demo import ADDRESS, CAREFUL, PERSONAL, masked
from infra.stack.local import StackFailed
from infra.stack.processes import SEED
from tests.seed import documents, view_of


def row(said: str, **more: Any) -> dict[str, Any]:
    request = json.dumps({"messages": [{"role": "user", "content": said}]})
    found = {"request_id": "r", "reason": None, "request": request, "response": None}
    tokens = {"prompt_tokens": 10, "completion_tokens": 2, "cost": Decimal("0.00000018")}
    return {**found, **tokens, **more}


def test_it_shows_what_the_table_has_and_what_it_cost() -> None:
    said, cost = masked(row("Greet <EMAIL_ADDRESS_1>."))
    assert said == "    Greet <EMAIL_ADDRESS_1>."
    assert cost.startswith("cost: $0.00000018 for 10 + 2 tokens; ")


@pytest.mark.parametrize("column", ["request", "response"])
def test_an_address_that_reached_the_table_fails_it(column: str) -> None:
    text = json.dumps({"messages": [{"content": f"to {ADDRESS}"}]})
    with pytest.raises(StackFailed, match="the row of request r holds"):
        list(masked(row("x", **{column: text})))


def test_a_catalog_from_before_the_endpoint_is_no_failure() -> None:
    [said] = masked(row("x", reason="ENDPOINT_UNKNOWN"))
    assert "tessera reset" in said


def test_what_it_asks_is_in_the_seed() -> None:
    view = view_of(documents(SEED))
    endpoint = view.endpoints[CAREFUL]
    [policy] = endpoint.policies
    assert [rule.type for rule in view.policies[policy].rules] == ["pii", "limit"]
    [route] = endpoint.routes
    assert view.prices(route)
    assert ADDRESS in PERSONAL
