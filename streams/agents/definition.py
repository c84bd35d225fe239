"""Agents as they begin a run: with all that they may reach, as the catalog has it then."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, Protocol, TypeVar

from schemas.agents import Definition, Reachable
from schemas.events import Reason, Refusal
from schemas.indexes import IndexSpec
from schemas.jsonschemas import MOST_CHARACTERS, require_schema
from schemas.kinds import AgentSpec, FunctionVersionSpec, PromptVersionSpec
from schemas.shapes import ALL, MOST_TOOLS
from streams.agents import facts, filters

V_co = TypeVar("V_co", covariant=True)

# What providers take at most as the name of a tool.
LONGEST_NAME = 64
# What stands before the name of a tool, by its kind: OpenAI's Agents SDK calls hand-offs so, too.
NAMED = {"handoff": "transfer_to_"}
# Tools of kinds of which an agent has one each.
ALONE = frozenset({"recall", "remember"})
# Of what tells names apart that are alike otherwise.
DIGEST_CHARACTERS = 8
CITE = "Cite a passage by the number that stands before it: [2.1]."
# Hits of one search, for a model to read.
MOST_HITS = 20


class Numbered(Protocol[V_co]):
    """A version of something."""

    @property
    def number(self) -> int:
        """Its number."""

    @property
    def version(self) -> V_co:
        """What it is."""


class Versions(Protocol[V_co]):
    """Things of one kind that have versions."""

    def __iter__(self) -> Iterator[str]:
        """Yields the names of the things."""

    def find(self, reference: str) -> Numbered[V_co] | None:
        """Returns a version by its name, the newest by a thing's; None where there is none."""


class Known(Protocol):
    """What of the catalog an agent is made of."""

    @property
    def agents(self) -> Container[str]:
        """Names of the agents."""

    @property
    def endpoints(self) -> Container[str]:
        """Names of all that can be asked."""

    @property
    def functions(self) -> Versions[FunctionVersionSpec]:
        """The functions."""

    @property
    def indexes(self) -> Mapping[str, IndexSpec]:
        """The indexes, by name."""

    @property
    def prompts(self) -> Versions[PromptVersionSpec]:
        """The prompts."""

    def comment(self, kind: str, name: str) -> str:
        """Returns what an object is for, in words; empty where nobody has said."""


@dataclass(frozen=True, slots=True)
class _Tool:
    """A tool that has no name for the model yet."""

    kind: Literal["agent", "function", "handoff", "index", "recall", "remember"]
    target: str
    description: str
    parameters: dict[str, Any]
    version: int | None = None
    pure: bool = True


class Unfit(Exception):
    """An agent cannot run as it is; the message says why."""


def resolve(agent: str, spec: AgentSpec, known: Known) -> Definition | Refusal:
    """Returns an agent as it is now, or a refusal that names what it lacks.

    Args:
        agent: Its name in the catalog.
        spec: What the catalog says of it.
        known: What else the catalog knows.
    """
    try:
        return _definition(agent, spec, known)
    except Unfit as error:
        return Refusal(reason=Reason.NOT_FOUND, message=f"{agent} cannot run: {error}")
    except ValueError as error:
        return Refusal(reason=Reason.REQUEST_INVALID, message=f"{agent} cannot run: {error}")


def _definition(agent: str, spec: AgentSpec, known: Known) -> Definition:
    if spec.endpoint not in known.endpoints:
        raise Unfit(f"there is no endpoint {spec.endpoint} that can be asked")
    offered = offered_by(spec, known)
    if spec.output is not None:
        _require(spec.output, "its output")
    return Definition(
        agent=agent,
        endpoint=spec.endpoint,
        instructions="\n\n".join(filter(None, (_template(spec, known), spec.instructions))),
        tools={name: _cited(tool) for name, tool in offered.items()},
        plan=tuple(_planned(spec.plan, offered)),
        output=spec.output,
        summarise=spec.summarise,
        repairs=spec.repairs,
        limits=spec.limits,
        kept=spec.memory.kept if spec.memory else None,
    )


def offered_by(spec: AgentSpec, known: Known) -> dict[str, Reachable]:
    """Returns what an agent may call, by the names that whoever calls has for it.

    Args:
        spec: What the catalog says of it.
        known: What else the catalog knows.

    Raises:
        Unfit: Something of it is not in the catalog.
        ValueError: Parameters are no JSON Schema that can be offered, or there are too many.
    """
    tools = _reached(spec, known)
    if _characters(tools) > MOST_CHARACTERS:
        tools = _reached(spec, known, brief=True)
    if (characters := _characters(tools)) > MOST_CHARACTERS:
        raise ValueError(
            f"the parameters of its tools have {characters} characters, and a request may have "
            f"{MOST_CHARACTERS}: give it fewer tools"
        )
    for tool in tools:
        _require(tool.parameters, f"the parameters of {tool.target}")
    return {
        name: Reachable(
            name=name,
            kind=tool.kind,
            target=tool.target,
            version=tool.version,
            description=tool.description,
            parameters=tool.parameters,
            approval=tool.target in spec.approvals,
            pure=tool.pure,
        )
        for name, tool in zip(_names(tools), tools, strict=True)
    }


def _cited(tool: Reachable) -> Reachable:
    """Returns a tool that says how to cite, if what it finds comes with numbers."""
    if tool.kind != "index":
        return tool
    return tool.model_copy(update={"description": f"{tool.description} {CITE}"})


def _reached(spec: AgentSpec, known: Known, *, brief: bool = False) -> tuple[_Tool, ...]:
    """Returns the tools of an agent, each once; brief where their parameters are to be short."""
    reached = (
        *_functions(spec, known),
        *_indexes(spec, known, brief=brief),
        *_agents(spec, known),
        *_memory(spec, known),
    )
    return tuple({(tool.kind, tool.target, tool.version): tool for tool in reached}.values())


def _characters(tools: Iterable[_Tool]) -> int:
    return sum(len(json.dumps(tool.parameters)) for tool in tools)


def _functions(spec: AgentSpec, known: Known) -> Iterator[_Tool]:
    for reference in _expanded(spec.tools, known):
        found = known.functions.find(reference)
        if found is None:
            raise Unfit(f"there is no function {reference}")
        name = reference.partition("@")[0]
        yield _Tool(
            kind="function",
            target=name,
            version=found.number,
            description=found.version.description or known.comment("function", name),
            parameters=found.version.parameters,
            pure=found.version.effect == "pure",
        )


def _expanded(tools: Sequence[str], known: Known) -> Iterator[str]:
    """Yields functions by name: those that are named, and those of schemas that are not."""
    named = {reference.partition("@")[0] for reference in tools}
    found: list[str] = []
    for reference in tools:
        if not reference.endswith(ALL):
            found.append(reference)
            continue
        schema = reference.removesuffix("*")
        inside = sorted(each for each in known.functions if each.startswith(schema))
        if not any(map(known.functions.find, inside)):
            raise Unfit(f"there is no function {reference}")
        found += [each for each in inside if each not in named and known.functions.find(each)]
    if len(found) > MOST_TOOLS:
        raise ValueError(
            f"its tools come to {len(found)} functions, and it may have {MOST_TOOLS}: name fewer"
        )
    yield from found


def _indexes(spec: AgentSpec, known: Known, *, brief: bool) -> Iterator[_Tool]:
    for name in spec.indexes:
        index = known.indexes.get(name)
        if index is None:
            raise Unfit(f"there is no index {name}")
        comment = known.comment("index", name) or f"Passages of {index.source or name}."
        yield _Tool(
            kind="index",
            target=name,
            description=comment,
            parameters=_search(index, brief=brief),
        )


def _agents(spec: AgentSpec, known: Known) -> Iterator[_Tool]:
    for name in (*spec.agents, *spec.handoffs):
        if name not in known.agents:
            raise Unfit(f"there is no agent {name}")
    for name in spec.handoffs:
        yield _Tool(
            kind="handoff",
            target=name,
            description=f"Hands the conversation over to {name}, which answers it. "
            f"{known.comment('agent', name)}".rstrip(),
            parameters=_parameters({}),
        )
    for name in spec.agents:
        yield _Tool(
            kind="agent",
            target=name,
            description=known.comment("agent", name),
            parameters=_parameters({"message": _text("What it is asked.")}, "message"),
        )


def _memory(spec: AgentSpec, known: Known) -> Iterator[_Tool]:
    if spec.memory is None or (name := spec.memory.index) is None:
        return
    index = known.indexes.get(name)
    if index is None:
        raise Unfit(f"there is no index {name}")
    if lack := facts.unfit(index):
        raise Unfit(f"facts cannot be kept in {name}: {lack}")
    yield _Tool(
        kind="recall",
        target=name,
        description="Finds facts about the user that were remembered in earlier conversations.",
        parameters=_parameters(
            {"query": _text("What they are about."), "k": _how_many("facts", facts.MOST_FACTS)},
            "query",
        ),
    )
    fact = {**_text("The fact, in a sentence."), "maxLength": facts.MOST_CHARACTERS}
    yield _Tool(
        kind="remember",
        target=name,
        description="Remembers a fact about the user for later conversations.",
        parameters=_parameters({facts.TEXT: fact}, facts.TEXT),
    )


def _planned(plan: Iterable[str], offered: dict[str, Reachable]) -> Iterator[str]:
    names = {tool.target: name for name, tool in reversed(offered.items())}
    for target in plan:
        if target not in names:
            raise Unfit(f"its plan names {target}, which is none of its tools")
        yield names[target]


def _search(index: IndexSpec, *, brief: bool) -> dict[str, Any]:
    """Returns the parameters of a search, with the columns that it may filter by."""
    properties = {
        "query": _text("What is looked for."),
        "k": _how_many("passages", MOST_HITS),
    }
    if index.columns:
        named = None if brief else filters.by_name(index.columns)
        properties["filters"] = named or filters.in_words(index.columns)
    return _parameters(properties, "query")


def _parameters(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _how_many(what: str, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, "maximum": most, "description": f"How many {what}."}


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "description": description}


def _template(spec: AgentSpec, known: Known) -> str:
    if spec.prompt is None:
        return ""
    found = known.prompts.find(spec.prompt)
    if found is None:
        raise Unfit(f"there is no prompt {spec.prompt}")
    return found.version.template


def _require(schema: Mapping[str, Any], what: str) -> None:
    try:
        require_schema(schema)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def _names(tools: tuple[_Tool, ...]) -> list[str]:
    """Returns what the model calls tools: as short as tells them apart."""
    levels = [0] * len(tools)
    while True:
        names = [_name(tool, level) for tool, level in zip(tools, levels, strict=True)]
        alike = {name for name, count in Counter(names).items() if count > 1}
        if not alike:
            return names
        levels = [level + (name in alike) for level, name in zip(levels, names, strict=True)]


def _name(tool: _Tool, level: int) -> str:
    """Returns the name alone, then with its schema, its catalog, and what nothing else has."""
    last = tool.kind if tool.kind in ALONE else "_".join(tool.target.split(".")[-1 - level :])
    name = NAMED.get(tool.kind, "") + last
    if level < len(tool.target.split(".")):
        return name[:LONGEST_NAME]
    said = f"{tool.kind} {tool.target}@{tool.version} {level}"
    digest = sha256(said.encode()).hexdigest()[:DIGEST_CHARACTERS]
    return f"{name[: LONGEST_NAME - DIGEST_CHARACTERS - 1]}_{digest}"
