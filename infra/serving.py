"""Endpoints as they can be served now: each version that a route names, by its number.

A route may name a version by an alias, or a model for its newest version. What that comes to
changes with the model; a route whose version does not exist is left out, and so is an endpoint
without routes. An index answers like an endpoint of one route, to the pool that searches.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from schemas.events import Route
from schemas.routing import EndpointSpec, RouteSpec
from schemas.shapes import length

# Of a version; everything else behind the @ is an alias.
NUMBER = re.compile(r"[1-9][0-9]{0,8}")
# Of the workers that search indexes and write to them.
SEARCH_POOL = "search"


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
        is_index: Whether it is an index, which is searched and written to.
    """

    name: str
    routes: tuple[Route, ...]
    spec: EndpointSpec
    ways: Mapping[str, RouteSpec]
    output_policy: bool = False
    policies: tuple[str, ...] = ()
    is_index: bool = False


class Serving:
    """All endpoints and indexes, the models that they name, and what follows.

    Attributes:
        endpoints: Those that can be served, by name.
    """

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}
        self.endpoints: Mapping[str, Endpoint] = self._endpoints
        self._pools: Counter[str] = Counter()
        self._specs: dict[str, EndpointSpec] = {}
        self._indexes: set[str] = set()
        # By model: its aliases, its versions, and the endpoints that name it.
        self._aliases: dict[str, Mapping[str, int]] = {}
        self._versions: dict[str, set[int]] = {}
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

    def index(self, name: str, *, exists: bool) -> None:
        """Takes an index, or that there is none of this name."""
        self._indexes.discard(name)
        if exists:
            self._indexes.add(name)
        self._serve(name)

    def alias(self, model: str, aliases: Mapping[str, int] | None) -> None:
        """Takes the aliases of a model; None where the model is gone."""
        self._aliases.pop(model, None)
        if aliases is not None:
            self._aliases[model] = aliases
        self._serve_all(model)

    def version(self, model: str, number: int, *, exists: bool) -> None:
        """Takes a version of a model, or that there is none of this number."""
        versions = self._versions.setdefault(model, set())
        versions.discard(number)
        if exists:
            versions.add(number)
        self._serve_all(model)

    def _serve_all(self, model: str) -> None:
        for endpoint in self._naming.get(model, ()):
            self._serve(endpoint)

    def _serve(self, name: str) -> None:
        before = self._endpoints.pop(name, None)
        if before is not None:
            self._pools -= Counter(route.pool for route in before.routes)
        spec = self._specs.get(name)
        is_index = spec is None and name in self._indexes
        if is_index:
            spec = _searched(name)
        routes = tuple(filter(None, map(self._route, spec.routes if spec else ())))
        if spec is None or not routes:
            return
        self._pools += Counter(route.pool for route in routes)
        self._endpoints[name] = Endpoint(
            name=name,
            routes=routes,
            spec=spec,
            ways={route.name: route for route in spec.routes},
            output_policy=spec.output_policy,
            policies=spec.policies,
            is_index=is_index,
        )

    def _route(self, spec: RouteSpec) -> Route | None:
        """Returns a route; None where a version that it names does not exist."""
        entity, adapter = self._resolved(spec.entity), self._resolved(spec.adapter)
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

    def _resolved(self, reference: str | None) -> str | None:
        """Returns a version by its number; empty where none is named, None where none exists."""
        if reference is None:
            return ""
        model, _, which = reference.partition("@")
        versions = self._versions.get(model)
        aliases = self._aliases.get(model)
        if aliases is None or not versions:
            return None
        if not which:
            return f"{model}@{max(versions)}"
        number = int(which) if NUMBER.fullmatch(which) else aliases.get(which)
        return f"{model}@{number}" if number in versions else None


def _searched(index: str) -> EndpointSpec:
    """Returns how an index is asked."""
    return EndpointSpec(routes=(RouteSpec(name="search", pool=SEARCH_POOL, model=index),))


def _milliseconds(duration: str | None) -> int | None:
    return None if duration is None else length(duration) // timedelta(milliseconds=1)


def _models(spec: EndpointSpec | None) -> set[str]:
    named = ((route.entity, route.adapter) for route in (spec.routes if spec else ()))
    return {each.partition("@")[0] for pair in named for each in pair if each}
