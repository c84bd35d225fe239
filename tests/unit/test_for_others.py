"""Who asks for somebody else: who may, whom, where the answer goes, and whose request it is."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from infra.identity import unproven
from schemas import topics
from schemas.events import (
    Completion,
    Delta,
    FinishReason,
    InferencePart,
    InferenceRouted,
    Reason,
    Usage,
)
from schemas.topics import Outgoing
from streams.gateway.asked import Asked
from streams.gateway.release import release_part
from streams.gateway.rows import record_refusal
from tests.seed import view_of
from tests.unit.asking import LIMITS, NOON, ask, completed, only
from tests.unit.deciding import admit, release
from tests.unit.test_identity import DOCUMENTS, key, signed

OWN = "reply.v1.platform"
VIEW = view_of(
    [
        *DOCUMENTS,
        {"kind": "root", "name": "*", "grants": {"agents": ["MANAGE"]}},
        {"kind": "tenant", "name": "platform"},
        {"kind": "group", "name": "crowd", "spec": {"members": ["alice"]}},
        {
            "kind": "service_principal",
            "name": "agents",
            "spec": {"tenant": "platform"},
            "keys": [key("agents")],
        },
    ],
    LIMITS,
)


def sent(by: str = "agents", **changes: Any) -> Asked:
    return signed(by, **{"principal": "alice", "reply_to": OWN, **changes})


def route_of(given: Asked) -> InferenceRouted:
    [(_, routed)] = admit(given, VIEW, NOON)
    assert isinstance(routed, InferenceRouted)
    return routed


def addresses(outgoing: list[Outgoing]) -> list[str]:
    return [each.topic.name for each in outgoing if each.topic.name.startswith("reply.v1.")]


def test_a_request_for_another_is_theirs_and_carries_whose_key_signed_it() -> None:
    given = sent()
    routed = route_of(given)
    assert routed.request == given.request
    assert given.signed is not None
    assert routed.signed is not None
    assert routed.signed.key_id == given.signed.key_id


def test_its_answer_goes_to_who_signed_and_its_row_tells_both() -> None:
    given = sent()
    answer = Completion(model="m", content="hi", finish_reason=FinishReason.STOP, usage=Usage())
    outgoing = list(release(completed(routed=route_of(given), completion=answer), VIEW, NOON))
    assert addresses(outgoing) == [OWN]
    [row] = only(outgoing, topics.INFERENCE_RECORDED)
    assert given.signed is not None
    assert (row.tenant, row.principal, row.key_id) == ("acme", "alice", given.signed.key_id)


def test_who_asks_for_others_asks_for_itself_as_anybody_does() -> None:
    for named in ("", "agents"):
        given = sent(principal=named, tenant="platform", endpoint="main.tests.plain")
        assert route_of(given).request.principal == "agents"


# What is refused: the request, the reason, the field, a word, and where it is said.
REFUSED: dict[str, tuple[Asked, Reason, str, str, str]] = {
    "a group": (sent(principal="crowd"), Reason.PRINCIPAL_FOREIGN, "principal", "crowd does", OWN),
    "a principal of another tenant": (
        sent(principal="mallory"),
        Reason.PRINCIPAL_FOREIGN,
        "principal",
        "mallory does not act for acme",
        OWN,
    ),
    "a tenant that nobody knows": (
        sent(tenant="nowhere"),
        Reason.TENANT_UNKNOWN,
        "tenant",
        "nowhere",
        OWN,
    ),
    "an address of the tenant that is named": (
        sent(reply_to="reply.v1.acme"),
        Reason.REPLY_ADDRESS_FORBIDDEN,
        "reply_to",
        "no reply topic of platform, whose principal signed",
        OWN,
    ),
    "nobody by name": (
        sent(principal="nobody"),
        Reason.PRINCIPAL_FOREIGN,
        "principal",
        "no principal 'nobody'",
        OWN,
    ),
    "no one of a foreign tenant": (
        sent(principal=""),
        Reason.PRINCIPAL_FOREIGN,
        "principal",
        "agents does not act for acme",
        "reply.v1.acme",
    ),
    "somebody by one who may not": (
        sent("mallory"),
        Reason.PRINCIPAL_FOREIGN,
        "principal",
        "leave principal empty",
        "reply.v1.acme",
    ),
    "somebody of one's own tenant by one who may not": (
        sent("alice", principal="late", reply_to="reply.v1.acme"),
        Reason.PRINCIPAL_FOREIGN,
        "principal",
        "leave principal empty",
        "reply.v1.acme",
    ),
    "what they may not ask, whatever who signed may": (
        sent(endpoint="hidden.away.one"),
        Reason.PRIVILEGE_MISSING,
        "endpoint",
        "alice may not query",
        OWN,
    ),
    "something that says nothing": (
        sent(messages=()),
        Reason.REQUEST_INVALID,
        "messages",
        "messages is empty",
        OWN,
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_asked_for_another_is_refused_where_who_signed_hears_of_it(
    what: str,
) -> None:
    given, reason, field, word, where = REFUSED[what]
    outgoing = list(admit(given, VIEW, NOON))
    [replied] = only(outgoing, topics.REPLY)
    assert (replied.refusal.reason, replied.refusal.field) == (reason, field)
    assert word in replied.refusal.message
    assert addresses(outgoing) == [where]
    assert not only(outgoing, topics.INFERENCE_ROUTED)


def test_nobody_writes_into_topics_of_whom_they_only_name() -> None:
    good = sent()
    assert good.signed is not None
    forged = replace(good, signed=replace(good.signed, signature=bytes(64)))
    outgoing = list(admit(forged, VIEW, NOON))
    [replied] = only(outgoing, topics.REPLY)
    assert replied.refusal.reason is Reason.SIGNATURE_INVALID
    assert addresses(outgoing) == ["reply.v1.acme"]


def test_the_row_of_a_refusal_is_of_whom_it_was_asked_for() -> None:
    given = sent(messages=())
    [refused] = only(admit(given, VIEW, NOON), topics.INFERENCE_REFUSED)
    [(_, row)] = record_refusal(refused, VIEW, NOON)
    assert given.signed is not None
    assert (row.tenant, row.principal) == ("acme", "alice")  # type: ignore[attr-defined]
    assert row.key_id == given.signed.key_id  # type: ignore[attr-defined]
    assert json.loads(row.request)["model"] == "main.tests.plain"  # type: ignore[attr-defined]


def test_only_requests_are_sent_for_others() -> None:
    sender = sent().sender
    assert unproven(sender, VIEW, NOON) is None
    refusal = unproven(replace(sender, for_others=False), VIEW, NOON)
    assert refusal is not None
    assert refusal.reason is Reason.PRINCIPAL_FOREIGN


def test_parts_go_to_topics_of_their_tenant_alone() -> None:
    part = InferencePart(
        request_id="request",
        tenant="acme",
        endpoint="main.tests.plain",
        reply_to="reply.v1.acme",
        seq=0,
        delta=Delta(content="hi"),
        deadline=ask().deadline,
    )
    assert addresses(list(release_part(part, VIEW, NOON))) == ["reply.v1.acme"]
    assert list(release_part(replace(part, reply_to=OWN), VIEW, NOON)) == []
    assert list(release_part(part, VIEW, part.deadline + timedelta(seconds=1))) == []


def test_parts_of_what_is_asked_for_another_go_to_that_one_where_it_is_said() -> None:
    assert route_of(sent(stream=True)).parts_to == OWN
    assert route_of(sent(stream=True, parts_to="reply.v1.acme")).parts_to == "reply.v1.acme"
    # A run may have been asked for by one who asks for others itself.
    assert route_of(sent(stream=True, parts_to=OWN)).parts_to == OWN
    guarded = sent(stream=True, parts_to="reply.v1.acme", endpoint="main.tests.guarded")
    assert route_of(guarded).parts_to is None


def test_parts_go_to_nobody_else() -> None:
    for given in (
        sent(parts_to="reply.v1.nobody"),
        signed("alice", parts_to=OWN),
        sent(parts_to="inference.completed.v1"),
    ):
        [refused] = only(admit(given, VIEW, NOON), topics.INFERENCE_REFUSED)
        assert refused.refusal.reason is Reason.REPLY_ADDRESS_FORBIDDEN
        assert refused.refusal.field == "parts_to"
        assert "reply.v1.acme" in refused.refusal.message


def test_only_who_may_ask_for_others_gives_ids_of_the_form_that_runs_have() -> None:
    calls = "run//acme//1"
    assert route_of(sent(request_id=calls)).request.request_id == calls
    [refused] = only(admit(signed("alice", request_id=calls), VIEW, NOON), topics.INFERENCE_REFUSED)
    assert (refused.refusal.reason, refused.refusal.field) == (
        Reason.REQUEST_INVALID,
        "request_id",
    )
