"""Calls of tools within one turn: which go, which wait, and what each came to."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import replace

from schemas.events import Completion, InferenceReplied, Message, Reason, Role, ToolCall
from schemas.openai import parsed
from schemas.topics import APPROVAL_WANTED, INFERENCE_REQUESTED
from streams.agents import asking, results, telling
from streams.agents.causes import Decided
from streams.agents.checking import CUT, Wrong, as_cut, is_object, wrong_arguments
from streams.agents.progress import ADDED, DONE, Progress
from streams.agents.run import Call, CallState, Citation, Run
from streams.guards.placeholders import plain

# In one turn.
MOST_CALLS = 128
# Passages of which a run knows where they are from: the latest.
MOST_CITATIONS = 1_000
# What every provider takes as the name of a tool.
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
UNNAMED = "unknown"
# Characters of a name that the model made up, in what it is told.
MOST_QUOTED = 64


def called(progress: Progress, completion: Completion) -> list[Wrong | None]:
    """Takes in what the model asks for; returns what is wrong with each call, None if nothing."""
    run = progress.run
    calls = _numbered(run, completion)
    wrongs = [_wrong(run, call, alone=len(calls) == 1) for call in calls]
    # Only the last can have been cut: the others were said to their end.
    wrongs[-1] = as_cut(wrongs[-1], completion.finish_reason)
    progress.run = replace(
        run,
        transcript=(*run.transcript, _said(completion.content, calls)),
        calls=tuple(
            replace(call, state=_first_state(run, call, wrong))
            for call, wrong in zip(calls, wrongs, strict=True)
        ),
        next_number=run.next_number + len(calls),
    )
    for call, wrong in zip(calls, wrongs, strict=True):
        if wrong is None and call.name == progress.run.to_call:
            progress.run = replace(progress.run, planned=progress.run.planned + 1)
    for call in progress.run.calls:
        progress.add(ADDED, telling.function_call(run, call, "in_progress"))
    for call, wrong in zip(progress.run.calls, wrongs, strict=True):
        if wrong is not None:
            settle(progress, call, results.failed("arguments", wrong.said))
        elif call.state == "approval":
            progress.emit(APPROVAL_WANTED, asking.approval(run, call, progress.now))
            progress.add_whole(telling.approval_request(run, call))
    return wrongs


def answered(progress: Progress, call: Call, replied: InferenceReplied) -> None:
    """Takes in what a tool answered."""
    target = progress.run.tool(call).target
    text, citations = results.outcome(call, target, replied)
    known = sorted((*progress.run.citations, *citations), key=_place)
    progress.run = replace(progress.run, citations=tuple(known[-MOST_CITATIONS:]))
    settle(progress, call, text)


def decided(progress: Progress, call: Call, decision: Decided) -> None:
    """Takes in that a person lets a call go on, or does not."""
    response = telling.approval_response(
        progress.run, call, decision.reason, granted=decision.granted
    )
    progress.add_whole(response)
    if decision.granted:
        progress.run = progress.run.put(replace(call, state="ready"))
        return
    by = f"{decision.principal} denied it" if decision.principal else "nobody approved in time"
    said = f"{by}: {decision.reason}" if decision.reason else by
    settle(progress, call, results.failed(Reason.APPROVAL_DENIED, said))


def settle(progress: Progress, call: Call, result: str) -> None:
    """Keeps what a call came to."""
    settled = replace(call, state="answered", result=result)
    progress.run = progress.run.put(settled)
    progress.add(DONE, telling.function_call(progress.run, settled, "completed"))
    progress.add_whole(telling.function_call_output(progress.run, settled))


def ask_ready(progress: Progress) -> None:
    """Asks for calls that are ready, as many as may be under way at once."""
    for call in progress.run.calls:
        if progress.run.under_way >= progress.run.definition.limits.parallel:
            return
        if call.state == "ready":
            asked = asking.tool_call(progress.run, call, progress.now)
            progress.emit(INFERENCE_REQUESTED, asked)
            progress.run = progress.run.put(replace(call, state="asked"))


def told(run: Run) -> tuple[Message, ...]:
    """Returns what the calls of a turn came to, as the model is told it."""
    return tuple(
        Message(role=Role.TOOL, content=call.result, tool_call_id=call.tool_call_id)
        for call in run.calls
    )


def _numbered(run: Run, completion: Completion) -> list[Call]:
    """Returns the calls that a model asks for, each under an id that no other has.

    Models repeat ids, or give none, and results are bound to calls by them.
    """
    taken = {call.id for message in run.messages for call in message.tool_calls}
    calls = []
    for number, call in enumerate(completion.tool_calls, start=run.next_number):
        tool = run.definition.tools.get(call.name)
        tool_call_id = _fresh(call.id, number, taken)
        taken.add(tool_call_id)
        calls.append(
            Call(
                number=number,
                kind="unknown" if tool is None else tool.kind,
                state="ready",
                name=call.name,
                tool_call_id=tool_call_id,
                # Some models say nothing where there are no arguments.
                arguments=call.arguments if call.arguments.strip() else "{}",
            )
        )
    if completion.finish_reason in CUT:
        # It may have been cut before its arguments, and is not to be made without them.
        calls[-1] = replace(calls[-1], arguments=completion.tool_calls[-1].arguments)
    return calls


def _fresh(wanted: str, number: int, taken: Collection[str]) -> str:
    fresh = wanted or f"call_{number}"
    while fresh in taken:
        fresh = f"{fresh}_{number}"
    return fresh


def _wrong(run: Run, call: Call, *, alone: bool) -> Wrong | None:
    tools = run.definition.tools
    if call.kind == "unknown":
        offered = ", ".join(tools) or "none"
        said = f"there is no tool {call.name[:MOST_QUOTED]!r}; there are: {offered}"
        return Wrong(said=said, named="a tool that is not offered")
    if call.kind == "handoff" and not alone:
        said = f"{call.name} is called by itself: see what the others come to, then call it"
        return Wrong(said=said, named=said)
    wrong = wrong_arguments(call.arguments, tools[call.name].parameters)
    if wrong is None:
        return None if tools[call.name].pure else _disguised(run, call)
    return Wrong(said=wrong.said, named=f"the arguments of {call.name}: {wrong.named}")


def _disguised(run: Run, call: Call) -> Wrong | None:
    """Returns that a call would act on what stands for something else; None where it does not."""
    arguments = plain(json.dumps(parsed(call.arguments), ensure_ascii=False))
    for each in run.withheld:
        if each in arguments:
            said = f"{each} stands for what a policy withholds, and {call.name} would act on it"
            return Wrong(said=said, named=f"{call.name} would act on what a policy withholds")
    return None


def _first_state(run: Run, call: Call, wrong: Wrong | None) -> CallState:
    if wrong is not None:
        return "answered"
    return "approval" if run.tool(call).approval else "ready"


def _said(content: str, calls: list[Call]) -> Message:
    """Returns the turn of a model that asks for calls, in a form that it can be told again.

    Providers refuse a conversation in which arguments are no JSON object.
    """
    asked = tuple(
        ToolCall(
            id=call.tool_call_id,
            name=call.name if NAME.fullmatch(call.name) else UNNAMED,
            arguments=call.arguments if is_object(call.arguments) else "{}",
        )
        for call in calls
    )
    return Message(role=Role.ASSISTANT, content=content, tool_calls=asked)


def _place(citation: Citation) -> tuple[int, int]:
    return citation.call, citation.place
