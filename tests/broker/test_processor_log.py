"""The processor loop on the log: failures, garbage, misplaced records, stops, changing members."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from datetime import timedelta
from itertools import count, pairwise

import pytest
from aiokafka.partitioner import murmur2

from schemas.events import DeadLetterCause, Header
from tests.broker.flows import Flow, Flows, event, flows
from tests.broker.garbage import ODD_HEADERS, garbage, put
from tests.broker.pools import PATIENCE_S, in_flight
from tests.broker.steps_for_tests import PLACED, SOUGHT, TOPIC
from tests.harness import SESSION_MS, Process, eventually, unique
from tests.routed import routed

__all__ = ["flows"]

pytestmark = pytest.mark.stack

# A few seconds, on a machine that does nothing else.
SETTLE_S = 45.0


def test_events_on_which_the_step_always_fails_are_buried_whole_and_the_rest_is_done(
    flows: Flows,
) -> None:
    flow = flows(3)
    with flow.processor("open_failing") as processor:
        for number in range(100):
            value = flow.bus.codec.encode(event(number))
            flow.bus.put(flow.name, str(number).encode(), value, headers=list(ODD_HEADERS))
        flow.bus.settle()
        flow.processes(*map(str, range(1, 100, 2)))
        flow.waits_for(lambda: len(flow.letters()) >= 50, "the dead letters")
        flow.commits_all()
        flow.processes(*flow.send(101))
        assert processor.child.poll() is None
    assert flow.counts() == {str(number): 1 for number in range(1, 102, 2)}
    on_the_log = {
        (record.partition, record.offset): record for record in flow.bus.records(flow.name)
    }
    assert sorted(int(letter.key or b"") for letter in flow.letters()) == list(range(0, 100, 2))
    for letter in flow.letters():
        original = on_the_log[(letter.partition, letter.offset)]
        assert (letter.key, letter.value) == (original.key, original.value)
        assert letter.headers == tuple(Header(key=key, value=value) for key, value in ODD_HEADERS)
        assert letter.cause is DeadLetterCause.STEP_FAILED
        assert letter.processor == flow.group
        assert "secret" not in letter.message


def test_events_on_which_the_step_fails_the_first_time_only_are_done_once(flows: Flows) -> None:
    flow = flows(3)
    with flow.processor("open_failing_once"):
        flow.processes(*flow.send(*range(100)))
        flow.commits_all()
    assert flow.counts() == {str(number): 1 for number in range(100)}
    assert flow.letters() == []


def test_garbage_is_buried_whole_and_the_partition_flows_on(flows: Flows) -> None:
    flow = flows(1)
    lot = garbage(flow.bus.codec, event(0), routed())
    with flow.processor("open_copying"):
        flow.bus.put(flow.name, None, flow.bus.codec.encode(event("null key")))
        put(flow.bus, flow.name, lot)
        flow.processes("null key", *flow.send("last"))
        flow.waits_for(lambda: len(flow.letters()) >= len(lot), "the dead letters")
        flow.commits_all()
    letters = sorted(flow.letters(), key=lambda letter: letter.offset)
    assert [(each.key, each.value, each.cause) for each in letters] == [
        (each.key, each.value, each.cause) for each in lot
    ]
    assert [each.headers for each in letters] == [
        tuple(Header(key=key, value=value) for key, value in each.headers) for each in lot
    ]
    assert flow.counts() == {"null key": 1, "last": 1}


def test_a_record_on_another_partition_than_its_keys_is_moved_there_and_counts_once(
    flows: Flows,
) -> None:
    flow = flows(4)
    homes = {str(number): (murmur2(str(number).encode()) & 0x7FFFFFFF) % 4 for number in range(40)}
    with flow.processor("open_copying", **{PLACED: "1"}):
        for number, home in homes.items():
            value = flow.bus.codec.encode(event(number))
            # As other partitioners would: three in four are wrong. Some have no key at all.
            key = None if int(number) % 10 == 0 else number.encode()
            flow.bus.put(flow.name, key, value, partition=(home + int(number)) % 4)
        flow.bus.settle()
        flow.processes(*homes)
        flow.commits_all()
    assert flow.counts() == dict.fromkeys(homes, 1)
    moved = [record for record in flow.bus.records(flow.name) if record.headers]
    expected = {number for number in homes if int(number) % 4 or int(number) % 10 == 0}
    assert {(record.key or b"").decode() for record in moved} == expected
    assert len(moved) == len(expected)
    assert all(record.partition == homes[(record.key or b"").decode()] for record in moved)


def test_a_publication_that_fails_ends_the_process_and_its_record_waits(flows: Flows) -> None:
    flow = flows(1)
    with flow.processor("open_astray", KAFKA_DELIVERY_TIMEOUT_MS="10000") as processor:
        flow.processes(*flow.send("good"))
        flow.commits_all()
        flow.send("astray", "after")
        assert processor.child.wait(PATIENCE_S) == 70
    assert flow.committed() == {0: 1}


def test_exactly_once_is_refused_with_an_explanation(flows: Flows) -> None:
    flow = flows(1)
    process = Process(
        flow.command("open_copying"),
        {
            **flow.bus.environment,
            TOPIC: flow.name,
            "KAFKA_PROCESSING_GUARANTEE": "exactly_once",
        },
        flow.folder / f"{unique('refused')}.log",
        sys.executable,
    )
    assert process.child.wait(PATIENCE_S) == 1
    assert "KAFKA_PROCESSING_GUARANTEE=exactly_once is refused" in process.log()
    assert "at_least_once" in process.log()
    assert "Traceback" not in process.log()


def test_a_processor_that_is_told_to_stop_has_committed_all_that_it_processed(
    flows: Flows,
) -> None:
    flow = flows(2)
    with flow.processor("open_copying") as processor:
        ids = flow.send(*range(500))
        flow.processes(*ids)
        # An effect lies on the log before the processor hears that it does.
        flow.waits_for(lambda: in_flight(processor) == 0, "the last acknowledgement")
        assert processor.stop() == 0
    assert flow.lag() == 0
    with flow.processor("open_copying"):
        flow.processes(*flow.send("later"))
    assert flow.counts() == dict.fromkeys([*ids, "later"], 1)


class Load:
    """Events on every partition, one after another, until it is told to stop."""

    def __init__(self, flow: Flow, partitions: int) -> None:
        self._flow = flow
        self._partitions = partitions
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._produce)
        self.ids: list[str] = []
        self._thread.start()

    def stop(self) -> list[str]:
        """Stops; returns what was produced."""
        self._stop.set()
        self._thread.join()
        self._flow.bus.settle()
        return self.ids

    def _produce(self) -> None:
        for number in count():
            for partition in range(self._partitions):
                self._flow.put(f"{partition}-{number}", partition)
                self.ids.append(f"{partition}-{number}")
            if self._stop.wait(0.05):
                return


def longest_silence(flow: Flow) -> dict[str, timedelta]:
    """Returns for each partition the longest time between two of its records' effects."""
    instants = defaultdict(list)
    for each in flow.effects():
        instants[each.request_id.partition("-")[0]].append(each.cancelled_at)
    return {
        partition: max(later - earlier for earlier, later in pairwise(sorted(found)))
        for partition, found in instants.items()
    }


def owns(process: Process, partitions: int) -> bool:
    """Returns whether a processor is at work on so many partitions."""
    status, facts = process.ask("/ready")
    return status == 200 and facts["partitions"] == partitions


def test_what_arrives_between_a_rebalance_and_the_first_fetch_after_it_is_not_passed_over(
    flows: Flows,
) -> None:
    flow = flows(4)
    sought = flow.folder / unique("sought")
    with flow.processor("open_late", **{SOUGHT: str(sought)}) as first:
        eventually(lambda: owns(first, 4), PATIENCE_S, "ownership of all partitions")
        flow.processes(*flow.send(*range(40)))
        flow.commits_all()
        sought.unlink()
        with flow.processor("open_copying"):
            eventually(sought.exists, PATIENCE_S, "a rebalance")
            for partition in range(4):
                flow.put(f"late-{partition}", partition)
            flow.processes(*(f"late-{partition}" for partition in range(4)))


def test_members_come_and_go_under_load_and_every_partition_flows_on_soon(flows: Flows) -> None:
    flow = flows(4)
    missed_soon = {"KAFKA_SESSION_TIMEOUT_MS": str(SESSION_MS)}
    with flow.processor("open_copying", **missed_soon) as first:
        load = Load(flow, 4)
        try:
            eventually(lambda: owns(first, 4), PATIENCE_S, "ownership of all partitions")
            with flow.processor("open_copying", **missed_soon) as second:
                eventually(
                    lambda: owns(first, 2) and owns(second, 2), PATIENCE_S, "ownership of two each"
                )
                flow.processes(*load.ids)
                second.kill()
            eventually(lambda: owns(first, 4), PATIENCE_S, "ownership after the kill")
            flow.processes(*load.ids)
        finally:
            ids = load.stop()
        flow.processes(*ids)
        flow.commits_all()
        assert first.ask("/live")[0] == 200
    silence = longest_silence(flow)
    assert len(silence) == 4
    assert max(silence.values()) < timedelta(seconds=SETTLE_S)
