"""The step of agents: a run, what comes for it and the moment make the run after it.

Pure and total: the same run, cause and moment lead to the same events to the byte, whatever comes
and however often. Knows no catalog, no clock and no network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from schemas.agents import Definition
from schemas.events import InferenceReplied, Message, Reason, Refusal, Role
from schemas.shapes import length
from schemas.topics import BEHIND
from streams.agents import calls, turns
from streams.agents.causes import Answered, Begun, Cancelled, Cause, Decided, Expired
from streams.agents.progress import Ended, Progress, Step
from streams.agents.run import Run
from streams.guards.placeholders import withheld

__all__ = ["Ended", "Step", "advance", "begin"]

# Agents that ask agents; each has two parts more in the id of its request.
DEEPEST = 8


def begin(begun: Begun, definition: Definition | Refusal, now: datetime) -> Step:
    """Begins a run.

    Args:
        begun: What began it.
        definition: The agent, or why it cannot run: then the run ends at once.
        now: The moment.
    """
    request, earlier = begun.request, begun.earlier
    # One that cannot run has no more than its name.
    known = (
        definition
        if isinstance(definition, Definition)
        else Definition(agent=request.endpoint, endpoint=request.endpoint)
    )
    run = Run(
        request=replace(request, messages=()),
        reply_to=begun.reply_to_agents,
        # As a difference, for the longest time there is lies beyond the last of all dates.
        deadline=now + min(length(known.limits.time), request.deadline - now),
        quiet=begun.quiet,
        definition=known,
        conversation=(*_instructions(known), *earlier.messages, *request.messages),
        gone=earlier.gone,
        withheld=_withheld(request.messages),
        citations=earlier.citations,
        next_number=earlier.next_number,
        first_number=earlier.next_number,
    )
    progress = Progress(run, now)
    progress.begin()
    refusal = definition if isinstance(definition, Refusal) else _unfit(run, now)
    if refusal is None:
        turns.ask_model(progress)
    else:
        late = refusal.reason is Reason.DEADLINE_EXPIRED
        progress.refuse(refusal, bound="max_time" if late else None)
    return progress.step()


def advance(run: Run, cause: Cause, now: datetime) -> Step:
    """Goes on with a run; what came before, or too late, changes nothing.

    Args:
        run: The run.
        cause: What came.
        now: The moment.
    """
    progress = Progress(run, now)
    if run.ended:
        return progress.step()
    if isinstance(cause, Cancelled):
        progress.refuse(Refusal(reason=Reason.CANCELLED, message="the caller cancelled the run"))
    elif now >= run.deadline:
        progress.refuse(_late(run), bound="max_time")
    else:
        FOLLOWS[type(cause)](progress, cause)
    return progress.step()


def _answered(progress: Progress, cause: Answered) -> None:
    call, replied = progress.run.call(cause.number), cause.replied
    if call is None or call.state != "asked" or _of_a_copy(replied):
        return
    progress.run = progress.run.paid(replied)
    if call.kind == "model":
        turns.turned(progress, call, replied)
    elif call.kind == "summary":
        turns.summed_up(progress, replied)
    elif call.kind == "handoff" and replied.completion is not None:
        turns.handed_over(progress, call, replied.completion)
    elif replied.completion is not None or replied.refusal is not None:
        calls.answered(progress, call, replied)
        turns.go_on(progress)


def _of_a_copy(replied: InferenceReplied) -> bool:
    """Returns whether a request was refused as a copy: then its own answer is still to come."""
    return replied.refusal is not None and replied.refusal.reason is Reason.SIGNATURE_REPLAYED


def _decided(progress: Progress, cause: Decided) -> None:
    call = progress.run.call(cause.number)
    if call is None or call.state != "approval":
        return
    calls.decided(progress, call, cause)
    turns.go_on(progress)


def _waits(progress: Progress, cause: Expired) -> None:
    """The clock came too early."""


FOLLOWS: dict[type[Cause], Callable[[Progress, Any], None]] = {
    Answered: _answered,
    Decided: _decided,
    Expired: _waits,
}


def _instructions(definition: Definition) -> tuple[Message, ...]:
    if not definition.instructions:
        return ()
    return (Message(role=Role.SYSTEM, content=definition.instructions),)


def _withheld(messages: Iterable[Message]) -> tuple[str, ...]:
    return tuple(sorted(set().union(*(withheld(message.content) for message in messages))))


def _unfit(run: Run, now: datetime) -> Refusal | None:
    """Returns why a run does not begin; None where it does."""
    if now >= run.deadline:
        return _late(run)
    if run.request.request_id.count(BEHIND) > 2 * DEEPEST:
        return Refusal(
            reason=Reason.LIMIT_EXCEEDED,
            message=f"agents ask agents {DEEPEST} deep at most: see whether they ask each other",
        )
    return None


def _late(run: Run) -> Refusal:
    limited = run.deadline < run.request.deadline
    return Refusal(
        reason=Reason.DEADLINE_EXPIRED,
        message=(
            f"the run came to no answer within {run.definition.limits.time}: raise limits.time "
            "of the agent"
            if limited
            else "the deadline of the request passed before the run came to an answer"
        ),
        field=None if limited else "deadline",
    )
