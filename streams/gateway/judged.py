"""What becomes of a request, or an answer, that others have judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from infra.catalog import CatalogView
from schemas.events import (
    Completion,
    InferenceHeld,
    InferenceJudged,
    InferenceRouted,
    InferenceWeighed,
    Refusal,
)
from schemas.topics import INFERENCE_WEIGHED, Outgoing
from streams.gateway.access import disguised, unnamed
from streams.gateway.desk import Desk
from streams.gateway.holding import asking, judged_answer, routed_of
from streams.gateway.limits.settle import given_back
from streams.gateway.release import answer, release
from streams.gateway.reply import turned_back
from streams.gateway.rows import used_by
from streams.gateway.sending import sent
from streams.guards import with_answer_texts, with_request_texts


def judged(
    event: InferenceJudged, view: CatalogView, now: datetime, desk: Desk
) -> Iterator[Outgoing]:
    """Refuses what was judged, lets it go on, or asks a person about it."""
    held = said(event)
    if event.refusal is not None:
        yield from held_back(held, event.refusal, view, now, desk)
    elif refusal := _unfit(event.held, held, view):
        yield from held_back(held, refusal, view, now, desk)
    elif held.approvals:
        yield asking(held, now)
    else:
        yield from goes_on(held, view, now, desk)


def said(event: InferenceJudged) -> InferenceHeld:
    """Returns what was held, with what was said of it; no rule is left to be asked."""
    held = event.held
    held = replace(
        held,
        rules=(),
        approvals=tuple(dict.fromkeys((*held.approvals, *event.approvals))),
        judgements=(*held.judgements, *event.judgements),
    )
    if held.routed is not None:
        held = replace(held, routed=_request_said(held.routed, event))
    elif event.texts and held.completed is not None and held.completed.completion is not None:
        completion = _answer_said(held.completed.completion, event)
        held = replace(held, completed=replace(held.completed, completion=completion))
    return replace(held, texts=event.texts or held.texts)


def goes_on(
    held: InferenceHeld, view: CatalogView, now: datetime, desk: Desk
) -> Iterator[Outgoing]:
    """Lets what was held go on: a request to its limits, its answer or its route."""
    if held.completed is not None:
        completed = judged_answer(held.completed, held.judgements)
        yield from release(completed, view, now, desk)
        return
    routed = routed_of(held)
    if held.asks:
        weighed = InferenceWeighed(
            routed=routed,
            asks=held.asks,
            mirrors=held.mirrors,
            answer=held.answer,
            trace_id=held.trace_id,
            weighed_at=now,
        )
        yield Outgoing(INFERENCE_WEIGHED, weighed)
    elif held.answer is not None:
        yield from answer(routed, held.answer, view, now, desk)
    else:
        yield from sent(replace(routed, routed_at=now), held.mirrors)


def held_back(
    held: InferenceHeld, refusal: Refusal, view: CatalogView, now: datetime, desk: Desk
) -> Iterator[Outgoing]:
    """Refuses what was held: a request uses nothing, an answer what it has used."""
    if held.completed is not None:
        withheld = replace(
            judged_answer(held.completed, held.judgements),
            completion=None,
            refusal=refusal,
            usage=used_by(held.completed),
        )
        yield from release(withheld, view, now, desk)
        return
    routed = routed_of(held)
    yield from given_back(routed, now)
    yield from turned_back(routed, refusal, view, now)


def _unfit(before: InferenceHeld, after: InferenceHeld, view: CatalogView) -> Refusal | None:
    """Returns why a request cannot go on with what was masked of it; None where it can."""
    if before.routed is None or after.routed is None:
        return None
    asked, masked = before.routed.request, after.routed.request
    return unnamed(asked, masked, view) or disguised(asked, masked, after.routed.route, view)


def _request_said(routed: InferenceRouted, event: InferenceJudged) -> InferenceRouted:
    request = routed.request
    if event.texts:
        request = with_request_texts(request, event.texts)
    judgements = (*routed.judgements, *event.judgements)
    return replace(routed, request=request, judgements=judgements)


def _answer_said(completion: Completion, event: InferenceJudged) -> Completion:
    return with_answer_texts(completion, event.texts)
