"""Requests and answers that wait, for tests of those who judge them."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from infra.catalog import CatalogView
from infra.signing import Signer, claimed, generate
from schemas.codec import Codec
from schemas.events import (
    EVENTS,
    ApprovalDecided,
    ApprovalGiven,
    ApprovalWanted,
    Completion,
    FinishReason,
    InferenceHeld,
    InferenceJudged,
    InferenceReplied,
    Usage,
)
from schemas.topics import APPROVAL_GIVEN, Outgoing
from streams.gateway.approvals import Answered, Decided
from streams.gateway.board import Board
from streams.gateway.holding import held_answer, held_request
from streams.guards import Released
from tests.seed import view_of
from tests.unit.asking import CATALOG, LIMITS, NOON, ROUTES, ask, completed, routed
from tests.unit.guarding import policies

ENDPOINT, POLICY = "main.tests.held", "main.tests.rules"
NAMES = ("ann", "boss", "intern", "keeper")
SIGNERS = {name: Signer(generate()) for name in (*NAMES, "stranger")}
CODEC = Codec({name: number for number, name in enumerate(EVENTS)})
JUDGE = {"name": "judge", "type": "judge", "endpoint": "main.tests.plain"}
BOTH = {**JUDGE, "on": ["input", "output"]}


def catalog(*rules: dict[str, Any]) -> CatalogView:
    """Returns a catalog with an endpoint that is held to rules, and who may decide about it."""
    documents = [
        *CATALOG,
        {"kind": "policy", "name": POLICY, "spec": {"rules": list(rules)}},
        {
            "kind": "endpoint",
            "name": ENDPOINT,
            "spec": {"routes": ROUTES[:1], "policies": [POLICY]},
            "grants": {"boss": ["MANAGE"]},
        },
        {"kind": "tenant", "name": "platform"},
        *[
            {
                "kind": "user",
                "name": name,
                "spec": {"tenant": "acme" if name in ("ann", "intern") else "platform"},
                "keys": [{"public_key": base64.b64encode(SIGNERS[name].public_key).decode()}],
            }
            for name in NAMES
            if name != "ann"
        ],
    ]
    key = {"public_key": base64.b64encode(SIGNERS["ann"].public_key).decode()}
    found = [{**each, "keys": [key]} if each["name"] == "ann" else each for each in documents]
    return view_of(found, LIMITS)


VIEW = catalog(BOTH)


def request(**changes: Any) -> InferenceHeld:
    """Returns a request that is held for a judge."""
    going = routed(request=ask(endpoint=ENDPOINT), fallbacks=())
    made = held_request(going, policies(JUDGE), NOON, decision="decision")
    assert made is not None
    held = made.event
    assert isinstance(held, InferenceHeld)
    return replace(held, **changes)


def answer(content: str = "an answer") -> InferenceHeld:
    """Returns an answer that is held for a judge."""
    said = Completion(
        model="m",
        content=content,
        finish_reason=FinishReason.STOP,
        usage=Usage(prompt_tokens=3, completion_tokens=2),
    )
    going = routed(request=ask(endpoint=ENDPOINT), fallbacks=())
    done = completed(routed=going, completion=said)
    made = held_answer(done, Released(reply=said, kept=said), VIEW, NOON)
    assert made is not None
    held = made.event
    assert isinstance(held, InferenceHeld)
    return held


def verdict(held: InferenceHeld, **changes: Any) -> InferenceJudged:
    """Returns that something was judged and may pass, unless it is said otherwise."""
    return replace(InferenceJudged(tenant=held.tenant, held=held, judged_at=NOON), **changes)


def wanted(held: InferenceHeld | None = None, **changes: Any) -> ApprovalWanted:
    """Returns what waits for a person."""
    return replace(
        ApprovalWanted(
            approval_id="approval",
            tenant="acme",
            request_id="request",
            principal="ann",
            endpoint=ENDPOINT,
            stage="input",
            rules=(f"{POLICY}/judge",),
            question="may it?",
            deciders=(ENDPOINT, POLICY),
            held=request() if held is None else held,
            wanted_at=NOON,
            until=ask().deadline,
        ),
        **changes,
    )


def given(**changes: Any) -> ApprovalGiven:
    """Returns that somebody grants it."""
    return replace(
        ApprovalGiven(
            given_id="given",
            approval_id="approval",
            tenant="acme",
            granted=True,
            reason="fine",
            reply_to="reply.v1.platform",
            given_at=NOON,
            deadline=NOON + timedelta(seconds=20),
        ),
        **changes,
    )


def answered(what: ApprovalGiven, by: str | None, board: Board, place: str = "p/0/1") -> Answered:
    """Returns what somebody says, signed, with what a board knows of it."""
    value = CODEC.encode(what)
    headers = (
        SIGNERS[by].headers(APPROVAL_GIVEN.name, what.tenant.encode(), what.deadline, value)
        if by
        else ()
    )
    return Answered(
        given=what,
        topic=APPROVAL_GIVEN.name,
        place=place,
        signed=claimed(headers, value),
        wanted=board.wanted.get(what.approval_id),
        decision=board.decided.get(what.approval_id),
    )


def on(board: Board, event: ApprovalDecided, offset: int) -> Decided:
    """Returns a decision as it comes to the step, given a board that hears of it."""
    first = board.decide(event, 0, offset)
    return Decided(event=event, place=f"p/0/{offset}", first=first.offset == offset)


def told(outgoing: list[Outgoing], to: str) -> list[InferenceReplied]:
    """Returns the terminal replies on a topic."""
    return [
        each.event
        for each in outgoing
        if each.topic.name == to and isinstance(each.event, InferenceReplied)
    ]


def later(seconds: float) -> datetime:
    """Returns so long after noon."""
    return NOON + timedelta(seconds=seconds)
