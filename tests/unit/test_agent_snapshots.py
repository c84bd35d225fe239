"""Snapshots of runs: whichever there is, a start knows what it would know without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.bus import Record
from schemas.codec import Codec
from schemas.events import EVENTS, AgentJournaled, AgentsSnapshotted, KnownRun
from schemas.topics import AGENT_JOURNALED, AGENT_SNAPSHOTTED
from streams.agents.kept import BACK, SKEW, Kept
from streams.agents.snapshots import (
    Gathered,
    Lying,
    SnapshotUnsound,
    Standing,
    known,
    parted,
    places,
    taken,
)
from tests.unit.agents import HOUR, NOON, SECOND

CODEC = Codec({name: number for number, name in enumerate(EVENTS)})
TOPIC = "the journal"
PARTITIONS = 2
Lot = list[tuple[AgentJournaled, Record]]

# Which run has an entry, and what kind of one: the next, the last, one that another process wrote
# too late, one that was taken in before, or one that has none before it.
ENTRIES = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["next"] * 4 + ["end", "late", "again", "gap"])),
    max_size=40,
)
# What may be wrong with a snapshot.
FAULTS = st.sampled_from(
    ["none", "none", "foreign", "old", "ahead", "in part", "beyond", "other entries"]
)


def written(drawn: list[tuple[int, str]]) -> Lot:
    """Returns a journal: its entries with their records, in the order in which they came."""
    counts: Counter[int] = Counter()
    ends: Counter[int] = Counter()
    lot: Lot = []
    for number, (run, kind) in enumerate(drawn):
        seq = counts[run] + {"late": -1, "gap": 1}.get(kind, 0)
        entry = AgentJournaled(
            run_id=f"run {run}//acme",
            tenant="acme",
            agent="main.tests.clerk",
            seq=seq,
            cause_id=f"cause {0 if kind == 'again' else number}",
            cause=b"",
            until=NOON + HOUR if seq == 0 else None,
            ended=kind == "end",
            at=NOON,
        )
        place = run % PARTITIONS
        # What ends a transaction lies on the log, too.
        ends[place] += 1 + number % 3
        lot.append((entry, Record(AGENT_JOURNALED.name, place, ends[place], None, b"", ())))
        counts[run] += kind in {"next", "end"}
    return lot


def folded(lot: Lot, runs: Mapping[str, Kept] | None = None) -> dict[str, Kept]:
    """Returns what is known of runs by what is written, beside what was known before."""
    found = {**(runs or {})}
    for entry, record in lot:
        found.setdefault(entry.run_id, Kept(heard=NOON)).take(entry, record)
    return {run: kept for run, kept in found.items() if kept.causes}


def end(lot: Lot, partition: int) -> int:
    return max((each.offset + 1 for _, each in lot if each.partition == partition), default=0)


def lying(lot: Lot, first: int = 0) -> Lying:
    ends = {each: (min(first, end(lot, each)), end(lot, each)) for each in range(PARTITIONS)}
    return Lying(TOPIC, ends, NOON)


def snapshot(lot: Lot, partition: int, **changes: Any) -> AgentsSnapshotted:
    place = Standing(end(lot, partition), folded(lot))
    return replace(taken(place, partition, TOPIC, NOON), **changes)


def on_the_log(parts: Iterable[AgentsSnapshotted]) -> list[AgentsSnapshotted]:
    return [CODEC.decode(CODEC.encode(each), AgentsSnapshotted) for each in parts]


@dataclass(frozen=True, slots=True)
class Faulty:
    """A snapshot that was taken at some time of a journal, and what is wrong with it."""

    cut: int
    partition: int
    fault: str

    def parts(self, lot: Lot, most: int) -> list[AgentsSnapshotted]:
        """Returns what lies on its topic of it."""
        whole = snapshot(lot[: self.cut], self.partition)
        if self.fault == "other entries":
            runs = (each if each.ended else _other(each) for each in whole.runs)
            whole = replace(whole, runs=tuple(runs))
        changes: dict[str, dict[str, Any]] = {
            "foreign": {"topic_id": "another journal"},
            "old": {"taken_at": NOON - BACK},
            "ahead": {"taken_at": NOON + SKEW},
            "beyond": {"offset": end(lot, self.partition) + 1},
        }
        parts = on_the_log(parted(replace(whole, **changes.get(self.fault, {})), most))
        if self.fault == "in part":
            return [replace(each, parts=each.parts + 1) for each in parts]
        return parts


def _other(run: KnownRun) -> KnownRun:
    return replace(run, offsets=(*run.offsets[:-1], run.offsets[-1] + 1))


SNAPSHOTS = st.lists(
    st.builds(Faulty, st.integers(0, 40), st.integers(0, PARTITIONS - 1), FAULTS), max_size=6
)


def started(lot: Lot, parts: Iterable[AgentsSnapshotted], journal: Lying) -> dict[str, Kept]:
    """Returns what a start knows that finds these parts of snapshots, and this journal."""
    there = [each for each in lot if each[1].offset >= journal.ends[each[1].partition][0]]
    gathered = Gathered(journal)
    for part in parts:
        gathered.take(part)
    runs: dict[str, Kept] = {}
    known_to: dict[int, int] = {}
    for partition, whole in gathered.latest.items():
        wanted = set(places(whole))
        found = [each for each in there if (each[1].partition, each[1].offset) in wanted]
        try:
            runs |= known(whole, found)
        except SnapshotUnsound:
            continue
        known_to[partition] = whole.offset
    rest = [each for each in there if each[1].offset >= known_to.get(each[1].partition, 0)]
    return folded(rest, runs)


@given(ENTRIES, st.integers(0, 40), st.integers(1, 300))
def test_a_snapshot_and_what_came_after_it_make_what_all_that_came_makes(
    drawn: list[tuple[int, str]], cut: int, most: int
) -> None:
    lot = written(drawn)
    parts = [
        part
        for partition in range(PARTITIONS)
        for part in on_the_log(parted(snapshot(lot[:cut], partition), most))
    ]
    journal = lying(lot)
    assert started(lot, parts, journal) == folded(lot)
    gathered = Gathered(journal)
    for part in parts:
        gathered.take(part)
    assert {each.offset for each in gathered.latest.values()} == {
        end(lot[:cut], partition) for partition in range(PARTITIONS)
    }


@settings(max_examples=400)
@given(ENTRIES, SNAPSHOTS, st.integers(1, 300), st.randoms(use_true_random=False))
def test_whatever_snapshots_there_are_a_start_knows_what_it_would_know_without(
    drawn: list[tuple[int, str]], faulty: list[Faulty], most: int, order: Any
) -> None:
    lot = written(drawn)
    parts = [part for each in faulty for part in each.parts(lot, most)]
    # Parts of several writers lie between each other, and of some not all are left.
    order.shuffle(parts)
    assert started(lot, parts, lying(lot)) == folded(lot)
    assert started(lot, parts[1:], lying(lot)) == folded(lot)


@settings(max_examples=400)
@given(ENTRIES, SNAPSHOTS, st.integers(0, 60))
def test_no_run_is_missed_of_which_all_entries_are_left(
    drawn: list[tuple[int, str]], faulty: list[Faulty], first: int
) -> None:
    lot = written(drawn)
    journal = lying(lot, first)
    found = started(lot, [part for each in faulty for part in each.parts(lot, 300)], journal)
    for run, kept in folded(lot).items():
        if min(kept.causes.values()) >= journal.ends[kept.partition][0]:
            assert found[run] == kept


GOING = [(0, "next"), (0, "next"), (2, "next"), (2, "end"), (1, "next")]


def test_a_snapshot_tells_of_the_runs_of_its_partition_alone() -> None:
    lot = written(GOING)
    assert [each.run_id for each in snapshot(lot, 0).runs] == ["run 0//acme", "run 2//acme"]
    assert [each.run_id for each in snapshot(lot, 1).runs] == ["run 1//acme"]


def test_only_entries_of_runs_that_go_on_are_read_again() -> None:
    lot = written(GOING)
    of_the_first = [(each.partition, each.offset) for _, each in lot[:2]]
    assert places(snapshot(lot, 0)) == of_the_first


def test_a_snapshot_lies_under_its_partition_and_its_parts_behind_it() -> None:
    keys = [AGENT_SNAPSHOTTED.key(each) for each in parted(snapshot(written(GOING), 0), 1)]
    assert keys == ["0", "0/1"]


def test_a_partition_without_runs_has_a_snapshot_too() -> None:
    [only] = parted(snapshot([], 1))
    assert (only.runs, only.part, only.parts) == ((), 0, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"topic_id": "another journal"},
        {"taken_at": NOON - BACK},
        {"taken_at": NOON + SKEW},
        {"offset": 4},
        {"offset": 101},
        {"partition": PARTITIONS},
        {"parts": 2},
        {"part": 1},
        {"parts": 0},
    ],
    ids=lambda each: ", ".join(map("=".join, [(k, str(v)) for k, v in each.items()])),
)
def test_what_does_not_fit_the_journal_is_no_snapshot_of_it(changes: dict[str, Any]) -> None:
    fitting = replace(snapshot(written(GOING), 0), offset=50)
    gathered = Gathered(Lying(TOPIC, {0: (5, 100), 1: (5, 100)}, NOON))
    gathered.take(replace(fitting, snapshot_id="another", **changes))
    assert gathered.latest == {}
    gathered.take(fitting)
    assert gathered.latest == {0: fitting}


def test_of_several_snapshots_the_one_counts_that_reaches_furthest() -> None:
    lot = written(GOING)
    near, far = snapshot(lot[:1], 0), snapshot(lot, 0)
    for order in ([near, far], [far, near]):
        gathered = Gathered(lying(lot))
        for each in order:
            gathered.take(each)
        assert gathered.latest == {0: far}


@pytest.mark.parametrize("missing", [0, 1])
def test_a_snapshot_is_unsound_where_an_entry_of_a_run_that_goes_on_is_gone(missing: int) -> None:
    lot = written(GOING)
    entries = lot[:2]
    del entries[missing]
    with pytest.raises(SnapshotUnsound, match="run 0//acme"):
        known(snapshot(lot, 0), entries)


def test_a_snapshot_is_unsound_where_the_journal_has_another_entry() -> None:
    lot = written(GOING)
    (first, place), second = lot[:2]
    with pytest.raises(SnapshotUnsound, match="run 0//acme"):
        known(snapshot(lot, 0), [(replace(first, cause_id="another"), place), second])
    with pytest.raises(SnapshotUnsound, match="run 0//acme"):
        known(snapshot(lot, 0), [(first, place), (replace(second[0], ended=True), second[1])])


def test_a_snapshot_is_unsound_that_names_more_places_than_causes() -> None:
    whole = snapshot(lot := written(GOING), 0)
    over = replace(whole.runs[1], offsets=(*whole.runs[1].offsets, 99))
    with pytest.raises(SnapshotUnsound, match="run 2//acme"):
        known(replace(whole, runs=(whole.runs[0], over)), lot[:2])


@pytest.mark.parametrize(("since", "left"), [(-SECOND, 0), (timedelta(), 1)])
def test_a_run_that_was_over_long_ago_is_left_out_however_often_processes_start(
    since: timedelta, left: int
) -> None:
    heard = NOON - BACK + since
    run = Kept(causes={"a": 0}, until=NOON - BACK - HOUR, ended=True, heard=heard)
    first = taken(Standing(1, {"run": run}), 0, TOPIC, NOON)
    assert len(first.runs) == left
    assert [each.heard for each in known(first, []).values()] == [heard] * left
