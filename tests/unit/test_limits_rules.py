"""Which limits hold for whom, and whose counter each of them uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from infra.catalog import CatalogView
from schemas.events import (
    Entry,
    InferenceRefused,
    InferenceRouted,
    InferenceWeighed,
    Reason,
    Refusal,
    UsageCounted,
)
from schemas.kinds import Privilege
from streams.gateway.asked import Asked
from streams.gateway.desk import Desk
from streams.gateway.limits.counters import Counters
from streams.gateway.limits.rules import bounds
from streams.gateway.weighed import Heard, pass_on
from tests.seed import view_of
from tests.unit.asking import LIMITS, NOON, ask
from tests.unit.deciding import admit
from tests.unit.limiting import PLAIN, ROUTE, Gateway, refusal_of, rule, view_with


def counters_of(view: CatalogView, who: str = "ann", **what: Any) -> list[str]:
    """Returns the last parts of the counters that a request uses: rule and who."""
    held = bounds(ask(principal=who, **what), who, view.endpoints[PLAIN], view)
    assert not isinstance(held, Refusal)
    return [f"{each.name.split('/')[1]} {each.who}" for each in held]


NAMED = rule("named", to=["ann"])
GROUP = rule("group", per="group", to=["eng"])
EACH = rule("each")
ROBOTS = rule("robots", per="service_principal")


@pytest.mark.parametrize(
    ("rules", "who", "held"),
    [
        ([EACH], "ann", ["each ann"]),
        ([EACH], "robot", ["each robot"]),
        ([EACH], "acme", ["each acme"]),
        ([EACH], "eng", []),
        ([EACH, ROBOTS], "robot", ["robots robot"]),
        ([EACH, ROBOTS | {"window": "1d"}], "robot", ["each robot", "robots robot"]),
        ([NAMED], "acme", []),
        ([ROBOTS], "robot", ["robots robot"]),
        ([ROBOTS], "ann", []),
        ([EACH, GROUP, NAMED], "ann", ["named ann"]),
        ([EACH, GROUP, NAMED], "bob", ["each bob"]),
        ([EACH, GROUP], "ann", ["group eng"]),
        ([ROBOTS, GROUP], "robot", ["group eng"]),
        ([GROUP], "bob", []),
        # Each of the group's members for itself, and the group as one.
        ([rule("members", to=["eng"])], "ann", ["members ann"]),
        ([EACH, rule("members", to=["eng"])], "bob", ["each bob"]),
        # Groups of which the tenant is one, and everyone.
        ([rule("tenant", per="group", to=["all-of-acme"])], "bob", ["tenant all-of-acme"]),
        ([rule("all", per="group", to=["everyone"])], "bob", ["all everyone"]),
        # A tenant's limit, a service's and a user's stand side by side.
        (
            [EACH, rule("tenant", per="tenant"), rule("service", per="service")],
            "ann",
            ["each ann", "tenant acme", f"service {PLAIN}"],
        ),
        ([rule("tenant", per="tenant", to=["other"])], "ann", []),
        (
            [rule("rest", per="tenant"), rule("acme", per="tenant", to=["acme"], most=9)],
            "ann",
            ["acme acme"],
        ),
        ([rule("elsewhere", per="service", to=["main.tests.other"])], "ann", []),
        # Only of the same unit and window.
        (
            [EACH, rule("day", to=["ann"], window="1d"), rule("tokens", unit="total_tokens")],
            "ann",
            ["each ann", "day ann", "tokens ann"],
        ),
        # A rule that is only evaluated lifts no limit.
        ([EACH, rule("tried", to=["ann"], shadow=True)], "ann", ["each ann", "tried ann"]),
        # Tags.
        ([rule("team", per="tag", tag="team")], "ann", ["team blue"]),
        ([rule("team", per="tag", tag="team", to=["red"])], "ann", []),
        ([rule("cost", per="tag", tag="cost-center")], "ann", ["cost "]),
    ],
)
def test_the_most_special_rule_of_a_kind_holds(
    rules: list[dict[str, Any]], who: str, held: list[str]
) -> None:
    assert counters_of(view_with(*rules), who) == held


@pytest.mark.parametrize(
    ("request_id", "held"),
    [
        ("request", ["endpoint ann", "slots ann", "tenant acme", "service", "hour acme"]),
        ("request//acme//3", ["endpoint ann", "service", "hour acme"]),
        (
            "request//another//3",
            ["endpoint ann", "slots ann", "tenant acme", "service", "hour acme"],
        ),
    ],
)
def test_a_run_has_one_place_in_flight_with_all_that_it_asks(
    request_id: str, held: list[str]
) -> None:
    slots: dict[str, Any] = {"unit": "in_flight", "window": None}
    view = view_with(
        rule("endpoint", **slots),
        tenant_rules=(
            rule("slots", **slots),
            rule("tenant", per="tenant", **slots),
            rule("service", per="service", **slots),
            rule("hour", per="tenant"),
        ),
    )
    found = counters_of(view, request_id=request_id)
    assert sorted(found) == sorted(each.replace("service", f"service {PLAIN}") for each in held)


@pytest.mark.parametrize("per", ["service", "tenant", "user"])
@pytest.mark.parametrize("above", ["operator", "owner"])
def test_nobody_is_above_a_limit_not_even_the_operator_or_the_owner(above: str, per: str) -> None:
    spec = {"routes": [ROUTE], "policies": ["main.tests.asked"]}
    documents: list[dict[str, Any]] = [
        {"kind": "catalog", "name": "main"},
        {"kind": "schema", "name": "main.tests"},
        {"kind": "policy", "name": "main.tests.asked", "spec": {"rules": [rule(per=per)]}},
        {"kind": "endpoint", "name": PLAIN, "spec": spec},
        {"kind": "tenant", "name": "acme", "spec": {"accept_unsigned": True}},
        {"kind": "user", "name": "ann", "spec": {"tenant": "acme"}},
    ]
    # Of all that there is, and of the limit itself.
    if above == "owner":
        documents = [{**each, "owner": "ann"} for each in documents]
    else:
        documents.append({"kind": "root", "name": "*", "grants": {"ann": ["MANAGE"]}})
    view = view_of(documents, LIMITS)
    assert view.access.may("ann", Privilege.MANAGE, "main.tests.asked")
    counters = Counters(shared=per == "service")
    reasons = [each for number in range(2) for each in decided(view, counters, number)]
    assert reasons == [None, Reason.LIMIT_EXCEEDED]


def decided(view: CatalogView, counters: Counters, number: int) -> Iterator[Reason | None]:
    """Decides on a request and counts it; yields why it is refused, None where it goes on."""
    request = ask(endpoint=PLAIN, request_id=f"{number}")
    own = Counters() if counters.shared else counters
    said = list(admit(Asked(request=request, place=f"t/0/{number}", counters=own), view, NOON))
    for _, event in tuple(said):
        if isinstance(event, InferenceWeighed):
            heard = Heard(weighed=event, counters=counters)
            said += pass_on(heard, view, NOON, Desk())
    for _, event in said:
        if isinstance(event, UsageCounted) and event.entry is not Entry.SETTLED:
            counters.apply(event, counters.offset)
        elif isinstance(event, InferenceRefused):
            yield event.refusal.reason
        elif isinstance(event, InferenceRouted):
            yield None


def test_an_endpoints_policies_and_a_tenants_hold_both() -> None:
    view = view_with(rule("asked"), tenant_rules=(rule("asking", to=["ann"]),))
    assert counters_of(view) == ["asked ann", "asking ann"]


def test_a_counter_has_its_home_with_its_tenant_unless_tenants_share_it() -> None:
    rules = [rule(per, per=per) for per in ("service", "tenant", "user")]
    view = view_with(*rules, GROUP | {"window": "1d"}, rule("tag", per="tag", tag="team"))
    held = bounds(ask(), "ann", view.endpoints[PLAIN], view)
    assert not isinstance(held, Refusal)
    assert {each.rule.per: each.shared for each in held} == {
        "group": True,
        "service": True,
        "tag": False,
        "tenant": False,
        "user": False,
    }
    assert {each.home for each in held if not each.shared} == {"acme"}
    assert held[0].counter == f"main.tests.asked/service/requests/1h/{PLAIN}"


def test_a_tags_value_means_nothing_beyond_its_tenant_and_a_long_one_is_cut() -> None:
    view = view_with(rule("team", per="tag", tag="team"))
    long = ask(tags={"team": "x/" * 5000})
    [short], [cut] = (
        found
        for request in (ask(), long)
        if not isinstance(found := bounds(request, "ann", view.endpoints[PLAIN], view), Refusal)
    )
    assert short.counter == "main.tests.asked/team/requests/1h/acme/blue"
    assert len(cut.counter) < 200


def test_a_policy_that_is_named_and_cannot_be_read_refuses() -> None:
    view = view_of(
        [
            {"kind": "policy", "name": "main.tests.asking", "spec": {"rules": [{"type": "?"}]}},
            {"kind": "endpoint", "name": PLAIN, "spec": {"routes": [ROUTE], "policies": []}},
            {
                "kind": "tenant",
                "name": "acme",
                "spec": {"accept_unsigned": True, "policies": ["main.tests.asking"]},
            },
        ],
        LIMITS,
    )
    refusal = refusal_of(Gateway(view).asks())
    assert (refusal.reason, refusal.rule) == (Reason.POLICY_FAILED, "main.tests.asking")
