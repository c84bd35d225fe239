"""What the catalog holds: the kinds of its entries, the shape of each, and the privileges on them.

An entry travels as JSON in ``CatalogChanged.body``. Unknown fields are refused everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas.checks import Address, Masking, SecretReference

# The top of everything: who holds a privilege here holds it everywhere.
ROOT = "*"
EVERYONE = "everyone"  # every principal is in this group

NAME = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}"

# One level of a name; also names of principals.
Name = Annotated[str, StringConstraints(pattern=rf"^{NAME}$")]
# catalog.schema.name
FullName = Annotated[str, StringConstraints(pattern=rf"^{NAME}\.{NAME}\.{NAME}$")]
# catalog.schema.name, @ and the number or an alias of a version; the newest without.
VersionName = Annotated[str, StringConstraints(pattern=rf"^{NAME}\.{NAME}\.{NAME}(@{NAME})?$")]
# The last segment of a topic's name, in characters that Kafka takes.
Segment = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,200}$")]
Text = Annotated[str, StringConstraints(min_length=1)]
MOST_TOPICS = 16  # each pool of a route and each reply is one, so a spec names few
MOST_RULES = 1000


class Privilege(StrEnum):
    """What may be granted; each reaches down to all that lies below its securable.

    MANAGE holds all others. Any privilege lets its holder see that the thing exists (BROWSE).
    Acting on an object (QUERY, EXECUTE, SELECT, MODIFY, USE) takes USE on its catalog and schema,
    too, and CREATE in a schema takes USE on its catalog.
    """

    BROWSE = "BROWSE"
    CREATE = "CREATE"
    EXECUTE = "EXECUTE"
    MANAGE = "MANAGE"
    MODIFY = "MODIFY"
    QUERY = "QUERY"
    SELECT = "SELECT"
    USE = "USE"


class Shape(BaseModel):
    """What is the same for all shapes: frozen, and nothing unknown is taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Spec(Shape):
    """What a kind of object is made of."""

    def references(self) -> Iterator[str]:
        """Yields the objects, or versions of them (``a.b.c@3``), that must exist for this one."""
        yield from ()


class RouteSpec(Shape):
    """One way to serve an endpoint.

    Attributes:
        name: Name inside the endpoint.
        pool: Worker pool that serves it.
        model: Model as the pool's workers name it.
        entity: Version of a catalog model that it serves.
        adapter: Version of a catalog model whose adapter is put on top.
        connection: Outside provider that it goes to.
    """

    name: Name
    pool: Segment
    model: Text
    entity: VersionName | None = None
    adapter: VersionName | None = None
    connection: FullName | None = None


class EndpointSpec(Spec):
    """What can be asked: the routes in the order in which they are tried."""

    routes: tuple[RouteSpec, ...] = Field(min_length=1, max_length=MOST_TOPICS)
    output_policy: bool = False
    policies: tuple[FullName, ...] = Field(default=(), max_length=MOST_RULES)

    def references(self) -> Iterator[str]:
        """Yields the models, adapters, connections and policies that routes name."""
        for route in self.routes:
            yield from filter(None, (route.entity, route.adapter, route.connection))
        yield from self.policies


class ModelSpec(Spec):
    """A model; its weights are in its versions."""

    task: Literal["chat", "embedding", "rerank"] = "chat"


class ModelVersionSpec(Spec):
    """Weights that never change.

    Attributes:
        uri: Where they are: ``file:/models/smollm2``.
        adapter_of: Version of the base model, where these are an adapter (LoRA) for it.
        training_run: Run that made them.
    """

    uri: Text
    adapter_of: VersionName | None = None
    training_run: str | None = None

    def references(self) -> Iterator[str]:
        """Yields the base model."""
        yield from filter(None, (self.adapter_of,))


class FunctionSpec(Spec):
    """A tool; its code is in its versions."""


class FunctionVersionSpec(Spec):
    """Code that never changes.

    Attributes:
        language: How it is run.
        source: The code, the statement or the address.
        parameters: JSON Schema of its arguments.
        connection: Database or service that it goes to.
        effect: Whether it may be repeated: ``pure``, ``idempotent`` by key, or after ``reconcile``.
    """

    language: Literal["http", "mcp", "python", "sql"]
    source: Text
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    connection: FullName | None = None
    effect: Literal["idempotent", "pure", "reconcile"] = "reconcile"

    def references(self) -> Iterator[str]:
        """Yields the connection."""
        yield from filter(None, (self.connection,))


class RowFilter(Shape):
    """Rows that a principal sees.

    Attributes:
        to: Principals that it holds for; a principal under several sees what each of them lets it.
        where: Condition over the columns.
    """

    to: tuple[Name, ...] = Field(min_length=1, max_length=MOST_RULES)
    where: Text


class ColumnMask(Shape):
    """A column that is masked for everyone but some.

    Attributes:
        column: The column.
        mask: What is shown: nothing, a hash, or the last four characters.
        unless: Principals who see it as it is.
    """

    column: Text
    mask: Literal["hash", "last4", "null"] = "null"
    unless: tuple[Name, ...] = Field(default=(), max_length=MOST_RULES)


ColumnMasks = Annotated[tuple[ColumnMask, ...], Field(max_length=MOST_RULES), Masking]


class Column(Shape):
    """A column of a table or index."""

    name: Text
    type: Text = "string"
    comment: str = ""


class TableSpec(Spec):
    """A table or data set.

    Attributes:
        location: ``topic:NAME``, ``lake:NAME``, ``file:PATH``, or ``schema.table`` on a connection.
        connection: Database that it lies in.
    """

    location: Text
    columns: tuple[Column, ...] = ()
    connection: FullName | None = None
    row_filters: tuple[RowFilter, ...] = Field(default=(), max_length=MOST_RULES)
    column_masks: ColumnMasks = ()

    def references(self) -> Iterator[str]:
        """Yields the connection."""
        yield from filter(None, (self.connection,))


class IndexSpec(Spec):
    """A vector index over a table, or one that callers fill themselves (no source)."""

    source: FullName | None = None
    endpoint: FullName | None = None
    key_columns: tuple[Text, ...] = ()
    text: str = ""
    columns: tuple[Column, ...] = ()
    row_filters: tuple[RowFilter, ...] = Field(default=(), max_length=MOST_RULES)
    column_masks: ColumnMasks = ()

    def references(self) -> Iterator[str]:
        """Yields the source and the embedding endpoint."""
        yield from filter(None, (self.source, self.endpoint))


class AgentSpec(Spec):
    """An agent: what it is told, the endpoint that it thinks with, and what it may reach."""

    endpoint: FullName
    instructions: str = ""
    prompt: VersionName | None = None
    tools: tuple[VersionName, ...] = ()
    indexes: tuple[FullName, ...] = ()
    agents: tuple[FullName, ...] = ()

    def references(self) -> Iterator[str]:
        """Yields everything that it reaches."""
        yield self.endpoint
        yield from filter(None, (self.prompt,))
        yield from (*self.tools, *self.indexes, *self.agents)


class PromptSpec(Spec):
    """A prompt; its text is in its versions."""


class PromptVersionSpec(Spec):
    """A text that never changes; ``{{name}}`` stands for a variable."""

    template: Text


class ConnectionSpec(Spec):
    """An outside provider or database; its secret only as a reference.

    Attributes:
        type: What is there.
        url: Where; carries no user and no password.
        user: Who logs in.
        secret: ``env:NAME``, ``file:PATH``, or another store's name and place.
    """

    type: Literal["http", "mcp", "openai", "postgresql"]
    url: Address
    user: str = ""
    secret: SecretReference | None = None


class PolicySpec(Spec):
    """A guardrail policy: rules that endpoints are held to."""

    rules: tuple[dict[str, Any], ...] = Field(default=(), max_length=MOST_RULES)


class NoSpec(Spec):
    """What only holds other things."""


class TenantSpec(Spec):
    """Who pays.

    Attributes:
        replies: Last segments of the topics that it may be answered on; its name if left out.
        accept_unsigned: Whether requests without a signature are believed, principal and all: only
            where the broker's own rules (ACLs) decide who may produce.
    """

    replies: tuple[Segment, ...] = Field(default=(), max_length=MOST_TOPICS)
    accept_unsigned: bool = False


class MemberSpec(Spec):
    """A user or service principal: the tenant that it acts for."""

    tenant: Name


class GroupSpec(Spec):
    """A group of principals, other groups among them."""

    members: tuple[Name, ...] = ()


# What lies in a schema, by kind.
OBJECTS: dict[str, type[Spec]] = {
    "agent": AgentSpec,
    "connection": ConnectionSpec,
    "endpoint": EndpointSpec,
    "function": FunctionSpec,
    "index": IndexSpec,
    "model": ModelSpec,
    "policy": PolicySpec,
    "prompt": PromptSpec,
    "table": TableSpec,
}
# What holds others.
CONTAINERS: dict[str, type[Spec]] = {"catalog": NoSpec, "schema": NoSpec}
# Who acts, pays, or is a set of those.
PRINCIPALS: dict[str, type[Spec]] = {
    "group": GroupSpec,
    "service_principal": MemberSpec,
    "tenant": TenantSpec,
    "user": MemberSpec,
}
# Objects that have versions, with the shape of one.
VERSIONED: dict[str, type[Spec]] = {
    "function": FunctionVersionSpec,
    "model": ModelVersionSpec,
    "prompt": PromptVersionSpec,
}
# What it takes to act on an object of a kind; never USE, which opens doors on the way to all.
ACTS: dict[str, Privilege] = {
    "agent": Privilege.EXECUTE,
    "connection": Privilege.EXECUTE,
    "endpoint": Privilege.QUERY,
    "function": Privilege.EXECUTE,
    "index": Privilege.QUERY,
    "model": Privilege.EXECUTE,
    "policy": Privilege.BROWSE,
    "prompt": Privilege.BROWSE,
    "table": Privilege.SELECT,
}


class Described(Shape):
    """The body of an entry that has an owner: an object, a container or a principal.

    Attributes:
        owner: Principal who holds every privilege on it and on what lies below.
        tags: For search and policy.
        properties: For programs.
        etag: Changes with every change; an update that names another is refused.
        spec: In the shape of its kind.
        aliases: Names of versions by alias, where the kind has versions.
    """

    owner: Name
    comment: str = ""
    tags: dict[str, str] = {}
    properties: dict[str, str] = {}
    etag: str
    spec: dict[str, Any] = {}
    aliases: dict[str, int] = {}
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str


class Version(Shape):
    """The body of an entry of kind ``version``; its name is ``catalog.schema.name@number``."""

    kind: str
    spec: dict[str, Any]
    comment: str = ""
    created_at: datetime
    created_by: str


class Key(Shape):
    """The body of an entry of kind ``key``; its name is the key's id.

    Attributes:
        principal: Whose signature it makes.
        public_key: The Ed25519 public key, 32 bytes in base64.
        not_before: Signatures count from here on.
        expires_at: And until here; null for no end.
        revoked_at: When it was revoked; kept, so that older signatures can still be verified.
    """

    principal: Name
    public_key: str
    not_before: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


class Grant(Shape):
    """The body of an entry of kind ``grant``; its name is ``securable/principal``."""

    allow: tuple[Privilege, ...] = ()
    deny: tuple[Privilege, ...] = ()
