"""The worker loop on the log: what is committed, what is delivered again, what ends a process."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import Producer

from schemas.events import InferenceRouted
from tests.broker.pools import PATIENCE_S, Pool, Pools, pools
from tests.harness import Process, unique
from tests.routed import routed

__all__ = ["pools"]

pytestmark = pytest.mark.stack


def send_plainly(pool: Pool, events: list[InferenceRouted]) -> None:
    pool.send(*events)


def send_after_others(pool: Pool, events: list[InferenceRouted]) -> None:
    with pool.worker():
        pool.concludes(*pool.send(routed(), routed()))
        pool.commits_all()
    pool.send(*events)


def send_in_transactions(pool: Pool, events: list[InferenceRouted]) -> None:
    """Leaves gaps between the offsets: markers, and a record that was taken back."""
    producer = Producer(
        {
            "bootstrap.servers": pool.bus.kafka.bootstrap_servers,
            "transactional.id": unique("transaction"),
        }
    )
    producer.init_transactions(30)
    for event in (None, *events):
        producer.begin_transaction()
        sent = event or routed()
        producer.produce(
            pool.topic.name, pool.bus.codec.encode(sent), pool.topic.key(sent).encode()
        )
        producer.flush(30)
        if event is None:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)


@pytest.mark.parametrize("send", [send_plainly, send_after_others, send_in_transactions])
def test_a_slow_record_is_done_after_a_crash_though_later_ones_were_finished(
    pools: Pools, tmp_path: Path, send: Callable[[Pool, list[InferenceRouted]], None]
) -> None:
    pool = pools(1)
    go = tmp_path / "go"
    events = [routed({"until": str(go)}), *(routed() for _ in range(4))]
    slow, *fast = [event.request.request_id for event in events]
    send(pool, events)
    with pool.worker() as worker:
        pool.concludes(*fast)
        # Whatever was finished since the last commit is committed soon after.
        before = pool.committed()
        time_of_a_commit = time.monotonic() + 2
        while time.monotonic() < time_of_a_commit:
            assert pool.committed() == before
        worker.kill()
        assert slow not in pool.journal("end")
        assert pool.committed() == before
    assert pool.completed(slow) == []
    go.touch()
    with pool.worker():
        pool.concludes(slow)
        if send is not send_in_transactions:
            pool.commits_all()
    assert pool.journal("start").count(slow) == 2
    assert all(each.completion for request_id in fast for each in pool.completed(request_id))


@pytest.mark.parametrize("workers", [1, 2])
def test_work_that_outlasts_the_poll_interval_keeps_its_membership_and_is_done_once(
    pools: Pools, workers: int
) -> None:
    pool = pools(2)
    with ExitStack() as running:
        members = [
            running.enter_context(pool.worker(KAFKA_MAX_POLL_INTERVAL_MS="10000"))
            for _ in range(workers)
        ]
        pool.waits_for(lambda: {*map(shares, members)} == {2 // workers}, "equal shares")
        ids = pool.send(*(routed({"delay_s": 14}) for _ in range(4)))
        pool.concludes(*ids)
        pool.commits_all()
    assert sorted(pool.journal("start")) == sorted(ids)
    assert [len(pool.completed(each)) for each in ids] == [1] * len(ids)


def test_no_more_is_under_way_than_allowed_and_all_of_it_gets_done(pools: Pools) -> None:
    pool = pools(3)
    # More than a worker reads ahead, so that it has to pause.
    ids = pool.send(*(routed({"delay_s": 0.01}) for _ in range(1000)))
    with pool.worker(INFERENCE_MAX_IN_FLIGHT="4"):
        pool.concludes(*ids)
        pool.commits_all()
    assert pool.most_in_flight() == 4
    assert sorted(pool.journal("end")) == sorted(ids)


def shares(worker: Process) -> object:
    """Returns how many partitions a worker has."""
    return worker.ask("/ready")[1].get("partitions")


def test_a_worker_that_joins_takes_its_share_and_leaves_it_to_the_first_when_it_is_killed(
    pools: Pools,
    tmp_path: Path,
) -> None:
    pool, go = pools(4), tmp_path / "go"
    ids = pool.send(*(routed({"delay_s": 0.02}) for _ in range(100)))
    # Else the first might be through before the second has begun.
    ids += pool.send(*(routed({"delay_s": 0.02, "until": str(go)}) for _ in range(1200)))
    with pool.worker("first", INFERENCE_MAX_IN_FLIGHT="4") as first:
        pool.waits_for(lambda: len(pool.journal("end", "first")) > 10, "ten requests")
        with pool.worker("second", INFERENCE_MAX_IN_FLIGHT="4") as second:
            pool.waits_for(lambda: shares(first) == shares(second) == 2, "two halves")
            go.touch()
            pool.waits_for(lambda: len(pool.journal("end", "second")) > 10, "ten of the second")
            # Both are full when the second goes, so that what it had comes to a paused member.
            second.kill()
            pool.concludes(*ids)
            pool.commits_all()
        pool.waits_for(lambda: shares(first) == 4, "all that there is")
    assert pool.journal("end", "second")
    assert pool.most_in_flight("first") == 4
    assert pool.most_in_flight("second") == 4


def test_what_a_killed_worker_had_under_way_is_finished_by_the_other(pools: Pools) -> None:
    pool = pools(4)
    with (
        pool.worker("first", INFERENCE_MAX_IN_FLIGHT="2") as first,
        pool.worker("second", INFERENCE_MAX_IN_FLIGHT="2"),
    ):
        pool.waits_for(lambda: shares(first) == 2, "two halves")
        ids = pool.send(*(routed({"delay_s": 0.3}) for _ in range(60)))
        pool.waits_for(lambda: len(pool.journal("end", "first")) > 2, "some work of the first")
        first.kill()
        pool.concludes(*ids)
        pool.commits_all()
    assert pool.most_in_flight("second") == 2
    done = set(pool.journal("end", "first")) | set(pool.journal("end", "second"))
    assert done == set(ids)


def test_a_worker_that_is_told_to_stop_finishes_what_is_under_way(pools: Pools) -> None:
    pool = pools(2)
    with pool.worker() as worker:
        ids = pool.send(*(routed({"delay_s": 3}) for _ in range(4)))
        pool.waits_for(lambda: len(pool.journal("start")) == 4, "four starts")
        assert worker.stop() == 0
    assert sorted(pool.journal("end")) == sorted(ids)
    assert pool.bus.lag(pool.group, pool.topic.name) == 0
    with pool.worker():
        pool.concludes(*pool.send(routed(), routed(), routed()))
    assert len(pool.journal("start")) == 7
    assert [len(pool.completed(each)) for each in ids] == [1] * 4


def test_what_outlasts_the_drain_is_left_to_the_next_worker(pools: Pools, tmp_path: Path) -> None:
    pool, go = pools(1), tmp_path / "go"
    with pool.worker(INFERENCE_DRAIN_MS="1000") as worker:
        [slow, fast] = pool.send(routed({"until": str(go)}), routed())
        pool.concludes(fast)
        assert worker.stop() == 0
    assert pool.journal("cancelled") == [slow]
    assert pool.completed(slow) == []
    go.touch()
    with pool.worker():
        pool.concludes(slow)
        pool.commits_all()
    assert [each.refusal for each in pool.completed(slow)] == [None]


def test_a_dead_engine_ends_the_process_and_its_record_waits_for_another(pools: Pools) -> None:
    pool = pools(1)
    with pool.worker() as worker:
        [good] = pool.send(routed())
        pool.concludes(good)
        pool.commits_all()
        [fatal] = pool.send(routed({"broken": True}))
        assert worker.child.wait(PATIENCE_S) != 0
    assert pool.committed() == {0: 1}
    assert pool.completed(fatal) == []
