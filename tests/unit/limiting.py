"""A gateway that decides on limits, and a catalog whose policies have them, for tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from infra.catalog import CatalogView
from schemas.events import InferenceRouted, Refusal, UsageCounted
from streams.gateway.asked import Asked
from streams.gateway.limits.counters import Counters
from streams.gateway.limits.settle import settled
from streams.gateway.limits.weigh import Weighed, refused, reserved, weigh
from tests.seed import view_of
from tests.unit.asking import LIMITS, NOON, ask

PLAIN = "main.tests.plain"
HOUR = timedelta(hours=1)
ROUTE = {"name": "first", "pool": "first", "model": "first"}


def rule(name: str = "rule", **more: Any) -> dict[str, Any]:
    """Returns a limit of one request an hour for each user, as it stands."""
    plain = {"type": "limit", "per": "user", "unit": "requests", "most": 1, "window": "1h"}
    return {"name": name, **plain, **more}


def view_with(
    *rules: dict[str, Any], tenant_rules: tuple[dict[str, Any], ...] = (), **prices: Any
) -> CatalogView:
    """Returns a catalog whose endpoint and tenant have a policy with these rules each."""
    model = {"spec": {"task": "chat", "prices": [prices] if prices else []}, "versions": [{}]}
    policies = {"main.tests.asked": rules, "main.tests.asking": tenant_rules}
    endpoint = {
        "routes": [{**ROUTE, "entity": "main.tests.model"}],
        "policies": ["main.tests.asked"],
        "reserve_tokens": 100,
    }
    tenant = {"accept_unsigned": True, "policies": ["main.tests.asking"]}
    return view_of(
        [
            {"kind": "model", "name": "main.tests.model", **model},
            *(
                {"kind": "policy", "name": name, "spec": {"rules": list(of)}}
                for name, of in policies.items()
            ),
            {"kind": "endpoint", "name": PLAIN, "spec": endpoint},
            {"kind": "tenant", "name": "acme", "spec": tenant},
            {"kind": "user", "name": "ann", "spec": {"tenant": "acme"}},
            {"kind": "user", "name": "bob", "spec": {"tenant": "acme"}},
            {"kind": "service_principal", "name": "robot", "spec": {"tenant": "acme"}},
            {"kind": "group", "name": "eng", "spec": {"members": ["ann", "robot"]}},
            {"kind": "group", "name": "all-of-acme", "spec": {"members": ["acme"]}},
        ],
        LIMITS,
    )


class Gateway:
    """Decides on requests one after another, as one process would."""

    def __init__(self, view: CatalogView) -> None:
        self.view = view
        self.counters = Counters()
        self.offset = 0
        self.asked = 0

    def asks(self, who: str = "ann", at: datetime = NOON, **what: Any) -> Weighed | Refusal:
        """Weighs a request and reserves what it counts with."""
        cached = what.pop("cached", False)
        asked = self.next(who, **what)
        endpoint = self.view.endpoints[PLAIN]
        weighed = weigh(asked, who, endpoint, endpoint.routes[0], self.view, at, cached=cached)
        said = (
            refused(asked, weighed, at)
            if isinstance(weighed, Refusal)
            else reserved(asked, weighed, at)
        )
        for _, entry in said:
            assert isinstance(entry, UsageCounted)
            self.applies(replace(entry, fence=self.counters.fence))
        return weighed

    def next(self, who: str, **what: Any) -> Asked:
        """Returns the next record, as it is decided on."""
        self.asked += 1
        deadline = NOON + HOUR
        request = ask(principal=who, deadline=deadline, **what)
        return Asked(request=request, place=f"requests/0/{self.asked}", counters=self.counters)

    def applies(self, entry: UsageCounted) -> None:
        """Puts an entry on the ledger."""
        self.counters.apply(entry, self.offset)
        self.offset += 1

    def settles(self, weighed: Weighed | Refusal, at: datetime = NOON, **used: Any) -> None:
        """Settles what a request has reserved."""
        assert isinstance(weighed, Weighed)
        what = {"usage": None, "cost": None, "failed": False, **used}
        for _, entry in settled(routed_with(weighed, self.view), **what, now=at):
            assert isinstance(entry, UsageCounted)
            self.applies(entry)

    def used(self, weighed: Weighed | Refusal, at: datetime = NOON) -> list[int]:
        """Returns what counts on each counter that a request uses."""
        assert isinstance(weighed, Weighed)
        return [self.counters.used(charge, at) for charge in weighed.charges]


def routed_with(weighed: Weighed, view: CatalogView) -> InferenceRouted:
    """Returns a request on its way, with what it has reserved."""
    return InferenceRouted(
        request=ask(deadline=NOON + HOUR),
        route=view.endpoints[PLAIN].routes[0],
        routed_at=NOON,
        charge_id=weighed.charge_id,
        charges=weighed.charges,
    )


def refusal_of(weighed: Weighed | Refusal) -> Refusal:
    """Returns the refusal that there must be."""
    assert isinstance(weighed, Refusal)
    return weighed
