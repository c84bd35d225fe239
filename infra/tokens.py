"""How many tokens a request is: estimated fast, or counted.

An estimate holds a place in a limit until the provider has told the real number; it is a little too
high for prose and too low for rare scripts. A count is for what no provider counted, and for texts
that are cut into pieces of some tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING
from warnings import catch_warnings, simplefilter

from schemas.events import InferenceRequested, Task
from schemas.searching import texts_of

if TYPE_CHECKING:
    from bpe_openai._bindings import PyTokenizer

# English prose has 4 to 5 bytes a token in the vocabularies of today's models.
BYTES = 4
# What marks a message's ends and its role.
A_MESSAGE = 4
MOST_TRIES = 16
# What uses no tokens itself: no model reads a tool's arguments, and what an agent asks a model for
# is counted where it asks.
TOKENLESS = frozenset({Task.AGENT, Task.TOOL})
# The vocabulary of GPT-4o and its successors; other providers' give numbers near to its.
VOCABULARY = "o200k_base"


def estimate(request: InferenceRequested) -> int:
    """Returns about how many tokens a model reads of a request; at least 1, where one does.

    All that it reads counts: messages with their calls, tools, the schema, inputs, the query, and
    the rows of a write. Of what agents and tools are asked, no model reads anything here.
    """
    if request.task in TOKENLESS:
        return 0
    read = [request.json_schema or "", request.query or "", *request.inputs]
    if request.task is Task.WRITE:
        read.append(texts_of(request.search))
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
    """Returns how many tokens a text is, by the byte-pair encoding of ``VOCABULARY``.

    Takes time in proportion to the text, whatever it says; the first call loads the vocabulary out
    of its package (50 ms, 100 MiB). What is no text, halves of surrogate pairs, counts as ``?``.
    """
    return int(_encoding().count(_valid(text)))


def head(text: str, tokens: int) -> int:
    """Returns how many characters the first tokens of a text are: all, if it has no more tokens.

    Where the last of them ends within a character, that character is left out.
    """
    found = _encoding().encode(_valid(text))
    if len(found) <= tokens:
        return len(text)
    return _characters(found[:many] for many in range(tokens, 0, -1))


def tail(text: str, tokens: int) -> int:
    """Returns how many characters the last tokens of a text are: all, if it has no more tokens.

    Where the first of them begins within a character, that character is left out.
    """
    found = _encoding().encode(_valid(text))
    if len(found) <= tokens:
        return len(text)
    return _characters(found[len(found) - many :] for many in range(tokens, 0, -1))


def _characters(tries: Iterator[list[int]]) -> int:
    """Returns the length of the first of some tokens that are whole characters."""
    # A token that ends within a character is followed by three that end there at most.
    for tokens in islice(tries, MOST_TRIES):
        with suppress(ValueError):
            return len(_encoding().decode(tokens))
    return 0


@cache
def _encoding() -> PyTokenizer:
    # Loaded when it is first needed: most processes only estimate.
    with catch_warnings():
        # The package finds its files by a function that Python calls deprecated.
        simplefilter("ignore", DeprecationWarning)
        # What stands above the binding makes lists of tokens, and refuses a million characters.
        from bpe_openai._bindings import tokenizer_for_encoding  # noqa: PLC0415
    return tokenizer_for_encoding(VOCABULARY)


def _valid(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _size(text: str) -> int:
    # Bytes that no caller can send are counted, not refused: halves of surrogate pairs.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
