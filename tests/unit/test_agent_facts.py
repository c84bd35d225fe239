"""Facts about who asks: what an agent that remembers is offered, and what it asks its index."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from infra.bootstrap import ROOT
from schemas.agents import Definition
from schemas.events import InferenceRequested, Reason, Refusal, RequestCancelled, Task
from schemas.kinds import AgentSpec
from schemas.search import Failure, Hit, Search, Write, Written
from streams.agents.causes import Cancelled
from streams.agents.definition import resolve
from streams.agents.progress import Step
from streams.agents.step import advance, begin
from tests.seed import view_of
from tests.unit.agents import (
    AGENT,
    CATALOG,
    NOON,
    SECOND,
    after,
    answered,
    asked,
    begun,
    calls,
    emitted,
    error,
    found,
    function,
    refusal,
    request,
    results,
    said,
    spec,
)

FACTS = "main.tests.facts"
INDEX: dict[str, Any] = {
    "key_columns": ["id"],
    "text": "fact",
    "columns": [{"name": "tenant"}, {"name": "principal"}, {"name": "at"}],
}


def resolved(**changes: Any) -> Definition | Refusal:
    """Returns an agent that remembers facts, in an index with these changes."""
    index = {"kind": "index", "name": FACTS, "spec": {**INDEX, **changes}}
    table = {
        "kind": "table",
        "name": "main.tests.people",
        "spec": {"columns": [{"name": "id", "type": "long"}]},
    }
    wanted = spec(tools=("main.tests.remember",), memory={"index": FACTS})
    known = view_of([*CATALOG, function("main.tests.remember", {}), table, index])
    return resolve(AGENT, wanted, known)


def remembers(**who: str) -> Step:
    """Returns the first step of a run of an agent that remembers."""
    definition = resolved()
    assert isinstance(definition, Definition), definition
    return begin(begun(request(**who)), definition, NOON)


def calling(name: str, arguments: dict[str, Any], **who: str) -> tuple[Step, InferenceRequested]:
    """Returns what a call of a memory leads to, and what it asks."""
    step = after(remembers(**who).run, answered(0, calls(("x", name, arguments))))
    [call] = asked(step)
    return step, call


def row(call: InferenceRequested) -> dict[str, Any]:
    """Returns the row that a call writes."""
    [written] = Write.model_validate_json(call.search or "").rows
    return written


def test_an_agent_that_remembers_is_offered_both_ways_beside_a_tool_of_the_same_name() -> None:
    definition = resolved()
    assert isinstance(definition, Definition)
    kinds = {name: tool.kind for name, tool in definition.tools.items()}
    assert kinds["recall"] == "recall"
    assert kinds["remember"] == "remember"
    assert kinds["tests_remember"] == "function"
    assert definition.kept == "30d"


@pytest.mark.parametrize("memory", [None, {"kept": None}])
def test_an_agent_that_keeps_nothing_is_offered_nothing_of_it(memory: Any) -> None:
    definition = resolve(AGENT, spec(memory=memory), view_of(CATALOG))
    assert isinstance(definition, Definition)
    assert not {"recall", "remember"} & definition.tools.keys()
    assert definition.kept is None


@pytest.mark.parametrize(
    ("changes", "lack"),
    [
        ({"source": "main.tests.people"}, "follows its table main.tests.people"),
        ({"key_columns": ["id", "at"]}, "key_columns"),
        ({"text": "body"}, "text is not fact"),
        ({"chunking": {"by": "sentence"}}, "in one piece"),
        ({"columns": [{"name": "at"}]}, "columns tenant, principal"),
    ],
)
def test_an_index_that_cannot_hold_facts_says_what_it_lacks(
    changes: dict[str, Any], lack: str
) -> None:
    said_no = resolved(**changes)
    assert isinstance(said_no, Refusal)
    assert FACTS in said_no.message
    assert lack in said_no.message


def test_an_index_that_there_is_not_is_named() -> None:
    said_no = resolve(AGENT, spec(memory={"index": FACTS}), view_of(CATALOG))
    assert isinstance(said_no, Refusal)
    assert said_no.reason is Reason.NOT_FOUND
    assert FACTS in said_no.message


def test_the_agent_of_the_readme_remembers() -> None:
    readme = (ROOT / "streams" / "agents" / "README.md").read_text()
    [shown] = re.findall(r"```yaml\n(.*?)```", readme, re.S)
    index, agent = yaml.safe_load_all(shown)
    model = {**CATALOG[0], "name": agent["spec"]["endpoint"]}
    wanted = AgentSpec.model_validate(agent["spec"])
    definition = resolve(agent["name"], wanted, view_of([model, index, agent]))
    assert isinstance(definition, Definition)
    assert {"recall", "remember"} == definition.tools.keys()
    assert definition.kept == "90d"


def test_a_fact_is_written_down_in_the_agents_own_name_with_whose_it_is() -> None:
    _, call = calling("remember", {"fact": "Likes tea."})
    assert (call.task, call.endpoint) == (Task.WRITE, FACTS)
    assert (call.tenant, call.principal) == ("agents", "")
    written = row(call)
    assert written.pop("id")
    assert written == {
        "fact": "Likes tea.",
        "tenant": "acme",
        "principal": "ann",
        "at": (NOON + SECOND).isoformat(),
    }


def test_facts_are_searched_in_the_agents_own_name_among_those_of_who_asks() -> None:
    _, call = calling("recall", {"query": "tea", "k": 3})
    assert (call.task, call.endpoint, call.query) == (Task.SEARCH, FACTS, "tea")
    assert (call.tenant, call.principal) == ("agents", "")
    search = Search.model_validate_json(call.search or "")
    assert search.filters == {"tenant": "acme", "principal": "ann"}
    assert (search.k, search.columns) == (3, ("at",))


@pytest.mark.parametrize("name", ["at", "columns", "filters", "id", "principal", "tenant"])
@pytest.mark.parametrize(("tool", "own"), [("recall", "query"), ("remember", "fact")])
def test_a_model_that_names_whose_facts_it_wants_is_told_that_it_may_not(
    tool: str, own: str, name: str
) -> None:
    given = {own: "tea", name: {"principal": "bob"}}
    step = after(remembers().run, answered(0, calls(("x", tool, given))))
    assert [call.task for call in asked(step)] == [Task.CHAT]
    assert error(results(step)["x"])[0] == "arguments"


def test_the_same_fact_is_one_row_and_that_of_somebody_else_another() -> None:
    ids = {
        who: row(calling("remember", {"fact": "Likes tea."}, principal=who, request_id=at)[1])["id"]
        for who, at in (("ann", "request"), ("bob", "request"))
    }
    again = row(calling("remember", {"fact": "Likes tea."})[1])["id"]
    assert again == ids["ann"] != ids["bob"]


def test_what_was_withheld_is_not_remembered_as_what_a_later_request_restores() -> None:
    _, call = calling("remember", {"fact": "Is <PERSON_1>."})
    assert row(call)["fact"] == "Is [PERSON_1]."


def test_a_model_is_told_the_facts_that_were_found_and_cites_none() -> None:
    step, _ = calling("recall", {"query": "tea"})
    hit = Hit(key={"id": "1"}, text="Likes tea.", columns={"at": "2030-01-01"})
    step = after(step.run, answered(1, found(hit)))
    assert json.loads(results(step)["x"]) == {
        "result": [{"fact": "Likes tea.", "at": "2030-01-01"}]
    }
    assert step.run.citations == ()


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (Written(status="SUCCESS", written=1), {"result": "remembered"}),
        (
            Written(status="FAILURE", failed=(Failure(key={"id": "1"}, reason="too long"),)),
            {"error": {"kind": "unwritten", "message": "too long"}},
        ),
    ],
)
def test_a_model_is_told_whether_a_fact_was_written_down(
    written: Written, told: dict[str, Any]
) -> None:
    step, _ = calling("remember", {"fact": "Likes tea."})
    step = after(step.run, answered(1, said("", found=written.model_dump_json())))
    assert json.loads(results(step)["x"]) == told


@pytest.mark.parametrize(
    ("name", "given"), [("recall", {"query": "tea"}), ("remember", {"fact": "Likes tea."})]
)
def test_what_is_called_off_is_called_off_for_whom_it_was_asked(
    name: str, given: dict[str, Any]
) -> None:
    step, call = calling(name, given)
    [called_off] = emitted(advance(step.run, Cancelled(), NOON + SECOND), RequestCancelled)
    assert (called_off.request_id, called_off.tenant) == (call.request_id, "agents")


def test_a_memory_that_does_not_answer_is_an_error_that_the_model_reads() -> None:
    step, _ = calling("recall", {"query": "tea"})
    step = after(step.run, answered(1, refusal(Reason.PROVIDER_FAILED)))
    assert error(results(step)["x"]) == (Reason.PROVIDER_FAILED, "not today")
