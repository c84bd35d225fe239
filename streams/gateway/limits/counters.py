"""The counters of one partition of the ledger, as the sum of its entries.

Whoever decides takes the partition over first (an entry ``TAKEN``), and says with each decision
by which takeover it decides. A decision under another than the latest is void: it is of somebody
who did not know yet that another decides now. Own decisions count at once; that they stand is
certain when they come back from the ledger.
"""

from __future__ import annotations

from collections import Counter as Multiset
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from schemas.binary import MOST_LONG
from schemas.events import Charge, Entry, Reserved, Sum, UsageCounted, UsageSummed
from schemas.topics import USAGE_COUNTED
from streams.gateway.limits.counter import Counter, Held, Used

# Counters of one tenant: values of tags come from callers, in any number.
MOST_COUNTERS = 100_000
SWEEP_MS = 60_000

DECISIONS = frozenset({Entry.REFUSED, Entry.RESERVED})


class Counters:
    """What counts on one partition, for tenants or for what they share.

    Args:
        shared: Whether tenants share these counters.
        partition: Of the ledger.
        place: Offset of the first record to be decided on: decisions on earlier ones are not asked
            for again. Only where counters are not shared: else a request may come twice.

    Attributes:
        offset: Up to where the ledger is summed.
        fence: Offset of the latest takeover.
        changed: Names of counters that changed since they were last summed up.
        dropped: Names of counters that were forgotten since, as nothing counts on them any more.
    """

    def __init__(self, *, shared: bool = False, partition: int = 0, place: int = -1) -> None:
        self.shared = shared
        self.partition = partition
        self.offset = 0
        self.fence = -1
        self.changed: set[str] = set()
        self.dropped: set[str] = set()
        self._place = place
        self._counters: dict[str, Counter] = {}
        self._homes: dict[str, str] = {}
        self._by_home: Multiset[str] = Multiset()
        # Up to where a counter is summed already.
        self._summed: dict[str, int] = {}
        self._earlier: dict[str, UsageCounted] = {}
        # The takeover under which a decision stands that is recalled.
        self._recalled = -1
        # Own decisions that did not come back yet.
        self._pending: set[str] = set()
        self._swept_at = 0

    def __len__(self) -> int:
        return len(self._counters)

    def used(self, charge: Charge, now: datetime) -> int:
        """Returns what counts on a charge's counter."""
        counter = self._counters.get(charge.counter)
        return counter.used(milliseconds(now)) if counter else 0

    def wait_ms(self, charge: Charge, most: int, now: datetime) -> int | None:
        """Returns when a charge fits under a limit; None where it never does."""
        counter = self._counters.get(charge.counter) or Counter(charge.unit, charge.window_ms)
        return counter.wait_ms(max(charge.amount, 1), most, milliseconds(now))

    def has_room(self, charge: Charge) -> bool:
        """Returns whether a charge's counter can be kept; the bound keeps memory flat."""
        return charge.counter in self._counters or self._by_home[charge.home] < MOST_COUNTERS

    def earlier(self, charge_id: str) -> UsageCounted | None:
        """Returns what was decided on this very record before."""
        return self._earlier.get(charge_id)

    def decide(self, entry: UsageCounted) -> None:
        """Counts a decision of one's own, before it lies on the ledger."""
        self._pending.add(entry.charge_id)
        if self.shared:
            self._remember(entry)
        self._reserve(entry, self.offset)

    def apply(self, entry: UsageCounted, offset: int) -> bool:
        """Counts an entry of the ledger; returns whether it is a decision that stands.

        Twice, it counts once.
        """
        if offset < self.offset:
            return False
        self.offset = offset + 1
        self._sweep(milliseconds(entry.at))
        if entry.shared != self.shared:
            return False
        if entry.entry is Entry.TAKEN:
            self.fence = offset
        elif entry.entry is Entry.SETTLED:
            self._settle(entry, offset)
        elif entry.entry in DECISIONS and entry.fence == self.fence:
            if entry.charge_id in self._pending:
                self._pending.discard(entry.charge_id)
                self.changed.update(charge.counter for charge in entry.charges)
            else:
                if self.shared or entry.place >= self._place:
                    self._remember(entry)
                self._reserve(entry, offset)
            return True
        return False

    def recall(self, entry: UsageCounted, offset: int) -> None:
        """Notes a decision that is summed already, but may be asked for again, if it stands.

        Entries come in their order, though not from the first on.
        """
        if entry.shared != self.shared:
            return
        if entry.entry is Entry.TAKEN:
            self._recalled = offset
        elif entry.entry in DECISIONS and entry.fence >= self._recalled:
            self._recalled = entry.fence
            if self.shared or entry.place >= self._place:
                self._remember(entry)

    def restore(self, summed: UsageSummed) -> None:
        """Takes a counter as it stood at an offset."""
        counter = Counter.restored(
            summed.unit,
            summed.window_ms,
            [Used(each.grain, each.amount) for each in summed.sums],
            {
                each.charge_id: Held(each.amount, milliseconds(each.until), each.grain)
                for each in summed.reserved
            },
            milliseconds(summed.summed_at),
        )
        self._keep(summed.counter, summed.home, counter)
        self._summed[summed.counter] = summed.ledger_offset

    def start(self, offset: int, fence: int) -> None:
        """Takes up summing at an offset, where another has summed before."""
        self.offset, self.fence = offset, fence

    def all_changed(self) -> None:
        """Has every counter summed up anew."""
        self.changed = set(self._counters)

    def summed(self, now: datetime) -> Iterator[UsageSummed]:
        """Yields the counters that changed, then up to where all are summed.

        Each as it stands when it is asked for. What was decided but did not come back from the
        ledger is left out.
        """
        names, self.changed = sorted(self.changed), set()
        # Each counter is summed up to here at least, if it changed before.
        summary = UsageSummed(
            counter=summary_of(self.partition, shared=self.shared),
            home="",
            shared=self.shared,
            unit="",
            window_ms=0,
            sums=(),
            ledger_partition=self.partition,
            ledger_offset=self.offset,
            fence=self.fence,
            summed_at=now,
        )
        for name in names:
            if counter := self._counters.get(name):
                yield self._sum(name, counter)
        yield summary

    def _sum(self, name: str, counter: Counter) -> UsageSummed:
        return UsageSummed(
            counter=name,
            home=self._homes[name],
            shared=self.shared,
            unit=counter.unit,
            window_ms=counter.window_ms,
            sums=tuple(
                Sum(grain=grain, amount=min(amount, MOST_LONG))
                for grain, amount in counter.sums(self._pending)
            ),
            reserved=tuple(
                Reserved(
                    charge_id=charge_id,
                    amount=held.amount,
                    until=instant(held.until),
                    grain=held.grain,
                )
                for charge_id, held in counter.held(self._pending).items()
            ),
            ledger_partition=self.partition,
            ledger_offset=self.offset,
            fence=self.fence,
            summed_at=instant(counter.clock),
        )

    def _reserve(self, entry: UsageCounted, offset: int) -> None:
        at, until = milliseconds(entry.at), milliseconds(entry.until)
        for charge in self._fresh(entry.charges, offset):
            counter = self._counters.get(charge.counter)
            if counter is None:
                counter = Counter(charge.unit, charge.window_ms)
                self._keep(charge.counter, charge.home, counter)
            counter.reserve(entry.charge_id, charge.amount, at, until)
            self.changed.add(charge.counter)

    def _settle(self, entry: UsageCounted, offset: int) -> None:
        for charge in self._fresh(entry.charges, offset):
            if counter := self._counters.get(charge.counter):
                counter.settle(entry.charge_id, charge.amount, milliseconds(entry.at))
                self.changed.add(charge.counter)

    def _fresh(self, charges: Iterable[Charge], offset: int) -> Iterator[Charge]:
        """Yields the charges whose counters are not summed up to this offset already."""
        return (each for each in charges if offset >= self._summed.get(each.counter, 0))

    def _keep(self, name: str, home: str, counter: Counter) -> None:
        if name not in self._counters:
            self._by_home[home] += 1
            self.dropped.discard(name)
        self._counters[name] = counter
        self._homes[name] = home

    def _remember(self, entry: UsageCounted) -> None:
        # Of what tenants share, what is reserved stands in the record that asks, save what was
        # lowered.
        kept = entry
        if self.shared:
            lowered = (each for each in entry.charges if each.unit == "cost" and not each.amount)
            kept = replace(entry, charges=tuple(lowered))
        self._earlier[entry.charge_id] = kept

    def _sweep(self, now_ms: int) -> None:
        """Forgets what counts no more; looks once a minute at most."""
        if now_ms < self._swept_at + SWEEP_MS:
            return
        self._swept_at = now_ms
        for name in [name for name, each in self._counters.items() if each.is_empty(now_ms)]:
            del self._counters[name]
            home = self._homes.pop(name)
            self._by_home[home] -= 1
            if not self._by_home[home]:
                del self._by_home[home]
            self._summed.pop(name, None)
            self.dropped.add(name)
        for charge_id in [
            name for name, each in self._earlier.items() if milliseconds(each.until) < now_ms
        ]:
            del self._earlier[charge_id]


def summary_of(partition: int, *, shared: bool) -> str:
    """Returns the name under which a partition says up to where its counters are summed."""
    return f"{USAGE_COUNTED.name}/{partition}/{'shared' if shared else 'own'}"


def dated(entry: UsageCounted, logged_ms: int) -> UsageCounted:
    """Returns an entry with no later instant than that at which it came to lie on the ledger.

    Whoever settles has a clock of its own: one that is ahead must not let windows slide. What the
    ledger says is the same however often it is read.
    """
    if logged_ms < 0 or milliseconds(entry.at) <= logged_ms:
        return entry
    return replace(entry, at=instant(logged_ms))


def milliseconds(moment: datetime) -> int:
    """Returns an instant in milliseconds since 1970."""
    return round(moment.timestamp() * 1000)


def instant(ms: int) -> datetime:
    """Returns the instant that is so many milliseconds after 1970."""
    return datetime.fromtimestamp(ms / 1000, UTC)
