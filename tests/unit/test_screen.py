"""What stands on the screen is what was said, whatever it looks like."""

from __future__ import annotations

import io
from decimal import Decimal

import pyarrow as pa
import pytest
from rich.console import Console, RenderableType

from infra import screen
from infra.stack.state import State, Status

MARKUP = "[/INST] [bold]loud[/] [red]"


def shown(what: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def failing(reason: str) -> Status:
    return Status(
        name="kafka", state=State.FAILING, pid=1, born=1.0, port=9, restarts=1, reason=reason
    )


def test_rows_show_what_looks_like_markup() -> None:
    assert MARKUP in shown(screen.rows(pa.table({"said": [MARKUP]})))
    assert MARKUP in shown(screen.rows(pa.table({MARKUP: ["said"]})))


def test_a_row_shows_what_looks_like_markup() -> None:
    assert MARKUP in shown(screen.record({"said": MARKUP}))


def test_a_cost_is_shown_in_full_and_without_zeros_at_its_end() -> None:
    cost = Decimal("0.000000200000")
    assert "0.0000002\n" in shown(screen.record({"cost": cost})).replace(" ", "")
    assert " 0.0000002 " in shown(screen.rows(pa.table({"cost": [cost]})))
    assert " 100 " in shown(screen.rows(pa.table({"cost": [Decimal(100)]})))


def test_the_reason_of_a_service_shows_what_looks_like_markup() -> None:
    assert MARKUP in shown(screen.services({"kafka": failing(MARKUP)}))


def test_a_change_shows_what_looks_like_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(screen, "err", Console(file=out, width=200))
    screen._say_changes({}, {"kafka": failing(MARKUP)})
    assert out.getvalue() == f"kafka is failing {MARKUP}\n"
