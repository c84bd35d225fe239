"""What Anthropic's Messages API sends: events as recorded, and complaints in its form."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tests.contract.misbehaving import delivered, misbehaviours, slowly
from tests.contract.scripted_server import Script
from tests.contract.vendor_ways import WEATHER_CALL, complaints, last_words

KINDS = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}


def frames(events: Iterable[dict[str, Any]]) -> list[bytes]:
    """Returns server-sent events that carry these."""
    return [
        f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
        for event in events
    ]


def begun(**usage: int) -> list[dict[str, Any]]:
    """Returns how every answer begins."""
    told = {"input_tokens": 7, "output_tokens": 1, **usage}
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-scripted",
        "content": [],
        "stop_reason": None,
        "usage": told,
    }
    return [{"type": "message_start", "message": message}, {"type": "ping"}]


def text_block(*said: str, index: int = 0) -> list[dict[str, Any]]:
    """Returns the events of a text block."""
    place = {"index": index}
    block = {"type": "text", "text": ""}
    return [
        {"type": "content_block_start", "content_block": block, **place},
        *(
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}, **place}
            for text in said
        ),
        {"type": "content_block_stop", **place},
    ]


def tool_block(name: str, call_id: str, *pieces: str, index: int = 0) -> list[dict[str, Any]]:
    """Returns the events of a tool use block."""
    place = {"index": index}
    block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
    return [
        {"type": "content_block_start", "content_block": block, **place},
        *(
            {
                "type": "content_block_delta",
                "delta": {"type": "input_json_delta", "partial_json": piece},
                **place,
            }
            for piece in pieces
        ),
        {"type": "content_block_stop", **place},
    ]


def ended(reason: str, tokens: int = 1, **usage: Any) -> list[dict[str, Any]]:
    """Returns how every answer ends."""
    delta = {"stop_reason": reason, "stop_sequence": None}
    told = {"output_tokens": tokens, **usage}
    return [
        {"type": "message_delta", "delta": delta, "usage": told},
        {"type": "message_stop"},
    ]


def good(body: dict[str, Any]) -> list[bytes]:
    """Returns the frames of the caller's last words, once more."""
    said = last_words(body["messages"][-1]["content"][-1]["text"], body["max_tokens"])
    reason = "max_tokens" if len(said) == body["max_tokens"] else "end_turn"
    return frames([*begun(), *text_block(*said), *ended(reason, len(said))])


def saying(*events: dict[str, Any]) -> Script:
    """Returns a script that says these events."""
    return delivered(lambda body: frames(events), slowly)


def complaint(status: int, message: str) -> dict[str, Any]:
    """Returns the body of a complaint."""
    return {"type": "error", "error": {"type": KINDS.get(status, "unheard_of"), "message": message}}


THOUGHT = [
    {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "thinking", "thinking": ""},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "thinking_delta", "thinking": "Hm."},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "signature_delta", "signature": "c2ln"},
    },
    {"type": "content_block_stop", "index": 0},
]
PERSON_CALL = ('{"name": "Ada', '", "adult": true}')
SCRIPTS: dict[str, Script] = {
    **misbehaviours(good, b"event: content_block_delta\ndata: {nope\n\n"),
    **complaints(complaint),
    "answers by tool": saying(
        *begun(),
        *text_block("Here you are:"),
        *tool_block("answer", "toolu_1", *PERSON_CALL, index=1),
        *ended("tool_use"),
    ),
    "answers in prose": saying(*begun(), *text_block("Ada, an adult."), *ended("end_turn")),
    "caches": saying(
        *begun(input_tokens=6, cache_read_input_tokens=30_940, cache_creation_input_tokens=460),
        *text_block("yes"),
        *ended("end_turn", 102, output_tokens_details={"thinking_tokens": 40}),
    ),
    "calls tools": saying(
        *begun(),
        *text_block("Let me look."),
        *tool_block("weather", "toolu_1", WEATHER_CALL[:9], WEATHER_CALL[9:], index=1),
        *tool_block("now", "toolu_2", index=2),
        *ended("tool_use"),
    ),
    "fails midway": saying(
        *begun(),
        *text_block("half a"),
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    ),
    "is filtered": saying(*begun(), *text_block("half a"), *ended("refusal")),
    "says another form": saying(
        *begun(),
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": 7},
        },
    ),
    "thinks": saying(*begun(), *THOUGHT, *text_block("yes", index=1), *ended("end_turn")),
}
