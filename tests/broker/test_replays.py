"""A signed record is taken once: copies are refused, what is only delivered again is not."""

from __future__ import annotations

import pytest

from schemas.events import Reason
from schemas.topics import (
    INFERENCE_COMPLETED,
    INFERENCE_RECORDED,
    INFERENCE_REFUSED,
    INFERENCE_REQUESTED,
)
from streams.steps import MOVED
from tests.broker.proving import (
    Sent,
    ask,
    audits,
    enrol,
    home,
    lay,
    reason,
    replied,
    routed,
    sealed,
)
from tests.broker.speaking import put
from tests.harness import READY_S, Bus, Process, eventually

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module", autouse=True)
def people(bus: Bus, gateway: Process, echo: Process) -> None:
    enrol(bus)


def test_a_copy_is_refused_wherever_it_is_put(bus: Bus) -> None:
    sent = sealed(bus, ask())
    lay(bus, sent)
    replied(bus, sent)
    away = (home(bus) + 1) % INFERENCE_REQUESTED.partitions
    forged = [*sent.headers, (MOVED, b"0/0")]
    lay(bus, sent)
    lay(bus, sent, partition=away)
    lay(bus, sent, partition=away, headers=forged)
    put(
        bus.producer,
        INFERENCE_REQUESTED.name,
        b"another key",
        sent.value,
        headers=list(sent.headers),
    )
    reasons = [reason(each) for each in replied(bus, sent, 5)]
    assert sorted(map(str, reasons)) == ["None", *["SIGNATURE_REPLAYED"] * 4]
    assert routed(bus, sent.id) == 1
    eventually(lambda: len(audits(bus, sent.id)) == 4, what="an audit of each copy")
    rows = [each for each in bus.events(INFERENCE_REFUSED) if each.request.request_id == sent.id]
    assert rows == [], "the request has its row already"


def test_a_record_that_was_put_home_twice_is_answered_once_and_nobody_is_told(bus: Bus) -> None:
    sent, last = sealed(bus, ask()), sealed(bus, ask())
    moved = [*sent.headers, (MOVED, b"3/17")]
    lay(bus, sent, headers=moved)
    lay(bus, sent, headers=moved)
    lay(bus, last)
    replied(bus, last)
    [answer] = replied(bus, sent)
    assert answer.completion is not None
    assert routed(bus, sent.id) == 1
    assert audits(bus, sent.id) == []


def test_a_signed_record_on_a_foreign_partition_is_answered(bus: Bus) -> None:
    sent = sealed(bus, ask())
    lay(bus, sent, partition=(home(bus) + 2) % INFERENCE_REQUESTED.partitions)
    [answer] = replied(bus, sent)
    assert answer.completion is not None, answer.refusal


def test_a_copy_is_refused_after_the_gateway_was_killed(bus: Bus, gateway: Process) -> None:
    sent = [sealed(bus, ask(f"number {number}")) for number in range(20)]
    for each in sent:
        lay(bus, each)
    for each in sent:
        replied(bus, each)
    decided_on = INFERENCE_REQUESTED, INFERENCE_COMPLETED
    eventually(
        lambda: not any(bus.lag("gateway", each.name) for each in decided_on),
        what="the last commit",
    )
    gateway.kill()
    for each in sent:
        lay(bus, each)
    gateway.start()
    gateway.ready()
    for each in sent:
        assert [reason(one) for one in replied(bus, each, 2)] == [None, Reason.SIGNATURE_REPLAYED]
        assert routed(bus, each.id) == 1


def test_a_request_that_is_delivered_again_after_a_kill_is_answered_and_not_refused(
    bus: Bus, gateway: Process
) -> None:
    def decided_but_not_committed() -> Sent | None:
        sent = sealed(bus, ask("again"))
        place = lay(bus, sent)
        eventually(lambda: routed(bus, sent.id), what="the decision")
        gateway.kill()
        committed = bus.committed("gateway", INFERENCE_REQUESTED.name)[place.partition]
        if committed <= place.offset:
            return sent
        gateway.start()
        gateway.ready()
        return None

    found: list[Sent] = []

    def killed_in_time() -> bool:
        found.extend(filter(None, [decided_but_not_committed()]))
        return bool(found)

    eventually(killed_in_time, 2 * READY_S, "a kill before the commit")
    [sent] = found
    gateway.start()
    gateway.ready()
    eventually(lambda: routed(bus, sent.id) >= 2, what="the second delivery")
    copy = sealed(bus, ask("after it"))
    lay(bus, copy)
    replied(bus, copy)
    assert {reason(each) for each in replied(bus, sent)} == {None}
    assert audits(bus, sent.id) == []

    def rows() -> list[str]:
        recorded = bus.events(INFERENCE_RECORDED)
        return [each.row_id for each in recorded if each.request_id == sent.id]

    # The first answer, too, may have been read once before the kill and once after it.
    eventually(lambda: len(rows()) >= 2, what="what is recorded of both deliveries")
    assert len(set(rows())) == 1, "the table keeps it once"
