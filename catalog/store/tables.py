"""The tables as statements need them. What they keep by themselves is said in ``migrations/``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY

METADATA = MetaData()
INSTANT = DateTime(timezone=True)


def _told() -> tuple[Column[Any], ...]:
    """What each entry has: its last change."""
    return (
        Column("position", BigInteger),
        Column("changed_at", INSTANT),
        Column("changed_by", Text),
    )


def _described() -> tuple[Column[Any], ...]:
    """What each entry with an owner has."""
    return (
        Column("owner", Text),
        Column("comment", Text),
        Column("tags", JSON),
        Column("properties", JSON),
        Column("spec", JSON),
        Column("created_at", INSTANT),
        Column("created_by", Text),
        *_told(),
    )


ALIAS = Table(
    "alias",
    METADATA,
    Column("securable", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("number", Integer),
)
CLOCK = Table("clock", METADATA, Column("position", BigInteger))
COMMAND = Table(
    "command",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("principal", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("reply", Text),
    Column("at", INSTANT),
)
GRANT = Table(
    "privilege_grant",
    METADATA,
    Column("securable", Text, primary_key=True),
    Column("principal", Text, primary_key=True),
    Column("allow", ARRAY(Text)),
    Column("deny", ARRAY(Text)),
    *_told(),
)
MEMBERSHIP = Table(
    "membership",
    METADATA,
    Column("group_name", Text, primary_key=True),
    Column("member", Text, primary_key=True),
)
NUMBERING = Table(
    "numbering", METADATA, Column("name", Text, primary_key=True), Column("last", Integer)
)
OUTBOX = Table(
    "outbox",
    METADATA,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("topic", Text),
    Column("payload", Text),
)
PRINCIPAL = Table(
    "principal",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("kind", Text),
    Column("tenant", Text),
    *_described(),
)
REFERENCE = Table(
    "reference",
    METADATA,
    Column("source", Text),
    Column("source_version", Integer),
    Column("target", Text),
    Column("target_version", Integer),
    Column("target_alias", Text),
)
SECURABLE = Table(
    "securable",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("kind", Text),
    Column("parent", Text),
    *_described(),
)
SIGNING_KEY = Table(
    "signing_key",
    METADATA,
    Column("key_id", Text, primary_key=True),
    Column("principal", Text),
    Column("public_key", LargeBinary),
    Column("not_before", INSTANT),
    Column("expires_at", INSTANT),
    Column("revoked_at", INSTANT),
    *_told(),
)
VERSION = Table(
    "version",
    METADATA,
    Column("securable", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("kind", Text),
    Column("spec", JSON),
    Column("comment", Text),
    *_told(),
)
