"""What is asked: held to the policies before it goes to a model."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from schemas.events import InferenceRequested, Judgement, Refusal
from streams.guards.findings import Findings
from streams.guards.found import Hit
from streams.guards.masking import Names, joined, masked
from streams.guards.patience import Patience
from streams.guards.phrases import Phrases
from streams.guards.rules import Guard, Policies, guards
from streams.guards.seal import Seal
from streams.guards.texts import Passage, changed, passages
from streams.guards.views import Place, View, view

# Shorter texts that were found are looked for at no other places: they stand for too much.
SHORTEST_FOLLOWED = 3
# So many are counted first: most often all places of them are found already.
FEW = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A request that its policies let pass.

    Attributes:
        request: The request as the model may see it, masked.
        sealed: What placeholders stand for that are restored for the caller, sealed for the tenant
            and the request; None where there are none.
        judgements: What was found, and done.
        withheld: What placeholders stand for that are restored, in the open: for this process only.
        approvals: Rules that want a person's approval before it goes on.
    """

    request: InferenceRequested
    sealed: bytes | None = None
    judgements: tuple[Judgement, ...] = ()
    approvals: tuple[str, ...] = ()
    withheld: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Looked:
    """A passage, as guards see it, and what is to be masked there."""

    passage: Passage
    view: View
    hits: list[Hit]


def guard_request(
    request: InferenceRequested, policies: Policies, seal: Seal, *, waits: bool = False
) -> Guarded | Refusal:
    """Returns a request as a model may see it, or why it must not see it.

    The first rule that refuses wins; each looks at the texts as they were asked. What a rule finds
    in one text and withholds is withheld in all texts that the rule looks at.

    Args:
        request: What is asked.
        policies: By name, in order.
        seal: Seals what is withheld.
        waits: Whether the caller sees to it that the request waits for those who are still to be
            asked about it: a person where ``approvals`` says so, and the guards that others answer.
            Without that, what is not judged here does not pass.
    """
    held = [
        guard
        for guard in guards(policies)
        if guard.rule.on != ("output",) and not (waits and guard.detector.remote)
    ]
    if not held:
        return Guarded(request=request)
    looked = _looked(request)
    findings = Findings()
    approvals: list[str] = []
    for guard in held:
        refusal = _look(guard, looked, findings)
        if refusal and waits and findings.asks(guard):
            approvals.append(guard.name)
        elif refusal:
            return refusal
    if not any(each.hits for each in looked):
        return Guarded(
            request=request, judgements=findings.judgements(), approvals=tuple(approvals)
        )
    after, names = _masked(request, looked)
    withheld = names.restorable()
    return Guarded(
        request=after,
        sealed=seal.seal(request.tenant, request.request_id, withheld) if withheld else None,
        judgements=findings.judgements(),
        withheld=withheld,
        approvals=tuple(approvals),
    )


def _look(guard: Guard, looked: Sequence[_Looked], findings: Findings) -> Refusal | None:
    """Adds what a guard finds to what is to be masked, or returns why all is refused."""
    mine = _mine(guard, looked)
    marks: list[tuple[_Looked, list[Hit]]] = []
    for each in mine:
        stage, where = each.passage.stage, each.passage.where
        if refusal := findings.grown(guard, stage, len(each.passage.text), where):
            return refusal
        hits = guard.look(each.view.seen, 0, stage, findings.patience)
        if isinstance(hits, Refusal):
            return hits
        if refusal := findings.looked(guard, stage, hits, where):
            return refusal
        if hits and not guard.rule.shadow:
            marks.append((each, hits))
    _mark(guard, marks, mine)
    return None


def _mine(guard: Guard, looked: Sequence[_Looked]) -> list[_Looked]:
    """Returns the passages that a guard looks at."""
    return [
        each
        for each in looked
        if guard.applies(each.passage.stage) or (each.passage.calls and guard.applies("tools"))
    ]


def _mark(
    guard: Guard, marks: Sequence[tuple[_Looked, list[Hit]]], looked: Sequence[_Looked]
) -> None:
    """Adds what is to be masked, and where it must be followed to, all its other places."""
    found: dict[str, Hit] = {}
    times: Counter[str] = Counter()
    for each, hits in marks:
        each.hits.extend(hits)
        if guard.detector.follows:
            texts = [each.view.seen[hit.start : hit.end] for hit in hits]
            found.update(zip(texts, hits, strict=True))
            times.update(texts)
    if len(found) <= FEW:
        found = {
            said: hit
            for said, hit in found.items()
            if sum(each.view.seen.count(said) for each in looked) > times[said]
        }
    _follow(found, looked)


def _follow(found: Mapping[str, Hit], looked: Sequence[_Looked]) -> None:
    """Adds the other places of what was found: a guard may need to see what is said around it."""
    long = {said: hit for said, hit in found.items() if len(said) >= SHORTEST_FOLLOWED}
    if not long:
        return
    phrases = Phrases(((said, said) for said in long), fold=str)
    for each in looked:
        for start, end, said in phrases.find(each.view.seen):
            each.hits.append(Hit(start, end, long[said].kind, long[said].deal))


def _masked(
    request: InferenceRequested, looked: Sequence[_Looked]
) -> tuple[InferenceRequested, Names]:
    restored = {
        hit.kind
        for hit in chain.from_iterable(each.hits for each in looked)
        if hit.deal == "restore"
    }
    texts = chain.from_iterable((each.view.seen, each.passage.text) for each in looked)
    names = Names(texts, restored)

    def stands_for(place: Place) -> str:
        return names.name(place.kind, place.said, restore=place.deal == "restore")

    after = deque(masked(each.view, joined(each.hits), stands_for) for each in looked)

    def put(passage: Passage) -> str:
        if not passage.text:
            return passage.text
        text = after.popleft()
        if passage.form == "name" and text != passage.text:
            # Providers take no angle brackets in a name.
            return text.replace("<", "").replace(">", "")
        return text

    return changed(request, put), names


def masked_request(request: InferenceRequested, policies: Policies) -> InferenceRequested:
    """Returns a request as it may be recorded when it is refused, by whatever check.

    All that any rule would mask or, as personal data or a credential, refuse is masked, and nothing
    can be restored. Where a rule cannot judge, no text is left.
    """
    looked = _looked(request)
    patience = Patience()
    for guard in guards(policies):
        if guard.rule.shadow or guard.detector.remote:
            continue
        mine = _mine(guard, looked)
        marks: list[tuple[_Looked, list[Hit]]] = []
        for each in mine:
            hits = guard.look(each.view.seen, 0, each.passage.stage, patience)
            if hits is None or isinstance(hits, Refusal):
                return changed(request, lambda passage: "")
            shown = guard.detector.follows
            marks.append((each, [hit for hit in hits if shown or hit.deal in ("mask", "restore")]))
        _mark(guard, marks, mine)
    return _masked(request, looked)[0]


def _looked(request: InferenceRequested) -> list[_Looked]:
    return [_Looked(each, view(each.text, each.form), []) for each in passages(request)]
