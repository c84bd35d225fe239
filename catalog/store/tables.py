"""The tables as statements need them. What they keep by themselves is said in ``migrations/``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, DateTime, Identity, MetaData, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

METADATA = MetaData()
INSTANT = DateTime(timezone=True)


class Row(SQLModel):
    """A row of a table of the store."""

    metadata = METADATA


class Told(Row):
    """What each entry has: its last change."""

    position: int = Field(sa_type=BigInteger)
    changed_at: datetime = Field(sa_type=INSTANT)
    changed_by: str = Field(sa_type=Text)


class Owned(Told):
    """What each entry with an owner has."""

    owner: str = Field(sa_type=Text)
    comment: str = Field(sa_type=Text)
    tags: dict[str, str] = Field(sa_type=JSON)
    properties: dict[str, str] = Field(sa_type=JSON)
    spec: dict[str, Any] = Field(sa_type=JSON)
    created_at: datetime = Field(sa_type=INSTANT)
    created_by: str = Field(sa_type=Text)


class Alias(Row, table=True):
    """A name of a version."""

    securable: str = Field(sa_type=Text, primary_key=True)
    name: str = Field(sa_type=Text, primary_key=True)
    number: int


class Clock(Row, table=True):
    """The one row that whoever changes the catalog holds the lock on."""

    single: bool = Field(primary_key=True)
    position: int = Field(sa_type=BigInteger)


class Command(Row, table=True):
    """A command that is done, with its answer."""

    tenant: str = Field(sa_type=Text, primary_key=True)
    principal: str = Field(sa_type=Text, primary_key=True)
    request_id: str = Field(sa_type=Text, primary_key=True)
    reply: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=INSTANT)


class Adherence(Row, table=True):
    """A policy that a tenant is held to."""

    principal: str = Field(sa_type=Text, primary_key=True)
    policy: str = Field(sa_type=Text, primary_key=True)


class Membership(Row, table=True):
    """A member of a group."""

    group_name: str = Field(sa_type=Text, primary_key=True)
    member: str = Field(sa_type=Text, primary_key=True)


class Numbering(Row, table=True):
    """The last number that a version of a name was given, for no number is given twice."""

    name: str = Field(sa_type=Text, primary_key=True)
    last: int


class Outbox(Row, table=True):
    """An event that is yet to be published."""

    id: int = Field(sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    topic: str = Field(sa_type=Text)
    payload: str = Field(sa_type=Text)


class Principal(Owned, table=True):
    """A tenant, user, service principal or group."""

    name: str = Field(sa_type=Text, primary_key=True)
    kind: str = Field(sa_type=Text)
    tenant: str | None = Field(sa_type=Text)


class PrivilegeGrant(Told, table=True):
    """What a principal is allowed and denied on a securable."""

    __tablename__ = "privilege_grant"

    securable: str = Field(sa_type=Text, primary_key=True)
    principal: str = Field(sa_type=Text, primary_key=True)
    allow: list[str] = Field(sa_type=ARRAY(Text))
    deny: list[str] = Field(sa_type=ARRAY(Text))


class Securable(Owned, table=True):
    """An object, a container or the root."""

    name: str = Field(sa_type=Text, primary_key=True)
    kind: str = Field(sa_type=Text)
    parent: str | None = Field(sa_type=Text)


class SigningKey(Told, table=True):
    """A public key and when its signatures count."""

    __tablename__ = "signing_key"

    key_id: str = Field(sa_type=Text, primary_key=True)
    principal: str = Field(sa_type=Text)
    public_key: bytes
    not_before: datetime = Field(sa_type=INSTANT)
    expires_at: datetime | None = Field(sa_type=INSTANT)
    revoked_at: datetime | None = Field(sa_type=INSTANT)


class Version(Told, table=True):
    """A version of a function, model or prompt."""

    securable: str = Field(sa_type=Text, primary_key=True)
    number: int = Field(primary_key=True)
    kind: str = Field(sa_type=Text)
    spec: dict[str, Any] = Field(sa_type=JSON)
    comment: str = Field(sa_type=Text)


class Reference(Row, table=True):
    """What one securable, or version of one, needs of another."""

    source: str = Field(sa_type=Text, primary_key=True)
    source_version: int | None
    target: str = Field(sa_type=Text, primary_key=True)
    target_version: int | None
    target_alias: str | None = Field(sa_type=Text)


ADHERENCE = METADATA.tables["adherence"]
ALIAS = METADATA.tables["alias"]
CLOCK = METADATA.tables["clock"]
COMMAND = METADATA.tables["command"]
GRANT = METADATA.tables["privilege_grant"]
MEMBERSHIP = METADATA.tables["membership"]
NUMBERING = METADATA.tables["numbering"]
OUTBOX = METADATA.tables["outbox"]
PRINCIPAL = METADATA.tables["principal"]
REFERENCE = METADATA.tables["reference"]
SECURABLE = METADATA.tables["securable"]
SIGNING_KEY = METADATA.tables["signing_key"]
VERSION = METADATA.tables["version"]
