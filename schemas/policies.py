"""Policies: limits and guardrails that requests and answers are held to, as the catalog has them.

A policy is named by endpoints, which hold all their requests to it, and by tenants, which are held
to it whatever they ask. Any rule may be only evaluated (``shadow``): what it would have done is
recorded, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any, Literal

import regex
from pydantic import Field, StringConstraints, model_validator

from schemas.jsonschemas import require_schema
from schemas.shapes import MOST_RULES, Duration, FullName, Name, Shape, Spec, Text, VersionName

Stage = Literal["input", "output", "tools"]
Action = Literal["ask", "deny", "mask"]
Words = Annotated[tuple[Text, ...], Field(min_length=1, max_length=10_000)]
# What RE2 would refuse is refused here, too: such patterns can take for ever.
BACKTRACKING = re.compile(r"\\[1-9]|\(\?[=!<(]|\(\?P=")
# What ``regex`` reads as leave to match only nearly, and as a class of characters; ``re`` does not.
OWN_SYNTAX = re.compile(
    r"(?<!\\)(?:\\\\)*(?:\{\s*(?:\d+\s*<=?\s*)?\d*\s*[deis]\s*[}<,:+=]|\[\^?\[:)", re.IGNORECASE
)


class Rule(Shape):
    """What all rules have.

    Attributes:
        name: Name inside the policy; counters and records tell it by this.
        shadow: Whether it is only evaluated.
    """

    name: Name
    shadow: bool = False

    def references(self) -> Iterator[str]:
        """Yields the objects that must exist for it."""
        yield from ()


class LimitRule(Rule):
    """A bound on what somebody uses within a window that slides, or at one time.

    Attributes:
        unit: What is counted. ``in_flight`` is what goes on at one time and has no window; a run of
            an agent counts as one under its tenant's policies, with all that it asks. ``cost`` is
            in US dollars.
        most: The bound.
        window: How far back use counts.
        per: Whose use is counted together: of a service (an endpoint), a tenant, a user, a service
            principal, a group, or of a value of a request's tag. Per ``user`` without ``to`` holds
            for whoever acts that is no group: for a service principal that no rule of its own unit
            and window holds for, and for the tenant where a request names nobody.
        to: Whom it holds for; each one for itself when empty, which a rule that names somebody
            beats: a named user or service principal goes before a group, a group before the rest.
        tag: The tag, where it is per ``tag``.
        counts_failed: Whether requests that failed stay counted (``requests`` only).
        unpriced: What a request whose price is unknown costs until it is: refused, or a flat sum.
    """

    type: Literal["limit"]
    unit: Literal[
        "cached_tokens",
        "cost",
        "in_flight",
        "input_tokens",
        "output_tokens",
        "requests",
        "total_tokens",
    ]
    most: Annotated[Decimal, Field(ge=0, le=1_000_000_000_000, decimal_places=12)]
    window: Duration | None = None
    per: Literal["group", "service", "service_principal", "tag", "tenant", "user"]
    to: Annotated[tuple[Text, ...], Field(max_length=MOST_RULES)] = ()
    tag: Text | None = None
    counts_failed: bool = True
    unpriced: Literal["refuse"] | Annotated[Decimal, Field(ge=0, le=1000, decimal_places=12)] = (
        "refuse"
    )

    @model_validator(mode="after")
    def _fits(self) -> LimitRule:
        if (self.window is None) != (self.unit == "in_flight"):
            raise ValueError("a window belongs to every unit but in_flight")
        if (self.tag is None) != (self.per != "tag"):
            raise ValueError("tag belongs to limits per tag, and to no others")
        if self.per == "group" and not self.to:
            raise ValueError("a limit per group names its groups in to")
        if self.unit != "cost" and self.most != int(self.most):
            raise ValueError("only a cost can be a fraction")
        return self


class GuardRule(Rule):
    """What all guardrails have.

    Attributes:
        on: Where it looks: at what is asked, at what is answered (parts of a stream, too), and at
            the arguments of tool calls on either way.
        fail_open: Whether what it cannot judge passes; refused otherwise.
    """

    on: Annotated[tuple[Stage, ...], Field(min_length=1)] = ("input", "output", "tools")
    fail_open: bool = False


Entity = Literal[
    "CREDIT_CARD",
    "CRYPTO",
    "DATE_OF_BIRTH",
    "EMAIL_ADDRESS",
    "IBAN_CODE",
    "IP_ADDRESS",
    "MAC_ADDRESS",
    "PASSPORT",
    "PERSON",
    "PHONE_NUMBER",
    "US_SSN",
    "VAT_NUMBER",
]


class PiiRule(GuardRule):
    """Personal data, by kind: let through, masked, refused, or masked and restored for the caller.

    Attributes:
        entities: What happens to each kind; the others are let through.
    """

    type: Literal["pii"]
    entities: Annotated[
        dict[Entity, Literal["block", "mask", "none", "restore"]], Field(min_length=1)
    ]


class SecretsRule(GuardRule):
    """Credentials: private keys, tokens of known providers, passwords in addresses."""

    type: Literal["secrets"]
    action: Literal["deny", "mask"] = "mask"


class KeywordsRule(GuardRule):
    """Whole words or phrases, whatever their case."""

    type: Literal["keywords"]
    words: Words
    action: Action = "deny"


class TopicsRule(GuardRule):
    """Topics, each told by its phrases."""

    type: Literal["topics"]
    topics: Annotated[dict[Text, Words], Field(min_length=1, max_length=MOST_RULES)]
    action: Literal["ask", "deny"] = "deny"


class RegexRule(GuardRule):
    """Patterns of regular expressions without look-around and back-references."""

    type: Literal["regex"]
    patterns: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1, max_length=1000)], ...],
        Field(min_length=1, max_length=100),
    ]
    action: Action = "deny"

    @model_validator(mode="after")
    def _compiles(self) -> RegexRule:
        for pattern in self.patterns:
            if BACKTRACKING.search(pattern):
                raise ValueError("patterns know no look-around and no back-references")
            if OWN_SYNTAX.search(pattern):
                raise ValueError("before braces and brackets that are meant stands a backslash")
            try:
                re.compile(pattern)
                # It looks for them, since it can be stopped.
                regex.compile(pattern, regex.VERSION0)
            except (re.error, regex.error, RecursionError) as problem:
                raise ValueError(f"a pattern is none: {getattr(problem, 'msg', '')}") from None
        return self


class JsonSchemaRule(GuardRule):
    """An answer that is JSON and satisfies a schema."""

    type: Literal["json_schema"]
    json_schema: dict[str, Any]
    on: Annotated[tuple[Literal["output"], ...], Field(min_length=1)] = ("output",)

    @model_validator(mode="after")
    def _is_one(self) -> JsonSchemaRule:
        require_schema(self.json_schema)
        return self


class LengthRule(GuardRule):
    """Bounds on how much is said."""

    type: Literal["length"]
    most_characters: Annotated[int, Field(ge=1)]
    on: Annotated[tuple[Stage, ...], Field(min_length=1)] = ("input",)


class InjectionRule(GuardRule):
    """Texts that try to talk a model out of its instructions (prompt injection, jailbreaks)."""

    type: Literal["injection"]
    action: Literal["ask", "deny"] = "deny"
    on: Annotated[tuple[Stage, ...], Field(min_length=1)] = ("input", "tools")


class RemoteRule(GuardRule):
    """What guards that somebody else answers have.

    Attributes:
        timeout: Longest wait for the verdict.
    """

    on: Annotated[tuple[Literal["input", "output"], ...], Field(min_length=1)] = ("input",)
    timeout: Duration = "10s"


class JudgeRule(RemoteRule):
    """A model decides.

    Attributes:
        endpoint: Endpoint that is asked.
        instructions: What it is to refuse; for harm of the usual kinds (safety) when left out.
    """

    type: Literal["judge"]
    endpoint: FullName
    instructions: str = ""
    action: Literal["ask", "deny"] = "deny"

    def references(self) -> Iterator[str]:
        """Yields the endpoint."""
        yield self.endpoint


class FunctionRule(RemoteRule):
    """A function of the catalog decides: it takes ``text`` and ``stage`` and returns a verdict."""

    type: Literal["function"]
    function: VersionName

    def references(self) -> Iterator[str]:
        """Yields the function."""
        yield self.function


class HttpRule(RemoteRule):
    """A service behind a connection decides: POST of ``text`` and ``stage``, answer a verdict."""

    type: Literal["http"]
    connection: FullName
    path: str = "/"

    def references(self) -> Iterator[str]:
        """Yields the connection."""
        yield self.connection


AnyRule = Annotated[
    FunctionRule
    | HttpRule
    | InjectionRule
    | JsonSchemaRule
    | JudgeRule
    | KeywordsRule
    | LengthRule
    | LimitRule
    | PiiRule
    | RegexRule
    | SecretsRule
    | TopicsRule,
    Field(discriminator="type"),
]


class PolicySpec(Spec):
    """A policy: rules that endpoints and tenants are held to, in order."""

    rules: tuple[AnyRule, ...] = Field(default=(), max_length=MOST_RULES)

    @model_validator(mode="after")
    def _named_once(self) -> PolicySpec:
        names = [rule.name for rule in self.rules]
        if len(set(names)) < len(names):
            raise ValueError("each rule needs a name of its own")
        return self

    def references(self) -> Iterator[str]:
        """Yields what rules need."""
        for rule in self.rules:
            yield from rule.references()
