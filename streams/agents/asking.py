"""What a run asks of others: each a request like any other, under the caller's name.

So the caller's grants, limits and budgets hold for all that an agent asks for it; but for facts.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from schemas.events import (
    ApprovalWanted,
    InferenceRequested,
    Message,
    Role,
    Sampling,
    Task,
    Tool,
)
from schemas.openai import parsed
from schemas.search import Search
from streams.agents import facts, summarising
from streams.agents.run import Call, Run
from streams.agents.trimming import left_out

# The label of what a run asks for: the agent, for costs and search.
AGENT_TAG = "agent"


def turn(run: Run, call: Call, now: datetime) -> InferenceRequested:
    """Returns the request for a turn of the model."""
    definition = run.definition
    output = definition.output
    heard = run.request.stream and not run.quiet
    return replace(
        _asked(run, call, definition.endpoint, now),
        messages=run.messages,
        sampling=run.request.sampling,
        json_schema=None if output is None else json.dumps(output, ensure_ascii=False),
        tools=tuple(
            Tool(
                name=name,
                description=tool.description,
                parameters=json.dumps(tool.parameters, ensure_ascii=False),
            )
            for name, tool in definition.tools.items()
        ),
        tool_choice=run.to_call or "auto",
        stream=heard,
        parts_to=(run.request.parts_to or run.request.reply_to) if heard else None,
    )


def summary(run: Run, call: Call, now: datetime) -> InferenceRequested:
    """Returns the request for a summary of what is left out of the next turn."""
    asked = _asked(run, call, run.definition.endpoint, now)
    gone = left_out(run.conversation, run.transcript)
    return replace(_in_time(asked, run), messages=summarising.question(gone))


def tool_call(run: Run, call: Call, now: datetime) -> InferenceRequested:
    """Returns the request that a right call of a tool asks with."""
    asked = _asked(run, call, run.tool(call).target, now)
    return TASKS[call.kind](run, call, _in_time(asked, run))


def approval(run: Run, call: Call, now: datetime) -> ApprovalWanted:
    """Returns that a call waits for a person."""
    tool, call_id = run.tool(call), run.call_id(call)
    return ApprovalWanted(
        approval_id=approval_id(call_id),
        tenant=run.request.tenant,
        request_id=call_id,
        principal=run.request.principal or run.request.tenant,
        endpoint=tool.target,
        stage="input",
        question=f"may {run.definition.agent} call the {tool.kind} {tool.target}?",
        deciders=(tool.target, run.definition.agent),
        wanted_at=now,
        until=run.deadline,
        reply_to=run.reply_to,
    )


def approval_id(call_id: str) -> str:
    """Returns the name of the approval that a call waits for."""
    return str(uuid5(NAMESPACE_URL, call_id))


def _function(run: Run, call: Call, asked: InferenceRequested) -> InferenceRequested:
    version = run.tool(call).version
    return replace(
        asked,
        task=Task.TOOL,
        inputs=(call.arguments,),
        version=None if version is None else str(version),
    )


def _index(run: Run, call: Call, asked: InferenceRequested) -> InferenceRequested:
    said = _arguments(call)
    given = {name: said[name] for name in ("k", "filters") if name in said}
    search = Search(**given).model_dump_json(exclude_unset=True)
    return replace(asked, task=Task.SEARCH, query=said["query"], search=search)


def _agent(run: Run, call: Call, asked: InferenceRequested) -> InferenceRequested:
    said = Message(role=Role.USER, content=_arguments(call)["message"])
    return replace(asked, task=Task.AGENT, messages=(said,))


def _handoff(run: Run, call: Call, asked: InferenceRequested) -> InferenceRequested:
    # Without its instructions, and without the turn that hands over.
    said = run.messages[bool(run.definition.instructions) : -1]
    return replace(asked, task=Task.AGENT, messages=said, sampling=run.request.sampling)


def _recall(run: Run, call: Call, asked: InferenceRequested) -> InferenceRequested:
    return facts.recalling(run, asked, _arguments(call))


def _remember(run: Run, call: Call, asked: InferenceRequested) -> InferenceRequested:
    return facts.remembering(run, asked, _arguments(call))


TASKS: dict[str, Callable[[Run, Call, InferenceRequested], InferenceRequested]] = {
    "agent": _agent,
    "function": _function,
    "handoff": _handoff,
    "index": _index,
    "recall": _recall,
    "remember": _remember,
}


def _arguments(call: Call) -> dict[str, Any]:
    said = parsed(call.arguments)
    return said if isinstance(said, dict) else {}


def _in_time(asked: InferenceRequested, run: Run) -> InferenceRequested:
    """Returns a request whose asker has time to say something, still, when it takes too long."""
    left = run.deadline - asked.requested_at
    patience = timedelta(milliseconds=left // timedelta(milliseconds=1) * 9 // 10)
    return replace(asked, deadline=asked.requested_at + patience)


def _asked(run: Run, call: Call, endpoint: str, now: datetime) -> InferenceRequested:
    caller = run.request
    return InferenceRequested(
        request_id=run.call_id(call),
        tenant=caller.tenant,
        principal=caller.principal,
        endpoint=endpoint,
        messages=(),
        sampling=Sampling(),
        reply_to=run.reply_to,
        requested_at=now,
        deadline=run.deadline,
        tags={**caller.tags, AGENT_TAG: run.definition.agent},
    )
