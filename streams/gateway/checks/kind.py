"""Whether what is asked is of the kind that is asked for: agents, functions, indexes, endpoints."""

from __future__ import annotations

from datetime import datetime

from infra.catalog import CatalogView
from schemas.events import Reason, Refusal, Task
from streams.gateway.asked import Asked

# What only one kind is asked for; an endpoint is asked for all else.
ONLY: dict[Task, str] = {
    Task.AGENT: "agent",
    Task.SEARCH: "index",
    Task.TOOL: "function",
    Task.WRITE: "index",
}
# The kinds with their articles, and what each is there for.
ARTICLES = {
    "agent": "an agent",
    "endpoint": "an endpoint",
    "function": "a function",
    "index": "an index",
}
TODO = {
    "agent": "give it messages with task AGENT",
    "function": "call it with task TOOL",
    "index": "search it",
}


def kind_fits(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """An agent and a function are run, an index is searched and written to, an endpoint does more.

    Of indexes, only what has no source is written to: what a table says comes from there alone.
    """
    task, name = asked.request.task, asked.request.endpoint
    kind, wanted = view.endpoints[name].kind, ONLY.get(task, "endpoint")
    other = f"{ARTICLES[wanted]} for {task.lower()}"
    if kind == wanted:
        return _follows_table(task, name, view) if kind == "index" else None
    if kind == "endpoint":
        return _invalid("endpoint", f"{name} is an endpoint: name {other}")
    return _invalid("task", f"{name} is {ARTICLES[kind]}: {TODO[kind]}, or ask {other}")


def _follows_table(task: Task, name: str, view: CatalogView) -> Refusal | None:
    source = view.indexes[name].source
    if task is not Task.WRITE or source is None:
        return None
    return _invalid(
        "endpoint",
        f"{name} follows its table {source}: change rows there, or write to an index without a "
        "source",
    )


def _invalid(field: str, message: str) -> Refusal:
    return Refusal(reason=Reason.REQUEST_INVALID, message=message, field=field)
