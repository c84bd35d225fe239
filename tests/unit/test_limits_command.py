"""What limits hold for somebody, and how much of each is used."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from infra.catalog import CatalogView
from schemas.events import Refusal
from streams.gateway.limits.counters import Counters
from streams.limits_command import Standing, Unasked, holding, main, standings, table
from tests.unit.asking import NOON
from tests.unit.limiting import PLAIN, Gateway, rule, view_with


def seen(
    view: CatalogView,
    counters: Counters,
    who: str = "ann",
    at: datetime = NOON,
    **tags: str,
) -> list[Standing]:
    """Returns what limits somebody's requests stand at."""
    return standings(holding(who, PLAIN, tags, view), lambda bound: counters, at)


def test_what_was_asked_is_used_and_the_rest_is_left() -> None:
    gateway = Gateway(view_with(rule("hourly", most=3)))
    gateway.asks()
    gateway.asks()
    [found] = seen(gateway.view, gateway.counters)
    assert (found.rule, found.per, found.window) == ("main.tests.asked/hourly", "user ann", "1h")
    assert (found.used, found.most, found.left, found.more_in_ms) == ("2", "3", "1", None)
    [bobs] = seen(gateway.view, gateway.counters, "bob")
    assert (bobs.per, bobs.used, bobs.left) == ("user bob", "0", "3")


def test_where_nothing_is_left_it_says_when_something_comes_back() -> None:
    gateway = Gateway(view_with(rule(most=1)))
    gateway.asks()
    [found] = seen(gateway.view, gateway.counters)
    assert found.left == "0"
    assert found.more_in_ms is not None
    again = NOON + timedelta(milliseconds=found.more_in_ms)
    assert not isinstance(gateway.asks(at=again), Refusal)


def test_money_is_told_in_dollars_and_what_is_reserved_counts() -> None:
    budget = rule("budget", unit="cost", most="0.5", per="tenant")
    gateway = Gateway(view_with(budget, request="0.2"))
    gateway.asks()
    [found] = seen(gateway.view, gateway.counters)
    assert (found.per, found.used, found.most, found.left) == ("tenant acme", "0.2", "0.5", "0.3")
    assert "$0.2 " in table([found])


def test_a_limit_per_tag_is_that_of_the_tags_value() -> None:
    view = view_with(rule(per="tag", tag="team", most=3))
    assert [each.per for each in seen(view, Counters(), team="blue")] == ["tag blue"]
    assert [each.per for each in seen(view, Counters())] == ["tag (no such tag)"]


def test_the_table_has_a_line_for_each_limit_and_tells_those_in_shadow() -> None:
    slots = {"per": "user", "unit": "in_flight", "most": 4, "window": None}
    view = view_with(rule("hourly", most=3), rule("slots", shadow=True, **slots))
    heading, hourly, at_once = table(seen(view, Counters())).splitlines()
    assert heading.split() == ["rule", "per", "unit", "window", "used", "most", "left", "more"]
    assert hourly.split() == [
        "main.tests.asked/hourly",
        "user",
        "ann",
        *["requests", "1h", "0", "3", "3"],
    ]
    assert "main.tests.asked/slots (shadow)" in at_once
    assert "at one time" in at_once
    assert heading.index("used") == hourly.index(" 0 ") + 1


def test_columns_stand_under_each_other() -> None:
    rules = (rule("a", most=1), rule("much-longer", most=100_000, unit="total_tokens"))
    lines = table(seen(view_with(*rules), Counters())).splitlines()
    assert len({line.index("1h") for line in lines[1:]}) == 1


UNASKED: dict[str, tuple[tuple[str, str], str]] = {
    "a group": (("eng", PLAIN), "name one of its members"),
    "an endpoint that is not there": (("ann", "main.tests.nowhere"), "no endpoint"),
    "somebody whom nobody knows": (("nobody", PLAIN), "knows no nobody"),
}


@pytest.mark.parametrize("what", UNASKED)
def test_nobody_could_ask_as(what: str) -> None:
    (who, endpoint), said = UNASKED[what]
    with pytest.raises(Unasked, match=said):
        holding(who, endpoint, {}, view_with())


def test_a_tenant_asks_for_itself() -> None:
    view = view_with(tenant_rules=(rule("all", per="tenant", most=5),))
    [found] = seen(view, Counters(), "acme")
    assert (found.rule, found.per) == ("main.tests.asking/all", "tenant acme")


def test_help_teaches(capsys: Any) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert "tessera limits alice main.default.smollm2" in capsys.readouterr().out
