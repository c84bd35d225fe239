"""Usage: figures from the lake and from the log, how they are shown, and the command."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from infra.figures import GROUPINGS, Figure, figures, grouping, over_time
from infra.lake import EventTable, Row
from infra.meter import SECONDS, Meter
from infra.telemetry import now
from infra.usage import INTERRUPTED, bars, main, plain, table
from schemas.events import InferenceRecorded, Outcome
from tests.unit.lakes import NOON, TOPIC, recorded

MINUTE = timedelta(minutes=1)


def used(key: str, **changes: Any) -> InferenceRecorded:
    event = replace(
        recorded(key),
        principal="ann",
        model="m",
        route="first",
        prompt_tokens=10,
        completion_tokens=5,
        elapsed_ms=100,
        cost=Decimal("0.0000001"),
    )
    return replace(event, **changes)


EVENTS = [
    used("a"),
    used("b", endpoint="main.other", principal="bob", cost=Decimal("0.5"), elapsed_ms=2000),
    used("c", tags={}, model=None, principal="", outcome=Outcome.REFUSED, cost=Decimal(0)),
    used("d", cost=None, outcome=Outcome.CANCELLED, cached_tokens=4, reasoning_tokens=2),
]


def stored(root: Path, events: Iterable[InferenceRecorded]) -> Path:
    rows = [Row(event, TOPIC, 0, offset) for offset, event in enumerate(events)]
    EventTable.of(root, "inferences", group="recorder").append(rows)
    return root


def shown(what: Any) -> str:
    console = Console(width=200, file=StringIO())
    with console.capture() as captured:
        console.print(what)
    return captured.get()


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return stored(tmp_path, EVENTS)


def test_all_requests_come_first_then_each_group_the_dearest_first(lake: Path) -> None:
    everything, *groups = figures(lake, grouping("endpoint"), NOON)
    assert everything == Figure(
        name=None,
        requests=4,
        errors=1,
        prompt_tokens=40,
        cached_tokens=4,
        completion_tokens=20,
        reasoning_tokens=2,
        cost=Decimal("0.5000001"),
        unpriced=1,
        p50_ms=100,
        p99_ms=2000,
    )
    assert [(each.name, each.requests) for each in groups] == [("main.other", 1), ("main.chat", 3)]


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("model", ["m", ""]),
        ("route", ["first"]),
        ("tag:team", ["search", ""]),
        ("tag:nothing", [""]),
        ("tenant", ["acme"]),
        ("user", ["bob", "ann", ""]),
    ],
)
def test_usage_is_told_apart_by_whatever_a_row_has(lake: Path, by: str, names: list[str]) -> None:
    _, *groups = figures(lake, grouping(by), NOON)
    assert [each.name for each in groups] == names


def test_a_tag_can_have_any_name(tmp_path: Path) -> None:
    tag = 'it\'s "odd"; --'
    stored(tmp_path, [used("a", tags={tag: "yes"})])
    assert [each.name for each in figures(tmp_path, grouping(f"tag:{tag}"), NOON)] == [None, "yes"]


@pytest.mark.parametrize("text", ["", "tag:", "cost", "Endpoint", "team"])
def test_what_usage_cannot_be_told_apart_by_is_answered_with_what_it_can(text: str) -> None:
    assert list(GROUPINGS) == sorted(GROUPINGS)
    with pytest.raises(
        ArgumentTypeError, match="endpoint, model, route, tenant, user, or tag:NAME"
    ):
        grouping(text)


def test_only_what_was_asked_since_counts(lake: Path) -> None:
    assert figures(lake, grouping("endpoint"), NOON + MINUTE) == []


def test_a_lake_without_requests_has_no_figures(tmp_path: Path) -> None:
    assert figures(tmp_path / "none", grouping("endpoint"), NOON) == []
    assert over_time(tmp_path, NOON, NOON + MINUTE, 3) == [(0, 0)] * 3


def test_ten_thousand_of_a_tenth_of_a_microdollar_are_exactly_a_thousandth(tmp_path: Path) -> None:
    stored(tmp_path, (used(f"r{n}") for n in range(10_000)))
    everything, *_ = figures(tmp_path, grouping("tenant"), NOON)
    assert (everything.requests, plain(everything.cost)) == (10_000, "0.001")


def test_each_part_of_the_time_has_its_requests(tmp_path: Path) -> None:
    at = [NOON, NOON + 59 * MINUTE, NOON + 61 * MINUTE, NOON + 500 * MINUTE]
    stored(tmp_path, (used(f"r{n}", requested_at=each) for n, each in enumerate(at)))
    failed = used("f", requested_at=NOON + MINUTE, outcome=Outcome.FAILED)
    table = EventTable.of(tmp_path, "inferences", group="recorder")
    table.append([Row(failed, TOPIC, 0, 9)])
    found = over_time(tmp_path, NOON, NOON + 120 * MINUTE, 2)
    # A caller's clock may be ahead: what is yet to come counts as the last part.
    assert found == [(3, 1), (2, 0)]


# Live


EVENTS_DRAWN = st.lists(
    st.builds(
        used,
        st.sampled_from([f"r{n}" for n in range(6)]),
        row_id=st.sampled_from(["", "d0", "d1", "d2", "d3"]),
        endpoint=st.sampled_from(["main.a", "main.b"]),
        cost=st.none() | st.decimals(0, 10, places=12),
        outcome=st.sampled_from([each for each in Outcome if each is not Outcome.UNKNOWN]),
        prompt_tokens=st.integers(0, 10**9),
        elapsed_ms=st.integers(0, 10**6),
    ),
    max_size=30,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=EVENTS_DRAWN)
def test_the_meter_tells_what_the_lake_will(
    events: list[InferenceRecorded], tmp_path_factory: pytest.TempPathFactory
) -> None:
    by, meter = grouping("endpoint"), Meter(grouping("endpoint"))
    for event in [*events, *events]:
        meter.take(event)
    root = stored(tmp_path_factory.mktemp("lake"), events)
    later, live = figures(root, by, NOON), meter.figures()
    assert [_without_times(each) for each in live] == [_without_times(each) for each in later]
    for now_, then in zip(live, later, strict=True):
        assert (now_.p50_ms is None) == (then.p50_ms is None)
        if now_.p50_ms is not None and then.p50_ms is not None and then.p50_ms > 0:
            assert 0.97 * then.p50_ms - 1 <= now_.p50_ms <= 1.03 * then.p50_ms + 1


def _without_times(figure: Figure) -> dict[str, Any]:
    return {name: each for name, each in asdict(figure).items() if not name.endswith("_ms")}


def test_one_id_counts_once_for_each_decision_however_often_it_is_told() -> None:
    meter = Meter(grouping("endpoint"))
    for row_id in ("one", "two", "one", "two"):
        meter.take(used("a", row_id=row_id))
    everything, _ = meter.figures()
    assert (everything.requests, everything.prompt_tokens) == (2, 20)


def test_the_meter_counts_each_second_for_itself() -> None:
    meter = Meter(grouping("endpoint"))
    meter.take(used("a"))
    meter.take(used("b", outcome=Outcome.FAILED))
    assert meter.second()[-1] == (2, 1)
    assert meter.second()[-2:] == [(2, 1), (0, 0)]
    assert len(meter.second()) == SECONDS


# On the screen


def test_a_table_shows_costs_in_full_and_hides_columns_without_use(lake: Path) -> None:
    text = shown(table(figures(lake, grouping("user"), NOON), "user", 20))
    assert "0.5000001" in text
    assert "unpriced" in text
    assert "saved" not in text
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["bob", "ann", "(none)", "all"]


def test_a_table_of_large_numbers_fits_a_narrow_terminal() -> None:
    large = Figure(
        name="main.default.a-rather-long-name",
        requests=1_234_567,
        prompt_tokens=12_345_678_901,
        cached_tokens=9_999,
        completion_tokens=123_456,
        cost=Decimal("1234.123456789012"),
        unpriced=12,
        p50_ms=1234,
        p99_ms=60_000,
    )
    console = Console(width=80, file=StringIO())
    with console.capture() as captured:
        console.print(table([replace(large, name=None), large], "endpoint", 20))
    text = captured.get()
    assert "…" not in text
    for number in ("1,234,567", "12.3G", "9,999", "123k", "1234.123456789012", "1.23s", "60s"):
        assert number in text


def test_what_is_beyond_the_limit_is_told(lake: Path) -> None:
    assert "and 2 more: --limit" in shown(table(figures(lake, grouping("user"), NOON), "user", 1))


def test_bars_are_as_high_as_the_requests_and_red_where_they_failed() -> None:
    drawn = bars([(0, 0), (8, 8), (16, 0), (1, 0)], "then", "now", "requests")
    lines = drawn.plain.splitlines()
    assert lines[0] == "requests"
    assert lines[1] == "16   █ "
    assert lines[-2] == " 0  ██▃"
    assert lines[-1].split() == ["then", "now"]
    assert [str(span.style) for span in drawn.spans].count("red") == 3
    assert bars([(0, 0)], "a", "b", "c").plain.splitlines()[1].strip() == "0"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0"),
        ("0E-12", "0"),
        ("100", "100"),
        ("0.100000000000", "0.1"),
        ("1E-12", "0.000000000001"),
    ],
)
def test_an_amount_is_shown_in_full(amount: str, text: str) -> None:
    assert plain(Decimal(amount)) == text


# The command


def test_the_command_shows_figures_or_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAKE_ROOT", str(tmp_path))
    stored(tmp_path, (replace(each, requested_at=now() - MINUTE) for each in EVENTS))
    assert main(["--by", "user"]) == 0
    text = capsys.readouterr().out
    assert "0.5000001" in text
    assert "█" in text
    assert main(["--by", "tag:team", "--json", "--since", "1h"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["cost"] == "0.5000001"
    assert [(each["by"], each["name"]) for each in lines] == [
        ("tag:team", None),
        ("tag:team", "search"),
        ("tag:team", ""),
    ]


def test_without_requests_the_command_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAKE_ROOT", str(tmp_path))
    assert main([]) == 0
    assert "no requests yet; ask something" in capsys.readouterr().err
    stored(tmp_path, EVENTS)
    assert main([]) == 0
    assert "look further back" in capsys.readouterr().err


def test_a_broker_that_is_away_is_told_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REGISTRY_URL", "http://127.0.0.1:9")
    assert main(["--follow"]) == 1
    assert capsys.readouterr().err.startswith("usage: ")


def test_ctrl_c_ends_it_with_the_code_that_shells_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("infra.usage._show", interrupted)
    assert main([]) == INTERRUPTED


@pytest.mark.parametrize("words", [["--by", "cost"], ["--since", "soon"], ["--what"]])
def test_words_that_mean_nothing_are_answered_with_those_that_do(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "say " in capsys.readouterr().err or words == ["--what"]
