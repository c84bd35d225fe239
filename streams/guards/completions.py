"""What is answered: held to the policies, and the caller's own texts put back in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from schemas.events import Completion, InferenceRouted, Judgement, Reason, Refusal
from schemas.searching import texts_of, with_texts
from streams.guards.channel import Channel
from streams.guards.findings import Findings
from streams.guards.rules import Guard, Policies, guards
from streams.guards.screen import Shown
from streams.guards.seal import Seal, SealBroken


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """An answer that its policies let pass.

    Attributes:
        reply: What the caller gets.
        kept: What rows and the cache get: masked.
        judgements: What was found, and done.
        cacheable: Whether what is kept says the same again to another caller of the tenant: nothing
            of the model's own was masked in it.
        approvals: Rules that want a person's approval before it goes anywhere.
    """

    reply: Completion
    kept: Completion
    judgements: tuple[Judgement, ...] = ()
    cacheable: bool = True
    approvals: tuple[str, ...] = ()


def guard_completion(
    completion: Completion,
    routed: InferenceRouted,
    policies: Policies,
    seal: Seal,
    *,
    waits: bool = False,
) -> Released | Refusal:
    """Returns an answer as it goes to the caller and as it is kept, or why it goes nowhere.

    Args:
        completion: What the model said.
        routed: What it was asked, with what was withheld.
        policies: By name, in order.
        seal: Opens what was withheld.
        waits: Whether the caller sees to it that the answer waits for those who are still to be
            asked about it: a person where ``approvals`` says so, and the guards that others answer.
            Without that, what is not judged here does not pass.
    """
    request = routed.request
    values = opened(seal, request.tenant, request.request_id, routed.sealed)
    if isinstance(values, Refusal):
        return values
    held = [guard for guard in guards(policies) if not (waits and guard.detector.remote)]
    if not values and not held:
        return Released(reply=completion, kept=completion)
    return _guarded(completion, held, values, waits=waits)


def _guarded(
    completion: Completion, held: list[Guard], values: Mapping[str, str], *, waits: bool
) -> Released | Refusal:
    findings = Findings()
    shown = _shown(completion, held, values, findings)
    if not isinstance(shown, Refusal):
        return _released(completion, shown, findings)
    asking = {guard.name: guard for guard in held if waits and findings.asks(guard)}
    if shown.rule not in asking:
        return shown
    # What a rule asks is left to a person; the others see the answer as if there were no such rule.
    left = [guard for guard in held if guard.name not in asking]
    rest = _guarded(completion, left, values, waits=waits)
    if isinstance(rest, Refusal):
        return rest
    asked = [each for each in findings.judgements() if each.rule in asking]
    return replace(
        rest,
        judgements=(*asked, *rest.judgements),
        approvals=(*asking, *rest.approvals),
    )


def _shown(
    completion: Completion, held: list[Guard], values: Mapping[str, str], findings: Findings
) -> list[Shown] | Refusal:
    shown: list[Shown] = []
    for channel, text in _channels(completion, held, values, findings):
        said = channel.whole(text)
        if isinstance(said, Refusal):
            return said
        shown.append(said)
    return shown


def _released(completion: Completion, shown: list[Shown], findings: Findings) -> Released:
    hidden = any(each.masked for each in shown)
    # Log probabilities say the text again, token by token.
    base = replace(completion, logprobs=()) if hidden else completion
    return Released(
        reply=_with(base, [each.reply for each in shown]),
        kept=_with(base, [each.kept for each in shown]),
        judgements=findings.judgements(),
        cacheable=not hidden,
    )


def opened(
    seal: Seal, tenant: str, request_id: str, sealed: bytes | None
) -> dict[str, str] | Refusal:
    """Returns what placeholders of a request stand for, or a refusal where it cannot be opened."""
    try:
        return {} if sealed is None else seal.open(tenant, request_id, sealed)
    except SealBroken:
        return Refusal(
            reason=Reason.POLICY_FAILED,
            message="what was masked in this request cannot be put back into its answer; ask again",
        )


def content_channel(held: list[Guard], values: Mapping[str, str], findings: Findings) -> Channel:
    """Returns the way of an answer's content."""
    looking = [guard for guard in held if guard.applies("output")]
    return Channel(looking, "output", values, findings, "prose")


def call_channel(held: list[Guard], values: Mapping[str, str], findings: Findings) -> Channel:
    """Returns the way of the arguments of one tool call."""
    looking = [guard for guard in held if guard.applies("tools")]
    return Channel(looking, "tools", values, findings, "arguments")


def found_channel(held: list[Guard], values: Mapping[str, str], findings: Findings) -> Channel:
    """Returns the way of what an index found."""
    looking = [guard for guard in held if guard.applies("output")]
    return Channel(looking, "output", values, findings, "arguments")


def _channels(
    completion: Completion, held: list[Guard], values: Mapping[str, str], findings: Findings
) -> Iterator[tuple[Channel, str]]:
    if completion.found is not None:
        # It says nothing else.
        yield found_channel(held, values, findings), texts_of(completion.found)
        return
    if completion.content or not completion.tool_calls:
        yield content_channel(held, values, findings), completion.content
    for call in completion.tool_calls:
        yield call_channel(held, values, findings), call.arguments


def _with(completion: Completion, texts: list[str]) -> Completion:
    """Returns a completion with other texts."""
    if completion.found is not None:
        same = texts[0] == texts_of(completion.found)
        found = completion.found if same else with_texts(completion.found, texts[0])
        return replace(completion, found=found)
    calls = completion.tool_calls
    content = texts[0] if len(texts) > len(calls) else completion.content
    arguments = texts[len(texts) - len(calls) :]
    # Most answers hold nothing to mask: they stay as they are.
    if content == completion.content and arguments == [call.arguments for call in calls]:
        return completion
    return replace(
        completion,
        content=content,
        tool_calls=tuple(
            [replace(call, arguments=text) for call, text in zip(calls, arguments, strict=True)]
        ),
    )
