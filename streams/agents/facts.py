"""Facts: what a model writes down about who asks, in an index, and finds there in later runs.

The index is asked in the name of the process of agents: callers have no right to it, and need none.
Whose a fact is stands in its row and in every search; the model has no say in that.
"""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

from schemas.events import Completion, InferenceRequested, Task
from schemas.indexes import IndexSpec
from schemas.search import Found, Search, Write, Written, read
from schemas.topics import REPLY
from streams.agents.run import Run
from streams.guards.placeholders import past

KEY, TEXT = "id", "fact"
# Whose a fact is: the gateway lets no policy mask these.
OWNER = ("tenant", "principal")
COLUMNS = (*OWNER, "at")
# Characters of one.
MOST_CHARACTERS = 2_000
# Of one search.
MOST_FACTS = 20


def unfit(index: IndexSpec) -> str | None:
    """Returns why facts cannot be kept in an index; None where they can."""
    lacks = [name for name in COLUMNS if name not in {each.name for each in index.columns}]
    if index.source is not None:
        return f"it follows its table {index.source}"
    if index.key_columns != (KEY,):
        return f"its key_columns are not just {KEY}"
    if index.text != TEXT or index.chunking.by != "none":
        return f"its text is not {TEXT}, in one piece"
    return f"it lacks the columns {', '.join(lacks)}" if lacks else None


def remembering(run: Run, asked: InferenceRequested, said: dict[str, Any]) -> InferenceRequested:
    """Returns the request that writes a fact down; the same fact is written once."""
    # What policies withhold from the run, no later one is to be told as something else.
    fact = past(said[TEXT])
    owner = _owner(run)
    row = {KEY: _id(owner, fact), TEXT: fact, **owner, "at": asked.requested_at.isoformat()}
    write = Write(operation="upsert", rows=(row,))
    return replace(
        _own(run, asked), task=Task.WRITE, search=write.model_dump_json(exclude_defaults=True)
    )


def recalling(run: Run, asked: InferenceRequested, said: dict[str, Any]) -> InferenceRequested:
    """Returns the request that searches for facts about who asks."""
    search = Search(k=said.get("k", MOST_FACTS), filters=_owner(run), columns=("at",))
    return replace(
        _own(run, asked),
        task=Task.SEARCH,
        query=said["query"],
        search=search.model_dump_json(exclude_defaults=True),
    )


def remembered(completion: Completion) -> str:
    """Returns what the model is told of a fact that was written down.

    Raises:
        FormInvalid: The answer is none.
    """
    written = read(completion.found, Written)
    if written.failed:
        return json.dumps({"error": {"kind": "unwritten", "message": written.failed[0].reason}})
    return json.dumps({"result": "remembered"})


def recalled(completion: Completion) -> str:
    """Returns what the model is told of facts that were found.

    Raises:
        FormInvalid: The answer is none.
    """
    hits = read(completion.found, Found).hits
    facts = [{TEXT: hit.text, **hit.columns} for hit in hits]
    return json.dumps({"result": facts}, ensure_ascii=False)


def tenant_of(run: Run) -> str:
    """Returns the tenant of whoever runs agents, in whose name facts are asked for."""
    return run.reply_to.removeprefix(f"{REPLY.name}.")


def _own(run: Run, asked: InferenceRequested) -> InferenceRequested:
    """Returns a request that whoever runs agents makes for itself: who signed it is who acts."""
    return replace(asked, tenant=tenant_of(run), principal="")


def _owner(run: Run) -> dict[str, str]:
    request = run.request
    return {"tenant": request.tenant, "principal": request.principal}


def _id(owner: dict[str, str], fact: str) -> str:
    return sha256(json.dumps([*owner.values(), fact]).encode()).hexdigest()
