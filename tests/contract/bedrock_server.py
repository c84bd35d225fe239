"""What Amazon's Bedrock Runtime sends: a binary event stream, and complaints in its form.

Frames are made here by the documented encoding, not by the library that the dialect reads them
with (https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html).
"""

from __future__ import annotations

import json
import struct
from binascii import crc32
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from tests.contract.misbehaving import delivered, misbehaviours, slowly
from tests.contract.scripted_server import Script
from tests.contract.vendor_ways import WEATHER_CALL, answers, complaints, last_words, refuses

HEADERS = {"Content-Type": "application/vnd.amazon.eventstream"}
TEXT = 7  # The type of a header's value.
Event = tuple[str, dict[str, Any]]


def named(request: web.Request, _: dict[str, Any]) -> str:
    """Takes the name of the script from the model in the path, behind that of a profile."""
    return unquote(request.raw_path.split("/")[2]).rpartition("/")[2]


def frame(body: dict[str, Any], **headers: str) -> bytes:
    """Returns one frame: lengths, their checksum, headers, what it says, and its checksum."""
    named = b"".join(
        struct.pack("!B", len(name))
        + name.encode()
        + struct.pack("!BH", TEXT, len(value))
        + value.encode()
        for name, value in ((f":{key.replace('_', '-')}", value) for key, value in headers.items())
    )
    said = json.dumps(body, ensure_ascii=False).encode()
    lengths = struct.pack("!II", len(named) + len(said) + 16, len(named))
    message = lengths + struct.pack("!I", crc32(lengths)) + named + said
    return message + struct.pack("!I", crc32(message))


def frames(events: Iterable[Event]) -> list[bytes]:
    """Returns the frames of events; those that end in Exception are such."""
    return [
        frame(body, message_type="exception", exception_type=kind)
        if kind.endswith("Exception")
        else frame(body, message_type="event", event_type=kind, content_type="application/json")
        for kind, body in events
    ]


def text_block(*said: str, index: int = 0) -> list[Event]:
    """Returns the events of a text block, which has no beginning of its own."""
    place = {"contentBlockIndex": index}
    events = [("contentBlockDelta", {**place, "delta": {"text": text}}) for text in said]
    return [*events, ("contentBlockStop", place)]


def tool_block(name: str, call_id: str, *pieces: str, index: int = 0) -> list[Event]:
    """Returns the events of a tool use block."""
    place = {"contentBlockIndex": index}
    start = {"toolUse": {"toolUseId": call_id, "name": name}}
    return [
        ("contentBlockStart", {**place, "start": start}),
        *(
            ("contentBlockDelta", {**place, "delta": {"toolUse": {"input": piece}}})
            for piece in pieces
        ),
        ("contentBlockStop", place),
    ]


BEGUN: list[Event] = [("messageStart", {"role": "assistant"})]


def ended(reason: str, tokens: int = 1, **usage: int) -> list[Event]:
    """Returns how every answer ends."""
    told = {"inputTokens": 7, "outputTokens": tokens, "totalTokens": 7 + tokens, **usage}
    return [
        ("messageStop", {"stopReason": reason}),
        ("metadata", {"usage": told, "metrics": {"latencyMs": 1}}),
    ]


def good(body: dict[str, Any]) -> list[bytes]:
    """Returns the frames of the caller's last words, once more."""
    most = body["inferenceConfig"].get("maxTokens")
    said = last_words(body["messages"][-1]["content"][-1]["text"], most)
    reason = "max_tokens" if len(said) == most else "end_turn"
    return frames([*BEGUN, *text_block(*said), *ended(reason, len(said))])


def saying(*events: Event) -> Script:
    """Returns a script that says these events."""
    return delivered(lambda body: frames(events), slowly)


def complaint(status: int, message: str) -> dict[str, Any]:
    """Returns the body of a complaint."""
    return {"message": message}


def titan(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the body of one embedding by a model of Amazon's."""
    return {"embedding": [float(len(body["inputText"])), 0.5], "inputTextTokenCount": 2}


def cohere(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the body of embeddings by a model of Cohere's."""
    return {"embeddings": {"float": [[float(len(text)), 0.5] for text in body["texts"]]}}


THOUGHT: Event = (
    "contentBlockDelta",
    {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "Hm."}}},
)
BROKEN = bytearray(frame({"contentBlockIndex": 0}, message_type="event", event_type="x"))
BROKEN[-1] ^= 1
THROTTLED = {"x-amzn-ErrorType": "ThrottlingException:http://internal.amazon.com/"}
UNKNOWN = "The provided model identifier is invalid."
SCRIPTS: dict[str, Script] = {
    **misbehaviours(good, bytes(BROKEN)),
    **complaints(complaint, "Input is too long for requested model."),
    "amazon.titan-embed-text-v2:0": answers(titan),
    "answers by tool": saying(
        *BEGUN,
        *text_block("Here you are:"),
        *tool_block("answer", "tooluse_1", '{"name": "Ada', '", "adult": true}', index=1),
        *ended("tool_use"),
    ),
    "answers in prose": saying(*BEGUN, *text_block("Ada, an adult."), *ended("end_turn")),
    "caches": saying(
        *BEGUN,
        *text_block("yes"),
        *ended(
            "end_turn", 102, inputTokens=6, cacheReadInputTokens=30_940, cacheWriteInputTokens=460
        ),
    ),
    "calls tools": saying(
        *BEGUN,
        *text_block("Let me look."),
        *tool_block("weather", "tooluse_1", WEATHER_CALL[:9], WEATHER_CALL[9:], index=1),
        *tool_block("now", "tooluse_2", "", index=2),
        *ended("tool_use"),
    ),
    "cohere.embed-v4:0": answers(cohere),
    "embeddings": answers(titan),
    "fails midway": saying(
        *BEGUN, *text_block("half a"), ("serviceUnavailableException", {"message": "no"})
    ),
    "gives up": saying(*BEGUN, *text_block("half a"), *ended("malformed_tool_use")),
    "is filtered": saying(*BEGUN, *text_block("half a"), *ended("guardrail_intervened")),
    "is unheard of": refuses(complaint, 400, UNKNOWN),
    "limits by its name": refuses(complaint, 400, "Too many requests", **THROTTLED),
    "limits midway": saying(
        *BEGUN, *text_block("half a"), ("throttlingException", {"message": "Too many tokens"})
    ),
    "says another form": saying(*BEGUN, ("contentBlockDelta", {"delta": {"text": 7}})),
    "thinks": saying(*BEGUN, THOUGHT, *text_block("yes", index=1), *ended("end_turn")),
}
