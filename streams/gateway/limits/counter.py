"""A counter: what was used within a window that slides, and what is reserved beyond it.

The window has 60 grains. What was used counts until the whole of its grain lies behind the window,
so never more than the limit is used in any window, however it lies. Instants are milliseconds since
1970; where the clock steps back, the latest instant that was seen holds on.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

GRAINS = 60
# A request whose lease ended may still be settled: that long, what it used counts when it comes.
LATE_MS = 24 * 60 * 60 * 1000
# What is only held comes back when some request ends, which nobody knows beforehand.
ASK_AGAIN_MS = 1000


class Used(NamedTuple):
    """What was used within one grain, by the number of the grain since 1970."""

    grain: int
    amount: int


@dataclass(slots=True)
class Held:
    """What one charge has reserved.

    Attributes:
        amount: How much.
        until: End of the lease.
        grain: Where it is booked already; -1 for what is only held.
        lapsed: Whether the lease has ended, so that it counts no more until it is settled.
    """

    amount: int
    until: int
    grain: int = -1
    lapsed: bool = False


class Counter:
    """What is used of one limit.

    Args:
        unit: What is counted. ``requests`` are booked when they are reserved, ``in_flight`` is only
            held, and all else is held until it is settled, then booked.
        window_ms: How far back use counts; 0 for what counts only while it goes on.

    Attributes:
        clock: The latest instant that was seen.
    """

    def __init__(self, unit: str, window_ms: int) -> None:
        self.unit = unit
        self.window_ms = window_ms
        self.clock = 0
        self._size = max(1, -(-window_ms // GRAINS))
        # In the order of grains: what is booked is booked at the clock, which never steps back.
        self._sums: dict[int, int] = {}
        self._booked = 0
        self._held: dict[str, Held] = {}
        self._holding = 0
        # When leases end, and when what lapsed is forgotten; what is settled meanwhile stays here.
        self._ends: list[tuple[int, str]] = []

    def reserve(self, charge_id: str, amount: int, at: int, until: int) -> None:
        """Reserves an amount until it is settled or the lease ends; a charge counts once."""
        self._see(at)
        if charge_id in self._held:
            return
        grain = -1
        if self.unit == "requests":
            grain = self.clock // self._size
            self._book(grain, amount)
        else:
            self._holding += amount
        self._hold(charge_id, Held(amount, until, grain))

    def settle(self, charge_id: str, amount: int, at: int) -> None:
        """Counts what a charge really used, in place of what it has reserved.

        A charge that is unknown was settled before, or is too old: it counts no more.
        """
        self._see(at)
        held = self._held.pop(charge_id, None)
        if held is None:
            return
        if held.grain >= 0:
            if held.grain in self._sums:
                self._book(held.grain, amount - held.amount)
            return
        if not held.lapsed:
            self._holding -= held.amount
        if self.unit != "in_flight":
            self._book(self.clock // self._size, amount)

    def used(self, now: int) -> int:
        """Returns what counts now: used within the window, or reserved."""
        self._see(now)
        return self._booked + self._holding

    def wait_ms(self, amount: int, most: int, now: int) -> int | None:
        """Returns when an amount fits under a limit, unless more is used; None where it never does.

        What is reserved is expected to be used; where it alone stands in the way, the answer is to
        ask again soon.
        """
        over = self.used(now) + amount - most
        if over <= 0:
            return 0
        if amount > most:
            return None
        for grain, used in self._sums.items():
            over -= used
            if over <= 0:
                return max(1, self._out_at(grain) - self.clock)
        return ASK_AGAIN_MS

    def is_empty(self, now: int) -> bool:
        """Returns whether nothing counts, now or later."""
        self._see(now)
        return not self._sums and not self._held

    def sums(self, without: Collection[str] = ()) -> list[Used]:
        """Returns what is booked, except by some charges."""
        sums = dict(self._sums)
        for charge_id in without:
            held = self._held.get(charge_id)
            if held and held.grain in sums:
                sums[held.grain] -= held.amount
        return [Used(grain, amount) for grain, amount in sums.items() if amount]

    def held(self, without: Collection[str] = ()) -> dict[str, Held]:
        """Returns what is reserved, except by some charges."""
        return {name: held for name, held in self._held.items() if name not in without}

    @classmethod
    def restored(
        cls, unit: str, window_ms: int, sums: list[Used], held: dict[str, Held], clock: int
    ) -> Counter:
        """Returns a counter as it stood when its sums were taken."""
        counter = cls(unit, window_ms)
        counter.clock = clock
        for grain, amount in sorted(sums):
            counter._book(grain, amount)
        for charge_id, each in held.items():
            counter._hold(charge_id, Held(each.amount, each.until, each.grain))
            if each.grain < 0:
                counter._holding += each.amount
        counter._see(clock)
        return counter

    def _hold(self, charge_id: str, held: Held) -> None:
        self._held[charge_id] = held
        heappush(self._ends, (held.until, charge_id))

    def _book(self, grain: int, amount: int) -> None:
        left = self._sums.get(grain, 0) + amount
        self._booked += amount
        if left:
            self._sums[grain] = left
        else:
            self._sums.pop(grain, None)

    def _out_at(self, grain: int) -> int:
        """Returns when a whole grain lies behind the window."""
        return (grain + 1) * self._size + self.window_ms

    def _see(self, now: int) -> None:
        """Moves the clock on: grains slide out, leases end."""
        self.clock = max(self.clock, now)
        while self._sums and self._out_at(grain := next(iter(self._sums))) <= self.clock:
            self._booked -= self._sums.pop(grain)
        while self._ends and self._ends[0][0] <= self.clock:
            end, charge_id = heappop(self._ends)
            self._end(charge_id, end)

    def _end(self, charge_id: str, end: int) -> None:
        """Ends a lease, or forgets what lapsed; not what was reserved anew since."""
        held = self._held.get(charge_id)
        if held is None or end != held.until + (LATE_MS if held.lapsed else 0):
            return
        if held.grain < 0 and not held.lapsed:
            self._holding -= held.amount
        if held.grain >= 0 or held.lapsed or self.unit == "in_flight":
            del self._held[charge_id]
        else:
            held.lapsed = True
            heappush(self._ends, (end + LATE_MS, charge_id))
