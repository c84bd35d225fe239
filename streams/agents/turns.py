"""Turns of the model: asking for one, and what becomes of what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from schemas.events import (
    Completion,
    InferenceReplied,
    InferenceRequested,
    Message,
    Reason,
    Refusal,
    Role,
)
from schemas.topics import INFERENCE_REQUESTED
from streams.agents import asking, calls, results, summarising, telling
from streams.agents.checking import Wrong, as_cut, wrong_answer
from streams.agents.progress import Progress, total
from streams.agents.run import Call, CallKind, Run
from streams.agents.trimming import MOST_SAID, left_out, size, spoken, trimmed

# Failures that may have passed when the same is asked again.
PASSING = frozenset(
    {
        Reason.PROVIDER_FAILED,
        Reason.PROVIDER_TIMEOUT,
        Reason.PROVIDER_UNAVAILABLE,
        Reason.RATE_LIMITED,
    }
)
# How it is said that a conversation is too long: by the model, or by whoever carries it there.
TOO_LONG = frozenset({Reason.CONTEXT_EXCEEDED, Reason.REQUEST_TOO_LARGE})
# What a model is asked for.
ASKS: dict[CallKind, Callable[[Run, Call, datetime], InferenceRequested]] = {
    "model": asking.turn,
    "summary": asking.summary,
}
# How often a turn is asked again with half as much said.
MOST_TRIMMED = 4


def ask_model(progress: Progress) -> None:
    """Asks for a turn, or ends the run where a limit lets it ask no more."""
    run = _fitting(progress.run)
    if refusal := _spent(run):
        exceeded = refusal.reason is Reason.LIMIT_EXCEEDED
        progress.refuse(refusal, bound="max_steps" if exceeded else None)
        return
    _ask(progress, run, "model")


def summed_up(progress: Progress, replied: InferenceReplied) -> None:
    """Goes on with a summary of what is left out; without one where none came."""
    run, completion = progress.run, replied.completion
    less = _less(run) or run
    if completion is not None:
        gone = left_out(run.conversation, run.transcript)
        told = summarising.with_summary(less.conversation, gone, completion.content)
        usage = total((run.usage, completion.usage))
        less = replace(less, conversation=told, usage=usage)
    progress.run = replace(less, calls=(), trimmed=less.trimmed + 1)
    ask_model(progress)


def go_on(progress: Progress) -> None:
    """Asks for calls that can go now; for the next turn when there are none left to wait for."""
    calls.ask_ready(progress)
    run = progress.run
    if all(call.state == "answered" for call in run.calls):
        progress.run = replace(run, transcript=run.transcript + calls.told(run), calls=())
        ask_model(progress)


def turned(progress: Progress, call: Call, replied: InferenceReplied) -> None:
    """Takes in what came of a turn."""
    if replied.refusal is not None:
        _refused(progress, replied.refusal)
        return
    completion, run = replied.completion, progress.run
    if completion is None:
        return
    usage = total((run.usage, completion.usage))
    progress.run = replace(run, calls=(), usage=usage, retried=False, trimmed=0)
    if completion.tool_calls:
        _called(progress, call, completion)
    else:
        _answered(progress, call, completion)


def handed_over(progress: Progress, call: Call, completion: Completion) -> None:
    """Takes in what an agent answered that the conversation was handed to."""
    content = completion.content
    if (wrong := _wrong(progress.run, completion)) is not None:
        calls.settle(progress, call, results.failed(Reason.ANSWER_UNKEPT, wrong.said))
        go_on(progress)
        return
    calls.settle(progress, call, results.HANDED_OVER)
    run = progress.run
    said = Message(role=Role.ASSISTANT, content=content)
    answering = Call(number=run.next_number, kind="model", state="answered")
    progress.run = replace(
        run,
        transcript=(*run.transcript, *calls.told(run), said),
        next_number=run.next_number + 1,
    )
    # Marks in it are of passages that the other agent found.
    answer = telling.message(replace(progress.run, citations=()), answering, content)
    progress.add_whole(answer)
    progress.complete(completion, answer)


def _called(progress: Progress, call: Call, completion: Completion) -> None:
    if len(completion.tool_calls) > calls.MOST_CALLS:
        said = f"a turn may ask for {calls.MOST_CALLS} calls"
        _mend(progress, Wrong(said=said, named=f"more than {calls.MOST_CALLS} calls in a turn"))
        return
    if completion.content:
        progress.add_whole(telling.message(progress.run, call, completion.content))
    wrongs = calls.called(progress, completion)
    if None in wrongs:
        progress.run = replace(progress.run, repairs=0)
    elif not _may_mend(progress, [wrong for wrong in wrongs if wrong is not None]):
        return
    go_on(progress)


def _answered(progress: Progress, call: Call, completion: Completion) -> None:
    run, content = progress.run, completion.content
    said = Message(role=Role.ASSISTANT, content=content)
    progress.run = replace(run, transcript=(*run.transcript, said))
    wrong = _wrong(run, completion)
    if wrong is None:
        answer = telling.message(progress.run, call, content, final=True)
        progress.add_whole(answer)
        progress.complete(completion, answer)
        return
    _mend(progress, Wrong(said=wrong.said, named=f"the answer: {wrong.named}"))


def _wrong(run: Run, completion: Completion) -> Wrong | None:
    """Returns what is wrong with an answer; None where nothing is."""
    wrong, schema = None, run.definition.output
    if run.to_call is not None:
        said = f"{run.to_call} is to be called before there is an answer"
        wrong = Wrong(said=said, named=said)
    elif schema is not None:
        wrong = wrong_answer(completion.content, schema)
    return as_cut(wrong, completion.finish_reason)


def _refused(progress: Progress, refusal: Refusal) -> None:
    run = progress.run
    if refusal.reason is Reason.ANSWER_UNKEPT:
        # Whoever asked the model saw that it does not keep to what it was asked.
        progress.run = replace(run, retried=False, trimmed=0)
        _mend(progress, Wrong(said=refusal.message, named=refusal.message))
    elif refusal.reason in PASSING and not (run.retried or _spent(run)):
        progress.run = replace(run, retried=True)
        ask_model(progress)
    elif refusal.reason in TOO_LONG and run.trimmed < MOST_TRIMMED:
        _say_less(progress, refusal)
    else:
        progress.refuse(refusal)


def _say_less(progress: Progress, refusal: Refusal) -> None:
    run = progress.run
    less = _less(run)
    if less is None:
        progress.refuse(refusal)
    # The turn for which it is summed up must be left, too.
    elif run.definition.summarise and not _spent(replace(run, turns=run.turns + 1)):
        _ask(progress, run, "summary")
    else:
        progress.run = replace(less, trimmed=less.trimmed + 1)
        ask_model(progress)


def _ask(progress: Progress, run: Run, kind: CallKind) -> None:
    """Has a run wait for what its model is asked for."""
    call = Call(number=run.next_number, kind=kind, state="asked")
    progress.run = replace(run, calls=(call,), next_number=run.next_number + 1, turns=run.turns + 1)
    progress.emit(INFERENCE_REQUESTED, ASKS[kind](progress.run, call, progress.now))


def _fitting(run: Run) -> Run:
    """Returns a run of which so much was said that a request can carry it, if that can be."""
    while size(run.messages) > MOST_SAID and (less := _less(run)):
        run = less
    return run


def _less(run: Run) -> Run | None:
    less = trimmed(run.conversation, run.transcript)
    if less is None:
        return None
    shorter = replace(run, conversation=less[0], transcript=less[1])
    return replace(shorter, gone=run.gone + spoken(run.messages) - spoken(shorter.messages))


def _mend(progress: Progress, wrong: Wrong) -> None:
    """Has the model answer anew."""
    if not _may_mend(progress, [wrong]):
        return
    said = f"This cannot be taken: {wrong.said}. Answer again, and mend that."
    run = progress.run
    note = Message(role=Role.USER, content=said)
    progress.run = replace(run, transcript=(*run.transcript, note))
    ask_model(progress)


def _may_mend(progress: Progress, wrongs: Sequence[Wrong]) -> bool:
    """Counts that there is something to mend; returns False where the run ended with it."""
    run = progress.run
    progress.run = replace(run, repairs=run.repairs + 1)
    if run.repairs < run.definition.repairs:
        return True
    named = "; ".join(dict.fromkeys(wrong.named for wrong in wrongs))
    progress.refuse(
        Refusal(
            reason=Reason.ANSWER_UNKEPT,
            message=f"the model was wrong {run.repairs + 1} times in a row, and may mend "
            f"{run.definition.repairs} (repairs of the agent); at last: {named}",
        )
    )
    return False


def _spent(run: Run) -> Refusal | None:
    """Returns which limit lets a run ask its model no more; None where none does."""
    limits, usage = run.definition.limits, run.usage
    if run.turns >= limits.turns:
        return _exceeded("turns", str(limits.turns), str(run.turns))
    tokens = usage.prompt_tokens + usage.completion_tokens
    if limits.tokens is not None and tokens >= limits.tokens:
        return _exceeded("tokens", str(limits.tokens), str(tokens))
    return None if limits.cost is None else _dear(limits.cost, run.cost)


def _dear(limit: Decimal, cost: Decimal | None) -> Refusal | None:
    if cost is None:
        return Refusal(
            reason=Reason.PRICE_UNKNOWN,
            message="the run asked what has no price, and its agent has a limits.cost: "
            "set one on the model or its connection, or take that limit away",
        )
    return _exceeded("cost", f"{limit:f}", f"{cost:f}", "US dollars") if cost >= limit else None


def _exceeded(name: str, limit: str, used: str, unit: str = "") -> Refusal:
    return Refusal(
        reason=Reason.LIMIT_EXCEEDED,
        message=f"the run came to no answer within {limit} {unit or name}: "
        f"raise limits.{name} of the agent, or ask for less",
        limit=limit,
        used=used,
    )
