"""Whether there is something that can be answered."""

from __future__ import annotations

from datetime import datetime

from infra.catalog import CatalogView
from infra.identity import quoted
from schemas.events import (
    InferenceRequested,
    Reason,
    Refusal,
    Role,
    Task,
)
from schemas.jsonschemas import MOST_CHARACTERS
from schemas.openai import TOOL_CHOICES, parsed
from schemas.topics import BEHIND
from streams.gateway.asked import Asked

# As many as OpenAI takes at once.
MAX_INPUTS = 2048
MAX_STOPS = 16
MAX_LOGPROBS = 20

# Inclusive bounds by OpenAI's names. Over them every provider refuses, so the gateway does at once.
BOUNDS: dict[str, tuple[float, float]] = {
    "frequency_penalty": (-2, 2),
    "max_tokens": (1, 2**31 - 1),
    "presence_penalty": (-2, 2),
    "temperature": (0, 2),
    "top_k": (-1, 2**31 - 1),
    "top_logprobs": (0, MAX_LOGPROBS),
    "top_p": (1e-6, 1),
}

# What there is to work on, and what each task works on. The rest would be read by nobody.
MATERIAL = ("messages", "query", "inputs", "search")
NEEDED: dict[Task, tuple[str, ...]] = {
    Task.AGENT: ("messages",),
    Task.CHAT: ("messages",),
    Task.EMBEDDING: ("inputs",),
    Task.RERANK: ("query", "inputs"),
    Task.SEARCH: ("search",),
    Task.TOOL: ("inputs",),
    Task.WRITE: ("search",),
}
# What a task may work on, besides: a search may have its vector already.
TAKEN: dict[Task, tuple[str, ...]] = {Task.SEARCH: ("query",)}


def task_sensible(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """What is asked for must be known, and there must be something to do it with."""
    request = asked.request
    needed = NEEDED.get(request.task)
    if needed is None:
        known = ", ".join(NEEDED)
        return _invalid("task", f"what is asked for is not known here; there are: {known}")
    taken = TAKEN.get(request.task, ())
    for field in (each for each in MATERIAL if each not in taken):
        if refusal := _material(request, field, needed=field in needed):
            return refusal
    if len(request.inputs) > MAX_INPUTS:
        return _invalid("inputs", f"inputs takes {MAX_INPUTS} texts at once; ask several times")
    return None


def previous_sensible(  # noqa: PLR0911 - one return for each thing that can be wrong
    asked: Asked, view: CatalogView, now: datetime
) -> Refusal | None:
    """Only runs of agents go on with what was said; what there is of it, the run sees."""
    request = asked.request
    if request.previous_turns is not None and request.previous is None:
        return _invalid("previous_turns", "previous_turns says nothing without previous")
    if request.previous is None:
        return None
    if request.task is not Task.AGENT:
        return _invalid("previous", f"{request.task} goes on with nothing: send all that was said")
    if not request.previous:
        return _invalid("previous", "previous is the id of an earlier request, and empty")
    if BEHIND in request.previous:
        return Refusal(
            reason=Reason.NOT_FOUND,
            message=f"nothing is kept of what agents ask each other, whose ids have a {BEHIND}: go "
            "on with the request that began it",
            field="previous",
        )
    if request.previous_turns is not None and request.previous_turns < 1:
        return _invalid("previous_turns", "previous_turns counts turns of the model, from 1")
    return None


def messages_sensible(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Each turn of a conversation must be somebody's."""
    request = asked.request
    for index, message in enumerate(request.messages):
        if message.role is Role.UNKNOWN:
            return _invalid("messages", f"messages[{index}].role is not known here")
        if message.role is Role.TOOL and message.tool_call_id is None:
            return _invalid("messages", f"messages[{index}] answers a tool but names no call")
    return None


def sampling_sensible(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Sampling parameters must lie within OpenAI's bounds."""
    request = asked.request
    for field, (low, high) in BOUNDS.items():
        value = getattr(request.sampling, field)
        # Written so that NaN fails.
        if value is not None and not low <= value <= high:
            return _invalid(
                f"sampling.{field}", f"{field} is {value}; it must lie from {low:g} to {high:g}"
            )
    stop = request.sampling.stop
    if len(stop) > MAX_STOPS or "" in stop:
        return _invalid("sampling.stop", f"stop takes up to {MAX_STOPS} texts, none of them empty")
    return None


def schemas_sensible(  # noqa: PLR0911 - one return for each thing that can be wrong
    asked: Asked, view: CatalogView, now: datetime
) -> Refusal | None:
    """What is said to be JSON Schema must at least be a JSON object, and tools well named."""
    request = asked.request
    if len(request.json_schema or "") > MOST_CHARACTERS:
        return _invalid("json_schema", f"a schema may have {MOST_CHARACTERS} characters")
    if sum(len(tool.parameters) for tool in request.tools) > MOST_CHARACTERS:
        return _invalid("tools", f"all parameters may have {MOST_CHARACTERS} characters")
    if request.json_schema is not None and not _is_object(request.json_schema):
        return _invalid("json_schema", "json_schema is not the text of a JSON object")
    names = [tool.name for tool in request.tools]
    if len(set(names)) < len(names) or "" in names:
        return _invalid("tools", "each tool needs a name of its own")
    for tool in request.tools:
        if not _is_object(tool.parameters):
            return _invalid("tools", f"the parameters of {quoted(tool.name)} are no JSON object")
    if request.tool_choice not in TOOL_CHOICES and request.tool_choice not in names:
        return _invalid("tool_choice", "tool_choice must be auto, none, required, or a tool's name")
    if request.tool_choice == "required" and not names:
        return _invalid("tool_choice", "a tool is required and none is offered")
    return None


def _material(request: InferenceRequested, field: str, *, needed: bool) -> Refusal | None:
    given = getattr(request, field)
    if needed and not given:
        return _invalid(field, f"{field} is empty, and {request.task} needs it")
    # An empty query was said all the same.
    if not needed and given not in {None, ()}:
        return _invalid(field, f"{request.task} takes no {field}")
    return None


def _invalid(field: str, message: str) -> Refusal:
    return Refusal(reason=Reason.REQUEST_INVALID, message=message, field=field)


def _is_object(text: str) -> bool:
    return isinstance(parsed(text), dict)
