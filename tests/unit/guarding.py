"""Policies, requests and answers, for tests of guardrails."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from schemas.events import (
    Completion,
    Delta,
    FinishReason,
    InferenceRequested,
    InferenceRouted,
    Message,
    Refusal,
    Role,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from schemas.policies import PolicySpec
from streams.guards import Guarded, PartGuard, Released, Seal, guard_completion, guard_request
from streams.guards.found import Hit
from tests.unit.asking import FIRST, NOON, ask

ADA, BOB = "ada@example.com", "bob@example.com"
SEAL = Seal(b"0123456789abcdef0123456789abcdef")

Policies = list[tuple[str, PolicySpec]]


def policies(*rules: dict[str, Any]) -> Policies:
    """Returns one policy of these rules; a rule is named by its type unless it says otherwise."""
    named = [{"name": rule["type"], **rule} for rule in rules]
    return [("main.tests.policy", PolicySpec.model_validate({"rules": named}))]


def pii(**entities: str) -> dict[str, Any]:
    """Returns a rule of personal data."""
    return {"type": "pii", "entities": entities}


RESTORE = policies(pii(EMAIL_ADDRESS="restore", PERSON="restore", CREDIT_CARD="restore"))
MASK = policies(pii(EMAIL_ADDRESS="mask", CREDIT_CARD="mask"))


def breaking(text: str, begin: int) -> Iterable[Hit]:
    """Looks at a text and breaks, with the text in what it says."""
    raise RuntimeError(text)


def said(*contents: str, **changes: Any) -> InferenceRequested:
    """Returns a request of user messages."""
    messages = tuple(Message(role=Role.USER, content=content) for content in contents)
    return ask(messages=messages, **changes)


def passed(request: InferenceRequested, held_to: Policies = RESTORE) -> Guarded:
    """Returns a request that passes."""
    guarded = guard_request(request, held_to, SEAL)
    assert isinstance(guarded, Guarded), guarded
    return guarded


def refused(request: InferenceRequested, held_to: Policies) -> Refusal:
    """Returns why a request does not pass."""
    refusal = guard_request(request, held_to, SEAL)
    assert isinstance(refusal, Refusal), refusal
    return refusal


def sealed(values: dict[str, str]) -> InferenceRouted:
    """Returns a request whose placeholders stand for something."""
    return routed(Guarded(request=said("x"), sealed=SEAL.seal("acme", "request", values)))


def routed(guarded: Guarded) -> InferenceRouted:
    """Returns a request on its way to a model."""
    return InferenceRouted(
        request=guarded.request, route=FIRST, sealed=guarded.sealed, routed_at=NOON
    )


def answer(content: str = "", *arguments: str) -> Completion:
    """Returns what a model says, with tool calls of these arguments."""
    return Completion(
        model="m",
        content=content,
        tool_calls=tuple(
            ToolCall(id=f"call_{at}", name="send", arguments=each)
            for at, each in enumerate(arguments)
        ),
        finish_reason=FinishReason.STOP,
        usage=Usage(),
    )


def whole(completion: Completion, asked: InferenceRouted, held_to: Policies) -> Released | Refusal:
    """Returns what becomes of a whole answer."""
    return guard_completion(completion, asked, held_to, SEAL)


def replied(completion: Completion, asked: InferenceRouted, held_to: Policies) -> Completion:
    """Returns what the caller gets of an answer that passes."""
    released = whole(completion, asked, held_to)
    assert isinstance(released, Released), released
    return released.reply


def deltas(completion: Completion, size: int) -> list[Delta]:
    """Returns an answer in parts of so many characters, as providers send them."""
    parts = [Delta(content=piece) for piece in cut(completion.content, size)]
    for index, call in enumerate(completion.tool_calls):
        first = ToolCallDelta(index=index, id=call.id, name=call.name)
        parts.append(Delta(tool_calls=(first,)))
        parts += [
            Delta(tool_calls=(ToolCallDelta(index=index, arguments=piece),))
            for piece in cut(call.arguments, size)
        ]
    return parts


def cut(text: str, size: int) -> list[str]:
    """Returns a text in pieces of one size."""
    return [text[start : start + size] for start in range(0, len(text), size)]


def streamed(
    parts: Sequence[Delta], asked: InferenceRouted, held_to: Policies
) -> tuple[list[Delta], Refusal | None]:
    """Returns what the caller sees of parts, and why that ended early."""
    guard = PartGuard(
        held_to, SEAL, tenant="acme", request_id=asked.request.request_id, sealed=asked.sealed
    )
    seen: list[Delta] = []
    for shown in (*(guard.feed(part) for part in parts), guard.finish()):
        if isinstance(shown, Refusal):
            return seen, shown
        seen.append(shown)
    return seen, None


def put_together(parts: Sequence[Delta], completion: Completion) -> Completion:
    """Returns the answer that parts of it amount to; the rest is as in the answer."""
    calls: dict[int, ToolCall] = {}
    for piece in (piece for part in parts for piece in part.tool_calls):
        call = calls.get(piece.index, ToolCall(id="", name="", arguments=""))
        calls[piece.index] = ToolCall(
            id=call.id + piece.id,
            name=call.name + piece.name,
            arguments=call.arguments + piece.arguments,
        )
    return replace(
        completion,
        content="".join(part.content for part in parts),
        tool_calls=tuple(call for _, call in sorted(calls.items())),
    )
