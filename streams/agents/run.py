"""Runs: all that is known of one between two steps.

A run is the fold of what came for it. As JSON text it is the same run again: what it leads to from
there is the same to the byte, so the order of the members of objects is kept, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter

from schemas import agents
from schemas.agents import Definition, Reachable
from schemas.events import InferenceReplied, InferenceRequested, Message, Usage

CallKind = Literal[
    "agent",
    "function",
    "handoff",
    "index",
    "model",
    "recall",
    "remember",
    "summary",
    "unknown",
]
# An approval is waited for, then for a place among those under way, then for the answer.
CallState = Literal["approval", "ready", "asked", "answered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Something that a run asks for.

    Attributes:
        number: No other call of the run has it, and later ones have higher ones.
        kind: What is asked; unknown for what the model was not offered.
        state: How far it is.
        name: The tool, as the model calls it; empty for a turn of the model.
        tool_call_id: What the model knows the call by.
        arguments: The arguments, as JSON text.
        result: What the model is told; empty before it is answered.
    """

    number: int
    kind: CallKind
    state: CallState
    name: str = ""
    tool_call_id: str = ""
    arguments: str = ""
    result: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A passage that a search found.

    Attributes:
        call: Number of the call that found it.
        place: Which of its hits it is, from 1.
        index: Where it was found.
        key: Values of the key columns of its row, as JSON text.
        position: Which chunk of its row it is, from 0.
        source: Table that the row is of; None where callers wrote it.
        version: Which state of the row it is.
    """

    call: int
    place: int
    index: str
    key: str
    position: int
    source: str | None
    version: str

    @property
    def mark(self) -> str:
        """What the model and its answer call it."""
        return f"{self.call}.{self.place}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run of an agent.

    Attributes:
        request: What began it, without its messages.
        reply_to: Where the run itself is answered.
        deadline: When it ends whatever happens: its request's, or earlier by the agent's limits.
        quiet: Whether a policy looks at the answer before anybody hears of it.
        definition: The agent.
        withheld: What stands in the caller's words for what a policy keeps from the model.
        conversation: What it is told first, and what the caller said.
        transcript: What was said since: by the model, by its tools, and to have it mend something.
        gone: How often the model spoke in what is left out of both.
        calls: What the turn under way asks for, by number.
        citations: Passages that were found, by call and place.
        next_number: Number of the next call.
        first_number: Number of its own first call: lower ones are of the conversation before it.
        turns: How often the model was asked.
        planned: How much of the agent's plan was called.
        repairs: How often in a row there was something to mend.
        retried: Whether this turn was asked again after a failure that may pass.
        trimmed: How often this turn was asked again with less said.
        usage: Tokens of all turns together.
        cost: US dollars of all that was answered; None where a price is unknown.
        told: How much the caller was told: seq of what is told next.
        ended: Whether it is over; nothing changes it then.
    """

    # JSON has no infinity, and a request's numbers may be any.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_inf_nan="strings")

    request: InferenceRequested
    reply_to: str
    deadline: datetime
    quiet: bool
    definition: Definition
    conversation: tuple[Message, ...]
    withheld: tuple[str, ...] = ()
    transcript: tuple[Message, ...] = ()
    gone: int = 0
    calls: tuple[Call, ...] = ()
    citations: tuple[Citation, ...] = ()
    next_number: int = 0
    first_number: int = 0
    turns: int = 0
    planned: int = 0
    repairs: int = 0
    retried: bool = False
    trimmed: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: Decimal | None = Decimal(0)
    told: int = 0
    ended: bool = False

    @property
    def run_id(self) -> str:
        """Its id."""
        return agents.run_id(self.request.request_id, self.request.tenant)

    @property
    def messages(self) -> tuple[Message, ...]:
        """All that was said, oldest first."""
        return self.conversation + self.transcript

    @property
    def to_call(self) -> str | None:
        """The tool that the plan has the model call now; None where the model is free."""
        plan = self.definition.plan
        return plan[self.planned] if self.planned < len(plan) else None

    @property
    def under_way(self) -> int:
        """How many calls of tools wait for their answer."""
        return sum(call.state == "asked" and call.kind != "model" for call in self.calls)

    def call(self, number: int) -> Call | None:
        """Returns a call of the turn under way; None where it has none of this number."""
        return next((call for call in self.calls if call.number == number), None)

    def call_id(self, call: Call) -> str:
        """Returns the id of the request that a call asks with."""
        return agents.call_id(self.run_id, call.number)

    def tool(self, call: Call) -> Reachable:
        """Returns what a call of a known tool goes to."""
        return self.definition.tools[call.name]

    def put(self, call: Call) -> Run:
        """Returns the run with a call in the place of the one of its number."""
        changed = (call if each.number == call.number else each for each in self.calls)
        return replace(self, calls=tuple(changed))

    def paid(self, replied: InferenceReplied) -> Run:
        """Returns the run with what an answer cost."""
        if replied.cost_usd is None and replied.refusal is not None:
            # Most often nothing was tried.
            return self
        if self.cost is None or replied.cost_usd is None:
            return replace(self, cost=None)
        return replace(self, cost=self.cost + replied.cost_usd)

    def to_json(self) -> str:
        """Returns the run as JSON text."""
        return _runs().dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Run:
        """Returns the run that a JSON text of ``to_json`` says.

        Raises:
            pydantic.ValidationError: It says none.
        """
        return _runs().validate_json(text)


@cache
def _runs() -> TypeAdapter[Run]:
    return TypeAdapter(Run)
