"""The catalog as it is now: a view for whoever decides by it, fed by the log of changes.

It knows nothing at first, and what it does not know is refused. Each entry has a position of its
own, so records may come twice, late, or with earlier ones of the same entry gone.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel

from infra.entries import Shared, keep, read, refuse, shaped, spec_of
from infra.grants import Access
from infra.serving import POOLS, Endpoint, Kind, Serving
from infra.versions import NUMBER, Versions
from schemas.events import CatalogChanged, Route
from schemas.indexes import IndexSpec
from schemas.kinds import (
    CONTAINERS,
    OBJECTS,
    AgentSpec,
    ConnectionSpec,
    Described,
    FunctionSpec,
    FunctionVersionSpec,
    Grant,
    GroupSpec,
    Key,
    MemberSpec,
    ModelSpec,
    Privilege,
    PromptSpec,
    PromptVersionSpec,
    TenantSpec,
    Version,
)
from schemas.policies import PolicySpec
from schemas.routing import EndpointSpec, Price
from schemas.shapes import Spec
from schemas.tables import TableSpec
from schemas.topics import REPLY

__all__ = [
    "CatalogView",
    "Endpoint",
    "EntryUnreadable",
    "Limits",
    "Principal",
    "SigningKey",
    "Tenant",
    "reply_topics",
]

M = TypeVar("M", bound=BaseModel)

PUBLIC_KEY_BYTES = 32


class EntryUnreadable(RuntimeError):
    """Without an entry that cannot be read the view would allow too much: it must not be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Who pays, the topics it may be answered on, whether it is believed unsigned, its policies."""

    name: str
    reply_topics: tuple[str, ...]
    accept_unsigned: bool = False
    policies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who acts.

    Attributes:
        name: One level, unique among all kinds of principals.
        kind: group, service_principal, tenant or user.
        tenant: The tenant that it acts for; a tenant acts for itself, a group for none.
    """

    name: str
    kind: str
    tenant: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """Whose signature a public key of 32 bytes makes, and when it counts."""

    key_id: str
    principal: str
    public_key: bytes
    not_before: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that hold for every request.

    Attributes:
        max_request_bytes: UTF-8 bytes of all texts together, and 8 more for each.
        max_deadline_ms: How far ahead a deadline may lie.
    """

    max_request_bytes: int
    max_deadline_ms: int


# Of who decides on no request.
NOTHING = Limits(max_request_bytes=0, max_deadline_ms=0)


class CatalogView:
    """What the catalog says. Feed it in the order of the log and from one thread.

    Attributes:
        limits: Bounds that hold for every request, whatever the catalog says.
        access: Who may do what.
        agents: By three-level name.
        endpoints: By three-level name, agents, functions and indexes among them; one is missing
            while no version that it names exists, and a function while it has none.
        functions: All of them, with their versions.
        prompts: All of them, with their versions.
        tenants: By name.
        principals: By name, tenants and groups among them.
        keys: By the key's id, the revoked and expired among them.
        policies: By three-level name; one that cannot be read is missing.
        connections: By three-level name.
        indexes: By three-level name.
        tables: By three-level name.
        position: Position of the latest change that was applied; 0 before the first.
    """

    def __init__(self, limits: Limits = NOTHING) -> None:
        self.limits = limits
        self.access = Access()
        self.position = 0
        self._entries: dict[tuple[str, str], tuple[int, str | None]] = {}
        self._serving = Serving()
        self._keys: dict[str, SigningKey] = {}
        self._principals: dict[str, Principal] = {}
        self._tenants: dict[str, Tenant] = {}
        self._agents: dict[str, AgentSpec] = {}
        self._policies: dict[str, PolicySpec] = {}
        self._connections: dict[str, ConnectionSpec] = {}
        self._indexes: dict[str, IndexSpec] = {}
        self._models: dict[str, ModelSpec] = {}
        self._tables: dict[str, TableSpec] = {}
        self.agents: Mapping[str, AgentSpec] = self._agents
        self.functions: Versions[FunctionVersionSpec] = self._serving.functions
        self.prompts: Versions[PromptVersionSpec] = Versions()
        self.policies: Mapping[str, PolicySpec] = self._policies
        self.connections: Mapping[str, ConnectionSpec] = self._connections
        self.endpoints: Mapping[str, Endpoint] = self._serving.endpoints
        self.indexes: Mapping[str, IndexSpec] = self._indexes
        self.tables: Mapping[str, TableSpec] = self._tables
        self.keys: Mapping[str, SigningKey] = self._keys
        self.principals: Mapping[str, Principal] = self._principals
        self.tenants: Mapping[str, Tenant] = self._tenants
        self._comments: dict[tuple[str, str], str] = {}
        self._owners = Shared[str]()
        self._named = Shared[tuple[Principal, tuple[str, ...]]]()
        self._takes: dict[str, Callable[[CatalogChanged], None]] = {
            **dict.fromkeys((*CONTAINERS, *OBJECTS), self._take_owned),
            "agent": self._asked("agent", self._agents, AgentSpec),
            "connection": self._keeps(self._connections, ConnectionSpec),
            "endpoint": self._take_endpoint,
            "function": self._versioned(FunctionSpec, self._serving.function),
            "grant": self._take_grant,
            "group": self._take_group,
            "index": self._asked("index", self._indexes, IndexSpec),
            "key": self._take_key,
            "model": self._take_model,
            "policy": self._keeps(self._policies, PolicySpec),
            "prompt": self._versioned(PromptSpec, self.prompts.name),
            "root": self._take_owned,
            "service_principal": self._take_member,
            "table": self._keeps(self._tables, TableSpec),
            "tenant": self._take_tenant,
            "user": self._take_member,
            "version": self._take_version,
        }

    @property
    def pools(self) -> tuple[str, ...]:
        """The worker pools that routes name, in alphabetical order."""
        return self._serving.pools

    def prices(self, route: Route) -> tuple[Price, ...]:
        """Returns what tokens cost on a route: as its provider says, or its model; none if neither.

        An unknown price is not a price of nothing. Agents, functions and indexes cost nothing: what
        is asked of models for them is paid for where that is done.
        """
        asked = self.endpoints.get(route.model)
        if asked and asked.kind != "endpoint" and route.pool == POOLS[asked.kind]:
            return (Price(),)
        if route.connection:
            connection = self._connections.get(route.connection)
            return connection.prices.get(route.model, ()) if connection else ()
        model = self._models.get(route.entity.partition("@")[0])
        return model.prices if model else ()

    def has_reply_topic(self, address: str) -> bool:
        """Returns whether a topic is one that some tenant's replies go to."""
        return any(address in tenant.reply_topics for tenant in self._tenants.values())

    def apply(self, changed: CatalogChanged) -> bool:
        """Takes a change; returns False where a later one of the same entry is known already.

        An entry in a shape that is not known here is refused: it counts as gone, and an unreadable
        grant denies everything.

        Raises:
            EntryUnreadable: It is a group in such a shape: who is denied what by it is not known.
        """
        key = (changed.kind, changed.name)
        known = self._entries.get(key)
        if known is not None and changed.position <= known[0]:
            return False
        self._entries[key] = (changed.position, changed.body)
        self.position = max(self.position, changed.position)
        if take := self._takes.get(changed.kind):
            take(changed)
        return True

    def entry(self, kind: str, name: str) -> tuple[int, str | None] | None:
        """Returns position and body of an entry as they came; no body where it is gone."""
        return self._entries.get((kind, name))

    def comment(self, kind: str, name: str) -> str:
        """Returns what an object is for, in words; empty where nobody has said."""
        return self._comments.get((kind, name), "")

    def entries(self) -> Iterator[tuple[str, str, int, str]]:
        """Yields kind, name, position and body of all that is not gone."""
        for (kind, name), (position, body) in self._entries.items():
            if body is not None:
                yield kind, name, position, body

    def _take_owned(self, changed: CatalogChanged) -> None:
        self._own(changed, read(changed, Described))

    def _take_endpoint(self, changed: CatalogChanged) -> None:
        described = read(changed, Described)
        spec = spec_of(changed, described, EndpointSpec)
        self._own(changed, described if spec else None)
        self._serving.put(changed.name, spec)

    def _take_grant(self, changed: CatalogChanged) -> None:
        securable, _, principal = changed.name.rpartition("/")
        grant = read(changed, Grant)
        if grant is None and changed.body is not None:
            grant = Grant(deny=tuple(Privilege))
        allow, deny = (grant.allow, grant.deny) if grant else ((), ())
        self.access.grant(securable, principal, allow, deny)

    def _take_group(self, changed: CatalogChanged) -> None:
        spec = spec_of(changed, read(changed, Described), GroupSpec)
        if spec is None and changed.body is not None:
            raise EntryUnreadable(f"the members of group {changed.name} cannot be read")
        self._name(changed, None, spec.members if spec else None)

    def _take_key(self, changed: CatalogChanged) -> None:
        self._keys.pop(changed.name, None)
        key = read(changed, Key)
        if key is None:
            return
        try:
            public_key = base64.b64decode(key.public_key, validate=True)
        except ValueError:
            public_key = b""
        if len(public_key) != PUBLIC_KEY_BYTES:
            refuse(changed, "public_key: not 32 bytes in base64")
            return
        self._keys[changed.name] = SigningKey(
            key_id=changed.name,
            principal=key.principal,
            public_key=public_key,
            not_before=key.not_before,
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
        )

    def _take_member(self, changed: CatalogChanged) -> None:
        spec = spec_of(changed, read(changed, Described), MemberSpec)
        self._name(changed, spec.tenant if spec else None, () if spec else None)

    def _take_model(self, changed: CatalogChanged) -> None:
        described = read(changed, Described)
        self._own(changed, described)
        keep(self._models, changed.name, spec_of(changed, described, ModelSpec))
        self._serving.model(changed.name, described.aliases if described else None)

    def _versioned(
        self, shape: type[Spec], name: Callable[[str, Mapping[str, int] | None], None]
    ) -> Callable[[CatalogChanged], None]:
        """Returns what takes objects whose versions say all."""

        def take(changed: CatalogChanged) -> None:
            described = read(changed, Described)
            self._own(changed, described)
            known = described is not None and spec_of(changed, described, shape) is not None
            name(changed.name, described.aliases if described and known else None)

        return take

    def _asked(
        self, kind: Kind, known: dict[str, M], shape: type[M]
    ) -> Callable[[CatalogChanged], None]:
        """Returns what takes objects that are no more than their specs, and can be asked."""
        keeps = self._keeps(known, shape)

        def take(changed: CatalogChanged) -> None:
            keeps(changed)
            self._serving.other(kind, changed.name, exists=changed.name in known)

        return take

    def _keeps(self, known: dict[str, M], shape: type[M]) -> Callable[[CatalogChanged], None]:
        """Returns what takes objects that are no more than their specs."""

        def take(changed: CatalogChanged) -> None:
            described = read(changed, Described)
            self._own(changed, described)
            keep(known, changed.name, spec_of(changed, described, shape))

        return take

    def _take_tenant(self, changed: CatalogChanged) -> None:
        spec = spec_of(changed, read(changed, Described), TenantSpec)
        self._name(changed, changed.name, () if spec else None)
        self._tenants.pop(changed.name, None)
        if spec is not None:
            self._tenants[changed.name] = Tenant(
                name=changed.name,
                reply_topics=reply_topics(changed.name, spec),
                accept_unsigned=spec.accept_unsigned,
                policies=spec.policies,
            )

    def _take_version(self, changed: CatalogChanged) -> None:
        name, _, digits = changed.name.rpartition("@")
        if not NUMBER.fullmatch(digits):
            refuse(changed, "its name ends in no number")
            return
        number, version = int(digits), read(changed, Version)
        kind = version.kind if version else ""
        self._serving.model_version(name, number, exists=kind == "model")
        code = _of(changed, version, "function", FunctionVersionSpec)
        text = _of(changed, version, "prompt", PromptVersionSpec)
        # It is there, and nobody here knows what it is.
        unread = changed.body is not None and kind != "model" and code is None and text is None
        self._serving.function_version(name, number, code, unread=unread)
        self.prompts.put(name, number, text, unread=unread)

    def _own(self, changed: CatalogChanged, described: Described | None) -> None:
        owner, comment = (described.owner, described.comment) if described else (None, "")
        self.access.own(changed.name, self._owners.put(changed, owner))
        keep(self._comments, (changed.kind, changed.name), comment or None)

    def _name(
        self, changed: CatalogChanged, tenant: str | None, members: tuple[str, ...] | None
    ) -> None:
        """Takes a principal; no members, not even none, where it is gone."""
        principal = Principal(name=changed.name, kind=changed.kind, tenant=tenant)
        standing = self._named.put(changed, None if members is None else (principal, members))
        self.access.leave(changed.name)
        self._principals.pop(changed.name, None)
        if standing is not None:
            principal, members = standing
            self._principals[changed.name] = principal
            self.access.belong(
                changed.name, None if principal.kind == "tenant" else principal.tenant
            )
            self.access.join(changed.name, members)


def reply_topics(tenant: str, spec: TenantSpec) -> tuple[str, ...]:
    """Returns the names of the topics that a tenant may be answered on."""
    return tuple(REPLY.member(segment).name for segment in spec.replies or (tenant,))


def _of(changed: CatalogChanged, version: Version | None, kind: str, shape: type[M]) -> M | None:
    """Returns what a version is; None where it is one of another kind, or in an unknown shape."""
    if version is None or version.kind != kind:
        return None
    return shaped(changed, version.spec, shape)
