"""Health of a processor: what raises an alarm, what does not, and that a restart helps."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Producer

from tests.broker.flows import Flow, Flows, event, flows
from tests.broker.pools import PATIENCE_S
from tests.broker.steps_for_tests import BLOCKED
from tests.harness import eventually, unique

__all__ = ["flows"]

pytestmark = pytest.mark.stack

STALL_S = 8.0
# Within seconds, on a machine that does nothing else.
SEEN_S = 60.0


def send_in_a_transaction(flow: Flow, partitions: int) -> list[str]:
    """Leaves a marker at the end of every partition, so that lag stays one."""
    producer = Producer(
        {
            "bootstrap.servers": flow.bus.kafka.bootstrap_servers,
            "transactional.id": unique("transaction"),
        }
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    for partition in range(partitions):
        value = flow.bus.codec.encode(event(partition))
        producer.produce(flow.name, value, str(partition).encode(), partition=partition)
    producer.commit_transaction(30)
    return [str(partition) for partition in range(partitions)]


def test_a_step_that_blocks_is_flagged_in_time_and_a_restart_helps(flows: Flows) -> None:
    flow = flows(1)
    stall = {"HEALTH_STALL_MS": str(int(STALL_S * 1000))}
    with flow.processor("open_blocking", **stall, **{BLOCKED: "blocked"}) as processor:
        flow.processes(*flow.send("before"))
        flow.commits_all()
        blocked_at = time.monotonic()
        flow.send("blocked", "after")
        eventually(lambda: processor.ask("/live")[0] == 503, PATIENCE_S, "the alarm")
        assert STALL_S < time.monotonic() - blocked_at < STALL_S + SEEN_S
        assert processor.ask("/live")[1]["stalled"] == [f"{flow.name}/0"]
        processor.kill()
        assert flow.committed() == {0: 1}
    with flow.processor("open_blocking", **stall) as processor:
        flow.processes("blocked", "after")
        flow.commits_all()
        # It looks every two seconds, and may have been held up for longer than the alarm takes.
        alive = 200, {"ok": True, "stalled": []}
        flow.waits_for(lambda: processor.ask("/live") == alive, "no alarm")
    assert flow.counts() == {"before": 1, "blocked": 1, "after": 1}


@pytest.mark.parametrize("ends", ["records", "transaction markers"])
def test_an_idle_processor_raises_no_alarm_and_stays_ready(flows: Flows, ends: str) -> None:
    flow, left = flows(4), 0 if ends == "records" else 4

    def is_seen() -> bool:
        """An alarm from before the last commit ends when it looks again."""
        return processor.ask("/ready")[1].get("lag") == left and processor.ask("/live")[0] == 200

    with flow.processor("open_copying", HEALTH_STALL_MS="1500") as processor:
        if ends == "records":
            flow.processes(*flow.send(1))
        else:
            flow.processes(*send_in_a_transaction(flow, 4))
        flow.waits_for(lambda: flow.lag() == left, "the last commit")
        flow.waits_for(is_seen, "that it sees so")
        idle_until = time.monotonic() + 15
        while time.monotonic() < idle_until:
            assert processor.ask("/live")[0] == 200
            status, facts = processor.ask("/ready")
            # Where a broker is held up for long, that is told.
            assert status == 200 or not facts["broker_answers"], facts
            time.sleep(0.1)
        assert flow.lag() == left
        flow.processes(*flow.send("later"))
