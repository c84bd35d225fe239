"""Who may do what: owners, grants and denies over a hierarchy of names and nested groups.

All in memory and without input or output. A grant reaches down to all that lies below its
securable; a deny beats every grant, and an owner every deny. What nobody knows is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from schemas.kinds import EVERYONE, ROOT, Privilege

# Acting on something takes USE on every container above it, too.
ACTING = frozenset(
    {
        Privilege.CREATE,
        Privilege.EXECUTE,
        Privilege.MODIFY,
        Privilege.QUERY,
        Privilege.SELECT,
        Privilege.USE,
    }
)

BIT: dict[Privilege, int] = {privilege: 1 << at for at, privilege in enumerate(Privilege)}
ALL = sum(BIT.values())

# How a principal comes to each of its identities: by way of whom.
Paths = dict[str, tuple[str, ...]]

# Answers that are remembered; beyond that, all are forgotten and found anew.
MOST_REMEMBERED = 200_000


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer and its reason in words: what was granted, denied or owned, or what is missing."""

    allowed: bool
    because: str


@dataclass(frozen=True, slots=True)
class _Found:
    """Where something is said: at a securable, of one of a principal's identities."""

    securable: str
    identity: str


class Access:
    """Owners, grants, groups and principals as they are now, and the answers that follow."""

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}
        # Securable, then principal: the bits that are allowed, and those that are denied.
        self._grants: dict[str, dict[str, tuple[int, int]]] = {}
        self._members: dict[str, frozenset[str]] = {}
        self._groups: dict[str, set[str]] = {}
        self._tenants: dict[str, str | None] = {}
        self._identities: dict[str, frozenset[str]] = {}
        self._held: dict[tuple[str, str], int] = {}

    def own(self, securable: str, owner: str | None) -> None:
        """Notes that a securable exists and whose it is; None when it is gone."""
        if owner is None:
            self._owners.pop(securable, None)
        else:
            self._owners[securable] = owner
        self._held.clear()

    def grant(
        self,
        securable: str,
        principal: str,
        allow: Collection[Privilege],
        deny: Collection[Privilege],
    ) -> None:
        """Replaces what a principal is granted and denied on a securable; nothing for none."""
        if allow or deny:
            self._grants.setdefault(securable, {})[principal] = (_bits(allow), _bits(deny))
        elif (granted := self._grants.get(securable)) is not None:
            granted.pop(principal, None)
            if not granted:
                del self._grants[securable]
        self._held.clear()

    def join(self, group: str, members: Collection[str]) -> None:
        """Replaces the members of a group."""
        now = frozenset(members)
        before = self._members.get(group, frozenset())
        for member in before - now:
            self._groups[member].discard(group)
            if not self._groups[member]:
                del self._groups[member]
        for member in now - before:
            self._groups.setdefault(member, set()).add(group)
        if now:
            self._members[group] = now
        else:
            self._members.pop(group, None)
        self._forget()

    def belong(self, principal: str, tenant: str | None) -> None:
        """Notes that a principal exists, and the tenant that it acts for, if it has one."""
        self._tenants[principal] = tenant
        self._forget()

    def leave(self, principal: str) -> None:
        """Notes that a principal is gone; if it was a group, it has no members any more."""
        self._tenants.pop(principal, None)
        self.join(principal, ())

    def identities(self, principal: str) -> frozenset[str]:
        """Returns all that a principal is: itself, its tenant, its groups, and everyone.

        Empty where there is no such principal.
        """
        if principal not in self._tenants:
            return frozenset()
        found = self._identities.get(principal)
        if found is None:
            if len(self._identities) >= MOST_REMEMBERED:
                self._identities.clear()
            found = self._identities[principal] = frozenset(self._paths(principal))
        return found

    def holds(self, principal: str, privilege: Privilege, securable: str) -> bool:
        """Returns whether a principal has a privilege on a securable, by itself or from above."""
        return bool(self._privileges(principal, securable) & BIT[privilege])

    def may(self, principal: str, privilege: Privilege, securable: str) -> bool:
        """Returns whether a principal may do something: it holds the privilege and may get there.

        Acting on an object takes USE on its catalog and schema, too.
        """
        if not self._privileges(principal, securable) & BIT[privilege]:
            return False
        if privilege not in ACTING:
            return True
        use = BIT[Privilege.USE]
        return all(self._privileges(principal, each) & use for each in containers(securable))

    def explain(self, principal: str, privilege: Privilege, securable: str) -> Decision:
        """Returns what ``may`` says, and why."""
        decision = self._explain(principal, privilege, securable)
        if not decision.allowed or privilege not in ACTING:
            return decision
        for container in reversed(list(containers(securable))):
            way = self._explain(principal, Privilege.USE, container)
            if not way.allowed:
                return way
        return decision

    def effective(self, principal: str, securable: str) -> dict[Privilege, Decision]:
        """Returns what a principal may do to a securable and what not, with reasons."""
        return {each: self.explain(principal, each, securable) for each in Privilege}

    def _forget(self) -> None:
        self._identities.clear()
        self._held.clear()

    def _privileges(self, principal: str, securable: str) -> int:
        """Returns the bits of all that a principal holds on a securable."""
        held = self._held.get((principal, securable))
        if held is not None:
            return held
        # Not remembered: names that nobody knows come from outside, in any number.
        if not self._known(securable) or principal not in self._tenants:
            return 0
        if len(self._held) >= MOST_REMEMBERED:
            self._held.clear()
        found = self._held[principal, securable] = self._found_privileges(principal, securable)
        return found

    def _found_privileges(self, principal: str, securable: str) -> int:
        identities = self.identities(principal)
        allowed = denied = 0
        for level in chain(securable):
            if self._owners.get(level) in identities:
                return ALL
            granted = self._grants.get(level)
            if granted:
                for identity in granted.keys() & identities:
                    allow, deny = granted[identity]
                    allowed |= allow
                    denied |= deny
        if allowed & ~denied & BIT[Privilege.MANAGE]:
            allowed = ALL
        held = allowed & ~denied
        return held | BIT[Privilege.BROWSE] & ~denied if held else 0

    def _known(self, securable: str) -> bool:
        return securable in self._owners or securable == ROOT

    def _explain(self, principal: str, privilege: Privilege, securable: str) -> Decision:
        """Returns what ``holds`` says, and why."""
        if principal not in self._tenants:
            return Decision(False, f"there is no principal {principal}")
        if not self._known(securable):
            return Decision(False, f"there is no {securable}")
        paths = self._paths(principal)
        if found := self._owner(paths, securable):
            return Decision(True, f"{_who(found, paths)} owns {found.securable}")
        if found := self._said(paths, securable, privilege, denied=True):
            on = f"{privilege} on {found.securable}"
            return Decision(False, f"{on} is denied to {_who(found, paths)}")
        if found := self._said(paths, securable, privilege):
            on = f"{privilege} on {found.securable}"
            return Decision(True, f"{on} is granted to {_who(found, paths)}")
        return self._implied(paths, securable, privilege) or Decision(
            False, f"{privilege} on {securable} is missing"
        )

    def _implied(self, paths: Paths, securable: str, privilege: Privilege) -> Decision | None:
        """Returns how another privilege brings this one along, if one does."""
        for other in (Privilege.MANAGE, *(Privilege if privilege is Privilege.BROWSE else ())):
            found = self._said(paths, securable, other)
            if found and not self._said(paths, securable, other, denied=True):
                on = f"{other} on {found.securable}"
                who = _who(found, paths)
                return Decision(True, f"{on}, which brings {privilege}, is granted to {who}")
        return None

    def _owner(self, paths: Paths, securable: str) -> _Found | None:
        owners = ((level, self._owners.get(level)) for level in chain(securable))
        return next((_Found(level, owner) for level, owner in owners if owner in paths), None)

    def _said(
        self,
        paths: Paths,
        securable: str,
        privilege: Privilege,
        *,
        denied: bool = False,
    ) -> _Found | None:
        """Returns the nearest place that grants or denies a privilege, by the shortest path."""
        for level in chain(securable):
            granted = self._grants.get(level, {})
            for identity in paths:
                if granted.get(identity, (0, 0))[denied] & BIT[privilege]:
                    return _Found(level, identity)
        return None

    def _paths(self, principal: str) -> Paths:
        """Returns how a known principal comes to each of its identities, the nearest first."""
        paths: Paths = {principal: (principal,)}
        tenant = self._tenants[principal]
        if tenant is not None:
            paths.setdefault(tenant, (principal, f"tenant {tenant}"))
        fresh = list(paths)
        while fresh:
            found = []
            for member in fresh:
                for group in sorted(self._groups.get(member, ())):
                    if group not in paths:
                        paths[group] = (*paths[member], group)
                        found.append(group)
            fresh = found
        paths.setdefault(EVERYONE, ())
        return paths


def chain(securable: str) -> Iterator[str]:
    """Yields a securable and all above it, up to the root."""
    if securable != ROOT:
        yield securable
        yield from containers(securable)
    yield ROOT


def containers(securable: str) -> Iterator[str]:
    """Yields what a securable lies in, the nearest first; the root is none of them."""
    end = securable.rfind(".")
    while end >= 0:
        yield securable[:end]
        end = securable.rfind(".", 0, end)


def _bits(privileges: Collection[Privilege]) -> int:
    bits = 0
    for privilege in privileges:
        bits |= BIT[privilege]
    return bits


def _who(found: _Found, paths: Paths) -> str:
    path = paths[found.identity]
    if len(path) <= 1:
        return found.identity
    if path[-1] != found.identity:
        return f"{path[-1]} ({path[0]} > {found.identity})"
    return f"group {found.identity} ({' > '.join(path)})"
