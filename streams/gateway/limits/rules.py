"""Rules: which limits hold for a request, and whose counter each of them uses.

An endpoint's policies hold for whatever is asked of it, a tenant's for whatever it asks. Within one
policy, unit and window a rule that names somebody beats one that names a group, and that one the
rule for all others. A rule for each user holds for whoever else acts, unless another does. A rule
that is only evaluated beats none that refuses.

What a run of an agent asks for goes on within the caller's request, which has its place already
under what the tenant may have in flight: so no run waits for a place that it holds itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from hashlib import blake2b

from infra.catalog import CatalogView, Endpoint
from schemas.agents import run_of, tenant_of
from schemas.events import InferenceRequested, Reason, Refusal
from schemas.policies import LimitRule
from schemas.shapes import length

# Characters of a tag's value that a counter's name can hold; a longer one is told by its digest.
LONGEST_VALUE = 100
MILLISECOND = timedelta(milliseconds=1)

# How a rule comes to hold for somebody; the highest beats the others.
OTHER, REST, GROUP, NAMED = range(-1, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A rule that holds for a request, and the counter that it uses.

    Attributes:
        name: policy/rule.
        rule: The rule.
        counter: Name of the counter: policy/rule/unit/window/who.
        home: Whose partition keeps the counter: the tenant, or the counter's own.
        who: Whose use is counted.
    """

    name: str
    rule: LimitRule
    counter: str
    home: str
    who: str

    @property
    def shared(self) -> bool:
        """Whether tenants share the counter."""
        return self.home == self.counter

    @property
    def window_ms(self) -> int:
        """How far back use counts; 0 for what counts only while it goes on."""
        return window_ms(self.rule.window)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Who asks what, as rules see it.

    Attributes:
        request: What is asked.
        who: Who acts.
        kind: group, service_principal, tenant or user.
        identities: All that who acts is.
        tenants: All that the tenant is.
    """

    request: InferenceRequested
    who: str
    kind: str
    identities: frozenset[str]
    tenants: frozenset[str]


# Whose use is counted, and how the rule comes to hold for them.
Matches = Iterator[tuple[str, int]]


def _group(rule: LimitRule, subject: Subject) -> Matches:
    yield from ((group, GROUP) for group in rule.to if group in subject.identities)


def _principal(rule: LimitRule, subject: Subject) -> Matches:
    if subject.kind == rule.per:
        yield from _one(rule, subject.who, subject.identities)
    # Else who names no user, and so acts as the tenant, would leave a limit for each user behind.
    elif rule.per == "user" and not rule.to and subject.kind != "group":
        yield subject.who, OTHER


def _service(rule: LimitRule, subject: Subject) -> Matches:
    endpoint = subject.request.endpoint
    yield from _one(rule, endpoint, frozenset({endpoint}))


def _tag(rule: LimitRule, subject: Subject) -> Matches:
    value = subject.request.tags.get(rule.tag or "", "")
    shown = value if len(value) <= LONGEST_VALUE else _digest(value)
    for _, level in _one(rule, value, frozenset({value})):
        yield shown, level


def _tenant(rule: LimitRule, subject: Subject) -> Matches:
    yield from _one(rule, subject.request.tenant, subject.tenants)


def _one(rule: LimitRule, name: str, identities: frozenset[str]) -> Matches:
    """Yields a name, where a rule holds for it: by its name, by another identity, or for all."""
    if name in rule.to:
        yield name, NAMED
    elif not rule.to:
        yield name, REST
    elif not identities.isdisjoint(rule.to):
        yield name, GROUP


PER: dict[str, Callable[[LimitRule, Subject], Matches]] = {
    "group": _group,
    "service": _service,
    "service_principal": _principal,
    "tag": _tag,
    "tenant": _tenant,
    "user": _principal,
}

# Counters that tenants share. A group's has one home, whoever joins it.
SHARED = frozenset({"group", "service"})
# Rules about who acts, which beat each other.
ACTING = frozenset({"group", "service_principal", "user"})


def limited(request: InferenceRequested, view: CatalogView) -> bool:
    """Returns whether a limit may hold for a request; fast, since most are under none."""
    for name in policies(request, view):
        policy = view.policies.get(name)
        if policy is None or any(isinstance(rule, LimitRule) for rule in policy.rules):
            return True
    return False


def policies(request: InferenceRequested, view: CatalogView) -> tuple[str, ...]:
    """Returns the policies that a request is held to, each once."""
    endpoint = view.endpoints.get(request.endpoint)
    tenant = view.tenants.get(request.tenant)
    named = (*(endpoint.policies if endpoint else ()), *(tenant.policies if tenant else ()))
    return tuple(dict.fromkeys(named))


def bounds(
    request: InferenceRequested, who: str, endpoint: Endpoint, view: CatalogView
) -> tuple[Bound, ...] | Refusal:
    """Returns the limits that hold for a request, in the order of policies and rules.

    A policy that cannot be read may have limits that nobody knows: it refuses.
    """
    found: list[Bound] = []
    subject: Subject | None = None
    within = _within(request, view)
    for name in policies(request, view):
        policy = view.policies.get(name)
        if policy is None:
            return unreadable(name)
        rules = [
            rule
            for rule in policy.rules
            if isinstance(rule, LimitRule) and not (name in within and _has_place(rule))
        ]
        if rules:
            subject = subject or _subject(request, who, view)
            found += _bounds(name, rules, subject)
    return tuple(found)


def rule_of(counter: str, view: CatalogView) -> LimitRule | Refusal | None:
    """Returns the rule that a counter is of; None where its policy has it no more."""
    policy_name, rule_name = counter.split("/", 2)[:2]
    policy = view.policies.get(policy_name)
    if policy is None:
        return unreadable(policy_name)
    named = (rule for rule in policy.rules if rule.name == rule_name)
    return next((rule for rule in named if isinstance(rule, LimitRule)), None)


def unreadable(policy: str) -> Refusal:
    """Returns the refusal of what is held to a policy that is missing or in an unknown shape."""
    return Refusal(
        reason=Reason.POLICY_FAILED,
        message=f"policy {policy} is missing or cannot be read, so what it forbids is not known; "
        "whoever owns the endpoint or the tenant must put it in order",
        rule=policy,
    )


@lru_cache(maxsize=1024)
def window_ms(window: str | None) -> int:
    """Returns a rule's window in milliseconds; 0 for none."""
    return length(window) // MILLISECOND if window else 0


def _within(request: InferenceRequested, view: CatalogView) -> tuple[str, ...]:
    """Returns the policies that the request that began a run is held to with all that it asks."""
    asked = run_of(request.request_id)
    tenant = view.tenants.get(request.tenant)
    # What agents remember is asked in another tenant's name, which has no request under way for it.
    if asked is None or tenant is None or tenant_of(asked[0]) != request.tenant:
        return ()
    return tenant.policies


def _has_place(rule: LimitRule) -> bool:
    """Returns whether a run's request has the place that another within it would take."""
    # Neither a service nor a tag need be those of the request that began the run.
    return rule.unit == "in_flight" and rule.per not in ("service", "tag")


def _bounds(policy: str, rules: Iterable[LimitRule], subject: Subject) -> Iterator[Bound]:
    found = [(rule, who, level) for rule in rules for who, level in PER[rule.per](rule, subject)]
    # Most often all hold for all others: none beats another.
    if not any(level for _, _, level in found):
        for rule, who, _ in found:
            yield _bound(policy, rule, who, subject.request.tenant)
        return
    matching = [(rule, who, level, _rivals(rule)) for rule, who, level in found]
    best: dict[tuple[object, ...], int] = {}
    for _, _, level, rivals in matching:
        best[rivals] = max(level, best.get(rivals, OTHER))
    for rule, who, level, rivals in matching:
        if level == best[rivals]:
            yield _bound(policy, rule, who, subject.request.tenant)


def _rivals(rule: LimitRule) -> tuple[object, ...]:
    """Returns what tells the rules of a policy among which the most special one holds."""
    axis = "acting" if rule.per in ACTING else rule.per
    return rule.unit, window_ms(rule.window), axis, rule.tag, rule.shadow


def _bound(policy: str, rule: LimitRule, who: str, tenant: str) -> Bound:
    # A tag's value is the caller's own word, so it means nothing beyond its tenant.
    told = f"{tenant}/{who}" if rule.per == "tag" else who
    counter = f"{policy}/{rule.name}/{rule.unit}/{rule.window or '-'}/{told}"
    return Bound(
        name=f"{policy}/{rule.name}",
        rule=rule,
        counter=counter,
        home=counter if rule.per in SHARED else tenant,
        who=who,
    )


def _subject(request: InferenceRequested, who: str, view: CatalogView) -> Subject:
    principal = view.principals.get(who)
    return Subject(
        request=request,
        who=who,
        kind=principal.kind if principal else "",
        identities=view.access.identities(who),
        tenants=view.access.identities(request.tenant) | {request.tenant},
    )


def _digest(value: str) -> str:
    return blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
