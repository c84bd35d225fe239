"""Requests that are read again after a crash: decided as before, and ended once."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from infra.catalog import CatalogView
from schemas.events import Entry, InferenceReplied, InferenceRouted, Reason, UsageCounted
from schemas.topics import Outgoing
from streams.gateway.asked import Asked
from streams.gateway.limits.weigh import Weighed
from tests.unit.asking import MINUTE, NOON, ask
from tests.unit.deciding import admit
from tests.unit.limiting import PLAIN, Gateway, refusal_of, rule, view_with


def again(view: CatalogView, earlier: Entry, at: datetime) -> list[Outgoing]:
    """Returns what is said of a request on which was decided before."""
    gateway = Gateway(view)
    request = ask(endpoint=PLAIN, deadline=NOON + MINUTE)
    asked = Asked(request=request, place="requests/0/1", counters=gateway.counters)
    gateway.applies(
        UsageCounted(
            charge_id=asked.charge_id,
            home="acme",
            tenant="acme",
            request_id=request.request_id,
            entry=earlier,
            at=NOON,
            until=NOON + 2 * MINUTE,
        )
    )
    return list(admit(asked, view, at))


@pytest.mark.parametrize("at", [NOON, NOON + 2 * MINUTE])
def test_what_was_admitted_goes_on_though_time_and_catalog_would_refuse_it_now(
    at: datetime,
) -> None:
    [(_, event)] = again(view_with(rule(most=0)), Entry.RESERVED, at)
    assert isinstance(event, InferenceRouted)


def test_what_was_admitted_and_whose_endpoint_is_gone_is_refused_and_settled() -> None:
    view = view_with(rule())
    gone = replace_endpoint(view)
    said = again(gone, Entry.RESERVED, NOON)
    assert [event.entry for _, event in said if isinstance(event, UsageCounted)] == [Entry.SETTLED]
    assert sum(isinstance(event, InferenceReplied) for _, event in said) == 1


def replace_endpoint(view: CatalogView) -> CatalogView:
    view.endpoints.pop(PLAIN)  # type: ignore[attr-defined]
    return view


def test_what_was_to_be_answered_from_a_cache_that_lost_it_is_asked_to_come_again() -> None:
    gateway = Gateway(view_with(rule(), rule("tokens", unit="total_tokens", most=5000)))
    assert isinstance(gateway.asks(cached=True), Weighed)
    gateway.asked -= 1
    refusal = refusal_of(gateway.asks())
    assert refusal.reason is Reason.PROVIDER_UNAVAILABLE
    assert refusal.retry_after_ms
    gateway.asked -= 1
    assert isinstance(gateway.asks(cached=True, at=NOON + timedelta(seconds=1)), Weighed)
