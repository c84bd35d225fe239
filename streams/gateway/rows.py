"""Rows: what is recorded of a request and of each try of a route, once nothing more can become.

Knows what was used and what it cost; does not know whether anybody minded.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypedDict

from infra.catalog import CatalogView
from infra.prices import dollars, picodollars, price_at
from infra.tokens import TOKENLESS
from schemas.binary import MOST_LONG
from schemas.events import (
    Completion,
    InferenceAttempted,
    InferenceCompleted,
    InferenceRecorded,
    InferenceRefused,
    InferenceRequested,
    InferenceRouted,
    Judgement,
    Outcome,
    Reason,
    Refusal,
    Route,
    Usage,
)
from schemas.openai import TOOL_CHOICES, completion_to_openai, request_to_openai
from schemas.searching import without_vectors
from schemas.topics import (
    INFERENCE_RECORDED,
    Outgoing,
)

MILLISECOND = timedelta(milliseconds=1)
NOTHING = Decimal(0)
OK = 200

_FORM = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))

# How the row of a request that ended without a completion, though a route was tried, is marked.
OUTCOMES: dict[Reason, Outcome] = {
    Reason.APPROVAL_DENIED: Outcome.REFUSED,
    Reason.CANCELLED: Outcome.CANCELLED,
    Reason.CONTEXT_EXCEEDED: Outcome.REFUSED,
    Reason.POLICY_DENIED: Outcome.REFUSED,
    Reason.POLICY_FAILED: Outcome.REFUSED,
    Reason.REQUEST_INVALID: Outcome.REFUSED,
}
# The HTTP status that a refusal stands for. 499 is nginx's: the client closed the request.
STATUSES: dict[Reason, int] = {
    Reason.ALREADY_EXISTS: 409,
    Reason.ANSWER_UNKEPT: 502,
    Reason.APPROVAL_DENIED: 403,
    Reason.BUDGET_EXCEEDED: 429,
    Reason.CANCELLED: 499,
    Reason.CONFLICT: 409,
    Reason.CONTEXT_EXCEEDED: 400,
    Reason.DEADLINE_EXPIRED: 504,
    Reason.ENDPOINT_UNKNOWN: 404,
    Reason.KEY_EXPIRED: 401,
    Reason.KEY_REVOKED: 401,
    Reason.KEY_UNKNOWN: 401,
    Reason.LIMIT_EXCEEDED: 429,
    Reason.NOT_FOUND: 404,
    Reason.POLICY_DENIED: 403,
    Reason.POLICY_FAILED: 503,
    Reason.PRICE_UNKNOWN: 403,
    Reason.PRINCIPAL_FOREIGN: 403,
    Reason.PRIVILEGE_MISSING: 403,
    Reason.PROVIDER_FAILED: 502,
    Reason.PROVIDER_TIMEOUT: 504,
    Reason.PROVIDER_UNAVAILABLE: 503,
    Reason.RATE_LIMITED: 429,
    Reason.REFERENCED: 409,
    Reason.REPLY_ADDRESS_FORBIDDEN: 403,
    Reason.REQUEST_INVALID: 400,
    Reason.REQUEST_TOO_LARGE: 413,
    Reason.ROUTE_UNFIT: 400,
    Reason.SIGNATURE_INVALID: 401,
    Reason.SIGNATURE_MISSING: 401,
    Reason.SIGNATURE_REPLAYED: 401,
    Reason.STREAM_CUT: 502,
    Reason.TENANT_UNKNOWN: 401,
    Reason.UNKNOWN: 500,
}


def record_refusal(
    refused: InferenceRefused, view: CatalogView, now: datetime
) -> Iterator[Outgoing]:
    """Records a request that no route was tried for: it cost nothing."""
    row = InferenceRecorded(
        **_begun(refused, refused.refused_at, refused.refusal),
        outcome=Outcome.REFUSED,
        cost=NOTHING,
    )
    yield Outgoing(INFERENCE_RECORDED, row)


def row(
    completed: InferenceCompleted,
    *,
    cost: Decimal | None,
    completion: Completion | None,
    judgements: Sequence[Judgement],
    now: datetime,
) -> InferenceRecorded:
    """Returns the row of a request that a route was tried for.

    Args:
        completed: How the last try ended. Where it has a refusal, that is the outcome, even beside
            a completion: that one was withheld, and what it used counts all the same.
        cost: US dollars of all tries together (``cost_of_all``); None where a price is unknown.
        completion: The answer as it is kept; None where none is.
        judgements: What policies found on the way out; what they found on the way in stands in
            ``completed``.
        now: When the caller is answered.
    """
    routed, route, refusal = completed.routed, completed.routed.route, completed.refusal
    used = used_by_all(completed) or Usage()
    return InferenceRecorded(
        **_begun(routed, now, refusal),
        route=route.name,
        model=_model(completed),
        entity=route.entity or None,
        adapter=route.adapter or None,
        connection=route.connection or None,
        outcome=_outcome(refusal),
        response=_answer(completion, routed.request) if completion else None,
        finish_reason=completion.finish_reason if completion and not refusal else None,
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
        cached_tokens=used.cached_tokens,
        cache_write_tokens=used.cache_write_tokens,
        reasoning_tokens=used.reasoning_tokens,
        usage_estimated=used.estimated,
        cost=cost,
        attempts=routed.attempt + 1,
        first_token_ms=_elapsed_ms(routed.request.requested_at, completed.first_token_at),
        judgements=_judged((*routed.judgements, *judgements)),
    )


def row_of_cached(
    routed: InferenceRouted,
    *,
    completion: Completion,
    judgements: Sequence[Judgement],
    now: datetime,
) -> InferenceRecorded:
    """Returns the row of a request that was answered out of the cache: it cost and used nothing.

    Args:
        routed: The request as admitted.
        completion: The answer as it is kept; what it used once is what was saved now.
        judgements: What policies found and did on the way out; what they did on the way in stands
            in ``routed``.
        now: When the caller is answered.
    """
    return InferenceRecorded(
        **_begun(routed, now, None),
        outcome=Outcome.COMPLETED,
        model=completion.model,
        response=_answer(completion, routed.request),
        finish_reason=completion.finish_reason,
        saved_tokens=completion.usage.prompt_tokens + completion.usage.completion_tokens,
        cost=NOTHING,
        judgements=_judged((*routed.judgements, *judgements)),
    )


def attempted(
    completed: InferenceCompleted, cost: Decimal | None, now: datetime
) -> InferenceAttempted:
    """Returns the row of one try of a route, or of a copy that nobody hears.

    Args:
        completed: How it ended.
        cost: US dollars of this try alone (``cost_of``); None where its price is unknown.
        now: Unused: the worker said when it began and ended.
    """
    routed, route, refusal = completed.routed, completed.routed.route, completed.refusal
    request, used = routed.request, used_by(completed) or Usage()
    copy = f"/copy:{route.name}" if routed.mirrored else ""
    return InferenceAttempted(
        # No two are alike: what ends in a number is a try, what ends in a route's name a copy.
        attempt_id=f"{_decision(routed)}/{routed.attempt}{copy}",
        request_id=request.request_id,
        attempt=routed.attempt,
        mirrored=routed.mirrored,
        tenant=request.tenant,
        principal=request.principal,
        endpoint=request.endpoint,
        route=route.name,
        connection=route.connection or None,
        model=_model(completed),
        outcome=_outcome(refusal),
        reason=refusal.reason if refusal else None,
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
        cached_tokens=used.cached_tokens,
        cache_write_tokens=used.cache_write_tokens,
        reasoning_tokens=used.reasoning_tokens,
        usage_estimated=used.estimated,
        cost=cost,
        started_at=completed.started_at,
        first_token_ms=_elapsed_ms(completed.started_at, completed.first_token_at),
        elapsed_ms=_elapsed_ms(completed.started_at, completed.completed_at) or 0,
        tags=request.tags,
    )


def used_by(completed: InferenceCompleted) -> Usage | None:
    """Returns the tokens that one try used itself, answered or broken off; None for none."""
    if completed.routed.request.task in TOKENLESS:
        return None
    return completed.completion.usage if completed.completion else completed.usage


def used_by_all(completed: InferenceCompleted) -> Usage | None:
    """Returns the tokens that a request used in all its tries; None where it used none."""
    used = [each.usage for each in completed.routed.tried if each.usage]
    if last := used_by(completed):
        used.append(last)
    if not used:
        return None
    if len(used) == 1 and min(_tokens(used[0])) >= 0:
        return used[0]
    return Usage(
        prompt_tokens=_sum(each.prompt_tokens for each in used),
        completion_tokens=_sum(each.completion_tokens for each in used),
        cached_tokens=_sum(each.cached_tokens for each in used),
        reasoning_tokens=_sum(each.reasoning_tokens for each in used),
        cache_write_tokens=_sum(each.cache_write_tokens for each in used),
        estimated=any(each.estimated for each in used),
    )


def cost_of(route: Route, usage: Usage | None, view: CatalogView, at: datetime) -> int | None:
    """Returns what one try cost, in picodollars; None where the price is unknown.

    What used nothing cost nothing, whatever the price.
    """
    if usage is None:
        return 0
    price = price_at(view.prices(route), at)
    return None if price is None else picodollars(price, usage)


def cost_of_all(completed: InferenceCompleted, view: CatalogView) -> int | None:
    """Returns what all tries of a request cost together, in picodollars, each at its own price.

    Prices are those of when the last try began. None where one of them is unknown.
    """
    tries = [(each.route, each.usage) for each in completed.routed.tried]
    tries.append((completed.routed.route, used_by(completed)))
    costs = [cost_of(route, usage, view, completed.started_at) for route, usage in tries]
    return None if None in costs else sum(filter(None, costs))


def in_dollars(picodollars: int | None) -> Decimal | None:
    """Returns a cost as rows hold it; what is unknown stays so."""
    return None if picodollars is None else dollars(picodollars)


def without_texts(request: InferenceRequested) -> InferenceRequested:
    """Returns a request without anything that its caller wrote for the model.

    For requests that are refused before the guards of their endpoint have seen them.
    """
    return replace(
        request,
        messages=(),
        sampling=replace(request.sampling, stop=()),
        json_schema=None,
        tools=(),
        tool_choice=request.tool_choice if request.tool_choice in TOOL_CHOICES else "auto",
        inputs=(),
        query=None,
        search=None,
    )


def _tokens(usage: Usage) -> tuple[int, ...]:
    return (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
        usage.cache_write_tokens,
    )


def _sum(tokens: Iterable[int]) -> int:
    """Returns a sum that a record can hold, whatever providers say."""
    return max(0, min(sum(tokens), MOST_LONG))


class _Begun(TypedDict):
    """What the row of every request has. A row is made at once: copying one takes as long again."""

    request_id: str
    row_id: str
    tenant: str
    principal: str
    endpoint: str
    reason: str | None
    message: str | None
    rule: str | None
    status: int
    request: str
    requested_at: datetime
    elapsed_ms: int
    streamed: bool
    tags: Mapping[str, str]
    deadline: datetime
    key_id: str | None
    signature: str | None
    signed_digest: str | None


def _begun(
    decided: InferenceRefused | InferenceRouted, ended: datetime, refusal: Refusal | None
) -> _Begun:
    """Returns what the row of every request has, with what an auditor verifies who asked by."""
    request, signed = decided.request, decided.signed
    return {
        "request_id": request.request_id,
        "row_id": _decision(decided),
        "tenant": request.tenant,
        "principal": request.principal,
        "endpoint": request.endpoint,
        "reason": refusal.reason if refusal else None,
        "message": refusal.message if refusal else None,
        "rule": refusal.rule if refusal else None,
        "status": STATUSES[refusal.reason] if refusal else OK,
        "request": _question(request),
        "requested_at": request.requested_at,
        "elapsed_ms": _elapsed_ms(request.requested_at, ended) or 0,
        "streamed": request.stream,
        "tags": request.tags,
        "deadline": request.deadline,
        "key_id": signed.key_id if signed else None,
        "signature": base64.b64encode(signed.signature).decode() if signed else None,
        "signed_digest": signed.digest.hex() if signed else None,
    }


def _decision(decided: InferenceRefused | InferenceRouted) -> str:
    """Returns what tells a row from all others: a caller may use the id of a request twice."""
    return decided.decision_id or decided.request.request_id


def _outcome(refusal: Refusal | None) -> Outcome:
    return OUTCOMES.get(refusal.reason, Outcome.FAILED) if refusal else Outcome.COMPLETED


def _model(completed: InferenceCompleted) -> str:
    """Returns the model that was tried: as it names itself, where it answered."""
    answer = completed.completion
    return answer.model if answer else completed.routed.route.model


def _question(request: InferenceRequested) -> str:
    if request.search is not None:
        request = replace(request, search=without_vectors(request.search))
    return _json(request_to_openai(request, request.endpoint))


def _answer(completion: Completion, request: InferenceRequested) -> str:
    if completion.vectors:
        # They would be most of the table, and whoever wants them again has the texts.
        completion = replace(completion, vectors=((),) * len(completion.vectors))
    if completion.found is not None:
        completion = replace(completion, found=without_vectors(completion.found))
    return _json(completion_to_openai(completion, request.request_id))


def _judged(judgements: Sequence[Judgement]) -> str:
    return _json([each.to_avro() for each in judgements]) if judgements else "[]"


def _json(body: Any) -> str:
    try:
        return _FORM.encode(body)
    except ValueError:
        # Refused requests and log probabilities hold numbers that JSON lacks: recorded as null.
        return _json(json.loads(json.dumps(body), parse_constant=lambda number: None))


def _elapsed_ms(since: datetime, until: datetime | None) -> int | None:
    return None if until is None else max(0, (until - since) // MILLISECOND)
