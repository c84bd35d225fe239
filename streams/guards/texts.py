"""Where the texts of a request are: one walk over all of them, which may change each.

Ids of calls, names of functions and tags are no texts: they are names by which others find
something, and what is not sent to a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from schemas.events import InferenceRequested, Message, Role, Task, Tool, ToolCall
from schemas.searching import texts_of, with_texts

Form = Literal["arguments", "name", "prose", "schema"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A text of a request or an answer.

    Attributes:
        text: What it says.
        stage: What a rule calls the place where it is: input, output or tools.
        where: Its place in words: messages[3].content.
        form: What is a text in it: all of it (prose; of JSON the strings and their keys), the
            values of JSON (arguments), what a schema says to its reader, or a name, which holds no
            angle brackets.
        role: Who says it.
        calls: Whether it is a call's arguments, too, at which rules on tools look.
    """

    text: str
    stage: str
    where: str
    form: Form = "prose"
    role: Role | None = None
    calls: bool = False


Change = Callable[[Passage], str]


def changed(request: InferenceRequested, change: Change) -> InferenceRequested:
    """Returns a request with each of its texts changed, in the order in which a model reads them.

    Tools come first, so that what a conversation grows by stands behind all that was there before.
    What no change is made to is the same object: copies cost more than looking.
    """
    tools = tuple([_tool(tool, at, change) for at, tool in enumerate(request.tools)])
    json_schema = _maybe(request.json_schema, change, where="json_schema", form="schema")
    messages = tuple([_message(each, at, change) for at, each in enumerate(request.messages)])
    query = _maybe(request.query, change, where="query")
    inputs = _each(request.inputs, change, "inputs", calls=request.task is Task.TOOL)
    search = _search(request.search, change)
    sampling, stop = request.sampling, _each(request.sampling.stop, change, "sampling.stop")
    if stop != sampling.stop:
        sampling = replace(sampling, stop=stop)
    before = (request.tools, request.json_schema, request.messages, request.query, request.inputs)
    same = before == (tools, json_schema, messages, query, inputs) and search == request.search
    if same and sampling is request.sampling:
        return request
    return replace(
        request,
        tools=tools,
        json_schema=json_schema,
        messages=messages,
        query=query,
        inputs=inputs,
        search=search,
        sampling=sampling,
    )


def passages(request: InferenceRequested) -> list[Passage]:
    """Returns the texts of a request that say anything, in order."""
    found: list[Passage] = []

    def keep(passage: Passage) -> str:
        if passage.text:
            found.append(passage)
        return passage.text

    changed(request, keep)
    return found


def _message(message: Message, at: int, change: Change) -> Message:
    where = f"messages[{at}]"
    form: Form = "arguments" if message.role is Role.TOOL else "prose"
    name = _maybe(message.name, change, where=f"{where}.name", form="name", role=message.role)
    said = Passage(
        text=message.content, stage="input", where=f"{where}.content", form=form, role=message.role
    )
    content = change(said)
    calls = tuple(
        [
            _call(call, f"{where}.tool_calls[{number}]", change)
            for number, call in enumerate(message.tool_calls)
        ]
    )
    if (name, content, calls) == (message.name, message.content, message.tool_calls):
        return message
    return replace(message, name=name, content=content, tool_calls=calls)


def _call(call: ToolCall, where: str, change: Change) -> ToolCall:
    said = Passage(text=call.arguments, stage="tools", where=f"{where}.arguments", form="arguments")
    return replace(call, arguments=change(said))


def _tool(tool: Tool, at: int, change: Change) -> Tool:
    described = Passage(text=tool.description, stage="input", where=f"tools[{at}].description")
    takes = Passage(
        text=tool.parameters, stage="input", where=f"tools[{at}].parameters", form="schema"
    )
    return replace(tool, description=change(described), parameters=change(takes))


def _search(document: str | None, change: Change) -> str | None:
    """Returns a search or a write with its texts changed; without any, there is none of it left."""
    texts = texts_of(document)
    if document is None or not texts:
        return document
    after = change(Passage(text=texts, stage="input", where="search", form="arguments"))
    if after == texts:
        return document
    return with_texts(document, after) if after else None


def _maybe(
    text: str | None, change: Change, *, where: str, form: Form = "prose", role: Role | None = None
) -> str | None:
    if text is None:
        return None
    return change(Passage(text=text, stage="input", where=where, form=form, role=role))


def _each(
    texts: tuple[str, ...], change: Change, where: str, *, calls: bool = False
) -> tuple[str, ...]:
    form: Form = "arguments" if calls else "prose"
    return tuple(
        [
            change(
                Passage(text=text, stage="input", where=f"{where}[{at}]", form=form, calls=calls)
            )
            for at, text in enumerate(texts)
        ]
    )
