"""What the inference table has of a run: what it cost, and all that is known without a journal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from infra.figures import anything
from infra.lake import query
from schemas.events import Outcome
from schemas.topics import BEHIND
from streams.runs.node import Node, State

STATES: Mapping[str, State] = {
    Outcome.CANCELLED: "cancelled",
    Outcome.COMPLETED: "completed",
}
# What a request asked, by a field that it has alone.
KINDS = {"arguments": "function", "messages": "turn", "search": "index", "write": "index"}

Row = Mapping[str, Any]


def rows(root: Path, request_id: str) -> list[Row]:
    """Returns the rows of a run's request and of all that it asked, in the order of asking.

    Raises:
        QueryInvalid: The lake cannot be asked.
    """
    if not anything(root):
        return []
    found = query(
        root,
        "SELECT request_id, endpoint, model, outcome, reason, message, request, response, "
        "prompt_tokens, completion_tokens, cost, requested_at, elapsed_ms FROM inferences "
        "WHERE request_id = $id OR starts_with(request_id, $below) ORDER BY requested_at",
        {"id": request_id, "below": f"{request_id}{BEHIND}"},
    )
    return list(found.to_pylist())


def priced(node: Node, found: Sequence[Row]) -> None:
    """Says in a tree what the table knows better: what each request cost."""
    by_id = {row["request_id"]: row for row in found}
    for each in node.walk():
        row = by_id.get(each.request_id)
        if row is not None and each.kind != "run":
            each.cost, each.model = row["cost"], each.model or row["model"] or ""
        elif row is not None and each.state == "ended":
            each.state = _state(row)


def rebuilt(request_id: str, found: Sequence[Row]) -> Node | None:
    """Returns what the table has of a run as a tree; None where it has nothing."""
    if not found:
        return None
    nodes = {row["request_id"]: _node(row) for row in found}
    root = nodes.setdefault(request_id, Node(request_id=request_id, kind="", name=""))
    for name, node in nodes.items():
        if name != request_id:
            # An id is its run's request, its tenant, a number.
            parent = name.rpartition(BEHIND)[0].rpartition(BEHIND)[0]
            nodes.get(parent, root).below.append(node)
    for node in nodes.values():
        if node.below:
            # What a run used is what it asked for used.
            node.kind, node.cost = "run", None
    return root


def _node(row: Row) -> Node:
    asked = json.loads(row["request"])
    kind = next((kind for field, kind in KINDS.items() if field in asked), "")
    ended = row["requested_at"] + timedelta(milliseconds=row["elapsed_ms"])
    return Node(
        request_id=row["request_id"],
        kind=kind,
        name=row["endpoint"],
        state=_state(row),
        said=_text(asked.get("arguments")) if kind == "function" else "",
        reason=f"{row['reason']}: {row['message']}" if row["reason"] else "",
        model=row["model"] or "",
        asked_at=row["requested_at"],
        ended_at=ended,
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        cost=row["cost"],
    )


def _state(row: Row) -> State:
    return STATES.get(row["outcome"], "failed")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
