"""The recorder: rows that come once, and a table that can be lost."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from infra.lake import QueryInvalid, query
from infra.telemetry import now
from schemas.events import InferenceRecorded, Outcome
from schemas.topics import AUDIT_RECORDED, DEAD_LETTERS, INFERENCE_ATTEMPTED, INFERENCE_RECORDED
from tests.harness import READY_S, Bus, Process, eventually, running, unique

pytestmark = pytest.mark.stack

RECORDER = ["-m", "streams", "recorder"]
# Ten seconds, on a machine that does nothing else.
SOON_S = 60.0
# More than any log has.
ALL = 10**8


def named(group: str) -> list[str]:
    """Returns the command of a recorder in a group of its own."""
    return ["-m", "streams", "streams.sinks:open_recorder", "--name", group]


def row(request_id: str) -> InferenceRecorded:
    return InferenceRecorded(
        request_id=request_id,
        tenant="records",
        endpoint="main.tests.echo",
        outcome=Outcome.COMPLETED,
        request="{}",
        requested_at=now() - timedelta(seconds=1),
    )


def ids(folder: Path) -> list[str]:
    """Returns the ids of this file's rows, sorted, doubles included."""
    try:
        table = query(
            folder / "lake",
            "select request_id from inferences where tenant = 'records' order by request_id",
        )
    except QueryInvalid:  # The table appears with its first event.
        return []
    return [each["request_id"] for each in table.to_pylist()]


def stored(folder: Path, wanted: set[str]) -> None:
    eventually(lambda: wanted <= set(ids(folder)), what="the rows")


def test_a_row_is_readable_soon_and_carries_its_place_and_trace(bus: Bus, tmp_path: Path) -> None:
    with running(bus, named(unique("recorder")), tmp_path):
        event = row(unique("row"))
        trace = "0af7651916cd43dd8448eb211c80319c"
        bus.put(
            INFERENCE_RECORDED.name,
            event.request_id.encode(),
            bus.codec.encode(event),
            headers=[("traceparent", f"00-{trace}-b7ad6b7169203331-01".encode())],
        )
        bus.settle()
        eventually(lambda: event.request_id in ids(tmp_path), SOON_S, "the row")
    [found] = query(
        tmp_path / "lake", f"select * from inferences where request_id = '{event.request_id}'"
    ).to_pylist()
    assert found["trace_id"] == trace
    assert found["log_topic"] == INFERENCE_RECORDED.name
    assert found["log_offset"] >= 0
    assert found["outcome"] == "COMPLETED"


def test_a_lost_table_is_read_again_from_the_log(bus: Bus, tmp_path: Path) -> None:
    group, wanted = unique("recorder"), {unique("lost") for _ in range(100)}
    bus.send(INFERENCE_RECORDED, *(row(each) for each in sorted(wanted)))
    with running(bus, named(group), tmp_path) as recorder:
        stored(tmp_path, wanted)
        eventually(lambda: bus.lag(group, INFERENCE_RECORDED.name) == 0, what="the commit")
        assert recorder.stop() == 0
    before = ids(tmp_path)
    shutil.rmtree(tmp_path / "lake")
    with running(bus, named(group), tmp_path) as recorder:
        stored(tmp_path, wanted)
        eventually(lambda: set(ids(tmp_path)) == set(before), what="every row")
        recorder.stop()
        assert "reading again" in recorder.log(most=ALL)
    assert ids(tmp_path) == before


def test_a_table_lost_while_others_write_it_is_an_error_that_names_the_partitions(
    bus: Bus, tmp_path: Path
) -> None:
    group = unique("recorder")
    bus.send(INFERENCE_RECORDED, *(row(unique("held")) for _ in range(50)))
    with running(bus, named(group), tmp_path):
        eventually(lambda: bus.lag(group, INFERENCE_RECORDED.name) == 0, what="the commit")
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        second = Process(
            named(group),
            {**bus.environment, "LAKE_ROOT": str(elsewhere / "lake")},
            elsewhere / "log",
        )
        assert second.child.wait(READY_S) == 1
        # Of the first table that is lost; other tests may have filled the others' topics.
        held = INFERENCE_RECORDED, INFERENCE_ATTEMPTED, AUDIT_RECORDED
        assert any(f"{topic.name}/" in second.log(most=ALL) for topic in held)
        assert f"stop every {group}" in second.log(most=ALL)


def test_records_trimmed_before_they_were_stored_are_named_and_the_rest_goes_on(
    bus: Bus, tmp_path: Path
) -> None:
    group = unique("recorder")
    bus.send(INFERENCE_RECORDED, row(unique("first")))
    with running(bus, named(group), tmp_path) as recorder:
        eventually(lambda: bus.lag(group, INFERENCE_RECORDED.name) == 0, what="the commit")
        recorder.stop()
    bus.send(INFERENCE_RECORDED, *(row(unique("trimmed")) for _ in range(60)))
    ends = {each: offset for each, offset in _ends(bus).items() if offset}
    trimmed = bus.admin.delete_records(
        [TopicPartition(INFERENCE_RECORDED.name, each, offset) for each, offset in ends.items()]
    )
    for each in trimmed.values():
        each.result(30)
    # So many that some lie on each partition: else nothing is ever committed there.
    later = {unique("later") for _ in range(300)}
    bus.send(INFERENCE_RECORDED, *(row(each) for each in later))
    with running(bus, named(group), tmp_path) as recorder:
        stored(tmp_path, later)
        recorder.stop()
        assert "records are gone before they were stored" in recorder.log(most=ALL)
        assert INFERENCE_RECORDED.name in recorder.log(most=ALL)
    assert not [each for each in ids(tmp_path) if each.startswith("trimmed")]


def test_garbage_on_the_recorded_topic_is_a_dead_letter_and_costs_no_restart_anything(
    bus: Bus, tmp_path: Path
) -> None:
    group, garbage = unique("recorder"), unique("garbage").encode()
    bus.put(INFERENCE_RECORDED.name, b"key", garbage)
    bus.settle()

    def letters() -> int:
        return sum(
            letter.value == garbage and letter.processor == group
            for letter in bus.events(DEAD_LETTERS)
        )

    with running(bus, named(group), tmp_path) as recorder:
        eventually(lambda: bus.lag(group, INFERENCE_RECORDED.name) == 0, what="the commit")
        recorder.stop()
    assert letters() == 1
    # The table knows nothing of the garbage's offset; that is no reason to read again.
    wanted = unique("after")
    bus.send(INFERENCE_RECORDED, row(wanted))
    with running(bus, named(group), tmp_path) as recorder:
        stored(tmp_path, {wanted})
        recorder.stop()
        assert "reading again" not in recorder.log(most=ALL)
    assert letters() == 1


def _ends(bus: Bus) -> dict[int, int]:
    found: dict[int, int] = {}
    for record in bus.records(INFERENCE_RECORDED.name):
        found[record.partition] = record.offset + 1
    return found
