"""What a call came to, as the model is told it: the message of a tool.

A tool answers with JSON text: ``{"result": ...}`` or ``{"error": ...}``, and what fails elsewhere
is put the same way. What a search found is told as numbered passages.
"""

from __future__ import annotations

import json

from schemas.events import Completion, InferenceReplied
from schemas.openai import FormInvalid
from schemas.search import Found, Hit, read
from streams.agents import facts
from streams.agents.run import Call, Citation

# Characters of a result; more would crowd out what else the model is to read.
MOST_CHARACTERS = 16_000
NOTHING_FOUND = "Nothing was found."
HANDED_OVER = '{"result": "it answered"}'


def outcome(call: Call, target: str, replied: InferenceReplied) -> tuple[str, list[Citation]]:
    """Returns what the model is told of an answer, and the passages that it may cite.

    Args:
        call: What was asked.
        target: What was asked it, by its name in the catalog.
        replied: A completion or a refusal.
    """
    if replied.refusal is not None:
        return failed(replied.refusal.reason, replied.refusal.message), []
    if replied.completion is None:
        return "", []
    try:
        return _said(call, target, replied.completion)
    except FormInvalid as error:
        return failed("answer", f"what came back cannot be read: {error}"), []


def failed(kind: str, message: str) -> str:
    """Returns that a call came to nothing, and why."""
    said = {"error": {"kind": kind, "message": message}}
    return shortened(json.dumps(said, ensure_ascii=False))


def shortened(text: str) -> str:
    """Returns a text, or as much of it as a model is told, with a note that it goes on."""
    if len(text) <= MOST_CHARACTERS:
        return text
    return f"{text[:MOST_CHARACTERS]}\n[{len(text) - MOST_CHARACTERS} more characters are left out]"


def _said(call: Call, target: str, completion: Completion) -> tuple[str, list[Citation]]:
    if call.kind == "index":
        return _searched(call, target, completion)
    if call.kind == "recall":
        return shortened(facts.recalled(completion)), []
    if call.kind == "remember":
        return shortened(facts.remembered(completion)), []
    return shortened(completion.content), []


def _searched(call: Call, index: str, completion: Completion) -> tuple[str, list[Citation]]:
    hits = read(completion.found, Found).hits
    passages, citations = [], []
    for place, hit in enumerate(hits, start=1):
        citation = _citation(call, place, index, hit)
        passages.append(_passage(citation, hit, MOST_CHARACTERS // len(hits)))
        citations.append(citation)
    if not passages:
        return NOTHING_FOUND, []
    return "\n\n".join(passages), citations


def _passage(citation: Citation, hit: Hit, most: int) -> str:
    beside = json.dumps({**hit.key, **hit.columns}, ensure_ascii=False)
    text = f"[{citation.mark}] {hit.text}\n{beside}"
    return text if len(text) <= most else f"{text[:most]} [cut]"


def _citation(call: Call, place: int, index: str, hit: Hit) -> Citation:
    return Citation(
        call=call.number,
        place=place,
        index=index,
        key=json.dumps(hit.key, ensure_ascii=False),
        position=hit.position,
        source=hit.source,
        version=hit.version,
    )
