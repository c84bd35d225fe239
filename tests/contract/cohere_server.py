"""What Cohere's API (v2) sends: events as recorded, embeddings, rankings and complaints."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tests.contract.misbehaving import delivered, misbehaviours, slowly
from tests.contract.scripted_server import Script
from tests.contract.vendor_ways import WEATHER_CALL, answers, complaints, last_words, refuses


def frames(events: Iterable[dict[str, Any]]) -> list[bytes]:
    """Returns server-sent events that carry these."""
    return [
        f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
        for event in events
    ]


BEGUN: list[dict[str, Any]] = [
    {"type": "message-start", "id": "m", "delta": {"message": {"role": "assistant"}}}
]


def text_block(*said: str, kind: str = "text") -> list[dict[str, Any]]:
    """Returns the events of a content."""

    def content(**of: str) -> dict[str, Any]:
        return {"index": 0, "delta": {"message": {"content": of}}}

    return [
        {"type": "content-start", **content(type=kind, **{kind: ""})},
        *({"type": "content-delta", **content(**{kind: text})} for text in said),
        {"type": "content-end", "index": 0},
    ]


def tool_call(name: str, call_id: str, *pieces: str, index: int = 0) -> list[dict[str, Any]]:
    """Returns the events of a tool call."""

    def call(**of: Any) -> dict[str, Any]:
        return {"index": index, "delta": {"message": {"tool_calls": of}}}

    function = {"name": name, "arguments": ""}
    return [
        {"type": "tool-call-start", **call(id=call_id, type="function", function=function)},
        *({"type": "tool-call-delta", **call(function={"arguments": piece})} for piece in pieces),
        {"type": "tool-call-end", "index": index},
    ]


def ended(reason: str, tokens: int = 1, **usage: Any) -> list[dict[str, Any]]:
    """Returns how every answer ends."""
    told = {
        "billed_units": {"input_tokens": 7, "output_tokens": tokens},
        "tokens": {"input_tokens": 70, "output_tokens": tokens + 3},
        **usage,
    }
    return [{"type": "message-end", "delta": {"finish_reason": reason, "usage": told}}]


def good(body: dict[str, Any]) -> list[bytes]:
    """Returns the frames of the caller's last words, once more."""
    most = body.get("max_tokens")
    said = last_words(body["messages"][-1]["content"], most)
    reason = "MAX_TOKENS" if len(said) == most else "COMPLETE"
    return frames([*BEGUN, *text_block(*said), *ended(reason, len(said))])


def saying(*events: dict[str, Any]) -> Script:
    """Returns a script that says these events."""
    return delivered(lambda body: frames(events), slowly)


def complaint(status: int, message: str) -> dict[str, Any]:
    """Returns the body of a complaint."""
    return {"id": "c", "message": message}


def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the body of embeddings."""
    vectors = [[float(len(text)), 0.5] for text in body["texts"]]
    return {"embeddings": {"float": vectors}, "meta": {"billed_units": {"input_tokens": 5}}}


def ranking(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the body of a ranking, best first."""
    results = [
        {"index": index, "relevance_score": float(body["query"] in text)}
        for index, text in enumerate(body["documents"])
    ]
    best_first = sorted(results, key=lambda result: -result["relevance_score"])
    return {"results": best_first, "meta": {"billed_units": {"search_units": 1}}}


PLAN = {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I will look."}}}
SCRIPTS: dict[str, Script] = {
    **misbehaviours(good),
    **complaints(complaint, "too many tokens: the prompt and max_tokens exceed the limit of 8"),
    "answers by tool": saying(
        *BEGUN,
        PLAN,
        *tool_call("answer", "answer_1", '{"name": "Ada', '", "adult": true}'),
        *ended("TOOL_CALL"),
    ),
    "answers in prose": saying(*BEGUN, *text_block("Ada, an adult."), *ended("COMPLETE")),
    "caches": saying(*BEGUN, *text_block("yes"), *ended("COMPLETE", cached_tokens=4)),
    "calls tools": saying(
        *BEGUN,
        PLAN,
        *tool_call("weather", "weather_1", WEATHER_CALL[:9], WEATHER_CALL[9:]),
        *tool_call("now", "now_2", index=1),
        *ended("TOOL_CALL"),
    ),
    "embeddings": answers(embeddings),
    "embeds too little": answers(lambda body: {"embeddings": {"float": [[1.0]]}}),
    "fails midway": saying(*BEGUN, *text_block("half a"), *ended("ERROR")),
    "forbids by its own status": refuses(complaint, 498, "invalid token: sk-sec***ret"),
    "gives up": saying(*BEGUN, *text_block("half a"), *ended("TIMEOUT")),
    "is filtered": saying(*BEGUN, *text_block("half a"), *ended("ERROR_TOXIC")),
    "ranks too little": answers(lambda body: {"results": [{"index": 0, "relevance_score": 1}]}),
    "reranks": answers(ranking),
    "says another form": saying(
        *BEGUN, *text_block("half a"), {"type": "content-delta", "delta": 7}
    ),
    "thinks": saying(
        *BEGUN, *text_block("Hm.", kind="thinking"), *text_block("yes"), *ended("COMPLETE")
    ),
}
