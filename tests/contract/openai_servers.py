"""What OpenAI's servers send when all is well: chat chunks and the events of a response."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tests.contract.misbehaving import delivered, misbehaviours, slowly
from tests.contract.scripted_server import Script, chunk
from tests.contract.vendor_ways import WEATHER_CALL, answers


def words(body: Mapping[str, Any]) -> list[str]:
    """Returns what is said to a body: the caller's last words, once more."""
    turn = (body.get("messages") or body["input"])[-1]
    said = turn["content"].split(" ")
    return [said[0], *(f" {word}" for word in said[1:])]


def frames(events: Iterable[object]) -> list[bytes]:
    """Returns server-sent events that carry these."""
    return [f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode() for event in events]


def chunks(body: dict[str, Any]) -> list[bytes]:
    """Returns the frames of a chat completion."""
    usage = {"prompt_tokens": 7, "completion_tokens": len(words(body))}
    events = (
        *map(chunk, words(body)),
        chunk(finish_reason="stop"),
        {"choices": [], "usage": usage},
    )
    return [*frames(events), b"data: [DONE]\n\n"]


def response(kind: str = "completed", **more: object) -> dict[str, object]:
    """Returns the event that ends a response, or begins one."""
    usage = {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 4},
    }
    told = {"id": "r", "model": "scripted-2", "status": kind, "usage": usage, **more}
    return {"type": f"response.{kind}", "response": told}


def text_event(delta: str, index: int = 1) -> dict[str, object]:
    """Returns the event that adds text."""
    return {"type": "response.output_text.delta", "output_index": index, "delta": delta}


def responses(body: dict[str, Any]) -> list[bytes]:
    """Returns the frames of a response."""
    begun = {"type": "response.created", "response": {"model": "scripted-2", "usage": None}}
    item = {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning"}}
    said = [text_event(word) for word in words(body)]
    return frames([begun, item, *said, response()])


def calls(body: dict[str, Any]) -> list[bytes]:
    """Returns the frames of a response that calls two tools."""
    events: list[object] = []
    for index in (1, 2):
        item = {"type": "function_call", "call_id": f"c{index}", "name": "weather", "arguments": ""}
        place = {"output_index": index}
        events.append({"type": "response.output_item.added", "item": item, **place})
        events += [
            {"type": "response.function_call_arguments.delta", "delta": piece, **place}
            for piece in (WEATHER_CALL[:9], WEATHER_CALL[9:])
        ]
    return frames([*events, response()])


def ending(*events: object) -> Script:
    """Returns a script that says half a sentence and then these events."""
    return delivered(lambda body: frames([text_event("half a"), *events]), slowly)


def embeddings(body: dict[str, Any]) -> dict[str, object]:
    """Returns the body of embeddings, in no order."""
    data = [
        {"index": index, "embedding": [float(len(text)), 0.5]}
        for index, text in reversed(list(enumerate(body["input"])))
    ]
    return {"model": "embedder", "data": data, "usage": {"prompt_tokens": 5, "total_tokens": 5}}


def ranking(body: dict[str, Any]) -> dict[str, object]:
    """Returns the body of a ranking, best first."""
    results = [
        {"index": index, "relevance_score": float(body["query"] in text)}
        for index, text in enumerate(body["documents"])
    ]
    ranked = sorted(results, key=lambda result: -float(result["relevance_score"]))
    return {"model": "ranker", "results": ranked, "usage": {"total_tokens": 6}}


CHAT: dict[str, Script] = {
    **misbehaviours(chunks),
    "embeds": answers(embeddings),
    "embeds too little": answers(lambda body: {"data": [{"index": 0, "embedding": [1]}]}),
    "is well": delivered(chunks, slowly),
    "ranks": answers(ranking),
}
RESPONSES: dict[str, Script] = {
    **misbehaviours(responses),
    "calls tools": delivered(calls, slowly),
    "fails": ending(response("failed", error={"code": "server_error", "message": "no"})),
    "fails by itself": ending(response("failed", error={"code": "invalid_prompt"})),
    "is filtered": ending(response("incomplete", incomplete_details={"reason": "content_filter"})),
    "is incomplete": ending(response("incomplete", incomplete_details={"reason": "new"})),
    "is limited": ending({"type": "error", "code": "rate_limit_exceeded", "message": "no"}),
    "is too long": ending(
        response("incomplete", incomplete_details={"reason": "max_output_tokens"})
    ),
    "is well": delivered(responses, slowly),
}
