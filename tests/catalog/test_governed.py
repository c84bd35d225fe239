"""The catalog governs: what a command changes holds for the next request, with no restart."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infra.signing import Signer
from infra.stack.local import LocalStack
from schemas.events import Reason
from streams.client import Client, NoReply, RequestRefused
from tests.catalog.conftest import place
from tests.catalog.towns import Town, begun
from tests.harness import Bus, eventually, running, soon, unique

pytestmark = pytest.mark.stack

# A new endpoint is callable, and a revoked grant refused, at once; this tells that from never.
SOON_S = 120.0
ASKING_S = 60.0

POOL = unique("pool")
FIRST, SECOND, THIRD = "main.default.first", "main.default.second", "main.default.third"


def over_pool(*, entity: str | None = None) -> dict[str, object]:
    return {"routes": [{"name": "local", "pool": POOL, "model": "echo", "entity": entity}]}


@pytest.fixture(scope="module")
def town(bus: Bus, stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A registrar with an endpoint, the pool behind it, and a gateway."""
    folder = tmp_path_factory.mktemp("town")
    worker = ["-m", "workers", "inference", "--provider", "echo", "--pool", POOL]
    town = begun(bus, place(stack, unique("catalog")), folder)
    with town.registrar():
        town.result("create", kind="endpoint", name=FIRST, spec=over_pool())
        town.result("create", kind="user", name="alice", spec={"tenant": town.tenant})
        made = town.run("key", "create", "--principal", "alice", "--out", str(folder / "alice"))
        assert made.returncode == 0, made.stderr
        with (
            running(bus, ["-m", "streams", "gateway"], folder),
            running(bus, worker, folder),
        ):
            yield town


@asynccontextmanager
async def client(town: Town, key: Path) -> AsyncIterator[Client]:
    async with Client(
        tenant=town.tenant,
        key=f"file:{key}",
        kafka=town.bus.kafka,
        registry=town.bus.registry_settings,
    ) as client:
        yield client


async def answer(client: Client, endpoint: str) -> str:
    """Returns what was answered, or the reason why nothing was."""
    try:
        return (await client.chat(endpoint, "hello", timeout=ASKING_S)).content
    except RequestRefused as refused:
        return refused.refusal.reason.name
    except NoReply as late:
        return str(late)


async def until(client: Client, endpoint: str, wanted: str) -> None:
    """Returns when an answer is this one, which is soon."""

    async def answered() -> bool:
        return await answer(client, endpoint) == wanted

    await soon(answered, SOON_S, f"{endpoint} answering {wanted}")


async def test_an_endpoint_made_by_command_is_callable_at_once(town: Town) -> None:
    async with client(town, town.key) as operator:
        assert await answer(operator, SECOND) == Reason.ENDPOINT_UNKNOWN.name
        made = town.run("catalog", "create", "endpoint", SECOND, "--spec", json.dumps(over_pool()))
        assert made.returncode == 0, made.stderr
        await until(operator, SECOND, "hello")


async def test_a_grant_by_command_is_in_force_and_its_end_too(town: Town) -> None:
    async with client(town, town.folder / "alice") as alice:
        await until(alice, FIRST, Reason.PRIVILEGE_MISSING.name)
        town.result("grant", securable="main", principal="alice", privileges=["USE"])
        town.result("grant", securable=FIRST, principal="alice", privileges=["QUERY"])
        await until(alice, FIRST, "hello")
        town.result("revoke", securable=FIRST, principal="alice", privileges=["QUERY"])
        async with client(town, town.key) as operator:
            assert await answer(operator, FIRST) == "hello", "others go on"
        await until(alice, FIRST, Reason.PRIVILEGE_MISSING.name)


async def test_a_revoked_key_signs_no_more(town: Town) -> None:
    pem = town.folder / "alice"
    town.result("grant", securable="main", principal="alice", privileges=["USE", "QUERY"])
    async with client(town, pem) as alice:
        await until(alice, FIRST, "hello")
        town.result("key-revoke", key_id=Signer(pem.read_text()).key_id)
        await until(alice, FIRST, Reason.KEY_REVOKED.name)


async def test_the_thread_of_an_answer_leads_to_the_model_version_that_served_it(
    town: Town,
) -> None:
    model = "main.default.scorer"
    town.result("create", kind="model", name=model)
    town.result("version", name=model, spec={"uri": "file:/weights", "training_run": "run-7"})
    town.result("create", kind="endpoint", name=THIRD, spec=over_pool(entity=model))
    async with client(town, town.key) as operator:
        await until(operator, THIRD, "hello")
        request_id = (await operator.chat(THIRD, "hello")).request_id

    def thread() -> str:
        return town.run("lineage", request_id).stdout

    eventually(lambda: "run-7" in thread(), 120, "the thread of the answer")
    lines = thread()
    assert THIRD in lines
    assert f"{model}@1" in lines
