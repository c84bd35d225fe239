"""A message of the model as it is said, before the run tells of it whole.

What is heard of it is one try at it from its beginning and without a gap: where a part is missing,
or another try begins, nothing more is heard of it until it is told whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.events import InferenceReplied

ADDED, DONE = "response.output_item.added", "response.output_item.done"
PART_ADDED, PART_DONE = "response.content_part.added", "response.content_part.done"
TEXT_DELTA, TEXT_DONE = "response.output_text.delta", "response.output_text.done"

Item = Mapping[str, Any]


@dataclass(slots=True)
class Saying:
    """A message on its way.

    Attributes:
        item_id: Its id: that of the request for the turn.
        attempt: Which try at it is heard, with ``epoch``.
        epoch: When that try began.
        texts: What was heard of it.
    """

    item_id: str
    attempt: int
    epoch: int
    texts: list[str] = field(default_factory=list)
    _following: int = 0

    def hears(self, part: InferenceReplied) -> str:
        """Returns what a part adds; empty where it adds nothing, or is not what comes next."""
        if (part.attempt, part.epoch, part.seq) != (self.attempt, self.epoch, self._following):
            return ""
        self._following += 1
        text = part.delta.content if part.delta else ""
        if text:
            self.texts.append(text)
        return text

    def item(self, status: str) -> Item:
        """Returns the message as far as it has come."""
        content: list[Item] = [] if status == "in_progress" else [text_of("".join(self.texts))]
        return {
            "type": "message",
            "id": self.item_id,
            "role": "assistant",
            "status": status,
            "content": content,
        }


def begins(part: InferenceReplied) -> Saying:
    """Returns the message whose first part this is."""
    return Saying(part.request_id, part.attempt, part.epoch)


def text_of(text: str) -> dict[str, Any]:
    """Returns a text as the content of a message."""
    return {"type": "output_text", "text": text, "annotations": []}
