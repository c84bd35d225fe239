"""Runs on the screen: a tree of one, a table of several, and what one tells as it goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from streams.client.told import RunEvent
from streams.lines import plain
from streams.runs.node import Node

COLOURS = {
    "cancelled": "dim",
    "completed": "green",
    "ended": "dim",
    "failed": "red",
    "running": "yellow",
    "waits": "magenta",
}
HEADINGS = ("run", "agent", "state", "began", "took", "tokens", "cost $", "asked")
# Characters of a text.
MOST = 100
CUT = "..."


def tree(node: Node, now: datetime) -> Tree:
    """Returns a run with all that it asked.

    Args:
        node: The run.
        now: Until when what goes on has taken.
    """
    drawn = Tree(_label(node, now))
    _grow(drawn, node, now)
    return drawn


def table(nodes: Sequence[Node], now: datetime) -> Table:
    """Returns runs, a line each."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        shown.add_column(heading, no_wrap=heading != "asked")
    for node in nodes:
        shown.add_row(
            node.request_id,
            Text(node.name),
            Text(node.state, COLOURS[node.state]),
            "" if node.asked_at is None else f"{node.asked_at:%Y-%m-%d %H:%M:%SZ}",
            took(node, now),
            f"{node.prompt_tokens} + {node.completion_tokens}",
            "" if node.cost is None else f"{node.cost.normalize():f}",
            Text(short(node.said)),
        )
    return shown


def step(event: RunEvent) -> Iterator[str]:
    """Yields in words what a run tells, if it is of interest to people."""
    item = event.item
    if item is None:
        if event.kind.endswith("item.done"):
            yield "(a policy holds back what this step says)"
        return
    if event.kind == "response.created":
        yield f"run {item['id']}"
    words = WORDS.get((str(item.get("type")), event.kind.rpartition(".")[2]))
    if words is not None:
        yield from words(item)


def citations(message: Mapping[str, Any]) -> Iterator[str]:
    """Yields what an answer cites, each once."""
    seen = set()
    for part in message.get("content", ()):
        for each in part.get("annotations", ()):
            cited = f"{each['filename']} {json.dumps(each.get('key'), ensure_ascii=False)}"
            if cited not in seen:
                seen.add(cited)
                yield plain(cited)


def short(text: str) -> str:
    """Returns the beginning of a text, on one line."""
    line = " ".join(plain(text.replace("\n", " ")).split())
    return line if len(line) <= MOST else line[: MOST - len(CUT)] + CUT


def took(node: Node, now: datetime) -> str:
    """Returns how long something took, or takes so far; empty where it has not begun."""
    if node.asked_at is None:
        return ""
    seconds = ((node.ended_at or now) - node.asked_at).total_seconds()
    return f"{seconds:.1f} s"


def _called(item: Mapping[str, Any]) -> Iterator[str]:
    yield f"-> {plain(item['name'])} {short(item['arguments'])}"


def _came(item: Mapping[str, Any]) -> Iterator[str]:
    yield f"<- {short(item['output'])}"


def _wanted(item: Mapping[str, Any]) -> Iterator[str]:
    yield f"?? may it call {plain(item['name'])} {short(item['arguments'])}"
    yield f'   tessera approvals approve {item["id"]} --reason "..."   (or deny)'


def _decided(item: Mapping[str, Any]) -> Iterator[str]:
    reason = f": {short(item['reason'])}" if item.get("reason") else ""
    yield f"?? {'approved' if item['approve'] else 'denied'}{reason}"


# By the type of an item, and whether it begins or is there.
WORDS = {
    ("function_call", "added"): _called,
    ("function_call_output", "done"): _came,
    ("mcp_approval_request", "done"): _wanted,
    ("mcp_approval_response", "done"): _decided,
}


def _grow(drawn: Tree, node: Node, now: datetime) -> None:
    for each in node.below:
        _grow(drawn.add(_label(each, now)), each, now)


def _label(node: Node, now: datetime) -> Text:
    label = Text(f"{node.kind} {node.name}".strip(), "bold" if node.kind == "run" else "")
    label.append(f"  {node.state}", COLOURS[node.state])
    for word in _figures(node, now):
        label.append(f"  {word}", "dim")
    if node.said and node.kind != "turn":
        label.append(f"\n{short(node.said)}")
    if node.state == "waits":
        label.append(f"\ntessera approvals approve {node.approval}", "magenta")
    if node.reason:
        label.append(f"\n{plain(node.reason)}", "red")
    # What a turn called for stands below it.
    if node.result and not node.below:
        label.append(f"\n= {short(node.result)}")
    return label


def _figures(node: Node, now: datetime) -> Iterator[str]:
    if node.kind == "run" and node.asked_at is not None:
        yield f"{node.asked_at:%Y-%m-%d %H:%M:%SZ}"
    if length := took(node, now):
        yield length
    if node.prompt_tokens or node.completion_tokens:
        yield f"{node.prompt_tokens} + {node.completion_tokens} tokens"
    if node.cost:
        yield f"${node.cost.normalize():f}"
    if node.model and node.kind == "turn":
        yield node.model
