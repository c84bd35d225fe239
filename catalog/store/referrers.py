"""Who needs what: whatever is listed here keeps a thing from being deleted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Text, any_, literal, select
from sqlalchemy.dialects.postgresql import ARRAY

from catalog.store.tables import (
    ADHERENCE,
    ALIAS,
    GRANT,
    MEMBERSHIP,
    PRINCIPAL,
    REFERENCE,
    SECURABLE,
    SIGNING_KEY,
)


def of_securable(connection: Connection, name: str) -> list[str]:
    """Returns what lies in a container, and what refers to an object or its versions."""
    inside = select(SECURABLE.c.kind, SECURABLE.c.name).where(SECURABLE.c.parent == name)
    others = (REFERENCE.c.target == name) & (REFERENCE.c.source != name)
    held = select(PRINCIPAL.c.kind, PRINCIPAL.c.name).join(
        ADHERENCE, (ADHERENCE.c.principal == PRINCIPAL.c.name) & (ADHERENCE.c.policy == name)
    )
    return [
        *(each for query in (inside, held) for each in _named(connection, query)),
        *_sources(connection, others),
    ]


def of_version(connection: Connection, name: str, number: int) -> list[str]:
    """Returns the aliases of a version and what pins it by number."""
    aliases = select(ALIAS.c.name).where(ALIAS.c.securable == name, ALIAS.c.number == number)
    pinned = (REFERENCE.c.target == name) & (REFERENCE.c.target_version == number)
    return [
        *(f"alias {alias}" for alias in connection.execute(aliases).scalars()),
        *_sources(connection, pinned),
    ]


def of_alias(connection: Connection, name: str, alias: str) -> list[str]:
    """Returns what pins a version by this alias."""
    pinned = (REFERENCE.c.target == name) & (REFERENCE.c.target_alias == alias)
    return list(_sources(connection, pinned))


def of_principal(connection: Connection, name: str) -> list[str]:
    """Returns what a principal owns, who acts for it, its groups, grants and keys."""
    securables = select(SECURABLE.c.kind, SECURABLE.c.name).where(SECURABLE.c.owner == name)
    # It may own itself.
    principals = select(PRINCIPAL.c.kind, PRINCIPAL.c.name).where(
        PRINCIPAL.c.owner == name, PRINCIPAL.c.name != name
    )
    acting = select(PRINCIPAL.c.kind, PRINCIPAL.c.name).where(PRINCIPAL.c.tenant == name)
    groups = select(MEMBERSHIP.c.group_name).where(MEMBERSHIP.c.member == name)
    grants = select(GRANT.c.securable).where(GRANT.c.principal == name)
    keys = select(SIGNING_KEY.c.key_id).where(SIGNING_KEY.c.principal == name)
    found = [
        *(each for query in (principals, securables, acting) for each in _named(connection, query)),
        *(f"group {group}" for group in connection.execute(groups).scalars()),
        *(f"grant {securable}/{name}" for securable in connection.execute(grants).scalars()),
        *(f"key {key_id}" for key_id in connection.execute(keys).scalars()),
    ]
    return list(dict.fromkeys(found))


def circle(connection: Connection, group: str, members: list[str]) -> list[str] | None:
    """Returns how a group would contain itself with these members, from it to it; or None."""
    first = select(MEMBERSHIP.c.group_name, MEMBERSHIP.c.member).where(
        # One parameter, however many members: the protocol counts them in 16 bits.
        MEMBERSHIP.c.group_name == any_(literal(members, ARRAY(Text)))
    )
    below = first.cte(recursive=True)
    deeper = select(MEMBERSHIP.c.group_name, MEMBERSHIP.c.member).join(
        below, MEMBERSHIP.c.group_name == below.c.member
    )
    inside: dict[str, list[str]] = {}
    for holder, member in connection.execute(select(below.union(deeper))):
        inside.setdefault(holder, []).append(member)
    paths = {member: [group, member] for member in members}
    ahead = list(paths)
    while ahead and group not in paths:
        holder = ahead.pop(0)
        for member in inside.get(holder, []):
            if member not in paths:
                paths[member] = [*paths[holder], member]
                ahead.append(member)
    return paths.get(group)


def _sources(connection: Connection, where: ColumnElement[bool]) -> Iterator[str]:
    query = (
        select(SECURABLE.c.kind, SECURABLE.c.name, REFERENCE.c.source_version)
        .join(REFERENCE, REFERENCE.c.source == SECURABLE.c.name)
        .where(where)
        .distinct()
        .order_by(SECURABLE.c.name, REFERENCE.c.source_version)
    )
    for kind, name, version in connection.execute(query):
        yield f"{kind} {name}" if version is None else f"version {name}@{version}"


def _named(connection: Connection, query: Select[Any]) -> Iterator[str]:
    for kind, name in connection.execute(query):
        yield f"{kind} {name}"
