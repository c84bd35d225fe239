"""The finished prefix of a partition: how far a consumer may commit."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefix(Generic[T]):
    """Work under way on one partition, in offset order.

    Work may finish in any order; what may be acknowledged is only what stands before the first
    that has not. Offsets that were never taken up (transaction markers, compacted records) leave
    no gap, since only what was taken up counts.

        >>> prefix = Prefix[str]()
        >>> prefix.begin(7, "a"); prefix.begin(9, "b"); prefix.begin(10, "c")
        >>> prefix.finish(9)
        []
        >>> prefix.finish(7)
        ['a', 'b']
    """

    def __init__(self) -> None:
        self._under_way: OrderedDict[int, T] = OrderedDict()
        self._finished: set[int] = set()

    def __len__(self) -> int:
        return len(self._under_way)

    def begin(self, offset: int, item: T) -> None:
        """Notes that an offset is taken up; offsets only grow."""
        self._under_way[offset] = item

    def finish(self, offset: int) -> list[T]:
        """Notes that an offset is finished; returns the items that may be acknowledged now."""
        self._finished.add(offset)
        freed = []
        while self._under_way and next(iter(self._under_way)) in self._finished:
            first, item = self._under_way.popitem(last=False)
            self._finished.discard(first)
            freed.append(item)
        return freed
