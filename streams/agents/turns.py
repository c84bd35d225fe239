"""Turns of the model: asking for one, and what becomes of what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from schemas.events import Completion, InferenceReplied, Message, Reason, Refusal, Role
from schemas.topics import INFERENCE_REQUESTED
from streams.agents import asking, calls, telling
from streams.agents.checking import Wrong, wrong_answer
from streams.agents.progress import ADDED, DONE, Progress, total
from streams.agents.run import Call, Run
from streams.agents.trimming import size, trimmed

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
# Characters of a conversation: all of them, in whatever script, fit a record many times.
MOST_SAID = 400_000


def ask_model(progress: Progress) -> None:
    """Asks for a turn, or ends the run where a limit lets it ask no more."""
    run = _fitting(progress.run)
    if refusal := _spent(run):
        progress.refuse(refusal)
        return
    call = Call(number=run.next_number, kind="model", state="asked")
    progress.run = replace(run, calls=(call,), next_number=run.next_number + 1, turns=run.turns + 1)
    progress.emit(INFERENCE_REQUESTED, asking.turn(progress.run, call, progress.now))


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
    progress.run = replace(run, calls=(), usage=usage, retried=False, trimmed=False)
    if completion.tool_calls:
        _called(progress, call, completion)
    else:
        _answered(progress, call, completion)


def _called(progress: Progress, call: Call, completion: Completion) -> None:
    if completion.content:
        _tell(progress, telling.message(progress.run, call, completion.content))
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
    schema = run.definition.output
    wrong = None if schema is None else wrong_answer(content, schema)
    if wrong is None:
        answer = telling.message(progress.run, call, content, final=True)
        _tell(progress, answer)
        progress.complete(completion, answer)
        return
    _mend(progress, Wrong(said=wrong.said, named=f"the answer: {wrong.named}"))


def _refused(progress: Progress, refusal: Refusal) -> None:
    run = progress.run
    if refusal.reason is Reason.ANSWER_UNKEPT:
        # Whoever asked the model saw that it does not keep to what it was asked.
        progress.run = replace(run, retried=False, trimmed=False)
        _mend(progress, Wrong(said=refusal.message, named=refusal.message))
    elif refusal.reason in PASSING and not run.retried:
        progress.run = replace(run, retried=True)
        ask_model(progress)
    elif refusal.reason in TOO_LONG and not run.trimmed:
        _say_less(progress, refusal)
    else:
        progress.refuse(refusal)


def _say_less(progress: Progress, refusal: Refusal) -> None:
    less = _less(progress.run)
    if less is None:
        progress.refuse(refusal)
        return
    progress.run = replace(less, trimmed=True)
    ask_model(progress)


def _fitting(run: Run) -> Run:
    """Returns a run of which so much was said that a request can carry it, if that can be."""
    while size(run.messages) > MOST_SAID and (less := _less(run)):
        run = less
    return run


def _less(run: Run) -> Run | None:
    less = trimmed(run.conversation, run.transcript)
    return less and replace(run, conversation=less[0], transcript=less[1])


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


def _tell(progress: Progress, said: telling.Item) -> None:
    progress.add(ADDED, said)
    progress.add(DONE, said)


def _spent(run: Run) -> Refusal | None:
    """Returns which limit lets a run ask its model no more; None where none does."""
    limits, usage = run.definition.limits, run.usage
    if run.turns >= limits.turns:
        return _exceeded("turns", limits.turns, run.turns)
    tokens = usage.prompt_tokens + usage.completion_tokens
    if limits.tokens is not None and tokens >= limits.tokens:
        return _exceeded("tokens", limits.tokens, tokens)
    return None


def _exceeded(name: str, limit: int, used: int) -> Refusal:
    return Refusal(
        reason=Reason.LIMIT_EXCEEDED,
        message=f"the run came to no answer within {limit} {name}: "
        f"raise limits.{name} of the agent, or ask for less",
        limit=str(limit),
        used=str(used),
    )
