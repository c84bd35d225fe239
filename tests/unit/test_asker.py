"""Which replies an asker takes for its own: those to the very record that it sent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infra.asker import _Pending
from infra.signing import Signature, claim
from schemas import topics
from schemas.events import (
    Completion,
    Delta,
    FinishReason,
    InferenceReplied,
    InferenceRouted,
    Reason,
    Refusal,
    Usage,
)
from tests.seed import view_of
from tests.unit.asking import CATALOG, LIMITS, NOON, ask, asked, completed, only
from tests.unit.deciding import admit, release
from tests.unit.test_identity import key, signature

USERS = [
    {"kind": "user", "name": name, "spec": {"tenant": "acme"}, "keys": [key(name)]}
    for name in ("alice", "late")
]
VIEW = view_of([*CATALOG, *USERS], LIMITS)
ANSWER = Completion(model="m", content="hi", finish_reason=FinishReason.STOP, usage=Usage())


def answered(signed: Signature | None) -> InferenceReplied:
    """Returns the final reply to the one request, as somebody signed it."""
    given = asked(ask(principal=""), signed=signed)
    [(_, routed)] = admit(given, VIEW, NOON)
    assert isinstance(routed, InferenceRouted)
    [replied] = only(release(completed(routed=routed, completion=ANSWER), VIEW, NOON), topics.REPLY)
    assert isinstance(replied, InferenceReplied)
    return replied


def by(name: str) -> Signature:
    return signature(name, ask(principal=""))


@pytest.mark.parametrize("mine", [by("alice"), None])
def test_an_answer_to_anothers_request_under_the_same_id_is_passed_over(
    mine: Signature | None,
) -> None:
    pending = _Pending(claim=claim(mine))
    assert pending.means(answered(mine))
    assert not pending.means(answered(by("late")))


def test_an_answer_to_an_unsigned_request_is_none_to_a_signed_one() -> None:
    assert not _Pending(claim=claim(by("alice"))).means(answered(None))


def test_a_reply_that_names_no_record_is_taken() -> None:
    part = InferenceReplied(request_id="request", delta=Delta(content="h"), replied_at=NOON)
    assert _Pending(claim="one").means(part)


def test_a_refusal_of_a_copy_is_never_ones_own() -> None:
    mine = by("alice")
    refusal = Refusal(reason=Reason.SIGNATURE_REPLAYED, message="taken before")
    replied = replace(answered(mine), completion=None, refusal=refusal)
    assert not _Pending(claim=claim(mine)).means(replied)


def test_the_claim_of_an_answer_is_that_of_its_record() -> None:
    assert answered(by("alice")).claim == claim(by("alice"))
