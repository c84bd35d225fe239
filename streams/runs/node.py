"""What is known of a run, as a tree: the run, its turns, what they called, and runs below those."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

State = Literal["running", "waits", "completed", "failed", "cancelled", "ended"]


@dataclass(slots=True, kw_only=True)
class Node:
    """Something that was asked: a run, a turn of its model, or a call.

    Attributes:
        request_id: The request that asked.
        kind: run, turn, or the kind of a call; empty where that is not known.
        name: What was asked, by its name in the catalog.
        tenant: Who pays for a run; empty for what it asks.
        state: How far it is; ended where it is not known how.
        said: What was asked of it; empty where that is held back.
        result: What it came to; empty where that is held back, or still to come.
        reason: Why it came to nothing, where it did.
        approval: Name of the approval that it waits for, or waited for.
        model: The model that answered.
        asked_at: When it was asked.
        ended_at: When it ended; None where it goes on.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens produced.
        cost: US dollars; None where the inference table does not know, or not yet.
        below: What it asked, in order.
    """

    request_id: str
    kind: str
    name: str
    tenant: str = ""
    state: State = "running"
    said: str = ""
    result: str = ""
    reason: str = ""
    approval: str = ""
    model: str = ""
    asked_at: datetime | None = None
    ended_at: datetime | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Decimal | None = None
    below: list[Node] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        """Yields it and all below it."""
        yield self
        for each in self.below:
            yield from each.walk()

    def add_up(self) -> None:
        """Has each run tell what all that it asked used together."""
        for run in (each for each in self.walk() if each.kind == "run"):
            asked = [each for each in run.walk() if each.kind != "run"]
            run.prompt_tokens = sum(each.prompt_tokens for each in asked)
            run.completion_tokens = sum(each.completion_tokens for each in asked)
            costs = [each.cost for each in asked if each.cost is not None]
            if run.cost is None and costs:
                run.cost = sum(costs, Decimal(0))

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON object: moments in ISO 8601, the cost as an exact decimal."""
        return {
            "request_id": self.request_id,
            "kind": self.kind,
            "name": self.name,
            "tenant": self.tenant,
            "state": self.state,
            "said": self.said,
            "result": self.result,
            "reason": self.reason,
            "approval": self.approval,
            "model": self.model,
            "asked_at": _iso(self.asked_at),
            "ended_at": _iso(self.ended_at),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost": None if self.cost is None else f"{self.cost:f}",
            "below": [each.to_json() for each in self.below],
        }


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()
