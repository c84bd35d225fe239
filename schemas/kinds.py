"""What the catalog holds: the kinds of its entries, the shape of each, and the privileges on them.

An entry travels as JSON in ``CatalogChanged.body``. Unknown fields are refused everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.checks import Address, SecretReference
from schemas.indexes import IndexSpec
from schemas.policies import PolicySpec
from schemas.routing import EndpointSpec, Prices
from schemas.shapes import (
    ALL,
    MOST_RULES,
    MOST_TOOLS,
    MOST_TOPICS,
    Duration,
    FullName,
    Name,
    Pattern,
    Segment,
    Shape,
    Spec,
    Text,
    VersionName,
)
from schemas.tables import TableSpec

# The top of everything: who holds a privilege here holds it everywhere.
ROOT = "*"
EVERYONE = "everyone"  # every principal is in this group


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


class ModelSpec(Spec):
    """A model; its weights are in its versions, and what its tokens cost here stands here."""

    task: Literal["chat", "embedding", "rerank"] = "chat"
    prices: Prices = ()


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
        source: The code, the statement, the request, or the name of a server's tool.
        parameters: JSON Schema of its arguments.
        connection: Database or service that it goes to.
        effect: Whether it may be repeated: ``pure``, ``idempotent`` by key, or after ``reconcile``.
        description: What it is for, as a model reads it.
        timeout: How long a call may take.
        memory_mb: MiB that a call of Python may take.
        network: Whether a call of Python may reach the network.
    """

    language: Literal["http", "mcp", "python", "sql"]
    source: Text
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    connection: FullName | None = None
    effect: Literal["idempotent", "pure", "reconcile"] = "reconcile"
    description: str = ""
    timeout: Duration = "10s"
    memory_mb: Annotated[int, Field(ge=32, le=16384)] = 256
    network: bool = False

    def references(self) -> Iterator[str]:
        """Yields the connection."""
        yield from filter(None, (self.connection,))


class AgentLimits(Shape):
    """Where a run ends that does not end by itself.

    Attributes:
        turns: How often the model is asked.
        tokens: Tokens of all turns together; null for no bound of its own.
        cost: US dollars of all that it asks, agents that it asks among it; null for no bound.
        time: How long the run takes, with all that it waits for.
        parallel: Calls of tools under way at once.
    """

    turns: Annotated[int, Field(ge=1, le=1000)] = 16
    tokens: Annotated[int, Field(ge=1)] | None = None
    cost: Annotated[Decimal, Field(gt=0, max_digits=24, decimal_places=12)] | None = None
    time: Duration = "10m"
    parallel: Annotated[int, Field(ge=1, le=64)] = 8


class AgentMemory(Shape):
    """What is kept of what was said to an agent, and of who asked it.

    Attributes:
        kept: How long a conversation is kept after its run, to be gone on with; null for not at
            all.
        index: Where the model writes down what it learns about who asks: an index without a source,
            with the key ``id``, the text ``fact``, and the columns ``tenant``, ``principal`` and
            ``at``; null for nowhere.
    """

    kept: Duration | None = "30d"
    index: FullName | None = None


class AgentSpec(Spec):
    """An agent: what it is told, the endpoint that it thinks with, and what it may reach.

    Attributes:
        endpoint: What is asked for each turn.
        instructions: What it is told first; the template of ``prompt`` goes before.
        prompt: A version of a prompt.
        tools: Functions that it may call; a version where one is named, else the newest; all of a
            schema's as ``main.crm.*``, those that are there when a run begins.
        indexes: Indexes that it may search.
        agents: Agents that it may ask.
        handoffs: Agents that it may hand the conversation over to: their answer is the run's.
        plan: Of tools, indexes and agents, those that it must call first, in this order.
        output: JSON Schema that its answer must satisfy; null for a text.
        approvals: Of tools, indexes and agents, those whose calls wait for a person.
        summarise: Whether what the model cannot read at once any more is put in fewer words by it,
            which is a turn, and not only left out.
        repairs: How often in a row the model may mend a call or an answer that is wrong.
        limits: Where a run ends.
        memory: What it remembers once a run is over; null for nothing.
    """

    endpoint: FullName
    instructions: str = ""
    prompt: VersionName | None = None
    tools: tuple[Pattern, ...] = Field(default=(), max_length=MOST_TOOLS)
    indexes: tuple[FullName, ...] = Field(default=(), max_length=MOST_TOOLS)
    agents: tuple[FullName, ...] = Field(default=(), max_length=MOST_TOOLS)
    handoffs: tuple[FullName, ...] = Field(default=(), max_length=MOST_TOOLS)
    plan: tuple[FullName, ...] = Field(default=(), max_length=MOST_TOOLS)
    output: dict[str, Any] | None = None
    approvals: tuple[FullName, ...] = Field(default=(), max_length=3 * MOST_TOOLS)
    summarise: bool = False
    repairs: Annotated[int, Field(ge=0, le=10)] = 2
    limits: AgentLimits = AgentLimits()
    memory: AgentMemory | None = None

    def references(self) -> Iterator[str]:
        """Yields everything that it reaches."""
        yield self.endpoint
        yield from filter(None, (self.prompt, self.memory and self.memory.index))
        yield from (each for each in self.tools if not each.endswith(ALL))
        yield from (*self.indexes, *self.agents, *self.handoffs)


class PromptSpec(Spec):
    """A prompt; its text is in its versions."""


class PromptVersionSpec(Spec):
    """A text that never changes; ``{{name}}`` stands for a variable."""

    template: Text


class ConnectionSpec(Spec):
    """An outside provider or database; its secret only as a reference.

    Attributes:
        type: What is there.
        url: Where; carries no user and no password. Of an MCP server also ``stdio://NAME``, a
            command that the executor's settings know by this name.
        user: Who logs in.
        secret: ``env:NAME``, ``file:PATH``, or another store's name and place.
        private: Whether the address may be of this machine or of a private network.
        options: What else a provider of this type asks for, such as ``api_version`` or ``region``.
        prices: What tokens cost there, by model.
    """

    type: Literal[
        "anthropic",
        "azure_openai",
        "bedrock",
        "cohere",
        "gemini",
        "http",
        "mcp",
        "openai",
        "openai_responses",
        "postgresql",
    ]
    url: Address
    user: str = ""
    secret: SecretReference | None = None
    private: bool = False
    options: dict[str, str] = Field(default_factory=dict)
    prices: dict[Text, Prices] = Field(default_factory=dict, max_length=MOST_RULES)


class NoSpec(Spec):
    """What only holds other things."""


class TenantSpec(Spec):
    """Who pays.

    Attributes:
        replies: Last segments of the topics that it may be answered on; its name if left out.
        accept_unsigned: Whether requests without a signature are believed, principal and all: only
            where the broker's own rules (ACLs) decide who may produce.
        policies: What all its requests are held to, whatever they ask.
    """

    replies: tuple[Segment, ...] = Field(default=(), max_length=MOST_TOPICS)
    accept_unsigned: bool = False
    policies: tuple[FullName, ...] = Field(default=(), max_length=MOST_RULES)

    def references(self) -> Iterator[str]:
        """Yields the policies."""
        yield from self.policies


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
    tags: dict[str, str] = Field(default_factory=dict)
    properties: dict[str, str] = Field(default_factory=dict)
    etag: str
    spec: dict[str, Any] = Field(default_factory=dict)
    aliases: dict[str, int] = Field(default_factory=dict)
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
