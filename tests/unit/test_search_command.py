"""What ``tessera search`` shows of hits."""

from __future__ import annotations

from schemas.search import Found, Hit
from streams.search_command import table

HIT = Hit(
    key={"id": 7},
    score=0.91234,
    text="Salt water\nand waves, " * 20,
    chunks=3,
    position=1,
    version=f"{0:020d}.{17:020d}",
)


def test_a_hit_is_a_line_that_fits_the_terminal() -> None:
    headings, line = table(Found(hits=(HIT,)), width=100).splitlines()
    assert headings.split() == ["score", "key", "chunk", "version", "text"]
    assert line.startswith("0.912  id=7  2 of 3  ...000.00000000000000000017  Salt water and waves")
    assert line.endswith("...")
    assert len(line) == 100


def test_what_a_text_holds_is_shown_and_not_carried_out() -> None:
    shown = table(Found(hits=(HIT.model_copy(update={"text": "a\x1b[31mred"}),)), width=100)
    assert "\x1b" not in shown
    assert "a\\x1b[31mred" in shown


def test_columns_are_shown_where_there_is_no_text() -> None:
    bare = HIT.model_copy(update={"text": "", "columns": {"price": 3}})
    assert "price=3" in table(Found(hits=(bare,)), width=100)


def test_it_is_said_that_nothing_was_found() -> None:
    assert table(Found(), width=100) == "nothing was found"
