"""An agent, a catalog that knows it, and what comes for a run of it, for tests of the step."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from schemas.agents import Definition, Reachable
from schemas.events import (
    Completion,
    Event,
    FinishReason,
    InferenceReplied,
    InferenceRequested,
    InferenceRouted,
    Message,
    Reason,
    Refusal,
    Role,
    Route,
    Sampling,
    Task,
    ToolCall,
    Usage,
)
from schemas.kinds import AgentLimits, AgentSpec
from schemas.search import Found, Hit
from streams.agents.causes import Answered, Begun, Cause
from streams.agents.run import Run
from streams.agents.step import Step, advance, begin

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
AGENT, MODEL = "main.tests.clerk", "main.tests.chat"
ADD, WIPE, BOOKS = (f"main.tests.{name}" for name in ("add", "wipe", "books"))
DESK, EXPERT = "main.tests.desk", "main.tests.expert"

E = TypeVar("E", bound=Event)


def an_object(required: Iterable[str] = (), **properties: Any) -> dict[str, Any]:
    """Returns the JSON Schema of an object that has these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


NUMBERS = an_object("ab", a={"type": "integer"}, b={"type": "integer"})
QUERY = an_object(
    ["query"],
    query={"type": "string"},
    k={"type": "integer", "minimum": 1, "maximum": 20},
    filters={"type": "object"},
)
TOOLS = {
    "add": Reachable(name="add", kind="function", target=ADD, version=3, parameters=NUMBERS),
    "wipe": Reachable(
        name="wipe",
        kind="function",
        target=WIPE,
        version=1,
        parameters=an_object(),
        approval=True,
    ),
    "books": Reachable(name="books", kind="index", target=BOOKS, parameters=QUERY),
    "expert": Reachable(
        name="expert",
        kind="agent",
        target=EXPERT,
        parameters=an_object(["message"], message={"type": "string"}),
    ),
    "transfer_to_desk": Reachable(
        name="transfer_to_desk", kind="handoff", target=DESK, parameters=an_object()
    ),
}


def definition(**changes: Any) -> Definition:
    """Returns an agent that may call a tool of each kind; ``wipe`` only where a person lets it."""
    known = {"agent": AGENT, "endpoint": MODEL, "instructions": "Be brief.", "tools": TOOLS}
    return Definition(**{**known, **changes})


def limits(**changes: Any) -> AgentLimits:
    """Returns limits that no test reaches by chance."""
    return AgentLimits(**{"turns": 16, "time": "10m", "parallel": 8, **changes})


def request(**changes: Any) -> InferenceRequested:
    """Returns what a caller asks the agent."""
    return replace(
        InferenceRequested(
            request_id="request",
            tenant="acme",
            principal="ann",
            endpoint=AGENT,
            messages=(Message(role=Role.USER, content="How many?"),),
            sampling=Sampling(temperature=0.5),
            stream=True,
            reply_to="reply.v1.acme",
            requested_at=NOON - SECOND,
            deadline=NOON + HOUR,
            tags={"team": "blue"},
            task=Task.AGENT,
        ),
        **changes,
    )


def begun(asked: InferenceRequested | None = None, *, quiet: bool = False) -> Begun:
    """Returns that a run begins; quiet where a policy looks at its answer first."""
    asked = asked or request()
    routed = InferenceRouted(
        request=asked,
        route=Route(name="agents", pool="agents", model=AGENT),
        parts_to=None if quiet else asked.reply_to,
        routed_at=NOON,
    )
    return Begun(routed=routed, reply_to_agents="reply.v1.agents")


def said(content: str, **changes: Any) -> Completion:
    """Returns an answer of a model."""
    usage = Usage(prompt_tokens=10, completion_tokens=5)
    whole = Completion(model="tiny", content=content, finish_reason=FinishReason.STOP, usage=usage)
    return replace(whole, **changes)


def calls(*asked: tuple[str, str, object]) -> Completion:
    """Returns that a model asks for calls: of each its id, the tool, and the arguments."""
    return said(
        "",
        tool_calls=tuple(
            ToolCall(id=id_, name=name, arguments=given if isinstance(given, str) else dump(given))
            for id_, name, given in asked
        ),
        finish_reason=FinishReason.TOOL_CALLS,
    )


def added(id_: str, a: int = 1, b: int = 2) -> tuple[str, str, object]:
    """Returns a right call of ``add``."""
    return id_, "add", {"a": a, "b": b}


def result(value: object) -> Completion:
    """Returns what a tool came to."""
    return said(dump({"result": value}))


def found(*hits: Hit) -> Completion:
    """Returns what an index answered."""
    return said("", found=Found(hits=hits).model_dump_json())


def refusal(reason: Reason, message: str = "not today") -> Refusal:
    """Returns a refusal."""
    return Refusal(reason=reason, message=message)


def answered(number: int, came: Completion | Refusal, cost: str | None = None) -> Answered:
    """Returns that the call of a number was answered; its cost is in US dollars."""
    replied = InferenceReplied(
        request_id=f"request//acme//{number}",
        completion=came if isinstance(came, Completion) else None,
        refusal=came if isinstance(came, Refusal) else None,
        replied_at=NOON,
        cost_usd=None if cost is None else Decimal(cost),
    )
    return Answered(number=number, replied=replied)


def started(known: Definition | None = None, **changes: Any) -> Step:
    """Returns the first step of a run."""
    return begin(begun(request(**changes)), known or definition(), NOON)


def after(run: Run, *came: Cause) -> Step:
    """Returns the last of the steps that causes lead to, a second apart."""
    step = Step(run=run)
    for place, cause in enumerate(came, start=1):
        step = advance(step.run, cause, NOON + place * SECOND)
    return step


def emitted(step: Step, kind: type[E]) -> list[E]:
    """Returns the events of a kind that a step emits."""
    return [event for _, event in step.outgoing if isinstance(event, kind)]


def asked(step: Step) -> list[InferenceRequested]:
    """Returns what a step asks of others."""
    return emitted(step, InferenceRequested)


def results(step: Step) -> dict[str, str]:
    """Returns what the model is told of its calls when a step asks it again, by their ids."""
    [turn] = asked(step)
    return {
        str(message.tool_call_id): message.content
        for message in turn.messages
        if message.role is Role.TOOL
    }


def error(result: str) -> tuple[str, str]:
    """Returns kind and message of a result that is an error."""
    said = json.loads(result)["error"]
    return said["kind"], said["message"]


def dump(value: object) -> str:
    """Returns a value as JSON text."""
    return json.dumps(value)


def function(name: str, *specs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the document of a function with a version for each spec."""
    versions = [{"spec": {"language": "python", "source": "x", **each}} for each in specs]
    return {"kind": "function", "name": name, "versions": versions}


# What the agent of ``spec`` reaches; the newest version of ``ADD`` is its third.
CATALOG: list[dict[str, Any]] = [
    {
        "kind": "endpoint",
        "name": MODEL,
        "spec": {"routes": [{"name": "local", "pool": "chat", "model": "tiny"}]},
    },
    function(ADD, {}, {}, {"parameters": NUMBERS}),
    function(WIPE, {}),
    {
        "kind": "index",
        "name": BOOKS,
        "spec": {"key_columns": ["isbn"], "text": "body", "columns": [{"name": "year"}]},
    },
    {"kind": "agent", "name": EXPERT, "spec": {"endpoint": MODEL}},
    {
        "kind": "prompt",
        "name": "main.tests.tone",
        "versions": [{"spec": {"template": "Hey!"}}, {"spec": {"template": "Dear {{name}}!"}}],
    },
]


def spec(**changes: Any) -> AgentSpec:
    """Returns an agent that reaches something of each kind."""
    reaches = {"tools": (ADD,), "indexes": (BOOKS,), "agents": (EXPERT,)}
    return AgentSpec.model_validate({"endpoint": MODEL, **reaches, **changes})
