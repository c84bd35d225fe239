"""A lake that is away for a while costs no row and doubles none."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from schemas.topics import INFERENCE_RECORDED
from tests.broker.test_usage import ROWS, STORED, named, row, summed
from tests.harness import Bus, eventually, running, unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]


def test_with_the_lake_away_no_row_of_ten_thousand_is_lost_or_doubled(
    bus: Bus, tmp_path: Path
) -> None:
    group, tenant = unique("recorder"), unique("tenant")
    lake, away = tmp_path / "lake", tmp_path / "away"
    events = [row(tenant, number) for number in range(ROWS)]
    bus.send(INFERENCE_RECORDED, *events[:1000])
    with running(bus, named(group), tmp_path) as recorder:
        eventually(lambda: summed(tmp_path, tenant)[0] == 1000, what="the first rows")
        # With nothing left to store, nobody makes the folder anew before the file lies there.
        eventually(lambda: not any(bus.lag(group, each.name) for each in STORED), what="a rest")
        lake.rename(away)
        # Where a file lies, no folder can be made anew.
        lake.write_text("")
        bus.send(INFERENCE_RECORDED, *events[1000:])
        # It says so by ending: nothing is acknowledged that is not stored.
        eventually(lambda: recorder.child.poll() is not None, what="that the recorder ends")
        assert recorder.child.returncode != 0
        assert bus.lag(group, INFERENCE_RECORDED.name) > 0
        lake.unlink()
        away.rename(lake)
        recorder.revive()
        exact = (ROWS, ROWS, Decimal("0.001"))
        eventually(lambda: summed(tmp_path, tenant) == exact, what="every row")
        eventually(lambda: bus.lag(group, INFERENCE_RECORDED.name) == 0, what="the commit")
    assert summed(tmp_path, tenant) == exact
