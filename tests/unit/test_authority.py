"""What it takes to name in a spec what it names."""

from __future__ import annotations

from typing import Any

import pytest

from catalog.registrar.authority import naming, refusal
from schemas.events import Reason
from schemas.kinds import AgentSpec
from tests.seed import view_of
from tests.unit.asking import CATALOG, LIMITS

FACTS, MODEL = "main.tests.facts", "main.tests.plain"
INDEX: dict[str, Any] = {"key_columns": ["id"], "text": "fact"}


def why_not(
    memory: dict[str, Any], *granted: str, denied: tuple[str, ...] = ()
) -> tuple[Reason, str] | None:
    """Returns why ann cannot make an agent with a memory; None where she can."""
    grants = {"grants": {"ann": list(granted)}, "denies": {"ann": list(denied)}}
    index = {"kind": "index", "name": FACTS, "spec": INDEX, **grants}
    view = view_of([*CATALOG, index], LIMITS)
    spec = AgentSpec.model_validate({"endpoint": MODEL, "memory": memory})
    demands = [each for each in naming(view, spec) if each.name == FACTS]
    refused = next(filter(None, (refusal(view, "ann", each) for each in demands)), None)
    return None if refused is None else (refused.reason, str(refused))


@pytest.mark.parametrize("granted", ["BROWSE", "QUERY"])
def test_who_may_not_write_to_an_index_gives_it_to_no_agent_as_its_memory(granted: str) -> None:
    refused = why_not({"index": FACTS}, granted)
    assert refused is not None
    assert refused[0] is Reason.PRIVILEGE_MISSING
    assert f"MODIFY on {FACTS} is missing" in refused[1]


def test_who_may_not_search_an_index_gives_it_to_no_agent_as_its_memory() -> None:
    refused = why_not({"index": FACTS}, "MODIFY", denied=("QUERY",))
    assert refused is not None
    assert refused[0] is Reason.PRIVILEGE_MISSING
    assert "QUERY" in refused[1]


@pytest.mark.parametrize("granted", [["MODIFY", "QUERY"], ["MANAGE"]])
def test_who_may_write_to_an_index_and_search_it_gives_it_to_an_agent(granted: list[str]) -> None:
    assert why_not({"index": FACTS}, *granted) is None


def test_a_memory_without_an_index_takes_nothing() -> None:
    assert why_not({"kept": "1d"}) is None
