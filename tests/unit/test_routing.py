"""Choosing a route: what can serve a request, and how requests are spread."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from infra.catalog import CatalogView
from schemas.events import (
    InferenceRequested,
    InferenceRouted,
    Message,
    Reason,
    Refusal,
    Role,
    Sampling,
    Task,
    Tool,
    ToolCall,
)
from streams.gateway.routing import Health
from tests.seed import view_of
from tests.unit.asking import CATALOG, LIMITS, NOON
from tests.unit.routing import (
    ANSWER,
    NAME,
    Gateway,
    chosen,
    decide,
    ended,
    refusal,
    request,
    route,
    view_with,
    way,
)

TOOLS = (Tool(name="add", parameters="{}"),)
CALLED = Message(role=Role.ASSISTANT, tool_calls=(ToolCall(id="call", name="add", arguments="{}"),))
LATER = "2031-01-01T00:00:00Z"
LONG = (Message(role=Role.USER, content="word" * 1000),)


def names(view: CatalogView, asked: InferenceRequested) -> list[str]:
    """Returns the routes that a request may go on, the first first."""
    found = chosen(asked, view)
    return [each.name for each in (found.route, *found.fallbacks)]


def split(view: CatalogView, asks: list[InferenceRequested], health: Health | None = None) -> Any:
    return Counter(chosen(each, view, health).route.name for each in asks)


def test_where_no_route_has_a_weight_the_first_has_all_and_the_others_follow_in_order() -> None:
    view = view_with(way("a"), way("b"), way("c"))
    for number in range(20):
        assert names(view, request(number)) == ["a", "b", "c"]


def test_a_route_without_a_weight_is_only_fallen_back_on() -> None:
    view = view_with(way("spare"), way("a", weight=1), way("idle", weight=0), way("b", weight=1))
    assert set(split(view, [request(number) for number in range(200)])) == {"a", "b"}
    assert {each.name for each in chosen(request(), view).fallbacks} > {"spare", "idle"}


NEEDS: dict[str, dict[str, Any]] = {
    "json_schema": {"json_schema": "{}"},
    "tools": {"tools": TOOLS},
    "tools that were called before": {"messages": (CALLED,)},
}


@pytest.mark.parametrize("need", sorted(NEEDS))
def test_a_request_goes_only_where_what_it_needs_is_had(need: str) -> None:
    lacks = {"json_schema" if need == "json_schema" else "tools": False}
    view = view_with(way("a", **lacks, weight=100), way("b"), way("c", **lacks))
    assert names(view, request()) == ["a", "b", "c"]
    assert names(view, request(**NEEDS[need])) == ["b"]


def test_a_request_that_no_route_can_serve_is_refused_in_words_that_help() -> None:
    view = view_with(way("a", tools=False), way("b", tools=False, json_schema=False))
    assert decide(request(tools=TOOLS), view) == Refusal(
        reason=Reason.ROUTE_UNFIT,
        message=f"no route of {NAME} takes tools: ask without",
        field="tools",
    )
    apart = view_with(way("a", tools=False), way("b", json_schema=False))
    found = decide(request(tools=TOOLS, json_schema="{}"), apart)
    assert isinstance(found, Refusal)
    assert "a JSON schema and tools together; each alone would fit" in found.message


def test_a_long_request_goes_only_where_there_is_room() -> None:
    view = view_with(way("small", context_tokens=500, weight=9), way("large"))
    assert names(view, request(messages=LONG)) == ["large"]
    assert names(view, request(sampling=Sampling(max_tokens=600))) == ["large"]
    assert names(view, request()) == ["small", "large"]


def test_a_request_for_which_there_is_no_room_is_told_how_much_there_is() -> None:
    view = view_with(way("small", context_tokens=500), way("larger", context_tokens=900))
    found = decide(request(messages=LONG), view)
    assert isinstance(found, Refusal)
    assert (found.reason, found.field) == (Reason.CONTEXT_EXCEEDED, "messages")
    assert "the 900 that a route" in found.message
    found = decide(request(sampling=Sampling(max_tokens=1000)), view)
    assert isinstance(found, Refusal)
    assert (found.reason, found.field) == (Reason.CONTEXT_EXCEEDED, "sampling.max_tokens")
    allowed = int(found.message.rpartition(" ")[2])
    for number, fit in ((allowed, True), (allowed + 1, False)):
        decided = decide(request(sampling=Sampling(max_tokens=number)), view)
        assert isinstance(decided, Refusal) is not fit


def test_many_texts_to_embed_need_room_each_for_itself() -> None:
    view = view_with(way("a", context_tokens=500))
    texts = {"task": Task.EMBEDDING, "messages": ()}
    assert names(view, request(**texts, inputs=("word" * 100,) * 100)) == ["a"]
    found = decide(request(**texts, inputs=("word" * 600,)), view)
    assert isinstance(found, Refusal)
    assert found.field == "inputs"


def test_an_endpoint_whose_routes_only_get_copies_serves_nothing() -> None:
    for asked in (request(), request(tools=TOOLS)):
        found = decide(asked, view_with(way("a", mirror=1)))
        assert isinstance(found, Refusal)
        assert (found.reason, found.field) == (Reason.ROUTE_UNFIT, "endpoint")


def test_requests_are_spread_as_weights_say() -> None:
    view = view_with(way("a", weight=90), way("b", weight=10))
    found = split(view, [request(number) for number in range(10_000)])
    assert abs(found["a"] / 10_000 - 0.9) < 0.01


@pytest.mark.parametrize("balance", ["cost", "latency", "least_in_flight", "weight"])
def test_a_session_keeps_its_route_in_every_process_and_the_split_is_as_weights_say(
    balance: str,
) -> None:
    """1,000 sessions of 10 requests over 2 processes."""
    routes = way("a", weight=90), way("b", weight=10)
    processes = [Gateway(view_with(*routes, sticky="session", balance=balance)) for _ in range(2)]
    found = Counter[str]()
    for session in range(1000):
        asks = [request(f"{session}-{n}", tags={"session": f"s-{session}"}) for n in range(10)]
        taken = {processes[n % 2].send(each, NOON).route.name for n, each in enumerate(asks)}
        assert len(taken) == 1
        found.update(taken)
    assert abs(found["a"] / 1000 - 0.9) < 0.02


def test_on_a_routes_death_its_own_sessions_move_once_and_no_others() -> None:
    view = view_with(*(way(name, weight=1) for name in "abc"), sticky="session")
    asks = [request(n, tags={"session": f"s-{n}"}) for n in range(300)]
    before = [chosen(each, view).route.name for each in asks]
    gateway = Gateway(view)
    for number in range(3):
        dead = InferenceRouted(
            request=request(f"x{number}"), route=route(view, "b"), routed_at=NOON
        )
        gateway.finish(dead, refusal(Reason.PROVIDER_UNAVAILABLE), NOON)
    after = [chosen(each, view, gateway.health).route.name for each in asks]
    again = [chosen(each, view, gateway.health).route.name for each in asks]
    assert after == again
    assert "b" not in after
    for was, is_now in zip(before, after, strict=True):
        assert was in (is_now, "b")
    assert abs(after.count("a") - after.count("c")) < 60


def test_a_request_without_a_session_is_spread_by_itself() -> None:
    view = view_with(way("a", weight=1), way("b", weight=1), sticky="session")
    assert len(split(view, [request(number) for number in range(100)])) == 2


def test_a_user_keeps_the_route_whatever_they_ask() -> None:
    view = view_with(way("a", weight=1), way("b", weight=1), sticky="user")
    of_users = {
        user: {chosen(request(n), view, who=user).route.name for n in range(20)}
        for user in map(str, range(40))
    }
    assert all(len(taken) == 1 for taken in of_users.values())
    assert len(set.union(*of_users.values())) == 2


def test_the_route_with_the_fewest_under_way_is_taken_however_many_it_has_finished() -> None:
    view = view_with(way("slow", weight=1), way("fast", weight=1), balance="least_in_flight")
    gateway = Gateway(view)
    held, done = 0, 0
    for number in range(100):
        routed = gateway.send(request(number), NOON)
        if routed.route.name == "slow":
            held += 1
        else:
            done += 1
            gateway.finish(routed, ANSWER, NOON)
    assert (held, done) == (1, 99)


def test_what_is_under_way_counts_against_the_weight() -> None:
    view = view_with(way("a", weight=3), way("b", weight=1), balance="least_in_flight")
    gateway = Gateway(view)
    for number in range(40):
        gateway.send(request(number), NOON)
    assert (gateway.tried("a"), gateway.tried("b")) == (30, 10)


def test_the_fastest_is_taken_once_each_is_known_and_the_others_are_looked_at_again() -> None:
    view = view_with(*(way(name, weight=1) for name in "abc"), balance="latency")
    gateway = Gateway(view)
    wait_ms = {"a": 300, "b": 40, "c": 200}
    for number in range(1000):
        now = NOON + number * timedelta(seconds=1)
        routed = gateway.send(request(number), now)
        heard = now + timedelta(milliseconds=wait_ms[routed.route.name])
        gateway.health.observe(ended(routed, ANSWER, heard, first_token_at=heard), view, heard)
    assert {name for name, _ in gateway.tries[:3]} == {"a", "b", "c"}
    assert 0.93 < gateway.tried("b") / 1000 < 0.99
    assert min(gateway.tried("a"), gateway.tried("c")) > 5
    wait_ms["b"] = 2000
    for number in range(1000, 1020):
        now = NOON + number * timedelta(seconds=1)
        routed = gateway.send(request(number), now)
        heard = now + timedelta(milliseconds=wait_ms[routed.route.name])
        gateway.health.observe(ended(routed, ANSWER, heard, first_token_at=heard), view, heard)
    assert gateway.tries[-1][0] == "c"


def test_a_route_that_is_not_known_yet_is_tried_by_one_request_at_a_time() -> None:
    view = view_with(way("a", weight=1), way("b", weight=1), balance="latency")
    gateway = Gateway(view)
    gateway.finish(gateway.send(request("first"), NOON), ANSWER, NOON)
    first = gateway.tries[0][0]
    for number in range(10):
        gateway.send(request(number), NOON)
    other = {"a": "b", "b": "a"}[first]
    assert [name for name, _ in gateway.tries][1] == other
    assert gateway.tried(other) < 4


def test_the_cheapest_is_taken_and_what_costs_nobody_knows_how_much_is_dearest() -> None:
    connections = [
        {
            "kind": "connection",
            "name": f"main.tests.{name}",
            "spec": {"type": "openai", "url": f"https://{name}.example.com", "prices": prices},
        }
        for name, prices in {
            "cheap": {"m": [{"input": 1, "output": 1}, {"since": LATER, "output": 9}]},
            "dear": {"m": [{"input": 2, "output": 2}]},
            "unknown": {},
        }.items()
    ]
    routes = [
        {**way(name, weight=1), "model": "m", "connection": f"main.tests.{name}"}
        for name in ("unknown", "dear", "cheap")
    ]
    spec = {"routes": routes, "balance": "cost"}
    document = {"kind": "endpoint", "name": NAME, "spec": spec}
    view = view_of([*CATALOG, *connections, document], LIMITS)
    assert chosen(request(), view).route.name == "cheap"
    assert chosen(request(), view, now=NOON + timedelta(days=400)).route.name == "dear"


def test_a_mirror_gets_copies_of_its_part_of_the_requests_and_serves_none() -> None:
    view = view_with(way("a"), way("shadow", mirror=0.25, weight=50), way("all", mirror=1))
    copies = Counter[str]()
    for number in range(2000):
        found = chosen(request(number), view)
        assert (found.route.name, found.fallbacks) == ("a", ())
        assert found.mirrors == chosen(request(number), view).mirrors
        copies.update(each.name for each in found.mirrors)
    assert copies["all"] == 2000
    assert 0.22 < copies["shadow"] / 2000 < 0.28


def test_a_mirror_gets_no_copy_of_what_it_cannot_serve() -> None:
    view = view_with(way("a"), way("shadow", mirror=1, tools=False, context_tokens=100))
    assert chosen(request(), view).mirrors
    assert chosen(request(tools=TOOLS), view).mirrors == ()
    assert chosen(request(messages=LONG), view).mirrors == ()


def test_no_caller_chooses_a_route_or_a_mirror_by_the_id_of_a_request() -> None:
    view = view_with(
        way("a", weight=1),
        way("b", weight=1),
        way("shadow", mirror=0.5),
    )
    found = [chosen(request("the same"), view, draw=f"place/{number}") for number in range(200)]
    assert 60 < sum(each.route.name == "a" for each in found) < 140
    assert 60 < sum(bool(each.mirrors) for each in found) < 140
    alike = [chosen(request(number), view, draw="place") for number in range(200)]
    assert alike == [alike[0]] * 200


def test_what_keeps_its_route_keeps_it_wherever_its_records_lie() -> None:
    routes = [way("a", weight=1), way("b", weight=1)]
    for view, tags in (
        (view_with(*routes, sticky="session"), {"session": "s"}),
        (view_with(*routes, sticky="user"), {}),
    ):
        found = {
            chosen(request(number, tags=tags), view, draw=f"place/{number}").route.name
            for number in range(50)
        }
        assert len(found) == 1
