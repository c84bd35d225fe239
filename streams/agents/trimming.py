"""A conversation that outgrew what the model reads: what is left out of it, oldest first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from schemas.events import Message, Role

# Characters of a conversation: all of them, in whatever script, fit a record many times.
MOST_SAID = 400_000
LEFT_OUT = "[left out: the conversation outgrew what the model reads at once]"


def trimmed(
    conversation: Sequence[Message], transcript: Sequence[Message]
) -> tuple[tuple[Message, ...], tuple[Message, ...]] | None:
    """Returns about half of a conversation and of what was said since; None where nothing can go.

    What the model is told first stays, and so does the caller's last message. The oldest results
    of tools go first, then the oldest turns; a call never goes without its results.
    """
    shorter = _shorter(conversation, transcript)
    if shorter is None:
        return None
    border = len(conversation)
    return (
        tuple(message for number, message in shorter.items() if number < border),
        tuple(message for number, message in shorter.items() if number >= border),
    )


def left_out(conversation: Sequence[Message], transcript: Sequence[Message]) -> tuple[Message, ...]:
    """Returns the messages that ``trimmed`` leaves out, or takes the content from, as they are."""
    shorter = _shorter(conversation, transcript)
    if shorter is None:
        return ()
    said = enumerate((*conversation, *transcript))
    return tuple(message for number, message in said if shorter.get(number) != message)


def spoken(messages: Iterable[Message]) -> int:
    """Returns how many of these messages are the model's."""
    return sum(message.role is Role.ASSISTANT for message in messages)


def size(messages: Iterable[Message]) -> int:
    """Returns how many characters messages have."""
    return sum(
        len(message.content)
        + sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
        for message in messages
    )


def _shorter(
    conversation: Sequence[Message], transcript: Sequence[Message]
) -> dict[int, Message] | None:
    """Returns what stays, by its place; None where all of it does."""
    said: dict[int, Message] = dict(enumerate((*conversation, *transcript)))
    groups = list(_groups(said, _kept(conversation)))
    left = size(said[number] for group in groups for number in group)
    most, shorter = left // 2, dict(said)
    for number in (number for group in groups for number in group):
        if left <= most:
            break
        shorter[number] = _emptied(said[number])
        left -= size([said[number]]) - size([shorter[number]])
    for number in (number for group in _until(groups, shorter, left - most) for number in group):
        del shorter[number]
    return None if shorter == said else shorter


def _kept(conversation: Sequence[Message]) -> frozenset[int]:
    """Returns which messages of a conversation stay."""
    kept = {n for n, message in enumerate(conversation) if message.role is Role.SYSTEM}
    asked = [n for n, message in enumerate(conversation) if message.role is Role.USER]
    return frozenset({*kept, *asked[-1:]})


def _groups(said: dict[int, Message], kept: frozenset[int]) -> Iterator[tuple[int, ...]]:
    """Yields what can go, oldest first: messages, and calls together with their results."""
    group: list[int] = []
    for number, message in said.items():
        if message.role is not Role.TOOL and group:
            yield tuple(group)
            group = []
        if number not in kept:
            group.append(number)
    if group:
        yield tuple(group)


def _until(
    groups: Iterable[tuple[int, ...]], said: dict[int, Message], surplus: int
) -> list[tuple[int, ...]]:
    """Returns the oldest groups that have so many characters together."""
    gone: list[tuple[int, ...]] = []
    for group in groups:
        if surplus <= 0:
            break
        surplus -= size(said[number] for number in group)
        gone.append(group)
    return gone


def _emptied(message: Message) -> Message:
    if message.role is Role.TOOL and len(message.content) > len(LEFT_OUT):
        return replace(message, content=LEFT_OUT)
    return message
