"""What others are asked about: which rules ask them, and the texts that they see and may replace.

They see a request as the model would, and an answer as it would be kept: masked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from schemas.events import Completion, InferenceRequested
from schemas.searching import texts_of, with_texts
from streams.guards.rules import Policies, guards
from streams.guards.texts import Passage, changed, passages


def remote_rules(policies: Policies, stage: str) -> tuple[str, ...]:
    """Returns the rules that somebody else answers and that look at a stage: policy/rule."""
    return tuple(
        guard.name for guard in guards(policies) if guard.detector.remote and guard.applies(stage)
    )


def request_texts(request: InferenceRequested) -> tuple[str, ...]:
    """Returns the texts of a request that say anything, in order."""
    return tuple(passage.text for passage in passages(request))


def with_request_texts(request: InferenceRequested, texts: Sequence[str]) -> InferenceRequested:
    """Returns a request with others for the texts that ``request_texts`` returns.

    Raises:
        ValueError: There are more or fewer of them.
    """
    if len(texts) != len(request_texts(request)):
        raise ValueError("a request keeps the number of its texts")
    left = deque(texts)

    def put(passage: Passage) -> str:
        return left.popleft() if passage.text else passage.text

    return changed(request, put)


def answer_texts(answer: Completion) -> tuple[str, ...]:
    """Returns the texts of an answer that say anything.

    Content, then arguments of tool calls; of an index, what it found, as JSON.
    """
    called = (call.arguments for call in answer.tool_calls)
    return tuple(filter(None, (answer.content, *called, texts_of(answer.found))))


def with_answer_texts(answer: Completion, texts: Sequence[str]) -> Completion:
    """Returns an answer with others for the texts that ``answer_texts`` returns.

    Raises:
        ValueError: There are more or fewer of them, or of what was found.
    """
    if len(texts) != len(answer_texts(answer)):
        raise ValueError("an answer keeps the number of its texts")
    left = deque(texts)
    content = left.popleft() if answer.content else ""
    calls = tuple(
        [
            replace(call, arguments=left.popleft()) if call.arguments else call
            for call in answer.tool_calls
        ]
    )
    found = answer.found
    if found is not None and texts_of(found):
        found = with_texts(found, left.popleft())
    # Log probabilities say the first text again, token by token.
    return replace(answer, content=content, tool_calls=calls, logprobs=(), found=found)
