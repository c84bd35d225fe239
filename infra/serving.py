"""Endpoints as they can be served now: each version that a route names, by its number.

A route may name a version by an alias, or a model for its newest version. What that comes to
changes with the model; a route whose version does not exist is left out, and so is an endpoint
without routes. An agent, a function or an index answers like an endpoint of one route, to the pool
of its kind; a function's route has its newest version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from infra.versions import Versions
from schemas.events import Route
from schemas.kinds import FunctionVersionSpec
from schemas.routing import EndpointSpec, RouteSpec
from schemas.shapes import length

Kind = Literal["agent", "endpoint", "function", "index"]

# Of the processes that run agents.
AGENT_POOL = "agents"
# Of the workers that search indexes and write to them.
SEARCH_POOL = "search"
# Of the workers that run functions.
TOOL_POOL = "tools"
# Who answers for what is no endpoint, by its kind; its only route has the same name.
POOLS: dict[Kind, str] = {"agent": AGENT_POOL, "function": TOOL_POOL, "index": SEARCH_POOL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What can be asked.

    Attributes:
        name: Three-level name.
        routes: Where requests may go, in the order of the catalog. Entity and adapter name a
            version by its number.
        spec: How the catalog has it: how a route is chosen, and when another is tried.
        ways: What the catalog says of each route, by its name.
        output_policy: Whether parts must pass through release before the caller sees them.
        policies: Guardrail policies by name.
        kind: What it is in the catalog.
    """

    name: str
    routes: tuple[Route, ...]
    spec: EndpointSpec
    ways: Mapping[str, RouteSpec]
    output_policy: bool = False
    policies: tuple[str, ...] = ()
    kind: Kind = "endpoint"


class Serving:
    """All that can be asked, the models that endpoints name, and what follows.

    Attributes:
        endpoints: Those that can be served, by name.
        functions: All functions, with their versions.
    """

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}
        self.endpoints: Mapping[str, Endpoint] = self._endpoints
        self.functions: Versions[FunctionVersionSpec] = Versions()
        self._models: Versions[Literal[True]] = Versions()
        self._pools: Counter[str] = Counter()
        self._specs: dict[str, EndpointSpec] = {}
        self._others: dict[Kind, set[str]] = {kind: set() for kind in POOLS}
        # By model: the endpoints that name it.
        self._naming: dict[str, set[str]] = {}

    @property
    def pools(self) -> tuple[str, ...]:
        """The worker pools that routes name, in alphabetical order."""
        return tuple(sorted(self._pools))

    def put(self, name: str, spec: EndpointSpec | None) -> None:
        """Takes an endpoint; None where it is gone."""
        for model in _models(self._specs.pop(name, None)):
            self._naming[model].discard(name)
        if spec is not None:
            self._specs[name] = spec
        for model in _models(spec):
            self._naming.setdefault(model, set()).add(name)
        self._serve(name)

    def other(self, kind: Kind, name: str, *, exists: bool) -> None:
        """Takes an agent or an index, or that there is none of this name."""
        self._others[kind].discard(name)
        if exists:
            self._others[kind].add(name)
        self._serve(name)

    def function(self, name: str, aliases: Mapping[str, int] | None) -> None:
        """Takes a function with its aliases; None where it is gone."""
        self.functions.name(name, aliases)
        self.other("function", name, exists=aliases is not None)

    def function_version(
        self, name: str, number: int, spec: FunctionVersionSpec | None, *, unread: bool
    ) -> None:
        """Takes a version of a function, or none: because it cannot be read, or is not there."""
        self.functions.put(name, number, spec, unread=unread)
        self._serve(name)

    def model(self, name: str, aliases: Mapping[str, int] | None) -> None:
        """Takes a model with its aliases; None where it is gone."""
        self._models.name(name, aliases)
        self._serve_all(name)

    def model_version(self, name: str, number: int, *, exists: bool) -> None:
        """Takes a version of a model, or that there is none of this number."""
        self._models.put(name, number, True if exists else None)
        self._serve_all(name)

    def _serve_all(self, model: str) -> None:
        for endpoint in self._naming.get(model, ()):
            self._serve(endpoint)

    def _serve(self, name: str) -> None:
        before = self._endpoints.pop(name, None)
        if before is not None:
            self._pools -= Counter(route.pool for route in before.routes)
        kind = self._kind(name)
        if kind is None:
            return
        spec = self._specs[name] if kind == "endpoint" else _answered_alone(kind, name)
        versions = self.functions if kind == "function" else self._models
        routes = tuple(filter(None, (_route(each, versions) for each in spec.routes)))
        if not routes:
            return
        self._pools += Counter(route.pool for route in routes)
        self._endpoints[name] = Endpoint(
            name=name,
            routes=routes,
            spec=spec,
            ways={route.name: route for route in spec.routes},
            output_policy=spec.output_policy,
            policies=spec.policies,
            kind=kind,
        )

    def _kind(self, name: str) -> Kind | None:
        """Returns what stands under a name; None where it is nothing that can be asked."""
        if name in self._specs:
            return "endpoint"
        return next((kind for kind, names in self._others.items() if name in names), None)


def _route(spec: RouteSpec, versions: Versions[Any]) -> Route | None:
    """Returns a route; None where a version that it names does not exist."""
    entity, adapter = _found(spec.entity, versions), _found(spec.adapter, versions)
    if entity is None or adapter is None:
        return None
    return Route(
        name=spec.name,
        pool=spec.pool,
        model=spec.model,
        entity=entity,
        adapter=adapter,
        connection=spec.connection or "",
        first_token_ms=_milliseconds(spec.first_token),
        idle_ms=_milliseconds(spec.idle),
    )


def _found(reference: str | None, versions: Versions[Any]) -> str | None:
    """Returns a version by its number; empty where none is named, None where none exists."""
    if reference is None:
        return ""
    found = versions.find(reference)
    return found.entity if found else None


def _answered_alone(kind: Kind, name: str) -> EndpointSpec:
    """Returns how something is asked that is no endpoint: once, for it may have its effect."""
    pool, entity = POOLS[kind], name if kind == "function" else None
    route = RouteSpec(name=pool, pool=pool, model=name, entity=entity)
    return EndpointSpec(routes=(route,), fall_back_on=())


def _milliseconds(duration: str | None) -> int | None:
    return None if duration is None else length(duration) // timedelta(milliseconds=1)


def _models(spec: EndpointSpec | None) -> set[str]:
    named = ((route.entity, route.adapter) for route in (spec.routes if spec else ()))
    return {each.partition("@")[0] for pair in named for each in pair if each}
