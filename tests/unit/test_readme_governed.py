"""What the README shows of limits, guardrails and routes holds as it stands there."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import yaml

from infra.bootstrap import ROOT
from infra.stack.places import OPERATOR, TENANT
from infra.stack.processes import SEED
from schemas.events import Reason, Refusal, UsageCounted
from streams.ask import told
from streams.client import RequestRefused
from streams.gateway.limits.weigh import Weighed, reserved, weigh
from streams.guards import Guarded, guard_request
from streams.limits_command import holding, standings, table
from tests.seed import documents, view_of
from tests.unit.asking import NOON, asked
from tests.unit.guarding import SEAL, said
from tests.unit.limiting import Gateway

README = (ROOT / "README.md").read_text()
SHOWN: list[Any] = list(yaml.safe_load_all(re.findall(r"```yaml\n(.*?)```", README, re.S)[0]))
VIEW = view_of([*documents(SEED), *SHOWN])
POLICY, ENDPOINT = "main.default.fair", "main.default.governed"
GOVERNED = VIEW.endpoints[ENDPOINT]


def guarded(text: str) -> Guarded | Refusal:
    return guard_request(said(text), [(POLICY, VIEW.policies[POLICY])], SEAL, waits=True)


def weighed(gateway: Gateway) -> Weighed | Refusal:
    """Returns what a request reserves on the ledger, or why it is refused."""
    request = said("And now?", tenant=TENANT, principal=OPERATOR, endpoint=ENDPOINT)
    request = replace(request, deadline=NOON + timedelta(minutes=1))
    gateway.asked += 1
    given = asked(request, place=f"requests/0/{gateway.asked}", counters=gateway.counters)
    found = weigh(given, OPERATOR, GOVERNED, GOVERNED.routes[0], VIEW, NOON)
    if isinstance(found, Weighed):
        for _, entry in reserved(given, found, NOON):
            assert isinstance(entry, UsageCounted)
            gateway.applies(replace(entry, fence=gateway.counters.fence))
    return found


@pytest.fixture(scope="module")
def spent() -> tuple[Gateway, Refusal]:
    """The limit of a minute used up, and the next request's refusal."""
    gateway = Gateway(VIEW)
    assert not [found for _ in range(60) if isinstance(found := weighed(gateway), Refusal)]
    refusal = weighed(gateway)
    assert isinstance(refusal, Refusal)
    return gateway, refusal


def test_the_refusal_is_the_one_that_is_shown(spent: tuple[Gateway, Refusal]) -> None:
    refused = RequestRefused("request", spent[1], ())
    lines = [f"refused: {refused}", *(f"  {line}" for line in told(refused))]
    assert "".join(f"    {line}\n" for line in lines) in README


def test_the_limits_are_the_ones_that_are_shown(spent: tuple[Gateway, Refusal]) -> None:
    found = standings(holding(OPERATOR, ENDPOINT, {}, VIEW), lambda bound: spent[0].counters, NOON)
    assert "".join(f"    {line}\n" for line in table(found).splitlines()) in README


def test_a_mail_address_is_masked_and_a_card_is_refused() -> None:
    masked = guarded("Write to ada@example.com.")
    assert isinstance(masked, Guarded)
    assert masked.request.messages[0].content == "Write to <EMAIL_ADDRESS_1>."
    blocked = guarded("Charge 4111 1111 1111 1111.")
    assert isinstance(blocked, Refusal)
    assert (blocked.reason, blocked.rule) == (Reason.POLICY_DENIED, f"{POLICY}/personal")


def test_a_wire_transfer_waits_for_a_person() -> None:
    asks = guarded("Start a wire transfer.")
    assert isinstance(asks, Guarded)
    assert asks.approvals == (f"{POLICY}/payments",)


def test_what_leaves_has_a_price_and_nine_of_ten_go_there() -> None:
    big, local = GOVERNED.spec.routes
    assert (big.weight, local.weight, big.retries) == (90, 10, 2)
    assert VIEW.prices(GOVERNED.routes[0])
    assert big.connection in VIEW.connections
