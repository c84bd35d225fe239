"""Answers that are given again: what tells them apart, which are kept, and for how long."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.bus import Record
from infra.catalog import CatalogView
from schemas.codec import Codec
from schemas.events import (
    EVENTS,
    Completion,
    CompletionCached,
    FinishReason,
    InferenceReplied,
    InferenceRequested,
    InferenceRouted,
    Message,
    Role,
    Sampling,
    Task,
    Tool,
    ToolCall,
    Usage,
)
from schemas.topics import COMPLETION_CACHED
from streams.client import Reply, Stitch
from streams.gateway.cache import ASIDE, MOST_ANSWER_BYTES, Cache, cache_key, keep, looked_up
from streams.gateway.cached import RETENTION, Waiting, reach
from tests.seed import changes, view_of
from tests.unit.asking import CATALOG, LIMITS, MINUTE, NOON, ask
from tests.unit.routing import ANSWER, NAME, request, view_with, way

HOUR = timedelta(hours=1)
VIEW = view_with(way("a"), way("b"), cache={})


def key(asked: InferenceRequested | None = None, view: CatalogView = VIEW) -> str:
    asked = asked or request()
    return cache_key(asked, view.endpoints[asked.endpoint], view)


def cached(number: object = 0, **changes: Any) -> CompletionCached:
    made = CompletionCached(
        cache_key=f"key-{number}",
        tenant="acme",
        endpoint=NAME,
        completion=ANSWER,
        cached_at=NOON,
        until=NOON + HOUR,
    )
    return replace(made, **changes)


def routed(view: CatalogView, **changes: Any) -> InferenceRouted:
    endpoint = view.endpoints[NAME]
    made = InferenceRouted(
        request=request(), route=endpoint.routes[0], routed_at=NOON, cache_key=key(view=view)
    )
    return replace(made, **changes)


# For each field of a request, another value; those that tell an answer, and those that do not.
OTHERS: dict[str, Any] = {
    "deadline": NOON + HOUR,
    "endpoint": "main.tests.other",
    "inputs": ("text",),
    "json_schema": "{}",
    "messages": (Message(role=Role.USER, content="hello "),),
    "previous": "another",
    "previous_turns": 1,
    "principal": "bob",
    "query": "text",
    "search": "{}",
    "parts_to": "reply.v1.acme2",
    "reply_to": "reply.v1.acme2",
    "request_id": "another",
    "requested_at": NOON - HOUR,
    "sampling": Sampling(temperature=0),
    "stream": True,
    "tags": {"session": "another"},
    "task": Task.EMBEDDING,
    "tenant": "other",
    "tool_choice": "none",
    "tools": (Tool(name="add", parameters="{}"),),
    "version": "1",
}


@pytest.mark.parametrize("name", [each.name for each in fields(InferenceRequested)])
def test_whatever_may_change_an_answer_changes_what_it_is_told_by(name: str) -> None:
    other = request()
    asked = replace(other, **{name: OTHERS[name]})
    endpoint = VIEW.endpoints[NAME]
    same = cache_key(asked, endpoint, VIEW) == cache_key(other, endpoint, VIEW)
    assert same is (name in ASIDE)


CALL = ToolCall(id="call", name="add", arguments='{"a": 1}')
TURNS = (
    Message(role=Role.USER, content="hello"),
    Message(role=Role.SYSTEM, content="hello"),
    Message(role=Role.USER, content="hello", name="ann"),
    Message(role=Role.ASSISTANT, content="hello", tool_calls=(CALL,)),
    Message(role=Role.ASSISTANT, content="hello", tool_calls=(replace(CALL, arguments='{"a":1}'),)),
    Message(role=Role.TOOL, content="hello", tool_call_id="call"),
)
SAMPLINGS = (
    Sampling(temperature=1),
    Sampling(top_p=1),
    Sampling(top_k=1),
    Sampling(max_tokens=1),
    Sampling(stop=("1",)),
    Sampling(seed=1),
    Sampling(frequency_penalty=1),
    Sampling(presence_penalty=1),
    Sampling(top_logprobs=1),
)


def test_no_two_of_many_requests_that_differ_are_told_by_the_same() -> None:
    asks = [request(messages=(turn,)) for turn in TURNS]
    asks += [request(messages=(turn, turn)) for turn in TURNS]
    asks += [request(sampling=each) for each in SAMPLINGS]
    assert len({key(each) for each in asks}) == len(asks)


def test_an_endpoint_that_keeps_no_answers_has_nothing_to_tell_them_by() -> None:
    view = view_with(way("a"))
    assert key(view=view) == ""
    assert not looked_up(view.endpoints[NAME])
    assert list(keep(routed(view, cache_key="key"), ANSWER, view, NOON)) == []


def test_a_request_with_something_unknown_in_it_is_told_by_nothing() -> None:
    assert key(request(task=Task.UNKNOWN)) == ""
    assert key(request(messages=(Message(role=Role.UNKNOWN, content="hello"),))) == ""


MODEL = {
    "kind": "model",
    "name": "main.tests.scorer",
    "versions": [{"spec": {"uri": "file:/1"}}, {"spec": {"uri": "file:/2"}}],
    "aliases": {"prod": 1},
}
POLICY: dict[str, Any] = {"kind": "policy", "name": "main.tests.rules", "spec": {}}
CONNECTION: dict[str, Any] = {
    "kind": "connection",
    "name": "main.tests.outside",
    "spec": {"type": "openai", "url": "https://one.example.com"},
}
SPEC: dict[str, Any] = {
    "routes": [
        way("a", entity="main.tests.scorer@prod"),
        way("b", connection="main.tests.outside", weight=1),
    ],
    "policies": ["main.tests.rules"],
    "cache": {},
}


def test_what_may_answer_otherwise_now_voids_what_was_kept() -> None:
    documents = [*CATALOG, MODEL, POLICY, CONNECTION]
    view = view_of([*documents, {"kind": "endpoint", "name": NAME, "spec": SPEC}], LIMITS)
    keys = [key(view=view)]

    def say(*told: dict[str, Any]) -> None:
        for change in changes(told):
            view.apply(change)
        keys.append(key(view=view))

    say({**MODEL, "aliases": {"prod": 2}, "versions": []})
    say({**POLICY, "spec": {"rules": [{"name": "n", "type": "keywords", "words": ["no"]}]}})
    say({**CONNECTION, "spec": {"type": "openai", "url": "https://two.example.com"}})
    say({"kind": "endpoint", "name": NAME, "spec": {**SPEC, "routes": SPEC["routes"][1:]}})
    policies = {"accept_unsigned": True, "policies": ["main.tests.rules"]}
    say({"kind": "endpoint", "name": NAME, "spec": {**SPEC, "policies": []}})
    say({"kind": "tenant", "name": "acme", "spec": policies})
    assert len(set(keys[:-1])) == len(keys[:-1])
    # Whoever is held to the rules, the tenant or the endpoint: the same ones hold.
    assert keys[-1] == keys[3]


def test_weights_and_bounds_do_not_change_what_an_answer_is_told_by() -> None:
    view = view_with(way("b", weight=3, retries=2, tools=True), way("a"), cache={"lasts": "2h"})
    copied = view_with(way("a"), way("b"), way("copy", mirror=0.5), cache={})
    assert key() == key(view=view) == key(view=copied)


MODES = {"read_only": (True, False), "read_write": (True, True), "write_only": (False, True)}


@pytest.mark.parametrize("mode", sorted(MODES))
def test_answers_are_looked_up_and_kept_as_the_endpoint_says(mode: str) -> None:
    view = view_with(way("a"), cache={"mode": mode})
    kept = list(keep(routed(view), ANSWER, view, NOON))
    assert (looked_up(view.endpoints[NAME]), bool(kept)) == MODES[mode]


def test_what_is_kept_is_good_for_the_same_request_of_the_same_tenant() -> None:
    view = view_with(way("a"), cache={"lasts": "10m"})
    [(topic, event)] = keep(routed(view), ANSWER, view, NOON)
    assert topic is COMPLETION_CACHED
    assert event == cached(cache_key=key(view=view), until=NOON + 10 * MINUTE)
    assert isinstance(event, CompletionCached)
    cache = Cache()
    cache.take(event, NOON)
    again = key(request("again", tags={}, stream=True, deadline=NOON + HOUR), view)
    assert cache.get("acme", again, NOON + MINUTE) == ANSWER
    assert cache.get("other", again, NOON + MINUTE) is None
    assert cache.get("acme", again, NOON + 10 * MINUTE) is None
    assert len(cache) == cache.size == 0


CUT = (
    replace(ANSWER, content=""),
    *(
        replace(ANSWER, finish_reason=each)
        for each in (FinishReason.CONTENT_FILTER, FinishReason.LENGTH, FinishReason.UNKNOWN)
    ),
)


@pytest.mark.parametrize("answer", CUT)
def test_what_was_cut_short_or_says_nothing_is_never_kept(answer: Completion) -> None:
    assert list(keep(routed(VIEW), answer, VIEW, NOON)) == []
    cache = Cache()
    cache.take(cached(completion=answer), NOON)
    assert len(cache) == 0


def test_calls_vectors_and_scores_are_answers() -> None:
    empty = replace(ANSWER, content="")
    for answer in (
        replace(empty, tool_calls=(CALL,), finish_reason=FinishReason.TOOL_CALLS),
        replace(empty, vectors=((0.5, 1.0),)),
        replace(empty, scores=(0.5,)),
    ):
        assert list(keep(routed(VIEW), answer, VIEW, NOON)) != []


def test_a_copy_that_nobody_heard_and_an_answer_without_a_key_are_not_kept() -> None:
    for each in (routed(VIEW, mirrored=True), routed(VIEW, cache_key="")):
        assert list(keep(each, ANSWER, VIEW, NOON)) == []


def test_an_answer_that_is_very_large_is_not_kept() -> None:
    for content in ("x" * MOST_ANSWER_BYTES, "é" * MOST_ANSWER_BYTES):
        large = replace(ANSWER, content=content)
        assert list(keep(routed(VIEW), large, VIEW, NOON)) == []
    vectors = tuple((0.5,) * 1000 for _ in range(100))
    assert list(keep(routed(VIEW), replace(ANSWER, vectors=vectors), VIEW, NOON)) == []


def test_of_two_answers_under_one_key_the_later_stands_however_they_come() -> None:
    early, late = cached(), cached(cached_at=NOON + MINUTE, completion=replace(ANSWER, content="x"))
    for order in ((early, late), (late, early), (late, late)):
        cache = Cache()
        for each in order:
            cache.take(each, NOON + MINUTE)
        assert cache.get("acme", "key-0", NOON + MINUTE) == late.completion
        assert len(cache) == 1


def test_what_is_good_no_more_is_not_taken_in() -> None:
    cache = Cache()
    cache.take(cached(), NOON + HOUR)
    assert len(cache) == 0


def test_where_there_is_no_room_what_was_not_used_for_longest_goes() -> None:
    cache = Cache(most_entries=3)
    for number in range(3):
        cache.take(cached(number), NOON)
    assert cache.get("acme", "key-0", NOON)
    cache.take(cached(3), NOON)
    found = [cache.get("acme", f"key-{number}", NOON) is not None for number in range(4)]
    assert found == [True, False, True, True]


def test_who_fills_the_cache_takes_nothing_from_the_others() -> None:
    cache = Cache(most_bytes=100_000)
    for number in range(5):
        cache.take(cached(number, tenant="quiet"), NOON)
    for number in range(1000):
        cache.take(cached(number), NOON)
    assert all(cache.get("quiet", f"key-{number}", NOON) for number in range(5))


TAKEN = st.tuples(
    st.sampled_from(["acme", "other", "third"]),
    st.integers(0, 6),
    st.integers(0, 5000),
    st.integers(-60, 7200),
)


@given(taken=st.lists(TAKEN, max_size=60))
def test_the_bounds_hold_and_nothing_that_is_old_or_anothers_is_given(
    taken: list[tuple[str, int, int, int]],
) -> None:
    cache = Cache(most_bytes=20_000, most_entries=8)
    for tenant, number, size, seconds in taken:
        now = NOON + timedelta(seconds=seconds)
        answer = replace(ANSWER, content=f"{tenant}/{number}/" + "x" * size)
        cache.take(cached(number, tenant=tenant, completion=answer), now)
        assert len(cache) <= 8
        assert cache.size <= 20_000
        for each in ("acme", "other", "third"):
            found = cache.get(each, f"key-{number}", now)
            assert found is None or found.content.startswith(f"{each}/{number}/")
            assert found is None or now < NOON + HOUR
    cache.clear()
    assert len(cache) == cache.size == 0


def test_who_wants_parts_hears_a_kept_answer_in_one() -> None:
    usage = Usage(prompt_tokens=3, completion_tokens=2)
    answer = replace(ANSWER, content="hi there", usage=usage)
    replied = InferenceReplied(request_id="request", completion=answer, replied_at=NOON)
    codec = Codec({name: number for number, name in enumerate(EVENTS)})
    heard = codec.decode(codec.encode(replied), InferenceReplied)
    assert heard.completion == answer
    part = Stitch().end(Reply(request_id="request", completion=answer))
    assert (part.content, part.restarted) == ("hi there", False)
    assert part.reply is not None
    assert part.reply.completion.usage == usage


def records(sizes: Iterable[int]) -> list[Record]:
    return [
        Record("topic", 0, offset, b"key", b"x" * size, []) for offset, size in enumerate(sizes)
    ]


async def test_what_comes_faster_than_it_is_taken_in_pushes_out_what_came_before_it() -> None:
    waiting = Waiting(most_bytes=100)
    waiting.put(records([40, 40, 40]))
    assert [(await waiting.get()).offset for _ in range(2)] == [1, 2]
    waiting.put(records([101]))
    waiting.put(records([5]))
    assert len((await waiting.get()).value or b"") == 5


def test_the_topic_is_read_as_far_back_as_an_answer_is_good() -> None:
    assert reach(view_with(way("a"))) is None
    assert reach(view_with(way("a"), cache={"lasts": "10m"})) == 10 * MINUTE
    assert reach(view_with(way("a"), cache={"lasts": "30d"})) == RETENTION


def test_asking_for_the_seeded_endpoints_keeps_nothing() -> None:
    view = view_of(CATALOG, LIMITS)
    assert cache_key(ask(), view.endpoints["main.tests.plain"], view) == ""
