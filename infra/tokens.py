"""How many tokens a request is: estimated fast, or counted.

An estimate holds a place in a limit until the provider has told the real number; it is a little too
high for prose and too low for rare scripts. A count is for what no provider counted.
"""

from __future__ import annotations

from schemas.events import InferenceRequested

# English prose has 4 to 5 bytes a token in the vocabularies of today's models.
BYTES = 4
# What marks a message's ends and its role.
A_MESSAGE = 4


def estimate(request: InferenceRequested) -> int:
    """Returns about how many tokens a model reads of a request; at least 1.

    All that it reads counts: messages with their calls, tools, the schema, inputs and the query.
    """
    read = [request.json_schema or "", request.query or "", *request.inputs]
    for message in request.messages:
        read += [message.content, message.name or "", message.tool_call_id or ""]
        for call in message.tool_calls:
            read += [call.id, call.name, call.arguments]
    for tool in request.tools:
        read += [tool.name, tool.description, tool.parameters]
    parts = len(request.messages) + len(request.tools) + len(request.inputs)
    return max(1, estimate_text("".join(read)) + A_MESSAGE * parts)


def estimate_text(text: str) -> int:
    """Returns about how many tokens a text is; 0 for an empty one."""
    return -(-_size(text) // BYTES)


def count(text: str) -> int:
    """Returns how many tokens a text is in the vocabulary that most providers are near to."""
    return estimate_text(text)


def _size(text: str) -> int:
    # Bytes that no caller can send are counted, not refused: halves of surrogate pairs.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
