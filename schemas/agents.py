"""Agents as a run has them: fixed when it begins, whatever becomes of the catalog meanwhile.

``AgentJournaled.definition`` holds a ``Definition``.

The ids of what a run asks for say whose it is: ``run_id`` is the id of the request that began it,
two slashes, and its tenant; ``call_id`` is that, two slashes, and a number that no other call of
the run has.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from schemas.kinds import AgentLimits
from schemas.shapes import Duration, FullName, Shape, Text
from schemas.topics import BEHIND


class Reachable(Shape):
    """A function, an index, an agent or a memory, as a tool that the model is offered.

    A hand-off is an agent whose answer is the run's.

    Attributes:
        name: What the model calls it: letters, digits, ``_`` and ``-``.
        kind: What it is.
        target: Its name in the catalog.
        version: Number of the function's version; null for what has none.
        description: What it is for.
        parameters: JSON Schema of its arguments.
        approval: Whether a call waits for a person.
        pure: Whether it only computes, so that a call with any arguments does no harm.
    """

    name: Text
    kind: Literal["agent", "function", "handoff", "index", "recall", "remember"]
    target: FullName
    version: int | None = None
    description: str = ""
    parameters: dict[str, Any]
    approval: bool = False
    pure: bool = True


class Definition(Shape):
    """An agent with all that it may reach.

    Attributes:
        agent: Its name in the catalog.
        endpoint: What is asked for each turn.
        instructions: What the model is told first; empty for nothing.
        tools: What the model is offered, by the names that it has for them.
        plan: Names of what it must call first, in this order.
        output: JSON Schema that the answer must satisfy; null for a text.
        summarise: Whether the model sums up what it cannot read at once any more.
        repairs: How often in a row the model may mend what is wrong.
        limits: Where a run ends.
        kept: How long its conversations are kept; null for not at all.
    """

    agent: FullName
    endpoint: FullName
    instructions: str = ""
    tools: dict[Text, Reachable] = Field(default_factory=dict)
    plan: tuple[Text, ...] = ()
    output: dict[str, Any] | None = None
    summarise: bool = False
    repairs: int = 2
    limits: AgentLimits = AgentLimits()
    kept: Duration | None = None


def run_id(request_id: str, tenant: str) -> str:
    """Returns the id of the run that a tenant's request began."""
    return f"{request_id}{BEHIND}{tenant}"


def tenant_of(run: str) -> str:
    """Returns the tenant whose request began a run."""
    return run.rpartition(BEHIND)[2]


def call_id(run: str, number: int) -> str:
    """Returns the id of the request that a run asks with."""
    return f"{run}{BEHIND}{number}"


def run_of(call: str) -> tuple[str, int] | None:
    """Returns the run that asked, and the number of its call; None for an id of another form."""
    run, _, number = call.rpartition(BEHIND)
    return (run, int(number)) if BEHIND in run and number.isdecimal() else None
