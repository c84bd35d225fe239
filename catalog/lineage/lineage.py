"""Lineage: what came from what, as edges between named things. Pure.

A thing is a kind and a name. The names:

    adapter, model_version, function_version    catalog.schema.name@3
    agent, connection, endpoint, function,      catalog.schema.name
        index, model, policy, prompt, table
    chunk, tool_call                            their id
    file                                        its URI
    policy                                      full name, or one word for a rule that is built in
    principal                                   its name in the catalog
    response                                    the id of its request; answers under one id are one
                                                thing, and ``cause_id`` tells their rows apart
    route                                       catalog.schema.endpoint/route
    row                                         table/key@version, of an index where callers
                                                write its rows themselves
    snapshot                                    see ``Snapshot``
    training_run                                the id of the run

A version of a model that is an adapter (its spec says ``adapter_of``) is an ``adapter`` everywhere,
also downstream of its training run: one thing has one kind.

What a spec that can change names today is told with the relation ``names``. It says what was meant,
not what an answer was made of, so no thread leads through it (``catalog.edges``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from pydantic import ValidationError

from catalog.lineage.hits import retrieved
from schemas.events import (
    CatalogChanged,
    InferenceRecorded,
    LineageEdge,
    LineageRecorded,
    Outcome,
)
from schemas.indexes import IndexSpec
from schemas.kinds import (
    OBJECTS,
    VERSIONED,
    AgentSpec,
    Described,
    FunctionVersionSpec,
    ModelVersionSpec,
    Version,
)
from schemas.policies import PolicySpec
from schemas.routing import EndpointSpec
from schemas.shapes import Spec
from schemas.tables import TableSpec

log = structlog.get_logger()

# The kinds that are known here; what another process tells of others is kept as well.
KINDS = (
    "adapter",
    "agent",
    "chunk",
    "connection",
    "endpoint",
    "file",
    "function",
    "function_version",
    "index",
    "model",
    "model_version",
    "policy",
    "principal",
    "prompt",
    "prompt_version",
    "response",
    "route",
    "row",
    "snapshot",
    "table",
    "tool_call",
    "training_run",
)
NAMES = "names"

# Policies that are built in: what the gateway and the workers refuse without one of the catalog's.
ADMISSION = "admission"
SERVING = "serving"

MOST_CHARACTERS = 8192
# Of a kind and of a relation, which stand in indexes.
MOST_OF_A_KIND = 100
MOST_EDGES = 100_000


class Node(NamedTuple):
    """A thing that has come from others, or that others came from."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Data as it stood once, to be found again: ranges of a topic, or a version of a table.

    Written ``topic:NAME@schema=ID;offsets=0:10-20,1:5-9`` or ``lake:NAME@version=12``. A range
    names its partition, its first offset, and the one behind its last.

    Attributes:
        place: Name of the topic or of the lake's table.
        version: The table's version; None for a topic.
        schema_id: The registry's id of the schema that the topic's records were read with.
        offsets: The half-open range of each partition, by partition.
    """

    place: str
    version: int | None = None
    schema_id: int | None = None
    offsets: tuple[tuple[int, int, int], ...] = ()

    def __str__(self) -> str:
        if self.version is not None:
            return f"lake:{self.place}@version={self.version}"
        ranges = ",".join(f"{each}:{first}-{end}" for each, first, end in self.offsets)
        return f"topic:{self.place}@schema={self.schema_id};offsets={ranges}"

    @classmethod
    def parse(cls, name: str) -> Snapshot:
        """Returns the snapshot of a name.

        Raises:
            ValueError: The name has neither form.
        """
        if found := _LAKE.fullmatch(name):
            return cls(found["place"], version=int(found["version"]))
        if found := _TOPIC.fullmatch(name):
            ranges = [re.split("[:-]", each) for each in found["offsets"].split(",") if each]
            offsets = tuple((int(each), int(first), int(end)) for each, first, end in ranges)
            return cls(found["place"], schema_id=int(found["schema"]), offsets=offsets)
        raise ValueError(f"{name[:200]!r} names no snapshot")


_LAKE = re.compile(r"lake:(?P<place>[^@]+)@version=(?P<version>\d+)")
_TOPIC = re.compile(
    r"topic:(?P<place>[^@]+)@schema=(?P<schema>\d+);"
    r"offsets=(?P<offsets>(?:\d+:\d+-\d+(?:,\d+:\d+-\d+)*)?)"
)


def unfit(told: LineageRecorded) -> str | None:
    """Returns why edges cannot be kept, in words that quote nothing of them; None if they can."""
    if len(told.edges) > MOST_EDGES:
        return f"{len(told.edges)} edges are more than {MOST_EDGES}"
    for number, edge in enumerate(told.edges):
        kinds = (edge.downstream_kind, edge.relation, edge.upstream_kind)
        names = (told.cause_id, edge.downstream, edge.upstream)
        words = (*kinds, *names, *edge.attributes.keys(), *edge.attributes.values())
        if not all((*kinds, *names)):
            return f"a name of edge {number} is empty"
        if max(map(len, kinds)) > MOST_OF_A_KIND:
            return f"a kind of edge {number} is longer than {MOST_OF_A_KIND} characters"
        if max(map(len, words)) > MOST_CHARACTERS:
            return f"a word of edge {number} is longer than {MOST_CHARACTERS} characters"
        if any("\0" in word for word in words):
            return f"a word of edge {number} holds a zero character"
    return None


def edges_of_row(row: InferenceRecorded) -> LineageRecorded:
    """Returns what an answer, or a refusal, came from as far as its row knows."""
    answer = Node("response", row.request_id)
    return LineageRecorded(
        cause_id=row.row_id or row.request_id,
        at=row.requested_at,
        edges=tuple(_row_edges(row, answer)),
    )


def _row_edges(row: InferenceRecorded, answer: Node) -> Iterator[LineageEdge]:
    yield _edge(
        answer,
        "answered_by",
        Node("endpoint", row.endpoint),
        outcome=row.outcome,
        reason=row.reason,
        model=row.model,
    )
    asked_by = Node("principal", row.principal or row.tenant)
    yield _edge(answer, "asked_by", asked_by, tenant=row.tenant, key_id=row.key_id)
    if row.route:
        yield _edge(answer, "routed_by", Node("route", f"{row.endpoint}/{row.route}"))
    if row.entity:
        # No model has the name of an endpoint: what is asked is the function itself.
        called = row.entity.partition("@")[0] == row.endpoint
        kind = VERSIONS["function" if called else "model"]
        yield _edge(answer, "served_by", Node(kind, row.entity))
    if row.adapter:
        yield _edge(answer, "served_by", Node("adapter", row.adapter))
    if row.outcome is Outcome.REFUSED:
        policy = Node("policy", SERVING if row.route else ADMISSION)
        yield _edge(answer, "decided_by", policy, reason=row.reason, verdict="refused")
    for hit in retrieved(row):
        chunk, state = Node("chunk", hit.chunk), Node("row", hit.row)
        score = None if hit.score is None else f"{hit.score:.4f}"
        yield _edge(answer, "retrieved", chunk, position=str(hit.position), score=score)
        yield _edge(chunk, "made_of", state, version=hit.version)
        source = Node("table", hit.table) if hit.table else Node("index", row.endpoint)
        yield _edge(state, "belonged_to", source)


def edges_of_change(changed: CatalogChanged) -> LineageRecorded:
    """Returns what an entry of the catalog says of where things come from; often nothing."""
    edges: tuple[LineageEdge, ...] = ()
    try:
        if changed.body and changed.kind == "version":
            edges = tuple(_version_edges(changed.name, Version.model_validate_json(changed.body)))
        elif changed.body and changed.kind in NAMED:
            described = Described.model_validate_json(changed.body)
            spec = OBJECTS[changed.kind].model_validate(described.spec)
            edges = tuple(_object_edges(Node(changed.kind, changed.name), spec))
    # Of a newer shape: every view refuses the entry, too, and nothing is known of it here.
    except ValidationError:
        log.warning("entry unreadable", kind=changed.kind, name=changed.name)
    return LineageRecorded(
        cause_id=f"catalog/{changed.position}", at=changed.changed_at, edges=edges
    )


def _version_edges(name: str, version: Version) -> Iterator[LineageEdge]:
    if version.kind not in VERSIONED:
        return
    spec = VERSIONED[version.kind].model_validate(version.spec)
    if isinstance(spec, ModelVersionSpec):
        kind = "adapter" if spec.adapter_of else "model_version"
        weights = Node(kind, name)
        if spec.training_run:
            yield _edge(weights, "trained_by", Node("training_run", spec.training_run))
        if spec.adapter_of:
            yield _edge(weights, "adapter_of", *_reference("model", spec.adapter_of))
        yield _edge(weights, "stored_in", Node("file", spec.uri))
    if isinstance(spec, FunctionVersionSpec) and spec.connection:
        code = Node("function_version", name)
        yield _edge(code, NAMES, Node("connection", spec.connection))


def _object_edges(thing: Node, spec: Spec) -> Iterator[LineageEdge]:
    for kind, name in NAMED[thing.kind](spec):
        yield _edge(thing, NAMES, *_reference(kind, name))


def _agent(spec: Any) -> Iterator[tuple[str, str]]:
    assert isinstance(spec, AgentSpec)
    yield "endpoint", spec.endpoint
    if spec.prompt:
        yield "prompt", spec.prompt
    yield from (("function", name) for name in spec.tools)
    yield from (("index", name) for name in spec.indexes)
    if spec.memory and spec.memory.index:
        yield "index", spec.memory.index
    yield from (("agent", name) for name in (*spec.agents, *spec.handoffs))


def _endpoint(spec: Any) -> Iterator[tuple[str, str]]:
    assert isinstance(spec, EndpointSpec)
    for route in spec.routes:
        named = (
            ("model", route.entity),
            ("adapter", route.adapter),
            ("connection", route.connection),
        )
        yield from ((kind, name) for kind, name in named if name)
    yield from (("policy", name) for name in spec.policies)


def _policy(spec: Any) -> Iterator[tuple[str, str]]:
    assert isinstance(spec, PolicySpec)
    kinds = {"function": "function", "http": "connection", "judge": "endpoint"}
    for rule in spec.rules:
        yield from ((kinds[rule.type], name) for name in rule.references())


def _index(spec: Any) -> Iterator[tuple[str, str]]:
    assert isinstance(spec, IndexSpec)
    if spec.source:
        yield "table", spec.source
    if spec.endpoint:
        yield "endpoint", spec.endpoint


def _table(spec: Any) -> Iterator[tuple[str, str]]:
    assert isinstance(spec, TableSpec)
    if spec.connection:
        yield "connection", spec.connection


# What the spec of a kind names: everything in its references(), with the kind of each.
NAMED: dict[str, Callable[[Any], Iterator[tuple[str, str]]]] = {
    "agent": _agent,
    "endpoint": _endpoint,
    "index": _index,
    "policy": _policy,
    "table": _table,
}
# How a version of a kind is called here.
VERSIONS: dict[str, str] = {
    "adapter": "adapter",
    "function": "function_version",
    "model": "model_version",
    "prompt": "prompt_version",
}


class _Reference(NamedTuple):
    node: Node
    alias: str | None = None


def _reference(kind: str, name: str) -> _Reference:
    """Returns what a spec names: a version by number, or else the object and what was asked for."""
    thing, _, version = name.partition("@")
    if version.isdecimal():
        return _Reference(Node(VERSIONS[kind], name))
    bare = "model" if kind == "adapter" else kind
    return _Reference(Node(bare, thing), version or None)


def _edge(
    downstream: Node,
    relation: str,
    upstream: Node,
    alias: str | None = None,
    **attributes: str | None,
) -> LineageEdge:
    known = {**attributes, "alias": alias}
    return LineageEdge(
        downstream_kind=downstream.kind,
        downstream=downstream.name,
        relation=relation,
        upstream_kind=upstream.kind,
        upstream=upstream.name,
        attributes={name: str(value) for name, value in known.items() if value},
    )
