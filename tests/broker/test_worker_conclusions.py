"""Whatever happens to a request, the worker concludes it: by refusal, dead letter or completion."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from infra.telemetry import now
from schemas.events import DeadLetterCause, Header, InferenceRouted, Reason, RequestCancelled
from schemas.topics import REQUEST_CANCELLED
from tests.broker.garbage import ODD_HEADERS, garbage, put
from tests.broker.pools import Pool, Pools, pools
from tests.routed import routed

__all__ = ["pools"]

pytestmark = pytest.mark.stack

# A second on a machine that does nothing else, and less than what is stopped would take.
SOON_S = 60.0


@pytest.fixture(scope="module")
def pool(pools: Pools) -> Iterator[Pool]:
    """A pool of three partitions with one worker, which every test here must leave alive."""
    pool = pools(3)
    with pool.worker() as worker:
        yield pool
        assert worker.child.poll() is None
        pool.commits_all()


def cancel(
    pool: Pool, event: InferenceRouted, *, tenant: str | None = None, deadline_s: float = 300
) -> None:
    instant = now()
    pool.bus.send(
        REQUEST_CANCELLED,
        RequestCancelled(
            request_id=event.request.request_id,
            tenant=tenant or event.request.tenant,
            cancelled_at=instant,
            deadline=instant + timedelta(seconds=deadline_s),
        ),
    )


def started(pool: Pool, event: InferenceRouted) -> None:
    pool.waits_for(lambda: event.request.request_id in pool.journal("start"), "the start")


def test_work_that_always_fails_is_buried_whole_and_refused_and_the_rest_is_done(
    pool: Pool,
) -> None:
    before = len(pool.letters())
    events = [routed({"raise": 99 if number % 2 == 0 else 0}) for number in range(20)]
    ids = [event.request.request_id for event in events]
    for event in events:
        value = pool.bus.codec.encode(event)
        pool.bus.put(
            pool.topic.name, event.request.request_id.encode(), value, headers=list(ODD_HEADERS)
        )
    pool.bus.settle()
    pool.concludes(*ids)
    pool.waits_for(lambda: len(pool.letters()) >= before + 10, "ten dead letters")
    on_the_log = {
        (record.partition, record.offset): record for record in pool.bus.records(pool.topic.name)
    }
    letters = {letter.key: letter for letter in pool.letters()[before:]}
    assert set(letters) == {request_id.encode() for request_id in ids[::2]}
    for letter in letters.values():
        original = on_the_log[(letter.partition, letter.offset)]
        assert (letter.key, letter.value) == (original.key, original.value)
        assert letter.headers == tuple(Header(key=key, value=value) for key, value in ODD_HEADERS)
        assert letter.cause is DeadLetterCause.STEP_FAILED
        assert letter.processor == pool.group
        assert "scripted failure" not in letter.message
    assert [pool.reasons(each) for each in ids[::2]] == [[Reason.PROVIDER_FAILED]] * 10
    for request_id in ids[1::2]:
        [completed] = pool.completed(request_id)
        assert completed.completion is not None


def test_work_that_fails_the_first_time_only_is_done_once(pool: Pool) -> None:
    before = len(pool.letters())
    ids = pool.send(*(routed({"raise": 1 - number % 2}) for number in range(20)))
    pool.concludes(*ids)
    for request_id in ids:
        [completed] = pool.completed(request_id)
        assert completed.completion is not None
    assert len(pool.letters()) == before


def test_a_cancelled_request_is_stopped_at_once(pool: Pool) -> None:
    event = routed({"delay_s": 120})
    [request_id] = pool.send(event)
    started(pool, event)
    cancel(pool, event)
    sent_at = time.monotonic()
    pool.concludes(request_id)
    assert time.monotonic() - sent_at < SOON_S
    assert pool.reasons(request_id) == [Reason.CANCELLED]
    assert request_id in pool.journal("cancelled")


def test_a_request_that_is_under_way_twice_is_stopped_twice(pool: Pool) -> None:
    event = routed({"delay_s": 120})
    [request_id, _] = pool.send(event, event)
    pool.waits_for(lambda: pool.journal("start").count(request_id) == 2, "two starts")
    cancel(pool, event)
    pool.waits_for(lambda: len(pool.completed(request_id)) == 2, "two conclusions")
    assert pool.reasons(request_id) == [Reason.CANCELLED] * 2


def test_a_cancellation_counts_while_the_request_runs_though_its_own_deadline_has_passed(
    pool: Pool,
) -> None:
    event = routed({"delay_s": 120})
    [request_id] = pool.send(event)
    started(pool, event)
    cancel(pool, event, deadline_s=-1)
    pool.concludes(request_id)
    assert pool.reasons(request_id) == [Reason.CANCELLED]


def test_a_cancellation_that_overtakes_its_request_counts(pool: Pool) -> None:
    event, marker = routed({"delay_s": 120}), routed({"delay_s": 120})
    pool.send(marker)
    started(pool, marker)
    cancel(pool, event)
    cancel(pool, marker)
    # Cancellations are heard in order: with the second, the first has been heard.
    pool.concludes(marker.request.request_id)
    [request_id] = pool.send(event)
    pool.concludes(request_id)
    assert pool.reasons(request_id) == [Reason.CANCELLED]
    assert request_id not in pool.journal("start")


def test_nobody_cancels_the_request_of_another_tenant(pool: Pool) -> None:
    event, marker = routed({"delay_s": 4}), routed({"delay_s": 120})
    pool.send(event, marker)
    started(pool, event)
    started(pool, marker)
    cancel(pool, event, tenant="mallory")
    cancel(pool, marker)
    pool.concludes(marker.request.request_id, event.request.request_id)
    [completed] = pool.completed(event.request.request_id)
    assert completed.completion is not None


def test_a_request_that_comes_too_late_is_refused_and_never_started(pool: Pool) -> None:
    [request_id] = pool.send(routed(deadline_s=-1))
    pool.concludes(request_id)
    assert pool.reasons(request_id) == [Reason.DEADLINE_EXPIRED]
    assert request_id not in pool.journal("start")


def test_a_request_is_stopped_when_its_deadline_passes(pool: Pool) -> None:
    event = routed({"words": 1000, "gap_s": 0.1}, deadline_s=10)
    [request_id] = pool.send(event)
    pool.concludes(request_id)
    [completed] = pool.completed(request_id)
    assert completed.refusal is not None
    assert completed.refusal.reason is Reason.DEADLINE_EXPIRED
    assert completed.completion is None
    late = completed.completed_at - event.request.deadline
    assert timedelta(0) <= late < timedelta(seconds=SOON_S)
    assert request_id in pool.journal("cancelled")


def test_garbage_is_buried_whole_and_the_partition_flows_on(pool: Pool) -> None:
    before = len(pool.letters())
    lot = garbage(pool.bus.codec, routed(), routed().request)
    first = routed()
    pool.bus.put(pool.topic.name, None, pool.bus.codec.encode(first), partition=0)
    put(pool.bus, pool.topic.name, lot)
    last = routed()
    pool.bus.put(
        pool.topic.name,
        b"\xff",
        pool.bus.codec.encode(last),
        headers=list(ODD_HEADERS),
        partition=0,
    )
    pool.bus.settle()
    pool.concludes(first.request.request_id, last.request.request_id)
    pool.waits_for(lambda: len(pool.letters()) >= before + len(lot), "all dead letters")
    letters = sorted(pool.letters()[before:], key=lambda letter: letter.offset)
    assert [(each.key, each.value, each.cause) for each in letters] == [
        (each.key, each.value, each.cause) for each in lot
    ]
    assert [each.headers for each in letters] == [
        tuple(Header(key=key, value=value) for key, value in each.headers) for each in lot
    ]
    [completed] = pool.completed(last.request.request_id)
    assert completed.completion is not None
    pool.commits_all()
