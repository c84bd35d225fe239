"""What a policy masks of how rows are found or told apart: then nothing is found or written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas import topics
from schemas.events import InferenceRefused, InferenceRequested, Reason, Task
from streams.gateway.desk import Desk
from streams.gateway.judged import judged
from tests.seed import view_of
from tests.unit import holding
from tests.unit.asking import CATALOG, LIMITS, NOON, ask, asked, only, routed
from tests.unit.deciding import admit

FACTS, NOTES, POLICY = "main.tests.facts", "main.tests.notes", "main.tests.masking"
MAIL = "carol@example.org"
COLUMNS = [{"name": name} for name in ("tenant", "principal", "at")]
RULE = {"name": "mail", "type": "pii", "entities": {"EMAIL_ADDRESS": "mask"}}
VIEW = view_of(
    [
        *(each for each in CATALOG if each["kind"] != "tenant"),
        *(
            {**each, "spec": {**each["spec"], "policies": [POLICY]}}
            for each in CATALOG
            if each["kind"] == "tenant"
        ),
        {"kind": "policy", "name": POLICY, "spec": {"rules": [RULE]}},
        *(
            {
                "kind": "index",
                "name": name,
                "spec": {"key_columns": ["id"], "text": text, "columns": COLUMNS},
                "grants": {"ann": ["MODIFY", "QUERY"]},
            }
            for name, text in ((FACTS, "fact"), (NOTES, "body"))
        ),
    ],
    LIMITS,
)


def wanted(task: Task, index: str, document: dict[str, Any]) -> InferenceRequested:
    """Returns a request to an index."""
    return ask(
        task=task,
        endpoint=index,
        messages=(),
        query="tea" if task is Task.SEARCH else None,
        search=json.dumps(document),
    )


def refusals(task: Task, index: str, document: dict[str, Any]) -> list[InferenceRefused]:
    """Returns why an index is not searched, or not written to; nothing where it is."""
    outgoing = list(admit(asked(wanted(task, index, document)), VIEW, NOON))
    refused = only(outgoing, topics.INFERENCE_REFUSED)
    assert len(refused) + len(only(outgoing, topics.INFERENCE_ROUTED)) == 1
    return refused


def written(index: str, **row: str) -> list[InferenceRefused]:
    """Returns why a row is not written; nothing where it is."""
    return refusals(Task.WRITE, index, {"operation": "upsert", "rows": [{"id": "1", **row}]})


@pytest.mark.parametrize("filters", [{"principal": MAIL}, f"principal = '{MAIL}'"])
def test_nothing_is_found_by_a_filter_that_a_policy_masks(filters: Any) -> None:
    [refused] = refusals(Task.SEARCH, FACTS, {"filters": filters})
    assert refused.refusal.reason is Reason.POLICY_DENIED
    assert "in filters" in refused.refusal.message
    assert MAIL not in refused.refusal.message


def test_a_filter_that_policies_let_pass_finds_what_it_did() -> None:
    assert refusals(Task.SEARCH, FACTS, {"filters": {"principal": "ann", "tenant": "acme"}}) == []


@pytest.mark.parametrize("column", ["principal", "tenant"])
def test_no_fact_is_written_of_which_a_policy_masks_whose_it_is(column: str) -> None:
    owner = {"tenant": "acme", "principal": "ann", column: MAIL}
    [refused] = written(FACTS, fact="Likes tea.", **owner)
    assert refused.refusal.reason is Reason.POLICY_DENIED
    assert f"rows[0] under '{column}'" in refused.refusal.message


@pytest.mark.parametrize(
    "masked", [{"filters": {"principal": "[NAME]"}}, {"filters": "a = '[NAME]'"}]
)
def test_nothing_is_found_by_a_filter_that_a_service_masks(masked: dict[str, Any]) -> None:
    held = holding.request(
        routed=routed(request=wanted(Task.SEARCH, FACTS, {"filters": {"principal": "ann"}}))
    )
    event = holding.verdict(held, texts=("tea", json.dumps(masked)))
    [refused] = only(list(judged(event, VIEW, NOON, Desk())), topics.INFERENCE_REFUSED)
    assert refused.refusal.reason is Reason.POLICY_DENIED
    assert "in filters" in refused.refusal.message


def test_of_a_fact_itself_a_policy_may_mask_a_part() -> None:
    assert written(FACTS, fact=f"Is {MAIL}.", principal="ann", tenant="acme") == []


def test_columns_that_say_whose_a_fact_is_are_like_any_other_where_there_are_no_facts() -> None:
    assert written(NOTES, body="Tea.", principal=MAIL) == []
