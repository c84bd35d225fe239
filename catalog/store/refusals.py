"""Why the catalog does not do what it is asked: in words for the caller, without a secret."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psycopg
from pydantic import ValidationError
from sqlalchemy.exc import DataError, IntegrityError

from schemas.events import Reason

MOST_NAMED = 10
MOST_PATH = 120


class CatalogRefused(Exception):
    """The catalog refuses a change; nothing of its transaction is done.

    Attributes:
        reason: The kind of refusal, for programs.
        message: What is wrong and what helps; quotes names, and nothing else of what came.
        field: What is at fault, as a path: ``spec.routes.0.pool``.
    """

    def __init__(self, reason: Reason, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field


class Rule(NamedTuple):
    """What it means that the database refuses.

    Attributes:
        message: In words; {0} stands for the name that the database tells.
        pinned: Whether that is a version's name, of two columns.
    """

    reason: Reason
    message: str
    field: str
    pinned: bool = False


UNKNOWN_PRINCIPAL = "there is no principal {0}"
UNKNOWN_OBJECT = "there is no {0}"

# What the database checks by itself and nobody asks before it.
RULES: dict[str, Rule] = {
    "adherence_policy_fkey": Rule(Reason.NOT_FOUND, UNKNOWN_OBJECT, "spec.policies"),
    "alias_name_check": Rule(
        Reason.REQUEST_INVALID, "an alias is a name that is no number", "aliases"
    ),
    "alias_number_fkey": Rule(Reason.NOT_FOUND, "there is no version {0}", "aliases", pinned=True),
    "membership_circle": Rule(Reason.REQUEST_INVALID, "a group would contain itself", "members"),
    "membership_member_check": Rule(
        Reason.REQUEST_INVALID, "everyone is in no other group", "spec.members"
    ),
    "membership_member_fkey": Rule(Reason.NOT_FOUND, UNKNOWN_PRINCIPAL, "spec.members"),
    "principal_name_check": Rule(Reason.REQUEST_INVALID, "this is no principal's name", "name"),
    "principal_owner_fkey": Rule(Reason.NOT_FOUND, UNKNOWN_PRINCIPAL, "owner"),
    "principal_pkey": Rule(Reason.ALREADY_EXISTS, "there is a principal {0} already", "name"),
    "principal_tenant_fkey": Rule(Reason.NOT_FOUND, "there is no tenant {0}", "spec.tenant"),
    "privilege_grant_principal_fkey": Rule(Reason.NOT_FOUND, UNKNOWN_PRINCIPAL, "principal"),
    "privilege_grant_securable_fkey": Rule(Reason.NOT_FOUND, UNKNOWN_OBJECT, "securable"),
    "reference_alias_fkey": Rule(Reason.NOT_FOUND, "there is no alias {0}", "spec", pinned=True),
    "reference_target_fkey": Rule(Reason.NOT_FOUND, UNKNOWN_OBJECT, "spec"),
    "reference_version_fkey": Rule(
        Reason.NOT_FOUND, "there is no version {0}", "spec", pinned=True
    ),
    "securable_owner_fkey": Rule(Reason.NOT_FOUND, UNKNOWN_PRINCIPAL, "owner"),
    "securable_parent_fkey": Rule(Reason.NOT_FOUND, UNKNOWN_OBJECT, "name"),
    "securable_pkey": Rule(Reason.ALREADY_EXISTS, "there is a {0} already", "name"),
    "signing_key_id_check": Rule(
        Reason.REQUEST_INVALID, "the id is not that of the public key", "key_id"
    ),
    "signing_key_pkey": Rule(Reason.ALREADY_EXISTS, "there is a key {0} already", "key_id"),
    "signing_key_principal_fkey": Rule(
        Reason.NOT_FOUND, "there is no user or service principal {0}", "principal"
    ),
    "signing_key_public_key_check": Rule(
        Reason.REQUEST_INVALID, "a public key has 32 bytes", "public_key"
    ),
    "signing_key_time_check": Rule(
        Reason.REQUEST_INVALID, "the key would expire before it counts", "expires_at"
    ),
    "version_securable_fkey": Rule(Reason.NOT_FOUND, UNKNOWN_OBJECT, "name"),
}


@contextmanager
def refusing() -> Iterator[None]:
    """Turns what the database refuses in the block into CatalogRefused; the rest goes through."""
    try:
        yield
    except IntegrityError as problem:
        refusal = _refusal(problem.orig)
        if refusal is None:
            raise
        raise refusal from None
    except (DataError, UnicodeEncodeError):
        raise invalid("a value is out of the range that the catalog can keep") from None


def _refusal(error: object) -> CatalogRefused | None:
    if not isinstance(error, psycopg.Error):
        return None
    rule = RULES.get(error.diag.constraint_name or "")
    detail = error.diag.message_detail or ""
    # Key (securable, number)=(a.b.c, 3) is not present in table "version".
    name, _, number = detail.partition("=(")[2].rpartition(")")[0].partition(", ")
    if "still referenced" in detail:
        return CatalogRefused(Reason.REFERENCED, f"{name} is needed by others")
    if rule is None:
        return None
    told = f"{name}@{number}" if rule.pinned else name
    return CatalogRefused(rule.reason, rule.message.format(told), rule.field)


def invalid(message: str, field: str | None = None) -> CatalogRefused:
    """Returns the refusal of what has the wrong form."""
    return CatalogRefused(Reason.REQUEST_INVALID, message, field)


def misshapen(problem: ValidationError, within: str = "") -> CatalogRefused:
    """Returns the refusal of a shape: the path of each wrong field, and no value."""
    found = problem.errors(include_url=False, include_context=False, include_input=False)
    paths = [".".join(filter(None, (within, *map(str, each["loc"]))))[:MOST_PATH] for each in found]
    told = [f"{path}: {each['msg']}" for path, each in zip(paths, found, strict=True)]
    return invalid("; ".join(told[:MOST_NAMED]), paths[0])


def referred(name: str, referrers: Iterable[str], advice: str) -> CatalogRefused:
    """Returns the refusal to take away what others need; names who they are."""
    all_of_them = list(referrers)
    more = len(all_of_them) - MOST_NAMED
    shown = ", ".join(all_of_them[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return CatalogRefused(Reason.REFERENCED, f"{name} is needed by {shown}: {advice}")
