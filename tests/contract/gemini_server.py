"""What Google's Gemini API sends: chunks as recorded, and complaints in its form."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from tests.contract.misbehaving import delivered, misbehaviours, slowly
from tests.contract.scripted_server import Script
from tests.contract.vendor_ways import WEATHER_CALL, answers, complaints, last_words, refuses

STATUSES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
SIGNATURE = "c2lnbmF0dXJlPz4="


def named(request: web.Request, _: dict[str, Any]) -> str:
    """Takes the name of the script from the model in the path."""
    return request.path.rpartition("/models/")[2].partition(":")[0]


def frames(chunks: Iterable[dict[str, Any]]) -> list[bytes]:
    """Returns server-sent events that carry these."""
    return [f"data: {json.dumps(each, ensure_ascii=False)}\r\n\r\n".encode() for each in chunks]


def chunk(*parts: dict[str, Any], reason: str | None = None, **usage: int) -> dict[str, Any]:
    """Returns a chunk; each tells the usage so far."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if reason is not None:
        candidate["finishReason"] = reason
    told = {"promptTokenCount": 7, "totalTokenCount": 7, **usage}
    return {
        "candidates": [candidate],
        "usageMetadata": told,
        "modelVersion": "gemini-scripted",
        "responseId": "r",
    }


def said(text: str, **more: Any) -> dict[str, Any]:
    """Returns a text part."""
    return {"text": text, **more}


def called(name: str, arguments: str, **more: Any) -> dict[str, Any]:
    """Returns a function call part."""
    return {"functionCall": {"name": name, "args": json.loads(arguments)}, **more}


def good(body: dict[str, Any]) -> list[bytes]:
    """Returns the frames of the caller's last words, once more."""
    most = body["generationConfig"].get("maxOutputTokens")
    words = last_words(body["contents"][-1]["parts"][-1]["text"], most)
    reason = "MAX_TOKENS" if len(words) == most else "STOP"
    chunks = [chunk(said(word), candidatesTokenCount=n) for n, word in enumerate(words, 1)]
    return frames([*chunks, chunk(said(""), reason=reason, candidatesTokenCount=len(words))])


def saying(*chunks: dict[str, Any]) -> Script:
    """Returns a script that says these chunks."""
    return delivered(lambda body: frames(chunks), slowly)


def complaint(status: int, message: str, *details: dict[str, Any]) -> dict[str, Any]:
    """Returns the body of a complaint."""
    kind = STATUSES.get(status, "INTERNAL")
    error = {"code": status, "message": message, "status": kind, "details": list(details)}
    return {"error": error}


def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the body of embeddings."""
    texts = [request["content"]["parts"][0]["text"] for request in body["requests"]]
    return {"embeddings": [{"values": [float(len(text)), 0.5]} for text in texts]}


ERROR_INFO = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7.5s"}
LOGPROBS = {
    "chosenCandidates": [{"token": "yes", "logProbability": -0.1}],
    "topCandidates": [
        {
            "candidates": [
                {"token": "yes", "logProbability": -0.1},
                {"token": "no", "logProbability": -2.5},
            ]
        }
    ],
}
SCRIPTS: dict[str, Script] = {
    **misbehaviours(good),
    **complaints(complaint, "The input token count (9) exceeds the maximum number of tokens (8)."),
    "answers by tool": saying(
        chunk(said("Here you are:")),
        chunk(called("answer", '{"name": "Ada", "adult": true}'), reason="STOP"),
    ),
    "answers in prose": saying(chunk(said("Ada, an adult."), reason="STOP")),
    "blocks the prompt": saying(
        {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 7}}
    ),
    "caches": saying(
        chunk(
            said("yes"),
            reason="STOP",
            promptTokenCount=31_406,
            cachedContentTokenCount=30_940,
            candidatesTokenCount=62,
            thoughtsTokenCount=40,
        )
    ),
    "calls tools": saying(
        chunk(called("weather", WEATHER_CALL, thoughtSignature=SIGNATURE)),
        chunk(called("now", "{}"), reason="STOP"),
    ),
    "embeddings": answers(embeddings),
    "embeds too little": answers(lambda body: {"embeddings": [{"values": [1.0]}]}),
    "fails midway": saying(chunk(said("half a")), complaint(503, "The model is overloaded.")),
    "gives up": saying(chunk(said("half a")), chunk(reason="MALFORMED_FUNCTION_CALL")),
    "is filtered": saying(chunk(said("half a")), chunk(reason="SAFETY")),
    "knows no key": refuses(lambda *said: complaint(*said, ERROR_INFO), 400, "API key not valid."),
    "limits by details": refuses(lambda *said: complaint(*said, RETRY_INFO), 429),
    "says another form": saying({"candidates": 7}),
    "thinks": saying(chunk(said("Hm.", thought=True)), chunk(said("yes"), reason="STOP")),
    "weighs words": saying(
        {
            "candidates": [
                {**chunk(said("yes"), reason="STOP")["candidates"][0], "logprobsResult": LOGPROBS}
            ]
        }
    ),
}
