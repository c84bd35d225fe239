"""What endpoints and tenants exist: a view for the gateway and for provisioning.

Read from a TOML file. Everything is refused that the file does not name.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from schemas.events import Route
from schemas.topics import LONGEST_DEADLINE_MS, MAX_RECORD_BYTES, REPLY

# Eight times it, as JSON can make of control characters, must fit the row of a request.
MOST_REQUEST_BYTES = MAX_RECORD_BYTES // 8

# The last segment of a topic's name, in characters that Kafka takes.
Segment = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,200}$")]
ThreeLevelName = Annotated[str, StringConstraints(pattern=r"^[^.\s]+\.[^.\s]+\.[^.\s]+$")]
Named = Annotated[str, StringConstraints(min_length=1)]


class CatalogInvalid(ValueError):
    """The file says something that makes no catalog; the message names the place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What can be asked.

    Attributes:
        name: Three-level name.
        routes: Where requests go: the first, then the fallbacks in their order.
        output_policy: Whether parts must pass through release before the caller sees them.
    """

    name: str
    routes: tuple[Route, ...]
    output_policy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Who pays, and the topics it may be answered on."""

    name: str
    reply_topics: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that hold for every request.

    Attributes:
        max_request_bytes: UTF-8 bytes of all texts together, and 8 more for each.
        max_deadline_ms: How far ahead a deadline may lie.
    """

    max_request_bytes: int
    max_deadline_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogView:
    """The catalog at one moment."""

    endpoints: Mapping[str, Endpoint]
    limits: Limits
    tenants: Mapping[str, Tenant]

    @property
    def pools(self) -> tuple[str, ...]:
        """The worker pools that routes name, in alphabetical order."""
        routes = [route for endpoint in self.endpoints.values() for route in endpoint.routes]
        return tuple(sorted({route.pool for route in routes}))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _RouteSpec(_Strict):
    name: Named
    pool: Segment
    model: Named


class _EndpointSpec(_Strict):
    routes: list[_RouteSpec] = Field(min_length=1)
    output_policy: bool = False


class _TenantSpec(_Strict):
    replies: list[Segment] = Field(min_length=1)


class _LimitsSpec(_Strict):
    max_request_bytes: int = Field(gt=0, le=MOST_REQUEST_BYTES)
    max_deadline_ms: int = Field(gt=0, le=LONGEST_DEADLINE_MS)


class _FileSpec(_Strict):
    endpoints: dict[ThreeLevelName, _EndpointSpec]
    limits: _LimitsSpec
    tenants: dict[Named, _TenantSpec]


def load(path: Path) -> CatalogView:
    """Reads the catalog file.

    Raises:
        CatalogInvalid: It is missing, is no TOML, has a missing, wrong or unknown entry, or gives
            one reply topic to two tenants.
    """
    try:
        spec = _FileSpec.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as problem:
        raise CatalogInvalid(f"{path}: {problem.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise CatalogInvalid(f"{path}: {problem}") from None
    except ValidationError as problem:
        places = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in problem.errors()]
        raise CatalogInvalid(f"{path}: {'; '.join(places)}") from None
    owners: dict[str, str] = {}
    for name, tenant in spec.tenants.items():
        for last in tenant.replies:
            if owners.setdefault(last, name) != name:
                raise CatalogInvalid(
                    f"{path}: tenants.{name}.replies: {last} is {owners[last]}'s already; "
                    "whoever shares a reply topic reads the other's answers"
                )
    return CatalogView(
        endpoints={
            name: Endpoint(
                name=name,
                routes=tuple(
                    Route(name=route.name, pool=route.pool, model=route.model)
                    for route in endpoint.routes
                ),
                output_policy=endpoint.output_policy,
            )
            for name, endpoint in spec.endpoints.items()
        },
        limits=Limits(
            max_request_bytes=spec.limits.max_request_bytes,
            max_deadline_ms=spec.limits.max_deadline_ms,
        ),
        tenants={
            name: Tenant(
                name=name,
                reply_topics=tuple(REPLY.member(last).name for last in tenant.replies),
            )
            for name, tenant in spec.tenants.items()
        },
    )
