"""What dialects share whose turns are made of blocks: the conversation, and the answer as it comes.

Knows the events; knows no provider's form, no network and no clock. Such providers take the system
text apart from the conversation, whose two sides take turns: what tools answered is said by the
side of the user. Names of speakers are left out, since no such provider knows them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Generic, Protocol, TypeVar

from schemas.events import (
    Completion,
    Delta,
    FinishReason,
    InferenceRequested,
    Message,
    Reason,
    Refusal,
    Role,
    Sampling,
    Tool,
    ToolCall,
    ToolCallDelta,
)
from schemas.openai import parsed
from workers.providers import ProviderRefused
from workers.providers.answer import Answer, failed
from workers.providers.checks import require_kept

Block = TypeVar("Block")
Made_co = TypeVar("Made_co", covariant=True)

# The tool that a model is made to call where it knows no schemas: its arguments are the answer.
ANSWER = "answer"
ANSWERS = "Gives the answer. Its arguments are the answer, and all of it."
# What asks for nothing that is not so anyway.
NEUTRAL: dict[str, tuple[object, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "seed": (),
    "top_k": (-1, 0),
    "top_logprobs": (),
}


class Form(Protocol[Made_co]):
    """How a provider writes the blocks of a turn."""

    def said(self, text: str) -> Made_co:
        """Returns the block of a text."""

    def called(self, call: ToolCall, arguments: Mapping[str, object]) -> Made_co:
        """Returns the block of a tool call that the model made."""

    def answered(self, message: Message, call_id: str, tool: str) -> Made_co:
        """Returns the block of what a tool answered; ``tool`` is its name, or empty if unknown."""


@dataclass(slots=True, frozen=True)
class Turn(Generic[Block]):
    """What one side says until the other one does.

    Attributes:
        model: Whether the model says it.
        blocks: What it says; tool answers come first.
    """

    model: bool
    blocks: tuple[Block, ...]


def require_drawable(request: InferenceRequested, lacks: frozenset[str]) -> None:
    """Makes sure that a provider can draw tokens as it is asked to.

    Args:
        request: The request.
        lacks: Sampling parameters that the provider does not know. One that asks for something is
            refused, since dropping it would change what is drawn; a neutral one is left out.

    Raises:
        ProviderRefused: It cannot; the refusal names the field.
    """
    for name in sorted(lacks):
        value = getattr(request.sampling, name)
        if value is not None and value not in NEUTRAL[name]:
            raise invalid(f"sampling.{name}", f"this provider knows no {name}")


def system_text(request: InferenceRequested) -> str:
    """Returns what all system turns say, wherever they stand; empty where there are none."""
    said = (turn.content for turn in request.messages if turn.role is Role.SYSTEM)
    return "\n\n".join(text for text in said if text)


def turns(request: InferenceRequested, form: Form[Block]) -> Iterator[Turn[Block]]:
    """Yields the conversation without its system turns, neighbours of one side as one turn.

    Raises:
        ProviderRefused: A turn says nothing, answers no call, or calls with what is no JSON object.
    """
    tools = {call.id: call.name for turn in request.messages for call in turn.tool_calls}
    spoken = [turn for turn in request.messages if turn.role is not Role.SYSTEM]
    for model, messages in groupby(spoken, lambda turn: turn.role is Role.ASSISTANT):
        # Stable, so that only tool answers move.
        ordered = sorted(messages, key=lambda turn: turn.role is not Role.TOOL)
        blocks = [block for message in ordered for block in _blocks(message, form, tools)]
        if not blocks:
            raise invalid("messages", "this provider takes no turn that says nothing")
        yield Turn(model, tuple(blocks))


def top_k(sampling: Sampling) -> int | None:
    """Returns how many candidates are kept, or None for all."""
    return sampling.top_k if sampling.top_k is not None and sampling.top_k > 0 else None


def call_answered(message: Message) -> str:
    """Returns the id of the call that a tool answers.

    Raises:
        ProviderRefused: It names none.
    """
    if message.tool_call_id is None:
        raise invalid("messages", "what a tool answers names the call that it answers")
    return message.tool_call_id


def arguments_of(call: ToolCall) -> Mapping[str, object]:
    """Returns the arguments of a call that a model made.

    Raises:
        ProviderRefused: They are no JSON object.
    """
    arguments = parsed(call.arguments or "{}")
    if not isinstance(arguments, dict):
        raise invalid("messages", "the arguments of a tool call are a JSON object")
    return arguments


@dataclass(slots=True, frozen=True, kw_only=True)
class Offer:
    """The tools that a model is offered.

    Attributes:
        tools: The tools.
        choice: auto, none, required, or the name of the one to call.
        answers: Whether one of them is the tool ``answer``.
    """

    tools: tuple[Tool, ...]
    choice: str
    answers: bool = False

    def asked(self, request: InferenceRequested) -> InferenceRequested:
        """Returns a request that asks for what is offered, and for no schema beside an answer."""
        schema = None if self.answers else request.json_schema
        return replace(request, tools=self.tools, tool_choice=self.choice, json_schema=schema)


def offer(request: InferenceRequested, *, native: bool) -> Offer:
    """Returns what to offer, the tool ``answer`` where a schema can be had in no other way.

    Args:
        request: The request.
        native: Whether the provider takes the schema itself.

    Raises:
        ProviderRefused: A schema, or a tool beside it, does not allow that.
    """
    as_asked = Offer(tools=request.tools, choice=request.tool_choice)
    if request.json_schema is None or native:
        return as_asked
    if any(tool.name == ANSWER for tool in request.tools):
        raise invalid("tools", f"beside a schema no tool is named {ANSWER}")
    schema = parsed(request.json_schema)
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise invalid("json_schema", "this provider takes only schemas of an object")
    answer = Tool(name=ANSWER, description=ANSWERS, parameters=request.json_schema)
    if not request.tools or request.tool_choice == "none":
        return Offer(tools=(answer,), choice=ANSWER, answers=True)
    if request.tool_choice == "auto":
        return Offer(tools=(*request.tools, answer), choice="required", answers=True)
    # A call is demanded, so there will be no text that a schema could be for.
    return as_asked


class Spoken(Answer):
    """An answer that comes block by block.

    Args:
        model: The model as asked.
        answer_tool: Whether the arguments of the tool ``answer`` are the content, and nothing else.
    """

    def __init__(self, model: str, *, answer_tool: bool = False) -> None:
        super().__init__(model)
        self._answer_tool = answer_tool
        # Indexes of tool calls by what the provider tells its blocks apart by.
        self._places: dict[int, int] = {}
        self._contents: set[int] = set()

    def say(self, text: str) -> Iterator[Delta]:
        """Adds text and yields what that brings."""
        # Beside a forced tool, text is the model's talk about it.
        if not self._answer_tool:
            yield from self._grown(text)

    def call(
        self, place: int, *, call_id: str = "", name: str = "", arguments: str = ""
    ) -> Iterator[Delta]:
        """Adds a piece of a tool call, or of the content that comes as one, and yields it.

        Args:
            place: What the provider tells its blocks apart by.
            call_id: Id of the call; with its first piece.
            name: Name of the tool; with its first piece.
            arguments: JSON text to append.
        """
        if self._answer_tool and name == ANSWER:
            self._contents.add(place)
        if place in self._contents:
            yield from self._grown(arguments)
            return
        index = self._places.setdefault(place, len(self._places))
        piece = ToolCallDelta(index=index, id=call_id, name=name, arguments=arguments)
        yield from self._grown("", piece)

    def whole_call(self, *, call_id: str, name: str, arguments: str) -> Iterator[Delta]:
        """Adds a tool call that comes in one piece, and yields it."""
        place = len(self._places) + len(self._contents)
        yield from self.call(place, call_id=call_id, name=name, arguments=arguments)

    def rest(self, request: InferenceRequested) -> Iterator[Delta | Completion]:
        """Yields what is still missing once the stream has ended, and last the whole answer.

        What may be missing are the arguments of calls without any.

        Raises:
            ProviderRefused: The stream ended before the answer did, or the answer does not keep to
                the schemas of its request.
        """
        if not self.begun:
            raise ProviderRefused(failed("the provider answered with an empty body"))
        for index, call in enumerate(self.completion().tool_calls):
            if not call.arguments:
                yield from self._grown("", ToolCallDelta(index=index, arguments="{}"))
        told = self.completion()
        completion = replace(told, finish_reason=_why(told))
        require_kept(completion, request)
        yield completion

    def _grown(self, text: str, *calls: ToolCallDelta) -> Iterator[Delta]:
        if delta := self.grow(text, calls):
            yield delta


def invalid(at_fault: str, message: str) -> ProviderRefused:
    """Returns what to raise for what is the caller's fault."""
    return ProviderRefused(Refusal(reason=Reason.REQUEST_INVALID, message=message, field=at_fault))


def _why(completion: Completion) -> FinishReason:
    """Returns why the model stopped; some say nothing of calls, and a forced one is no call."""
    match completion.finish_reason, bool(completion.tool_calls):
        case FinishReason.STOP, True:
            return FinishReason.TOOL_CALLS
        case FinishReason.TOOL_CALLS, False:
            return FinishReason.STOP
    return completion.finish_reason


def _blocks(message: Message, form: Form[Block], tools: Mapping[str, str]) -> Iterator[Block]:
    if message.role is Role.TOOL:
        call_id = call_answered(message)
        yield form.answered(message, call_id, tools.get(call_id, ""))
        return
    if message.content:
        yield form.said(message.content)
    for call in message.tool_calls:
        yield form.called(call, arguments_of(call))
