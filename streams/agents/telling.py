"""What a caller is told of a run, in the form of the OpenAI Responses API.

Source: https://platform.openai.com/docs/api-reference/responses-streaming. Annotations have three
members beside those of that form: the key, the version and the position of what is cited. Why a run
failed, or came to no whole answer, is told by names of ours where that API has some of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from schemas.events import Refusal, Usage
from schemas.openai import parsed
from streams.agents.asking import approval_id
from streams.agents.run import Call, Citation, Run

Item = dict[str, Any]

# Passages of which an answer tells where they are from.
MOST_MARKS = 1000
MARK = re.compile(r"\[(\d{1,9}\.\d{1,9})\]")


def response(
    run: Run,
    status: str,
    *,
    incomplete: str | None = None,
    error: Refusal | None = None,
    output: Sequence[Any] = (),
) -> Item:
    """Returns how a run stands.

    Args:
        run: The run.
        status: in_progress, completed, incomplete, failed or cancelled.
        incomplete: Why it is incomplete.
        error: Why there is no answer.
        output: The answer.
    """
    failed = None if error is None else {"code": error.reason, "message": error.message}
    return {
        "id": run.request.request_id,
        "object": "response",
        "created_at": int(run.request.requested_at.timestamp()),
        "status": status,
        "model": run.definition.agent,
        "output": list(output),
        "parallel_tool_calls": run.definition.limits.parallel > 1,
        "tool_choice": "auto",
        "tools": [],
        "previous_response_id": run.request.previous,
        "error": failed,
        "incomplete_details": None if incomplete is None else {"reason": incomplete},
        "usage": None if status == "in_progress" else _usage(run.usage),
    }


def message(run: Run, call: Call, content: str, *, final: bool = False) -> Item:
    """Returns what the model said in a turn, with what it cites.

    An answer that names no passage rests on all that were found.
    """
    annotations = list(_named(content, run.citations))
    if final and not annotations:
        own = (each for each in run.citations if each.call >= run.first_number)
        annotations = [_annotation(each, len(content)) for each in own]
    said = {"type": "output_text", "text": content, "annotations": annotations}
    return {
        "type": "message",
        "id": run.call_id(call),
        "role": "assistant",
        "status": "completed",
        "content": [said],
    }


def function_call(run: Run, call: Call, status: str) -> Item:
    """Returns a call that the model asks for; its status is in_progress or completed."""
    return {
        "type": "function_call",
        "id": run.call_id(call),
        "call_id": call.tool_call_id,
        "name": call.name,
        "arguments": call.arguments,
        "status": status,
    }


def function_call_output(run: Run, call: Call) -> Item:
    """Returns what a call came to."""
    return {
        "type": "function_call_output",
        "id": f"{run.call_id(call)}/output",
        "call_id": call.tool_call_id,
        "output": call.result,
        "status": "completed",
    }


def approval_request(run: Run, call: Call) -> Item:
    """Returns that a call waits for a person."""
    return {
        "type": "mcp_approval_request",
        "id": approval_id(run.call_id(call)),
        "server_label": run.tool(call).target,
        "name": call.name,
        "arguments": call.arguments,
    }


def approval_response(run: Run, call: Call, reason: str, *, granted: bool) -> Item:
    """Returns what a person decided."""
    name = approval_id(run.call_id(call))
    return {
        "type": "mcp_approval_response",
        "id": f"{name}/response",
        "approval_request_id": name,
        "approve": granted,
        "reason": reason,
    }


def _named(content: str, citations: Sequence[Citation]) -> Iterator[Item]:
    known = {citation.mark: citation for citation in citations}
    for match in islice(MARK.finditer(content), MOST_MARKS):
        if citation := known.get(match[1]):
            yield _annotation(citation, match.start())


def _annotation(citation: Citation, index: int) -> Item:
    return {
        "type": "file_citation",
        "index": index,
        "file_id": f"{citation.index}/{citation.key}",
        "filename": citation.source or citation.index,
        "key": parsed(citation.key),
        "version": citation.version,
        "position": citation.position,
    }


def _usage(usage: Usage) -> Item:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
