"""What a run tells, put in order: in the form of the OpenAI Responses API's stream.

Source: https://platform.openai.com/docs/api-reference/responses-streaming. The log may have a
record twice, and after a crash one before another; each is heard once, in its place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from schemas.agents import run_of
from schemas.events import AgentTold, FinishReason, InferenceReplied
from schemas.topics import BEHIND
from streams.client.saying import (
    ADDED,
    DONE,
    PART_ADDED,
    PART_DONE,
    TEXT_DELTA,
    TEXT_DONE,
    Saying,
    begins,
    text_of,
)
from streams.replies import Reply

# Why an answer is not whole.
CUT = frozenset({FinishReason.CONTENT_FILTER, FinishReason.LENGTH})
OF_ITEM = ".output_item."
ENDS = frozenset({"response.completed", "response.failed", "response.incomplete"})


class EventsMissing(LookupError):
    """Something that a run told is not on the log, or not any more."""

    def __init__(self, request_id: str, missing: int) -> None:
        super().__init__(f"event {missing} of run {request_id} is not on the log (any more)")
        self.request_id = request_id
        self.missing = missing


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """Something that a run told.

    Attributes:
        seq: 0, 1, 2 and so on within the run; what is heard of a message while it is said has that
            of what was told before.
        kind: What it is, by the name that the Responses API has for it.
        item: The item or, at the beginning and the end, the whole response, in that API's form;
            None where a policy holds back what it says.
        output_index: Which of the items that were heard it is of; None for the response itself. A
            message that was no answer is one only for whoever heard it as it was said.
        at: When.
        told: Whether the log keeps it, for whoever follows later.
        delta: Text that a message grew by.
        reply: The answer; only in the last event.
    """

    seq: int
    kind: str
    item: Mapping[str, Any] | None
    output_index: int | None
    at: datetime
    told: bool = True
    delta: str = ""
    reply: Reply | None = None

    @property
    def is_end(self) -> bool:
        """Whether the run is over with it."""
        return self.kind in ENDS

    def to_openai(self) -> dict[str, Any]:
        """Returns it as an event of that API's stream."""
        said: dict[str, Any] = {"type": self.kind, "sequence_number": self.seq}
        if OF_ITEM in self.kind:
            return {**said, "output_index": self.output_index, "item": self.item}
        if self.item is not None and self.kind in OF_TEXT:
            place = {"item_id": self.item["id"], "output_index": self.output_index}
            return {**said, **place, "content_index": 0, **OF_TEXT[self.kind](self)}
        return {**said, "response": self.item}


@dataclass(slots=True)
class InOrder:
    """Puts what a run tells in order.

    Attributes:
        request_id: The request that began it.
        following: What is heard next.
        ended: Whether the end was heard.
    """

    request_id: str
    following: int = 0
    ended: bool = False
    _ahead: dict[int, RunEvent] = field(default_factory=dict)
    # By the id of an item: which of the run's it is.
    _items: dict[str, int] = field(default_factory=dict)
    # The message that is being said, and the highest number of what is known to have been asked.
    _saying: Saying | None = None
    _latest: int = -1

    @property
    def nothing(self) -> bool:
        """Whether nothing was told."""
        return self.following == 0 and not self._ahead

    def take(self, told: AgentTold) -> Iterator[RunEvent]:
        """Yields what can be heard now that something more was told.

        Raises:
            ValueError: What was told is not in that API's form.
        """
        if told.seq >= self.following:
            self._ahead.setdefault(told.seq, _event(told))
        while (event := self._ahead.pop(self.following, None)) is not None:
            self.following += 1
            self.ended = self.ended or event.is_end
            yield from self._said_before(event)

    def hear(self, part: InferenceReplied) -> Iterator[RunEvent]:
        """Yields what a part of a message adds to what is heard, if that is not told whole yet."""
        run, number = run_of(part.request_id) or ("", -1)
        if not self.following or self.ended or run.rpartition(BEHIND)[0] != self.request_id:
            return
        if number > self._latest and not part.seq:
            yield from self._broken_off(part.replied_at)
            self._saying, self._latest = begins(part), number
        saying = self._saying
        if saying is None or saying.item_id != part.request_id:
            return
        is_first = not saying.texts
        text = saying.hears(part)
        if text and is_first:
            for kind in (ADDED, PART_ADDED):
                yield self._heard(kind, saying.item("in_progress"), part.replied_at)
        if text:
            grown = self._heard(TEXT_DELTA, saying.item("in_progress"), part.replied_at)
            yield replace(grown, delta=text)

    def end(self) -> None:
        """Says that nothing more comes.

        Raises:
            EventsMissing: Something before the last is missing.
        """
        if self._ahead:
            raise EventsMissing(self.request_id, self.following)

    def _said_before(self, event: RunEvent) -> Iterator[RunEvent]:
        """Yields what is told, after the end of what was heard of a message as it was said."""
        saying, item_id = self._saying, str((event.item or {}).get("id"))
        self._latest = max(self._latest, _number(item_id))
        if saying is not None and item_id == saying.item_id:
            if saying.texts and event.kind == ADDED:
                # That it begins was heard.
                for kind in (TEXT_DONE, PART_DONE):
                    yield self._placed(replace(event, kind=kind))
                return
            self._saying = None
        # What was asked before it may be told late.
        elif event.is_end or (saying is not None and _number(item_id) > _number(saying.item_id)):
            yield from self._broken_off(event.at)
        yield self._placed(event)

    def _broken_off(self, at: datetime) -> Iterator[RunEvent]:
        """Yields the end of a message that is never told whole: it was no answer."""
        saying, self._saying = self._saying, None
        if saying is not None and saying.texts:
            for kind in (TEXT_DONE, PART_DONE, DONE):
                yield self._heard(kind, saying.item("incomplete"), at)

    def _heard(self, kind: str, item: Mapping[str, Any], at: datetime) -> RunEvent:
        seq = self.following - 1
        event = RunEvent(seq=seq, kind=kind, item=item, output_index=None, at=at, told=False)
        return self._placed(event)

    def _placed(self, event: RunEvent) -> RunEvent:
        if event.item is None or not (OF_ITEM in event.kind or event.kind in OF_TEXT):
            return event
        index = self._items.setdefault(event.item["id"], len(self._items))
        return replace(event, output_index=index)


def answered(begun: RunEvent | None, seq: int, reply: Reply, at: datetime) -> RunEvent:
    """Returns the end of a run that told none, since a policy looked at its answer first.

    Args:
        begun: What the run told when it began; None where it told nothing.
        seq: The end's.
        reply: The answer, as the policy leaves it.
        at: When it came.
    """
    completion = reply.completion
    status = "incomplete" if completion.finish_reason in CUT else "completed"
    message = {
        "type": "message",
        "id": f"{reply.request_id}/answer",
        "role": "assistant",
        "status": "completed",
        "content": [text_of(completion.content)],
    }
    response = {"status": status, "output": [message]}
    return RunEvent(
        seq=seq,
        kind=f"response.{status}",
        item=None if begun is None or begun.item is None else {**begun.item, **response},
        output_index=None,
        at=at,
        reply=reply,
    )


def _number(item_id: str) -> int:
    """Returns the number of the call that an item is of; -1 for one that is of none."""
    asked = run_of(item_id.removesuffix("/output"))
    return -1 if asked is None else asked[1]


def _delta(event: RunEvent) -> dict[str, Any]:
    return {"delta": event.delta, "logprobs": []}


def _part(event: RunEvent) -> dict[str, Any]:
    [part] = (event.item or {})["content"] or [text_of("")]
    return {"part": part}


def _text(event: RunEvent) -> dict[str, Any]:
    return {"text": _part(event)["part"]["text"], "logprobs": []}


# What an event of a message's text says of it in that API's form.
OF_TEXT: dict[str, Callable[[RunEvent], dict[str, Any]]] = {
    PART_ADDED: _part,
    PART_DONE: _part,
    TEXT_DELTA: _delta,
    TEXT_DONE: _text,
}


def _event(told: AgentTold) -> RunEvent:
    item = None if told.item is None else json.loads(told.item)
    if item is not None and not (isinstance(item, dict) and isinstance(item.get("id"), str)):
        raise ValueError(f"event {told.seq} of run {told.request_id} is no item with an id")
    return RunEvent(seq=told.seq, kind=told.kind, item=item, output_index=None, at=told.told_at)
