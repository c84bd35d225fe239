"""Privileges, against a recursive model that knows neither caches nor bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from infra.grants import Access
from schemas.kinds import EVERYONE, ROOT, Privilege

ACTS = {"CREATE", "EXECUTE", "MODIFY", "QUERY", "SELECT", "USE"}

SECURABLES = (ROOT, "main", "lab", "main.a", "main.b", "lab.a", "main.a.x", "main.a.y", "lab.a.x")
USERS = ("alice", "bob", "carol")
TENANTS = ("acme", "blue")
GROUPS = ("admins", "analysts", "team")
PRINCIPALS = (*USERS, *TENANTS, *GROUPS)

PRIVILEGES = st.sampled_from(list(Privilege))
SETS = st.frozensets(PRIVILEGES, max_size=3)
securables = st.sampled_from(SECURABLES)
principals = st.sampled_from(PRINCIPALS)
grantees = st.sampled_from((*PRINCIPALS, EVERYONE))


@dataclass
class Model:
    """What is known, and the rules as they are written down."""

    owners: dict[str, str] = field(default_factory=dict)
    grants: dict[tuple[str, str], tuple[frozenset[Privilege], frozenset[Privilege]]] = field(
        default_factory=dict
    )
    members: dict[str, frozenset[str]] = field(default_factory=dict)
    tenants: dict[str, str | None] = field(default_factory=dict)

    def identities(self, principal: str) -> set[str]:
        found = {principal}
        if self.tenants[principal] is not None:
            found.add(str(self.tenants[principal]))
        while True:
            more = {group for group, members in self.members.items() if members & found}
            if more <= found:
                return found | {EVERYONE}
            found |= more

    def chain(self, securable: str) -> list[str]:
        if securable == ROOT:
            return [ROOT]
        parent = securable.rpartition(".")[0]
        return [securable, *self.chain(parent or ROOT)]

    def said(self, principal: str, privilege: Privilege, securable: str, side: int) -> bool:
        return any(
            privilege in self.grants.get((level, identity), (frozenset(), frozenset()))[side]
            for level in self.chain(securable)
            for identity in self.identities(principal)
        )

    def holds(self, principal: str, privilege: Privilege, securable: str) -> bool:
        if principal not in self.tenants or securable not in {*self.owners, ROOT}:
            return False
        owners = {self.owners.get(level) for level in self.chain(securable)}
        if owners & self.identities(principal):
            return True
        if self.said(principal, privilege, securable, 1):
            return False
        if self.said(principal, privilege, securable, 0):
            return True
        if privilege is not Privilege.MANAGE and self.holds(principal, Privilege.MANAGE, securable):
            return True
        return privilege is Privilege.BROWSE and any(
            self.holds(principal, other, securable)
            for other in Privilege
            if other is not Privilege.BROWSE
        )

    def may(self, principal: str, privilege: Privilege, securable: str) -> bool:
        return self.holds(principal, privilege, securable) and (
            privilege not in ACTS
            or all(
                self.holds(principal, Privilege.USE, container)
                for container in self.chain(securable)
                if container not in (securable, ROOT)
            )
        )


def told(model: Model) -> Access:
    """Returns the privileges of all that a model knows, told from the start."""
    access = Access()
    for securable, owner in model.owners.items():
        access.own(securable, owner)
    for (securable, principal), (allow, deny) in model.grants.items():
        access.grant(securable, principal, allow, deny)
    for group, members in model.members.items():
        access.join(group, members)
    for principal, tenant in model.tenants.items():
        access.belong(principal, tenant)
    return access


def questions() -> Iterator[tuple[str, Privilege, str]]:
    for principal in (*PRINCIPALS, "nobody", EVERYONE):
        for privilege in Privilege:
            for securable in (*SECURABLES, "main.a.gone", "nowhere"):
                yield principal, privilege, securable


def agree(access: Access, model: Model) -> None:
    for principal, privilege, securable in questions():
        may = model.may(principal, privilege, securable)
        assert access.may(principal, privilege, securable) is may
        holds = model.holds(principal, privilege, securable)
        assert access.holds(principal, privilege, securable) is holds


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Any hierarchy, with gaps in it, and any membership, cycles among them."""
    return Model(
        owners=draw(st.dictionaries(securables, grantees)),
        grants=draw(st.dictionaries(st.tuples(securables, grantees), st.tuples(SETS, SETS))),
        members=draw(st.dictionaries(st.sampled_from(GROUPS), st.frozensets(principals))),
        tenants={
            **draw(st.dictionaries(st.sampled_from(USERS), st.sampled_from(TENANTS))),
            **dict.fromkeys(draw(st.sets(st.sampled_from((*TENANTS, *GROUPS)))), None),
        },
    )


patient = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@patient
@given(model=models())
def test_privileges_are_what_a_naive_model_says(model: Model) -> None:
    agree(told(model), model)


@patient
@given(model=models(), principal=st.sampled_from((*PRINCIPALS, "nobody")))
def test_what_is_explained_is_what_is_decided(model: Model, principal: str) -> None:
    access = told(model)
    for securable in (*SECURABLES, "nowhere"):
        effective = access.effective(principal, securable)
        assert set(effective) == set(Privilege)
        for privilege, decision in effective.items():
            assert decision == access.explain(principal, privilege, securable)
            assert decision.allowed is model.may(principal, privilege, securable)
            assert decision.because


class Changing(RuleBasedStateMachine):
    """Whatever changes, answers are those of privileges that are told anew."""

    def __init__(self) -> None:
        super().__init__()
        self.access = Access()
        self.model = Model()

    @rule(securable=securables, owner=grantees | st.none())
    def own(self, securable: str, owner: str | None) -> None:
        self.access.own(securable, owner)
        self.model.owners.pop(securable, None)
        if owner is not None:
            self.model.owners[securable] = owner

    @rule(securable=securables, principal=grantees, allow=SETS, deny=SETS)
    def grant(
        self,
        securable: str,
        principal: str,
        allow: frozenset[Privilege],
        deny: frozenset[Privilege],
    ) -> None:
        self.access.grant(securable, principal, allow, deny)
        self.model.grants[securable, principal] = (allow, deny)

    @rule(group=st.sampled_from(GROUPS), members=st.lists(principals))
    def join(self, group: str, members: list[str]) -> None:
        self.access.join(group, members)
        self.model.members[group] = frozenset(members)

    @rule(principal=principals, tenant=st.sampled_from(TENANTS) | st.none())
    def belong(self, principal: str, tenant: str | None) -> None:
        self.access.belong(principal, tenant)
        self.model.tenants[principal] = tenant

    @rule(principal=principals)
    def leave(self, principal: str) -> None:
        self.access.leave(principal)
        self.model.tenants.pop(principal, None)
        self.model.members.pop(principal, None)

    @invariant()
    def nothing_remembered_is_stale(self) -> None:
        fresh = told(self.model)
        for principal, privilege, securable in questions():
            expected = fresh.may(principal, privilege, securable)
            assert self.access.may(principal, privilege, securable) is expected
        for principal in PRINCIPALS:
            assert self.access.identities(principal) == fresh.identities(principal)


TestChanging = Changing.TestCase
TestChanging.settings = settings(patient, max_examples=40, stateful_step_count=15)


def small() -> Access:
    """Returns a catalog of one object, its owner carol, and alice of acme in nested groups."""
    access = Access()
    for securable in ("main", "main.default", "main.default.chat"):
        access.own(securable, "carol")
    access.belong("acme", None)
    for user in ("alice", "bob", "carol"):
        access.belong(user, "acme")
    for group, members in {"team": ["alice"], "analysts": ["team"]}.items():
        access.belong(group, None)
        access.join(group, members)
    return access


CHAT = "main.default.chat"


def because(access: Access, principal: str, privilege: Privilege, securable: str = CHAT) -> str:
    decision = access.explain(principal, privilege, securable)
    assert decision.allowed is access.may(principal, privilege, securable)
    return f"{'yes' if decision.allowed else 'no'}: {decision.because}"


def test_a_reason_names_what_is_missing_from_the_top_down() -> None:
    access = small()
    assert because(access, "alice", Privilege.QUERY) == "no: QUERY on main.default.chat is missing"
    access.grant("main.default", "analysts", [Privilege.QUERY], [])
    assert because(access, "alice", Privilege.QUERY) == "no: USE on main is missing"
    access.grant("main", "acme", [Privilege.USE], [])
    assert because(access, "alice", Privilege.QUERY) == (
        "yes: QUERY on main.default is granted to group analysts (alice > team > analysts)"
    )
    assert because(access, "bob", Privilege.QUERY) == "no: QUERY on main.default.chat is missing"
    assert because(access, "bob", Privilege.USE, "main.default") == (
        "yes: USE on main is granted to tenant acme (bob > acme)"
    )


def test_a_reason_names_the_owner_the_deny_and_the_implied() -> None:
    access = small()
    assert because(access, "carol", Privilege.MANAGE) == "yes: carol owns main.default.chat"
    access.grant("main", EVERYONE, [Privilege.USE], [])
    access.grant(CHAT, "alice", [Privilege.QUERY], [])
    assert because(access, "alice", Privilege.QUERY) == (
        "yes: QUERY on main.default.chat is granted to alice"
    )
    assert because(access, "alice", Privilege.BROWSE) == (
        "yes: QUERY on main.default.chat, which brings BROWSE, is granted to alice"
    )
    access.grant(ROOT, "team", [], [Privilege.QUERY])
    assert because(access, "alice", Privilege.QUERY) == (
        "no: QUERY on * is denied to group team (alice > team)"
    )
    access.grant("main", "bob", [Privilege.MANAGE], [])
    assert because(access, "bob", Privilege.MODIFY) == (
        "yes: MANAGE on main, which brings MODIFY, is granted to bob"
    )
    access.grant("main.default", EVERYONE, [], [Privilege.USE])
    assert because(access, "alice", Privilege.USE, "main.default") == (
        "no: USE on main.default is denied to everyone"
    )


def test_who_and_what_nobody_knows_is_refused_by_name() -> None:
    access = small()
    assert because(access, "mallory", Privilege.QUERY) == "no: there is no principal mallory"
    gone = "main.default.gone"
    assert because(access, "carol", Privilege.QUERY, gone) == f"no: there is no {gone}"
