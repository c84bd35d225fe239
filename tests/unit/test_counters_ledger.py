"""The ledger: whatever is killed, asleep or late, entries count once and limits hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.binary import MOST_LONG
from schemas.codec import Codec
from schemas.events import EVENTS, Charge, Entry, UsageCounted, UsageSummed
from streams.gateway.limits import counters
from streams.gateway.limits.counters import Counters, dated, milliseconds, summary_of
from tests.unit.asking import MINUTE, NOON

MOST = 5
REQUESTS = Charge(counter="requests", home="acme", unit="requests", window_ms=60_000, amount=1)
TOKENS = Charge(counter="tokens", home="acme", unit="total_tokens", window_ms=60_000, amount=10)
SLOTS = Charge(counter="slots", home="acme", unit="in_flight", amount=1)
CHARGES = (REQUESTS, TOKENS, SLOTS)


def entry(name: str, what: Entry = Entry.RESERVED, **more: object) -> UsageCounted:
    """Returns an entry about a charge; of nobody's takeover, as it stands."""
    plain = UsageCounted(
        charge_id=name,
        home="acme",
        tenant="acme",
        request_id=name,
        entry=what,
        charges=CHARGES,
        at=NOON,
        until=NOON + MINUTE,
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def used(of: Counters) -> list[int]:
    return [of.used(charge, NOON) for charge in CHARGES]


def applied(entries: Iterable[UsageCounted], of: Counters | None = None) -> Counters:
    of = Counters() if of is None else of
    for offset, each in enumerate(entries):
        of.apply(each, offset)
    return of


def test_entries_that_are_read_twice_count_once() -> None:
    settled = tuple(replace(each, amount=1) for each in CHARGES)
    log = [
        entry("", Entry.TAKEN),
        entry("a", fence=0),
        entry("b", fence=0),
        entry("a", Entry.SETTLED, charges=settled),
        entry("a", Entry.SETTLED, charges=CHARGES),
    ]
    of = applied(log)
    assert used(of) == [2, 11, 1]
    assert used(applied(log, of)) == [2, 11, 1]


def test_a_decision_under_another_takeover_than_the_latest_is_void() -> None:
    log = [
        entry("", Entry.TAKEN),
        entry("a", fence=0),
        entry("", Entry.TAKEN),
        entry("asleep", fence=0),
        entry("b", fence=2),
    ]
    of = applied(log)
    assert used(of)[0] == 2
    assert of.earlier("asleep") is None
    assert of.earlier("b") is not None


def test_what_others_share_is_counted_apart() -> None:
    log = [entry("", Entry.TAKEN), entry("a", fence=0), entry("b", shared=True)]
    assert used(applied(log)) == [1, 10, 1]
    assert used(applied(log, Counters(shared=True))) == [1, 10, 1]


def test_a_refusal_counts_nothing_and_is_remembered_until_its_lease_ends() -> None:
    of = applied([entry("", Entry.TAKEN), entry("a", Entry.REFUSED, fence=0, charges=())])
    assert used(of) == [0, 0, 0]
    assert of.earlier("a") is not None
    of.apply(entry("b", Entry.SETTLED, at=NOON + 3 * MINUTE), 2)
    assert of.earlier("a") is None


def test_only_decisions_on_records_that_are_read_again_are_remembered() -> None:
    log = [entry("", Entry.TAKEN), *(entry(f"{n}", fence=0, place=n) for n in range(4))]
    of = applied(log, Counters(place=2))
    assert [of.earlier(f"{n}") is not None for n in range(4)] == [False, False, True, True]
    assert used(of)[0] == 4


def test_what_counts_no_more_is_forgotten() -> None:
    of = applied([entry("", Entry.TAKEN), entry("a", fence=0)])
    assert len(of) == 3
    later = NOON + timedelta(days=2)
    of.apply(entry("b", Entry.SETTLED, at=later), 2)
    assert len(of) == 0
    assert of.dropped == {"requests", "tokens", "slots"}


def test_a_tenant_has_so_many_counters_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "MOST_COUNTERS", 3)
    of = applied([entry("", Entry.TAKEN), entry("a", fence=0)])
    assert of.has_room(REQUESTS)
    assert not of.has_room(replace(REQUESTS, counter="one more"))
    assert of.has_room(replace(REQUESTS, counter="one more", home="other"))


@dataclass
class Partition:
    """A partition of the ledger, its sums, and the processes that decide on it by turns."""

    log: list[UsageCounted] = field(default_factory=list)
    sums: dict[str, UsageSummed] = field(default_factory=dict)
    takeovers: int = 0

    def append(self, each: UsageCounted) -> None:
        self.log.append(each)

    def taken_over(self, place: int) -> Owner:
        """Returns a new owner, which has recovered what is known."""
        self.takeovers += 1
        self.append(entry(f"takeover {self.takeovers}", Entry.TAKEN))
        of = Counters(place=place)
        summary = self.sums.get(summary_of(0, shared=False))
        start = summary.ledger_offset if summary else 0
        if summary:
            of.start(start, summary.fence)
            for name, summed in self.sums.items():
                if name != summary.counter:
                    of.restore(summed)
        for offset, each in enumerate(self.log[:start]):
            of.recall(each, offset)
        for offset in range(start, len(self.log)):
            of.apply(self.log[offset], offset)
        return Owner(self, of, of.fence)


@dataclass
class Owner:
    """A process that decides on records, which it does until it hears that another does."""

    partition: Partition
    of: Counters
    fence: int
    standing: dict[str, bool] = field(default_factory=dict)

    def decides(self, number: int) -> None:
        """Decides on a record, unless that was done before; what is decided is on its way."""
        name = f"{number}"
        earlier = self.of.earlier(name)
        if earlier is None:
            fits = self.of.used(REQUESTS, NOON) + 1 <= MOST
            what = Entry.RESERVED if fits else Entry.REFUSED
            charges = CHARGES if fits else ()
            earlier = entry(name, what, charges=charges, fence=self.fence, place=number)
            self.of.decide(earlier)
            self.partition.append(earlier)
        else:
            self.standing[name] = earlier.entry is Entry.RESERVED

    def follows(self) -> None:
        """Hears what lies on the ledger."""
        for offset in range(self.of.offset, len(self.partition.log)):
            each = self.partition.log[offset]
            if self.of.apply(each, offset):
                self.standing[each.charge_id] = each.entry is Entry.RESERVED

    def sums_up(self) -> None:
        """Writes down what changed."""
        for summed in self.of.summed(NOON):
            self.partition.sums[summed.counter] = summed


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["decide", "decide", "follow", "settle", "sum", "kill", "sleeper"]),
        st.integers(0, 9),
    ),
    max_size=60,
)


@settings(max_examples=500, deadline=None)
@given(steps=STEPS)
def test_whoever_is_killed_or_asleep_no_record_counts_twice_and_no_more_than_the_limit_pass(
    steps: list[tuple[str, int]],
) -> None:
    partition = Partition()
    owner, sleeper = partition.taken_over(0), None
    at = done = 0
    told: dict[str, set[bool]] = {}
    for step, chance in steps:
        if step == "decide":
            owner.decides(at)
            at += 1
        elif step == "follow":
            owner.follows()
        elif step == "settle":
            name = f"{chance}"
            if True in told.get(name, ()):
                partition.append(entry(name, Entry.SETTLED, charges=CHARGES))
        elif step == "sum":
            owner.sums_up()
        elif step == "kill":
            # What was not committed is read again. The one before may only be asleep.
            sleeper, at = owner, max(done, at - chance)
            owner = partition.taken_over(at)
            done = at
        elif sleeper is not None:
            sleeper.decides(at + chance)
            sleeper.follows()
        for each in filter(None, (owner, sleeper)):
            for name, passed in each.standing.items():
                told.setdefault(name, set()).add(passed)
    owner.follows()
    for name, passed in owner.standing.items():
        told.setdefault(name, set()).add(passed)
    assert all(len(answers) == 1 for answers in told.values()), "each is answered one way"
    assert sum(True in answers for answers in told.values()) <= MOST
    # What counts is what passed, each once, and settled or not.
    standing = {
        each.charge_id
        for offset, each in enumerate(partition.log)
        if each.entry is Entry.RESERVED
        and each.fence
        == max(at for at, other in enumerate(partition.log[:offset]) if other.entry is Entry.TAKEN)
    }
    settled = {each.charge_id for each in partition.log if each.entry is Entry.SETTLED}
    assert used(owner.of) == [
        len(standing),
        10 * len(standing),
        len(standing - settled),
    ]
    assert used(partition.taken_over(at).of) == used(owner.of)


def test_a_clock_that_is_ahead_frees_nobody_of_what_is_used() -> None:
    of = applied([entry("", Entry.TAKEN), entry("a", fence=0)])
    ahead = entry("other", Entry.SETTLED, at=NOON + 60 * MINUTE)
    of.apply(dated(ahead, milliseconds(NOON)), 2)
    assert used(of) == [1, 10, 1]
    assert dated(ahead, -1) == ahead, "nobody dates it"
    behind = entry("late")
    assert dated(behind, milliseconds(NOON + MINUTE)) == behind


def test_sums_beyond_what_an_event_can_hold_stay_the_most_that_it_can() -> None:
    most = replace(TOKENS, amount=MOST_LONG)
    of = Counters()
    for number in range(3):
        of.apply(entry(f"{number}", charges=(TOKENS,)), 2 * number)
        of.apply(entry(f"{number}", Entry.SETTLED, charges=(most,)), 2 * number + 1)
    assert of.used(TOKENS, NOON) == 3 * MOST_LONG
    codec = Codec({name: number for number, name in enumerate(EVENTS)})
    summed = [codec.decode(codec.encode(each), UsageSummed) for each in of.summed(NOON)]
    assert [one.amount for each in summed for one in each.sums] == [MOST_LONG]
