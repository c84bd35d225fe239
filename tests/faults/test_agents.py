"""Whatever is killed of agents, tools and models: each run ends, as if nobody had been killed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from infra.asker import Asker, RequestRefused
from infra.registry import Registry
from infra.serving import AGENT_POOL
from infra.stack.local import LocalStack
from infra.telemetry import now
from schemas.agents import Definition, run_id
from schemas.events import (
    AgentJournaled,
    InferenceRequested,
    InferenceRouted,
    Reason,
    Refusal,
    Route,
    Task,
)
from schemas.topics import (
    AGENT_JOURNALED,
    INFERENCE_REQUESTED,
    INFERENCE_ROUTED,
    REPLY,
    Topic,
    root_of,
)
from streams.agents.folding import begin_run, begun_by, emitted
from tests.agents.identity import PLATFORM
from tests.agents.replaying import replayed
from tests.conftest import running as running_stack
from tests.faults.killing import (
    CLERK,
    MODEL,
    NOVICE,
    PATIENCE_S,
    REPAIRS,
    REPLIES,
    STRICT,
    TENANT,
    TURNS,
    Scene,
    kill_often,
    nobody,
    opened,
    state,
)
from tests.harness import eventually

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1800)]

RUNS, KILLS = 200, 20
# The first turn calls twice at once.
CALLS = 3
# What a run takes in: its beginning, its three turns and its calls.
ENTRIES = 1 + 3 + CALLS
# More than any process reads back by itself.
HOURS = timedelta(hours=10)
# Of runs of each kind whose models go wrong, and of who is killed meanwhile.
EACH, VICTIMS = 8, ("agents", "model") * 3
# How often they are wrong if nobody stops them.
FOR_EVER = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How runs of a kind end.

    Attributes:
        turns: How often the model is asked.
        calls: How often a tool is.
        reason: Why there is no answer; None where there is one.
        named: What the refusal names, or the answer is.
    """

    turns: int
    calls: int
    reason: Reason | None = Reason.ANSWER_UNKEPT
    named: str

    def means(self, end: str | Refusal) -> bool:
        """Returns whether an end is this one."""
        if isinstance(end, Refusal):
            return end.reason is self.reason and self.named in end.message
        return self.reason is None and end == self.named


ENDS = {
    "a loop": End(turns=TURNS, calls=TURNS, reason=Reason.LIMIT_EXCEEDED, named="limits.turns"),
    "a mended run": End(turns=4, calls=1, reason=None, named="noted"),
    "a right run": End(turns=3, calls=CALLS, reason=None, named="noted"),
    "an answer in no JSON": End(turns=REPAIRS + 1, calls=0, named="the answer: no JSON"),
    "arguments in no JSON": End(turns=REPAIRS + 1, calls=0, named="of note: no JSON object"),
    "arguments of wrong types": End(turns=REPAIRS + 1, calls=0, named="of note: breaks type"),
    "unknown tools": End(turns=REPAIRS + 1, calls=0, named="a tool that is not offered"),
}


def right(scene: Scene) -> list[Any]:
    """Returns the turns of a model that notes three times."""
    return [[scene.note, scene.note], [scene.note], "noted"]


def played(kind: str, scene: Scene) -> InferenceRequested:
    """Returns a request whose run is of a kind."""
    fly, untyped = ["fly", {}], ["note", {"notes": 7}]
    turns: dict[str, Sequence[Any]] = {
        "a loop": [[scene.note]] * FOR_EVER,
        "a mended run": [[fly], [scene.note], [untyped], "noted"],
        "a right run": right(scene),
        "an answer in no JSON": ["noted"] * FOR_EVER,
        "arguments in no JSON": [[["note", '{"notes": ']]] * FOR_EVER,
        "arguments of wrong types": [[untyped]] * FOR_EVER,
        "unknown tools": [[fly]] * FOR_EVER,
    }
    return scene.wanted(turns[kind], STRICT if kind == "an answer in no JSON" else NOVICE)


@pytest.fixture(scope="module")
def agents_stack() -> Iterator[LocalStack]:
    """What agents and tools stand on."""
    with running_stack(["kafka", "postgres", "redis", "registry"]) as stack:
        yield stack


@pytest.fixture(scope="module")
def scene(agents_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Where runs happen, and what may be killed of it."""
    with opened(agents_stack, tmp_path_factory.mktemp("agents")) as scene:
        yield scene


@pytest.fixture
async def asker(scene: Scene) -> Any:
    """Somebody who asks agents."""
    registry = Registry(scene.bus.registry_settings)
    async with Asker(scene.bus.kafka, registry, TENANT, REPLIES.name, None) as asker:
        yield asker


def noting(scene: Scene) -> InferenceRequested:
    """Returns a request to the clerk, which notes three times."""
    return scene.wanted(right(scene))


async def end(asker: Asker, asked: InferenceRequested) -> str | Refusal:
    """Returns what a run answers, or why it does not."""
    try:
        completion = await asker.completion(asked)
    except RequestRefused as refused:
        return refused.refusal
    assert completion is not None
    return completion.content


def tasks(scene: Scene) -> Counter[tuple[str, Task]]:
    """Returns how often each request asked for what; what was asked in different words counts."""
    found: Counter[tuple[str, Task]] = Counter()
    for name, said in scene.asked().items():
        for each in said:
            found[root_of(name), scene.bus.codec.decode(each, InferenceRequested).task] += 1
    return found


def told(scene: Scene) -> dict[str, set[str | Refusal]]:
    """Returns how each request ended, as its asker heard it; what was said again counts once."""
    found: defaultdict[str, set[str | Refusal]] = defaultdict(set)
    for each in scene.bus.events(REPLIES):
        if each.refusal is not None:
            found[each.request_id].add(each.refusal)
        elif each.completion is not None:
            found[each.request_id].add(each.completion.content)
    return found


def standing(scene: Scene) -> tuple[AgentJournaled, bytes]:
    """Puts on the log how a run began hours ago; returns its entry, and what it then asked for."""
    bus, began = scene.bus, now() - HOURS
    dated = int(began.timestamp() * 1000)
    asked = replace(noting(scene), requested_at=began, deadline=began + timedelta(minutes=10))
    route = Route(name="agent", pool=AGENT_POOL, model=CLERK)
    routed = InferenceRouted(request=asked, route=route, routed_at=began)
    topic: Topic[InferenceRouted] = INFERENCE_ROUTED.member(AGENT_POOL)
    key, value, places = topic.key(routed).encode(), bus.codec.encode(routed), []

    def lies(_: object, message: Any) -> None:
        places.append(f"{message.topic()}/{message.partition()}/{message.offset()}")

    bus.put(topic.name, key, value, timestamp=dated, on_delivery=lies)
    bus.settle()
    definition = Definition(agent=CLERK, endpoint=MODEL)
    entry = AgentJournaled(
        run_id=run_id(asked.request_id, TENANT),
        tenant=TENANT,
        agent=CLERK,
        seq=0,
        cause_id=places[0],
        cause_topic=topic.name,
        cause=value,
        definition=definition.model_dump_json(),
        reply_to=REPLY.member(PLATFORM).name,
        at=began,
        until=asked.deadline,
    )
    outgoing = begin_run(begun_by(routed, entry), definition, entry).outgoing
    entry = replace(entry, emitted=emitted(outgoing))
    bus.put(AGENT_JOURNALED.name, key, bus.codec.encode(entry), timestamp=dated)
    bus.settle()
    [request] = [event for _, event in outgoing if isinstance(event, InferenceRequested)]
    return entry, bus.codec.encode(request)


def test_what_was_taken_in_before_hours_of_standstill_leads_to_the_same_when_it_comes_again(
    scene: Scene,
) -> None:
    with nobody(scene):
        entry, request = standing(scene)

    def journal() -> list[AgentJournaled]:
        found = scene.journals()[entry.run_id]
        return found if found and found[-1].ended else []

    def is_asked_again() -> bool:
        return request in [each.value for each in scene.bus.records(INFERENCE_REQUESTED.name)]

    eventually(journal, PATIENCE_S, "the end of the run")
    assert journal()[0] == entry
    assert [each.seq for each in journal()] == [0, 1]
    # The clock may have ended it before what began it came again.
    eventually(is_asked_again, PATIENCE_S, "what it asked for")


async def test_runs_end_as_if_nobody_had_killed_agents_tools_and_models_again_and_again(
    scene: Scene, asker: Asker
) -> None:
    undisturbed = noting(scene)
    answer = await end(asker, undisturbed)
    runs = {run_id(each.request_id, TENANT): each for each in (noting(scene) for _ in range(RUNS))}
    asking = {name: asyncio.create_task(end(asker, each)) for name, each in runs.items()}
    gate = scene.gate
    last = asyncio.create_task(end(asker, scene.wanted(right(scene), gate=gate)))
    victims = random.Random(11).choices(sorted(scene.crew.processes), k=KILLS)
    all_asking = {**asking, "last": last}
    killed = await asyncio.to_thread(kill_often, scene, all_asking, victims, RUNS * ENTRIES, gate)
    async with asyncio.timeout(PATIENCE_S):
        assert await asyncio.gather(*all_asking.values()) == [answer] * (RUNS + 1)
    assert (answer, killed) == ("noted", KILLS)
    requests = [undisturbed.request_id, *(each.request_id for each in runs.values())]
    effects = Counter(scene.effects(requests))
    assert set(effects.values()) == {1}
    assert Counter(map(root_of, effects)) == dict.fromkeys(requests, CALLS)
    journals = scene.journals()
    wanted = state((await replayed(scene.bus, journals[run_id(requests[0], TENANT)])).run)
    for name in runs:
        found = await replayed(scene.bus, journals[name])
        assert found.differing == ()
        assert state(found.run) == wanted
    # What was said again after a crash was the same to the byte.
    assert {name for name, said in scene.asked().items() if len(said) > 1} == set()


async def test_a_model_that_goes_wrong_ends_its_run_for_the_same_reason_whoever_is_killed(
    scene: Scene, asker: Asker
) -> None:
    undisturbed = {kind: played(kind, scene) for kind in ENDS}
    ends = {kind: await end(asker, asked) for kind, asked in undisturbed.items()}
    for kind, wanted in ENDS.items():
        assert wanted.means(ends[kind])
    journals = scene.journals()
    before = {kind: journals[run_id(each.request_id, TENANT)] for kind, each in undisturbed.items()}
    states = {kind: state((await replayed(scene.bus, each)).run) for kind, each in before.items()}
    runs = [(kind, played(kind, scene)) for _ in range(EACH) for kind in ENDS]
    asking = {
        run_id(asked.request_id, TENANT): asyncio.create_task(end(asker, asked))
        for _, asked in runs
    }
    entries = EACH * sum(map(len, before.values()))
    gate = scene.gate
    last = asyncio.create_task(end(asker, scene.wanted(right(scene), gate=gate)))
    all_asking = {**asking, "last": last}
    killed = await asyncio.to_thread(kill_often, scene, all_asking, VICTIMS, entries, gate)
    async with asyncio.timeout(PATIENCE_S):
        assert await asyncio.gather(*asking.values()) == [ends[kind] for kind, _ in runs]
        assert await last == "noted"
    assert killed == len(VICTIMS)
    journals = scene.journals()
    asked_for = tasks(scene)
    effects = Counter(scene.effects([asked.request_id for _, asked in runs]))
    assert set(effects.values()) == {1}
    called = Counter(map(root_of, effects))
    for kind, asked in runs:
        name, wanted = asked.request_id, ENDS[kind]
        found = (asked_for[name, Task.CHAT], asked_for[name, Task.TOOL], called[name])
        assert (kind, *found) == (kind, wanted.turns, wanted.calls, wanted.calls)
        again = await replayed(scene.bus, journals[run_id(name, TENANT)])
        assert again.differing == ()
        assert state(again.run) == states[kind]
    replies = told(scene)
    assert [(kind, replies[asked.request_id]) for kind, asked in runs] == [
        (kind, {ends[kind]}) for kind, _ in runs
    ]
