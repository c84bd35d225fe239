"""Keys that are withdrawn are so at every gateway at once, whatever is under way."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from infra.asker import Asker
from infra.registry import Registry
from infra.signing import Signer, generate
from infra.telemetry import now
from schemas.events import Reason
from schemas.topics import REPLY
from tests.gateway.town import (
    Caller,
    Town,
    connection,
    endpoint,
    one_for_each_partition,
    tenant,
    way,
)
from tests.gateway.upstreams import says
from tests.seed import Document, changes, publish

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

# Each gateway decides for some of them.
SIGNERS = {each: Signer(generate()) for each in one_for_each_partition("withdrawn")}
UNDER_WAY = 20
# A change to the catalog is in force everywhere at once; this tells that from never.
SOON_S = 30.0


def user(of: str, **key: Any) -> Document:
    """Returns the user of a tenant, with a key."""
    key["public_key"] = base64.b64encode(SIGNERS[of].public_key).decode()
    return {"kind": "user", "name": f"{of}-ann", "spec": {"tenant": of}, "keys": [key]}


@pytest.fixture
async def everybody(town: Town) -> AsyncIterator[list[Caller]]:
    """A caller for each tenant, who signs."""
    registry = Registry(town.bus.registry_settings)
    async with AsyncExitStack() as opened:
        yield [
            Caller(
                await opened.enter_async_context(
                    Asker(town.bus.kafka, registry, of, REPLY.member(of).name, signer)
                ),
                of,
            )
            for of, signer in SIGNERS.items()
        ]


@pytest.fixture
def over(town: Town) -> threading.Event:
    """Documents; what is set when the long answers may come to their end."""
    over, up = threading.Event(), town.upstreams
    up.scripts["withdrawn"] = says(lambda text: [text])
    up.scripts["withdrawn long"] = says(
        lambda text: ["so on "] * 100, gap_s=lambda: 0 if over.is_set() else 1.5
    )
    town.define(
        *(tenant(of, accept_unsigned=False) for of in SIGNERS),
        *map(user, SIGNERS),
        connection("withdrawn", up),
        connection("withdrawn-long", up),
        endpoint("withdrawn", way("a", "withdrawn", "withdrawn")),
        endpoint("withdrawn-long", way("a", "withdrawn-long", "withdrawn long")),
    )
    return over


async def refused(caller: Caller, published: float) -> None:
    """Returns when a caller is refused: of what is asked later than soon, nothing passes."""
    while True:
        asked = time.monotonic()
        if reason := (await caller.ask("withdrawn")).reason:
            assert reason is Reason.KEY_REVOKED
            return
        assert asked - published < SOON_S


async def test_keys_revoked_under_load_are_refused_by_both_gateways_and_stay_so(
    town: Town, over: threading.Event, everybody: list[Caller]
) -> None:
    lanes = [everybody[number % len(everybody)] for number in range(UNDER_WAY)]
    under_way = [asyncio.create_task(each.stream("withdrawn-long")) for each in lanes]
    await asyncio.to_thread(town.upstreams.is_asked, "withdrawn-long", UNDER_WAY)
    served = await asyncio.gather(*(each.ask("withdrawn") for each in everybody))
    assert [each.reason for each in served] == [None] * len(everybody)

    revoked = changes(user(of, revoked_at=now()) for of in SIGNERS)
    await asyncio.to_thread(publish, town.bus, *revoked)
    published = time.monotonic()
    await asyncio.gather(*(refused(each, published) for each in everybody))
    assert not any(each.done() for each in under_way)

    # What was let in goes on to its end, and brings nobody's key back.
    over.set()
    ended = await asyncio.gather(*under_way)
    assert [each.text for each in ended] == ["so on " * 100] * UNDER_WAY
    for _ in range(3):
        late = await asyncio.gather(*(each.ask("withdrawn") for each in everybody))
        assert {each.reason for each in late} == {Reason.KEY_REVOKED}
