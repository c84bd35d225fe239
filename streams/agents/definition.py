"""Agents as they begin a run: with all that they may reach, as the catalog has it then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, Protocol, TypeVar

from schemas.agents import Definition, Reachable
from schemas.events import Reason, Refusal
from schemas.indexes import IndexSpec
from schemas.jsonschemas import require_schema
from schemas.kinds import AgentSpec, FunctionVersionSpec, PromptVersionSpec

V_co = TypeVar("V_co", covariant=True)

# What providers take at most as the name of a tool.
LONGEST_NAME = 64
# Of what tells names apart that are alike otherwise.
DIGEST_CHARACTERS = 8
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

    kind: Literal["agent", "function", "index"]
    target: str
    description: str
    parameters: dict[str, Any]
    version: int | None = None


class _Unfit(Exception):
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
    except _Unfit as error:
        return Refusal(reason=Reason.NOT_FOUND, message=f"{agent} cannot run: {error}")
    except ValueError as error:
        return Refusal(reason=Reason.REQUEST_INVALID, message=f"{agent} cannot run: {error}")


def _definition(agent: str, spec: AgentSpec, known: Known) -> Definition:
    if spec.endpoint not in known.endpoints:
        raise _Unfit(f"there is no endpoint {spec.endpoint} that can be asked")
    reached = (*_functions(spec, known), *_indexes(spec, known), *_agents(spec, known))
    tools = tuple({(tool.kind, tool.target, tool.version): tool for tool in reached}.values())
    for tool in tools:
        _require(tool.parameters, f"the parameters of {tool.target}")
    if spec.output is not None:
        _require(spec.output, "its output")
    return Definition(
        agent=agent,
        endpoint=spec.endpoint,
        instructions="\n\n".join(filter(None, (_template(spec, known), spec.instructions))),
        tools={
            name: Reachable(
                name=name,
                kind=tool.kind,
                target=tool.target,
                version=tool.version,
                description=tool.description,
                parameters=tool.parameters,
                approval=tool.target in spec.approvals,
            )
            for name, tool in zip(_names(tools), tools, strict=True)
        },
        output=spec.output,
        repairs=spec.repairs,
        limits=spec.limits,
    )


def _functions(spec: AgentSpec, known: Known) -> Iterator[_Tool]:
    for reference in spec.tools:
        found = known.functions.find(reference)
        if found is None:
            raise _Unfit(f"there is no function {reference}")
        name = reference.partition("@")[0]
        yield _Tool(
            kind="function",
            target=name,
            version=found.number,
            description=found.version.description or known.comment("function", name),
            parameters=found.version.parameters,
        )


def _indexes(spec: AgentSpec, known: Known) -> Iterator[_Tool]:
    for name in spec.indexes:
        index = known.indexes.get(name)
        if index is None:
            raise _Unfit(f"there is no index {name}")
        comment = known.comment("index", name) or f"Passages of {index.source or name}."
        yield _Tool(
            kind="index",
            target=name,
            description=f"{comment} Cite a passage by the number that stands before it: [2.1].",
            parameters=_search(index),
        )


def _agents(spec: AgentSpec, known: Known) -> Iterator[_Tool]:
    for name in spec.agents:
        if name not in known.agents:
            raise _Unfit(f"there is no agent {name}")
        yield _Tool(
            kind="agent",
            target=name,
            description=known.comment("agent", name),
            parameters=_parameters({"message": _text("What it is asked.")}, "message"),
        )


def _search(index: IndexSpec) -> dict[str, Any]:
    """Returns the parameters of a search, with the columns that it may filter by."""
    columns = ", ".join(
        (*index.key_columns, *(f"{each.name} ({each.type})" for each in index.columns))
    )
    filters = f"Values that rows must have, by column: {columns}." if columns else "None."
    properties = {
        "query": _text("What is looked for."),
        "k": {
            "type": "integer",
            "minimum": 1,
            "maximum": MOST_HITS,
            "description": "How many passages.",
        },
        "filters": {"type": "object", "description": filters},
    }
    return _parameters(properties, "query")


def _parameters(properties: dict[str, Any], required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [required],
        "additionalProperties": False,
    }


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "description": description}


def _template(spec: AgentSpec, known: Known) -> str:
    if spec.prompt is None:
        return ""
    found = known.prompts.find(spec.prompt)
    if found is None:
        raise _Unfit(f"there is no prompt {spec.prompt}")
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
    name = "_".join(tool.target.split(".")[-1 - level :])
    if level < len(tool.target.split(".")):
        return name[:LONGEST_NAME]
    said = f"{tool.kind} {tool.target}@{tool.version} {level}"
    digest = sha256(said.encode()).hexdigest()[:DIGEST_CHARACTERS]
    return f"{name[: LONGEST_NAME - DIGEST_CHARACTERS - 1]}_{digest}"
