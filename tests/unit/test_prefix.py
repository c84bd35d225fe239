"""The finished prefix, against a model that keeps everything and looks from the start."""

from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

import infra.prefix
from infra.prefix import Prefix


class Model:
    """All that was begun, in order, and whether it is finished."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.finished: set[int] = set()
        self.acknowledged = 0

    def finish(self, offset: int) -> list[int]:
        self.finished.add(offset)
        first = self.acknowledged
        while self.acknowledged < len(self.begun) and self._may(self.begun[self.acknowledged]):
            self.acknowledged += 1
        return self.begun[first : self.acknowledged]

    def _may(self, offset: int) -> bool:
        return offset in self.finished


@given(data=st.data(), gaps=st.lists(st.integers(min_value=1, max_value=5), max_size=30))
def test_what_may_be_acknowledged_is_what_a_naive_model_says(
    data: st.DataObject, gaps: list[int]
) -> None:
    prefix, model = Prefix[int](), Model()
    to_begin = [sum(gaps[: index + 1]) for index in range(len(gaps))]
    under_way: list[int] = []
    while to_begin or under_way:
        if to_begin and (not under_way or data.draw(st.booleans(), label="begin")):
            offset = to_begin.pop(0)
            under_way.append(offset)
            prefix.begin(offset, offset)
            model.begun.append(offset)
        else:
            offset = under_way.pop(data.draw(st.integers(0, len(under_way) - 1), label="finish"))
            assert prefix.finish(offset) == model.finish(offset)
        assert len(prefix) == len(model.begun) - model.acknowledged
    assert len(prefix) == 0


def test_nothing_passes_the_first_record_that_is_not_finished() -> None:
    prefix = Prefix[str]()
    for offset in range(5):
        prefix.begin(offset, f"record {offset}")
    assert [prefix.finish(offset) for offset in (1, 2, 3, 4)] == [[], [], [], []]
    assert prefix.finish(0) == [f"record {offset}" for offset in range(5)]


def test_offsets_that_were_never_taken_up_leave_no_gap() -> None:
    prefix = Prefix[int]()
    for offset in (3, 90, 1000):
        prefix.begin(offset, offset)
    assert prefix.finish(90) == []
    assert prefix.finish(3) == [3, 90]
    assert prefix.finish(1000) == [1000]


def test_the_example_in_its_docstring_is_true() -> None:
    outcome = doctest.testmod(infra.prefix)
    assert outcome.attempted > 0
    assert outcome.failed == 0
