"""What runs tell, read by OpenAI's own library."""

from __future__ import annotations

import json
from typing import get_args

import httpx2
import pytest
from openai import OpenAI
from openai.types.responses import ResponseStreamEvent
from pydantic import ValidationError

from schemas.events import Delta, FinishReason, InferenceReplied, Reason
from schemas.search import Hit
from streams.agents.causes import Cancelled, Cause, Decided
from streams.client.told import InOrder, RunEvent
from tests.unit.agents import (
    NOON,
    added,
    answered,
    calls,
    definition,
    found,
    limits,
    refusal,
    result,
    said,
)
from tests.unit.test_agent_told import heard

HIT = Hit(key={"isbn": 7}, text="Call me Ishmael.", position=2, source="main.tests.b", version="9")
SEARCHED: list[Cause] = [
    answered(0, calls(("one", "books", {"query": "whales"}))),
    answered(1, found(HIT)),
]
APPROVED: list[Cause] = [
    answered(0, calls(("one", "wipe", {}), added("two"))),
    Decided(number=1, granted=True),
]
RUNS: dict[str, list[Cause]] = {
    "answers with citations": [*SEARCHED, answered(2, said("He is Ishmael [1.1]."))],
    "calls several tools": [
        answered(0, calls(added("one"), added("two"))),
        answered(2, result(3)),
        answered(1, result(4)),
        answered(3, said("7.")),
    ],
    "waits for a person": [*APPROVED, answered(1, result(1)), answered(2, result(2))],
    "is denied": [answered(0, calls(("one", "wipe", {}))), Decided(number=1, granted=False)],
    "is cut": [answered(0, said("Sev", finish_reason=FinishReason.LENGTH))],
    "is cancelled": [Cancelled()],
    "fails": [answered(0, refusal(Reason.BUDGET_EXCEEDED))],
}
[UNION, *_] = get_args(ResponseStreamEvent)
MODELS = {get_args(each.model_fields["type"].annotation)[0]: each for each in get_args(UNION)}
# Where that API has names of its own for why there is no answer, these are ours.
OURS = {("error", "code"), ("incomplete_details", "reason")}


def told(*came: Cause) -> list[RunEvent]:
    order = InOrder("request")
    return [event for each in heard(*came) for event in order.take(each)]


def strangers(event: RunEvent) -> set[tuple[object, ...]]:
    """Returns where an event is not as the library's models say."""
    try:
        MODELS[event.kind].model_validate(event.to_openai())
    except ValidationError as error:
        return {tuple(each["loc"][-2:]) for each in error.errors()}
    return set()


@pytest.mark.parametrize("name", RUNS)
def test_each_event_of_a_run_is_as_the_models_of_openai_say(name: str) -> None:
    events = told(*RUNS[name])
    for event in events:
        assert strangers(event) <= (OURS if event.is_end else set()), event.to_openai()


def test_a_bound_of_ours_is_the_one_thing_told_in_words_of_ours() -> None:
    first = answered(0, calls(added("one")))
    order = InOrder("request")
    several = heard(first, answered(1, said("3")), of=definition(limits=limits(turns=1)))
    *_, end = (event for each in several for event in order.take(each))
    assert strangers(end) == OURS


def spoken() -> list[RunEvent]:
    """Returns a run of which a message is heard that was no answer, and then one that is."""
    order = InOrder("request")
    came = heard(answered(0, calls(added("one"))), answered(1, result(3)), answered(2, said("3.")))

    def parts(turn: int, *texts: str) -> list[InferenceReplied]:
        return [
            InferenceReplied(
                request_id=f"request//acme//{turn}",
                seq=seq,
                delta=Delta(content=text),
                replied_at=NOON,
            )
            for seq, text in enumerate(texts)
        ]

    events = list(order.take(came[0]))
    events += [event for part in parts(0, "I ", "call.") for event in order.hear(part)]
    events += [event for each in came[1:-3] for event in order.take(each)]
    events += [event for part in parts(2, "3", ".") for event in order.hear(part)]
    return events + [event for each in came[-3:] for event in order.take(each)]


STREAMS = {
    "answers with citations": told(*RUNS["answers with citations"]),
    "calls several tools": told(*RUNS["calls several tools"]),
    "is heard as it speaks": spoken(),
}


@pytest.mark.parametrize("name", STREAMS)
def test_the_client_of_openai_reads_a_run_to_its_end(name: str) -> None:
    events = STREAMS[name]
    lines = [f"event: {each.kind}\ndata: {json.dumps(each.to_openai())}\n\n" for each in events]
    served = httpx2.MockTransport(
        lambda _: httpx2.Response(
            200, headers={"content-type": "text/event-stream"}, text="".join(lines)
        )
    )
    with httpx2.Client(transport=served) as http:
        client = OpenAI(api_key="none", base_url="http://run", http_client=http)
        with client.responses.stream(model="main.tests.clerk", input="hello") as stream:
            assert [event.type for event in stream] == [each.kind for each in events]
            final = stream.get_final_response()
    assert final.output_text == (events[-1].item or {})["output"][0]["content"][0]["text"]
    assert final.status == "completed"
