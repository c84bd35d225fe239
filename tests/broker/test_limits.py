"""Limits and budgets over two gateway processes, on the real broker."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.prices import dollars
from schemas.events import Entry, Reason, Refusal
from schemas.topics import INFERENCE_RECORDED, USAGE_COUNTED
from streams.client import Client, RequestRefused
from tests.broker.speaking import teach
from tests.harness import READY_S, Bus, Process, eventually, running, soon
from tests.seed import changes, documents, publish, seed

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200), pytest.mark.usefixtures("gateways")]

CATALOG = documents(Path(__file__).with_name("limits.yaml"))
TENANTS = ("limits1", "limits2", "limits3")
AT_ONCE = 50
# Longer than anything here waits.
LONG_S = 600
POLICY = {each["name"]: each for each in CATALOG if each["kind"] == "policy"}


@pytest.fixture(scope="module")
def gateways(
    bus: Bus, gateway: Process, echo: Process, folder: Path
) -> Iterator[tuple[Process, Process]]:
    """Two gateways, and workers that echo or follow a script."""
    seed(bus, CATALOG)
    teach(bus)
    journal = str(folder / "limits-journal")
    provider = ["--provider", "tests.scripted:open_scripted", "--model", journal]
    with ExitStack() as processes:
        commands = [
            ["-m", "streams", "gateway"],
            ["-m", "workers", "inference", "--pool", "paced", *provider],
        ]
        second, _ = [processes.enter_context(running(bus, command, folder)) for command in commands]
        yield gateway, second


@pytest.fixture
async def clients(bus: Bus) -> AsyncIterator[list[Client]]:
    async with AsyncExitStack() as closing:
        yield [
            await closing.enter_async_context(
                Client(tenant=tenant, kafka=bus.kafka, registry=bus.registry_settings)
            )
            for tenant in TENANTS
        ]


async def asked(client: Client, endpoint: str, **what: Any) -> Refusal | None:
    """Asks; returns why it was refused, or None where it was answered."""
    try:
        await client.chat(f"main.tests.{endpoint}", json.dumps(what), timeout=LONG_S)
    except RequestRefused as refused:
        return refused.refusal
    return None


async def stands(gateway: Process) -> bool:
    """Returns whether a gateway is at work; one that has lost what it decided on ends soon."""
    gateway.revive()
    with suppress(AssertionError):
        await asyncio.to_thread(gateway.ready)
        return True
    return False


async def known(client: Client, endpoint: str) -> None:
    """Returns when both gateways know an endpoint; what is not known is refused."""

    async def is_known() -> bool:
        found = await asyncio.gather(*(asked(client, endpoint) for _ in range(10)))
        return all(
            refusal is None or refusal.reason is not Reason.ENDPOINT_UNKNOWN for refusal in found
        )

    await soon(is_known, what=f"that {endpoint} is known")


async def test_of_1022_requests_of_three_tenants_exactly_the_hundred_of_a_shared_limit_pass(
    clients: list[Client],
) -> None:
    await known(clients[0], "policy-missing")
    numbers = iter(range(1022))
    outcomes: Counter[Reason | None] = Counter()

    async def lane(client: Client) -> None:
        for number in numbers:
            refusal = await asked(client, "hundred-for-all", number=number)
            outcomes[refusal.reason if refusal else None] += 1
            if refusal:
                assert refusal.rule == "main.tests.hundred-for-all/requests"
                assert (refusal.limit, refusal.used) == ("100", "100")
                assert 0 < (refusal.retry_after_ms or 0) <= 61 * 60_000

    began = time.monotonic()
    await asyncio.gather(*(lane(clients[lane_ % 3]) for lane_ in range(AT_ONCE)))
    print(f"1022 requests in {time.monotonic() - began:.1f} s")
    assert outcomes == {None: 100, Reason.LIMIT_EXCEEDED: 922}


async def test_of_five_calls_at_once_the_three_that_a_budget_holds_pass(
    clients: list[Client], bus: Bus
) -> None:
    await known(clients[0], "policy-missing")
    client = clients[1]
    found = await asyncio.gather(*(asked(client, "three-at-a-price", delay_s=1) for _ in range(5)))
    refusals = [refusal for refusal in found if refusal]
    assert [each.reason for each in refusals] == [Reason.BUDGET_EXCEEDED] * 2
    assert {(each.limit, each.used) for each in refusals} == {("0.45", "0.45")}
    # What was reserved is spent now: not a cent is left, none was counted twice.
    late = await asked(client, "three-at-a-price")
    assert late
    assert (late.reason, late.used) == (Reason.BUDGET_EXCEEDED, "0.45")
    assert spent(bus, "main.tests.three-at-a-price/") == Decimal("0.45")


async def test_what_was_reserved_too_much_comes_back(clients: list[Client], bus: Bus) -> None:
    """Each is reserved for $2 and costs little: a budget of $5 holds a hundred in a row."""
    await known(clients[0], "policy-missing")
    async with Client(
        tenant="limits1",
        principal="limits-ann",
        kafka=bus.kafka,
        registry=bus.registry_settings,
    ) as client:
        for number in range(100):
            assert await asked(client, "budget", number=number) is None
    total = spent(bus, "main.tests.budget/")

    def costs() -> list[Decimal | None]:
        rows = {row.row_id: row for row in bus.events(INFERENCE_RECORDED)}
        return [row.cost for row in rows.values() if row.endpoint == "main.tests.budget"]

    await asyncio.to_thread(eventually, lambda: len(costs()) >= 100, what="every row")
    assert len(costs()) == 100
    assert total == sum(cost or Decimal(0) for cost in costs())
    assert 0 < total < 5


async def test_a_slot_is_free_again_when_its_request_is_cancelled_and_a_refusal_uses_nothing(
    clients: list[Client], folder: Path
) -> None:
    await known(clients[0], "policy-missing")
    client, journal = clients[2], folder / "limits-journal"
    before = journal.read_text().count("start ") if journal.exists() else 0
    first = asyncio.create_task(asked(client, "one-at-a-time", delay_s=LONG_S))

    def is_under_way() -> bool:
        return journal.exists() and journal.read_text().count("start ") > before

    await asyncio.to_thread(eventually, is_under_way, what="that one is under way")
    for _ in range(5):
        refusal = await asked(client, "one-at-a-time")
        assert refusal
        assert refusal.reason is Reason.LIMIT_EXCEEDED
        assert refusal.rule == "main.tests.one-at-a-time/slots"
    first.cancel()
    cancelled_at = time.monotonic()

    async def passes() -> bool:
        return await asked(client, "one-at-a-time") is None

    await soon(passes, what="a free slot")
    print(f"free {time.monotonic() - cancelled_at:.2f} s after the cancellation")
    # Of three requests two are used: by the first, and by the one that passed.
    await soon(passes, what="the third request")

    async def are_used() -> bool:
        # Until its slot is free, that is why.
        refusal = await asked(client, "one-at-a-time")
        assert refusal
        if refusal.rule == "main.tests.one-at-a-time/slots":
            return False
        assert (refusal.rule, refusal.used) == ("main.tests.one-at-a-time/requests", "3")
        return True

    await soon(are_used, what="a refusal because all three are used")


async def test_a_limit_that_is_raised_under_load_holds_from_then_on_in_the_same_window(
    clients: list[Client], bus: Bus
) -> None:
    await known(clients[0], "policy-missing")
    client, passed = clients[0], 0

    async def lane() -> None:
        nonlocal passed
        for number in range(30):
            has_passed = await asked(client, "raised", number=number) is None
            passed += has_passed

    await asyncio.gather(*(lane() for _ in range(4)))
    assert passed == 50
    document = POLICY["main.tests.raised"]
    [rule] = document["spec"]["rules"]
    raised = {**document, "spec": {"rules": [{**rule, "most": 80}]}}
    load = asyncio.gather(*(lane() for _ in range(4)))
    await asyncio.to_thread(publish, bus, *changes([raised]))
    await load

    async def is_spent() -> bool:
        nonlocal passed
        refusal = await asked(client, "raised")
        passed += refusal is None
        return refusal is not None and (refusal.limit, refusal.used) == ("80", "80")

    await soon(is_spent, what="that 80 are used")
    assert passed == 80


async def test_a_gateway_that_slept_lets_nothing_pass_that_another_has_counted(
    clients: list[Client], gateways: tuple[Process, Process]
) -> None:
    await known(clients[0], "policy-missing")
    answered: Counter[int] = Counter()
    passed: Counter[int] = Counter()
    over = asyncio.Event()

    async def lane(tenant: int) -> None:
        while not over.is_set():
            refusal = await asked(clients[tenant], "forty-each")
            answered[tenant] += 1
            passed[tenant] += refusal is None

    async def moved_on() -> None:
        before = dict(answered)

        async def all_moved() -> bool:
            # Who finds that others decide what it decided ends, and begins anew.
            for gateway in gateways:
                gateway.revive()
            return all(answered[tenant] > before.get(tenant, 0) for tenant in range(3))

        await soon(all_moved, what="an answer for each tenant")

    load = asyncio.gather(*(lane(number % 3) for number in range(12)))
    for sleeper in gateways:
        await moved_on()
        sleeper.child.send_signal(signal.SIGSTOP)
        # Where it was the sleeper's, another has it now.
        await moved_on()
        sleeper.child.send_signal(signal.SIGCONT)
    await moved_on()

    async def all_used() -> bool:
        return all(answered[tenant] > passed[tenant] for tenant in range(3))

    await soon(all_used, what="a refusal for each tenant")
    over.set()
    await load
    for gateway in gateways:
        await soon(partial(stands, gateway), 2 * READY_S, "a gateway that stays")
    assert passed == {0: 40, 1: 40, 2: 40}


async def test_an_endpoint_whose_policy_nobody_knows_refuses(clients: list[Client]) -> None:
    await known(clients[0], "policy-missing")
    refusal = await asked(clients[0], "policy-missing")
    assert refusal
    assert (refusal.reason, refusal.rule) == (Reason.POLICY_FAILED, "main.tests.nowhere")


def spent(bus: Bus, policy: str) -> Decimal:
    """Returns what is settled on the counters of a policy, when all that is reserved is."""

    def settled() -> dict[str, int]:
        entries = [each for each in bus.events(USAGE_COUNTED) if counts(each.charges, policy)]
        reserved = {each.charge_id for each in entries if each.entry is Entry.RESERVED}
        found = {
            each.charge_id: sum(one.amount for one in each.charges)
            for each in entries
            if each.entry is Entry.SETTLED
        }
        return found if reserved == found.keys() else {}

    eventually(settled, what="every settlement")
    return dollars(sum(settled().values()))


def counts(charges: Any, policy: str) -> bool:
    """Returns whether charges are on counters of a policy."""
    return any(each.counter.startswith(policy) for each in charges)
