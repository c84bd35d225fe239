"""Agents as they begin a run, made of what the catalog has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from infra.catalog import CatalogView
from schemas.agents import Definition
from schemas.events import Reason, Refusal
from schemas.jsonschemas import require_schema
from schemas.kinds import AgentSpec
from streams.agents.definition import resolve
from tests.seed import changed, described, view_of
from tests.unit.agents import (
    ADD,
    AGENT,
    BOOKS,
    CATALOG,
    EXPERT,
    MODEL,
    NUMBERS,
    WIPE,
    function,
    spec,
)

VIEW = view_of(CATALOG)


def resolved(wanted: AgentSpec, known: CatalogView = VIEW) -> Definition:
    definition = resolve(AGENT, wanted, known)
    assert isinstance(definition, Definition), definition
    return definition


def knowing(*functions: str, agents: Iterable[str] = ()) -> CatalogView:
    """Returns a catalog that has these, too."""
    more = [{"kind": "agent", "name": name, "spec": {"endpoint": MODEL}} for name in agents]
    return view_of([*CATALOG, *more, *(function(name, {}) for name in functions)])


def index(name: str, columns: int) -> dict[str, Any]:
    """Returns an index that keeps so many columns."""
    kept = [{"name": f"c{number}"} for number in range(columns)]
    spec = {"key_columns": ["id"], "text": "body", "columns": kept}
    return {"kind": "index", "name": f"main.tests.{name}", "spec": spec}


def test_an_agent_has_what_it_reaches_under_short_names() -> None:
    tools = resolved(spec()).tools
    assert {name: (tool.kind, tool.target, tool.version) for name, tool in tools.items()} == {
        "add": ("function", ADD, 3),
        "books": ("index", BOOKS, None),
        "expert": ("agent", EXPERT, None),
    }
    assert tools["add"].parameters == NUMBERS


def test_a_version_that_is_named_is_the_one_that_is_called() -> None:
    [tool] = resolved(spec(tools=[f"{ADD}@1"], indexes=[], agents=[])).tools.values()
    assert (tool.target, tool.version) == (ADD, 1)


def test_a_schema_stands_for_its_functions_that_are_there_when_a_run_begins() -> None:
    known = knowing("main.crm.pay", "main.crm.find", "main.crm2.other")
    wanted = spec(tools=["main.crm.*", "main.crm.pay@1"], indexes=[], agents=[])
    tools = resolved(wanted, known).tools
    assert {(tool.target, tool.version) for tool in tools.values()} == {
        ("main.crm.find", 1),
        ("main.crm.pay", 1),
    }
    known = knowing("main.crm.pay", "main.crm.find", "main.crm.new")
    assert len(resolved(wanted, known).tools) == 3


def test_a_schema_without_functions_lets_no_run_begin() -> None:
    refused = resolve(AGENT, spec(tools=["main.crm.*"]), knowing("main.crm2.other"))
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.NOT_FOUND
    assert "there is no function main.crm.*" in refused.message


def test_a_schema_with_more_functions_than_an_agent_may_have_lets_no_run_begin() -> None:
    many = knowing(*(f"main.crm.f{number}" for number in range(65)))
    refused = resolve(AGENT, spec(tools=["main.crm.*"]), many)
    assert isinstance(refused, Refusal)
    assert "its tools come to 65 functions, and it may have 64: name fewer" in refused.message


@pytest.mark.parametrize("wrong", ["main.*", "main.*.pay", "*", "main.crm.p*", "main.crm.*@1"])
def test_only_a_whole_schema_can_stand_for_its_functions(wrong: str) -> None:
    with pytest.raises(ValidationError):
        spec(tools=[wrong])


def test_a_schema_is_no_reference_that_must_be_there() -> None:
    assert "main.crm.*" not in set(spec(tools=["main.crm.*"]).references())


def test_an_index_says_what_it_can_be_filtered_by_which_is_what_it_keeps() -> None:
    parameters = resolved(spec()).tools["books"].parameters
    assert parameters["required"] == ["query"]
    assert parameters["properties"]["k"]["maximum"] == 20
    filters = parameters["properties"]["filters"]
    assert {name.partition(" ")[0] for name in filters["properties"]} == {"year"}
    assert filters["additionalProperties"] is False


def test_an_index_that_keeps_nothing_cannot_be_filtered() -> None:
    known = view_of([*CATALOG, index("bare", columns=0)])
    parameters = resolved(spec(indexes=["main.tests.bare"]), known).tools["bare"].parameters
    assert parameters["properties"].keys() == {"query", "k"}


def test_columns_are_told_in_words_where_their_names_would_make_the_tools_too_long() -> None:
    wide = view_of([*CATALOG, index("wide", columns=100), index("narrow", columns=1)])
    tools = resolved(spec(indexes=["main.tests.wide", "main.tests.narrow"]), wide).tools
    filters = {name: tools[name].parameters["properties"]["filters"] for name in ("wide", "narrow")}
    assert "additionalProperties" not in filters["wide"]
    assert "c99 (string)" in filters["wide"]["description"]
    assert filters["narrow"]["additionalProperties"] is False
    names = [f"i{number}" for number in range(64)]
    many = view_of([*CATALOG, *(index(name, columns=3) for name in names)])
    tools = resolved(spec(indexes=[f"main.tests.{name}" for name in names]), many).tools
    for name in names:
        assert "c2 (string)" in tools[name].parameters["properties"]["filters"]["description"]


def test_what_only_computes_is_known() -> None:
    known = view_of([*CATALOG, function("main.tests.sum", {"effect": "pure"})])
    tools = resolved(spec(tools=[ADD, "main.tests.sum"]), known).tools
    assert {name for name, tool in tools.items() if not tool.pure} == {"add"}


def test_a_plan_names_tools_as_the_model_does() -> None:
    wanted = spec(tools=[f"{ADD}@2", f"{ADD}@3"], plan=[EXPERT, ADD, EXPERT])
    definition = resolved(wanted)
    assert [definition.tools[name].target for name in definition.plan] == [EXPERT, ADD, EXPERT]
    assert definition.tools[definition.plan[1]].version == 2


def test_a_comment_says_what_an_agent_is_for() -> None:
    known = view_of(CATALOG)
    body = described(CATALOG[4]).model_copy(update={"comment": "Knows all."})
    known.apply(changed("agent", EXPERT, body))
    assert resolved(spec(), known).tools["expert"].description == "Knows all."


def test_a_prompt_goes_before_the_instructions_with_its_variables_as_they_are() -> None:
    wanted = spec(prompt="main.tests.tone@2", instructions="Be brief.")
    assert resolved(wanted).instructions == "Dear {{name}}!\n\nBe brief."


def test_calls_of_what_the_agent_names_wait_for_a_person() -> None:
    tools = resolved(spec(approvals=[BOOKS])).tools
    assert {name for name, tool in tools.items() if tool.approval} == {"books"}


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"endpoint": "main.tests.gone"}, "endpoint main.tests.gone"),
        ({"tools": ["main.tests.gone@2"]}, "function main.tests.gone@2"),
        ({"indexes": ["main.tests.gone"]}, "index main.tests.gone"),
        ({"agents": ["main.tests.gone"]}, "agent main.tests.gone"),
        ({"plan": [WIPE]}, f"its plan names {WIPE}"),
        ({"prompt": "main.tests.gone"}, "prompt main.tests.gone"),
    ],
)
def test_what_an_agent_lacks_is_named(changes: dict[str, Any], missing: str) -> None:
    refusal = resolve(AGENT, spec(**changes), VIEW)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.NOT_FOUND
    assert AGENT in refusal.message
    assert missing in refusal.message


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"output": {"type": "word"}}, "its output"),
        ({"output": {"patternProperties": {"(a+)+": {}}}}, "its output"),
        ({"tools": ["main.tests.odd"]}, "the parameters of main.tests.odd"),
    ],
)
def test_a_schema_that_is_none_is_named(changes: dict[str, Any], named: str) -> None:
    known = view_of([*CATALOG, function("main.tests.odd", {"parameters": {"type": 3}})])
    refusal = resolve(AGENT, spec(**changes), known)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.REQUEST_INVALID
    assert named in refusal.message


def test_tools_that_are_alike_have_their_schema_or_catalog_before_their_name() -> None:
    names = ["main.sales.add", "main.tests.add", "other.sales.add", "main.tests.count"]
    known = knowing(*names)
    tools = resolved(spec(tools=names, indexes=[], agents=[]), known).tools
    assert {name: tool.target for name, tool in tools.items()} == {
        "main_sales_add": "main.sales.add",
        "tests_add": "main.tests.add",
        "other_sales_add": "other.sales.add",
        "count": "main.tests.count",
    }


def test_one_tool_under_two_names_is_offered_once() -> None:
    tools = resolved(spec(tools=[ADD, f"{ADD}@3"], indexes=[], agents=[])).tools
    assert list(tools) == ["add"]


SEGMENTS = st.sampled_from(["a", "b", "a_b", "b_a", "a-b", "x" * 60, "x" * 100])
NAMES = st.tuples(SEGMENTS, SEGMENTS, SEGMENTS).map(".".join)


@given(st.sets(NAMES, min_size=1, max_size=12), st.sets(NAMES, max_size=3))
def test_names_are_unique_and_what_every_provider_takes(
    functions: set[str], agents: set[str]
) -> None:
    known = knowing(*functions, agents=agents)
    wanted = spec(tools=sorted(functions), agents=sorted(agents), indexes=[])
    tools = resolved(wanted, known).tools
    assert len(tools) == len(functions) + len(agents)
    assert {tool.target for tool in tools.values()} == functions | agents
    for name, tool in tools.items():
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name)
        assert tool.name == name
        require_schema(tool.parameters)


def test_a_definition_is_the_same_again_as_json() -> None:
    definition = resolved(spec())
    assert Definition.model_validate_json(definition.model_dump_json()) == definition
    assert definition.endpoint == MODEL
