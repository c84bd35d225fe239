"""Conversations: what is kept of a run, so that another can go on with it.

What agents are told first is no part of it: each run has the instructions of its own agent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from pydantic import TypeAdapter

from schemas.events import Message, Reason, Refusal, Role
from streams.agents.run import Citation, Run
from streams.agents.trimming import MOST_SAID, size, spoken, trimmed
from streams.guards.placeholders import past, past_in_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What was said so far.

    Attributes:
        messages: Oldest first; each call with what it came to.
        citations: Passages that were found, by call and place.
        next_number: Number of the next call: those in the conversation have lower ones.
        gone: How often the model spoke before, in what is left out.
    """

    messages: tuple[Message, ...] = ()
    citations: tuple[Citation, ...] = ()
    next_number: int = 0
    gone: int = 0

    @property
    def turns(self) -> int:
        """How often the model spoke, also in what is left out."""
        return self.gone + len(self._spoken())

    def after(self, turns: int | None) -> Conversation | Refusal:
        """Returns what was said until so many turns were over, with all that they called for.

        Args:
            turns: From 1, where nothing is left out; None for all that was said.
        """
        if turns is None:
            return self
        if not self.gone < turns <= self.turns:
            return self._without(turns)
        end = self._spoken()[turns - self.gone - 1] + 1
        while end < len(self.messages) and self.messages[end].role is Role.TOOL:
            end += 1
        return replace(self, messages=self.messages[:end])

    def to_json(self) -> str:
        """Returns the conversation as JSON text."""
        return _conversations().dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Conversation:
        """Returns the conversation that a JSON text of ``to_json`` says.

        Raises:
            pydantic.ValidationError: It says none.
        """
        return _conversations().validate_json(text)

    def _without(self, turns: int) -> Refusal:
        """Returns why nothing goes on behind a turn."""
        if 1 <= turns <= self.gone:
            message = (
                f"of the {self.turns} turns of the model the first {self.gone} are left out, for "
                "the conversation outgrew what is kept of it: name a later one"
            )
        else:
            message = f"the conversation has {self.turns} turns of the model: name one of them"
        return Refusal(reason=Reason.REQUEST_INVALID, message=message, field="previous_turns")

    def _spoken(self) -> list[int]:
        return [at for at, each in enumerate(self.messages) if each.role is Role.ASSISTANT]


NOTHING_SAID = Conversation()


def said_in(run: Run) -> Conversation:
    """Returns what was said in a run that is over, as much of it as another can carry.

    What policies withheld from the run is withheld for ever: no later request restores it.
    """
    messages = run.messages[bool(run.definition.instructions) :]
    # Calls that the run ended with came to nothing, and no model is told of calls without results.
    while messages and messages[-1].tool_calls:
        messages = messages[:-1]
    left = messages
    while size(left) > MOST_SAID and (less := trimmed(left, ())):
        left = less[0]
    return Conversation(
        messages=tuple(_past(message) for message in left),
        citations=run.citations,
        next_number=run.next_number,
        gone=run.gone + spoken(messages) - spoken(left),
    )


def _past(message: Message) -> Message:
    calls = tuple(
        replace(call, arguments=past_in_json(call.arguments)) for call in message.tool_calls
    )
    return replace(message, content=past(message.content), tool_calls=calls)


@cache
def _conversations() -> TypeAdapter[Conversation]:
    return TypeAdapter(Conversation)
