"""Requests and answers that wait for judges and people, over real processes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from infra.telemetry import now
from schemas.events import (
    AuditOutcome,
    InferenceRecorded,
    Reason,
    RequestCancelled,
)
from schemas.topics import (
    APPROVAL_DECIDED,
    APPROVAL_GIVEN,
    AUDIT_RECORDED,
    INFERENCE_COMPLETED,
    INFERENCE_RECORDED,
    INFERENCE_REQUESTED,
    REPLY,
    REQUEST_CANCELLED,
)
from streams.client import Client, Part, RequestRefused
from tests.broker.approving import OFFICE, PATIENCE_S, command, officers, wanted
from tests.broker.speaking import request, teach
from tests.harness import READY_S, Bus, Process, eventually, running, unique
from tests.seed import changes

pytestmark = pytest.mark.stack

TENANT = "waits"
ASKED, JUDGED, ANSWERED = (f"main.tests.{name}" for name in ("asked", "judged", "answered"))


@pytest.fixture(scope="module", autouse=True)
def people(bus: Bus, folder: Path, gateway: Process, echo: Process) -> Iterator[None]:
    echoes = {"routes": [{"name": "local", "pool": "echo", "model": "echo"}]}
    judge = {"name": "judge", "type": "judge", "endpoint": "main.tests.judge", "timeout": "60s"}
    teach(
        bus,
        *changes(
            [
                {"kind": "tenant", "name": TENANT, "spec": {"accept_unsigned": True}},
                *officers(folder),
                {
                    "kind": "policy",
                    "name": "main.tests.careful",
                    "spec": {
                        "rules": [
                            {
                                "name": "money",
                                "type": "keywords",
                                "words": ["wire transfer"],
                                "action": "ask",
                                "on": ["input"],
                            }
                        ]
                    },
                    "grants": {"boss": ["MANAGE"]},
                },
                {
                    "kind": "policy",
                    "name": "main.tests.before",
                    "spec": {"rules": [judge]},
                    "grants": {"boss": ["MANAGE"]},
                },
                {
                    "kind": "policy",
                    "name": "main.tests.behind",
                    "spec": {"rules": [{**judge, "on": ["output"]}]},
                },
                {
                    "kind": "endpoint",
                    "name": "main.tests.judge",
                    "spec": {"routes": [{"name": "local", "pool": "judge", "model": "judge"}]},
                },
                {
                    "kind": "endpoint",
                    "name": ASKED,
                    "spec": {**echoes, "policies": ["main.tests.careful"]},
                },
                {
                    "kind": "endpoint",
                    "name": JUDGED,
                    "spec": {**echoes, "policies": ["main.tests.before"]},
                },
                {
                    "kind": "endpoint",
                    "name": ANSWERED,
                    "spec": {**echoes, "policies": ["main.tests.behind"]},
                },
            ]
        ),
    )
    provider = ["--provider", "tests.verdicts:open_verdicts", "--pool", "judge"]
    identity = {
        "CLIENT_TENANT": OFFICE,
        "CLIENT_PRINCIPAL": "judge",
        "CLIENT_KEY": f"file:{folder / 'judge.pem'}",
    }
    with (
        running(bus, ["-m", "workers", "inference", *provider], folder),
        running(bus, ["-m", "workers", "guard"], folder, start_s=READY_S, **identity),
    ):
        yield


def client(bus: Bus) -> Client:
    return Client(
        tenant=TENANT, principal="", key="", kafka=bus.kafka, registry=bus.registry_settings
    )


def terminal(bus: Bus, request_id: str) -> int:
    """Returns how many terminal replies there are to a request."""
    replies = bus.events(REPLY.member(TENANT), request_id)
    return sum(each.delta is None for each in replies)


def refusals(bus: Bus, request_id: str) -> list[Reason]:
    """Returns why a request is refused."""
    replies = bus.events(REPLY.member(TENANT), request_id)
    return [each.refusal.reason for each in replies if each.refusal]


def commits_all(bus: Bus) -> None:
    """Returns when the gateway has committed what it decided."""
    for topic in (APPROVAL_DECIDED, APPROVAL_GIVEN, INFERENCE_COMPLETED):
        lag = partial(bus.lag, "gateway", topic.name)
        eventually(lambda: lag() == 0, PATIENCE_S, "the last commit")  # noqa: B023 - waits here


async def test_a_request_goes_on_when_somebody_approves_and_a_second_time_does_nothing(
    bus: Bus, folder: Path
) -> None:
    tag = unique("approve")
    async with client(bus) as asking:
        asked = asyncio.create_task(
            asking.chat(ASKED, f"a wire transfer for {tag}", timeout=PATIENCE_S)
        )
        waits = await wanted(bus, TENANT, tag)
        listed = await asyncio.to_thread(command, bus, folder, "list")
        assert waits.approval_id in listed.stdout
        assert "main.tests.careful/money" in listed.stdout
        assert tag not in listed.stdout
        shown = await asyncio.to_thread(command, bus, folder, "list", "--show")
        assert tag in shown.stdout
        kept_out = await asyncio.to_thread(
            command, bus, folder, "approve", waits.approval_id, who="judge"
        )
        assert kept_out.returncode == 1
        assert "MANAGE" in kept_out.stderr
        assert not asked.done()
        done = await asyncio.to_thread(
            command, bus, folder, "approve", waits.approval_id, "--reason", "a drill"
        )
        assert done.returncode == 0, done.stderr
        assert tag in (await asked).content
    again = await asyncio.to_thread(command, bus, folder, "deny", waits.approval_id)
    assert again.returncode == 1
    assert "already granted by boss" in again.stderr
    assert terminal(bus, waits.request_id) == 1

    def audits() -> set[tuple[str, str, AuditOutcome]]:
        return {
            (each.action, each.principal, each.outcome)
            for each in bus.events(AUDIT_RECORDED)
            if each.request_id == waits.request_id
        }

    told = {
        ("approval.granted", "boss", AuditOutcome.DONE),
        ("approval.granted", "judge", AuditOutcome.DENIED),
    }
    await asyncio.to_thread(eventually, lambda: told <= audits(), PATIENCE_S, "both in the audit")


async def test_a_request_is_refused_when_somebody_denies(bus: Bus, folder: Path) -> None:
    tag = unique("deny")
    async with client(bus) as asking:
        asked = asyncio.create_task(
            asking.chat(ASKED, f"a wire transfer for {tag}", timeout=PATIENCE_S)
        )
        waits = await wanted(bus, TENANT, tag)
        done = await asyncio.to_thread(
            command, bus, folder, "deny", waits.approval_id[:12], "--reason", "not today"
        )
        assert done.returncode == 0, done.stderr
        with pytest.raises(RequestRefused, match=r"boss denied it.*not today") as refused:
            await asked
    assert refused.value.refusal.reason is Reason.APPROVAL_DENIED


@pytest.mark.usefixtures("insistent")
async def test_a_request_that_nobody_decides_ends_at_its_deadline(bus: Bus, folder: Path) -> None:
    tag = unique("late")
    async with client(bus) as asking:
        with pytest.raises(RequestRefused, match="nobody approved in time") as refused:
            await asking.chat(ASKED, f"a wire transfer for {tag}", timeout=12)
    assert refused.value.refusal.reason is Reason.APPROVAL_DENIED
    waits = await wanted(bus, TENANT, tag)
    late = await asyncio.to_thread(command, bus, folder, "approve", waits.approval_id)
    assert late.returncode == 1
    assert "nobody decided in time" in late.stderr


async def test_what_its_caller_cancels_waits_no_more(bus: Bus) -> None:
    tag = unique("cancel")
    async with client(bus) as asking:
        asked = asyncio.create_task(
            asking.chat(ASKED, f"a wire transfer for {tag}", timeout=PATIENCE_S)
        )
        waits = await wanted(bus, TENANT, tag)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    ended = partial(refusals, bus, waits.request_id)
    # Before it would end by itself.
    await asyncio.to_thread(eventually, ended, PATIENCE_S / 2, "the end of the wait")
    assert ended() == [Reason.CANCELLED]


async def test_a_cancellation_that_overtakes_what_it_cancels_counts(bus: Bus) -> None:
    asked = request(
        "a wire transfer", tenant=TENANT, endpoint=ASKED, reply_to=REPLY.member(TENANT).name
    )
    cancelled = RequestCancelled(
        request_id=asked.request_id, tenant=TENANT, cancelled_at=now(), deadline=asked.deadline
    )
    await asyncio.to_thread(bus.send, REQUEST_CANCELLED, cancelled)
    await asyncio.to_thread(bus.send, INFERENCE_REQUESTED, asked)
    ended = partial(refusals, bus, asked.request_id)
    await asyncio.to_thread(eventually, ended, PATIENCE_S, "the end of the wait")
    assert ended() == [Reason.CANCELLED]


async def test_what_waits_is_decided_once_though_the_gateway_is_killed_meanwhile(
    bus: Bus, folder: Path, gateway: Process
) -> None:
    tag = unique("killed")
    async with client(bus) as asking:
        asked = asyncio.create_task(
            asking.chat(ASKED, f"a wire transfer for {tag}", timeout=2 * PATIENCE_S)
        )
        waits = await wanted(bus, TENANT, tag)
        gateway.kill()
        gateway.start()
        await asyncio.to_thread(gateway.ready)
        done = await asyncio.to_thread(command, bus, folder, "approve", waits.approval_id)
        assert done.returncode == 0, done.stderr
        assert tag in (await asked).content
    # What is not committed is read again, and answered again under its id.
    await asyncio.to_thread(commits_all, bus)
    gateway.kill()
    gateway.start()
    await asyncio.to_thread(gateway.ready)
    again = await asyncio.to_thread(command, bus, folder, "approve", waits.approval_id)
    assert "already granted" in again.stderr
    decided = [
        each
        for each in bus.events(APPROVAL_DECIDED, TENANT)
        if each.approval_id == waits.approval_id
    ]
    assert len(decided) == 1
    assert terminal(bus, waits.request_id) == 1


async def test_a_judge_lets_pass_refuses_or_asks_and_its_own_request_is_metered(
    bus: Bus, folder: Path
) -> None:
    tag = unique("judged")
    async with client(bus) as asking:
        passed = await asking.chat(JUDGED, f"something harmless, {tag}", timeout=PATIENCE_S)
        assert tag in passed.content
        with pytest.raises(RequestRefused) as denied:
            await asking.chat(JUDGED, "something harmful", timeout=PATIENCE_S)
        assert denied.value.refusal.reason is Reason.POLICY_DENIED
        assert denied.value.refusal.rule == "main.tests.before/judge"
        with pytest.raises(RequestRefused) as failed:
            await asking.chat(JUDGED, "something confusing", timeout=PATIENCE_S)
        assert failed.value.refusal.reason is Reason.POLICY_FAILED
        asked = asyncio.create_task(
            asking.chat(JUDGED, f"something doubtful, {tag}", timeout=PATIENCE_S)
        )
        waits = await wanted(bus, TENANT, f"doubtful, {tag}")
        await asyncio.to_thread(command, bus, folder, "approve", waits.approval_id)
        assert tag in (await asked).content

    def metered() -> list[InferenceRecorded]:
        return [
            each
            for each in bus.events(INFERENCE_RECORDED)
            if each.tenant == OFFICE and each.tags.get("judged") == passed.request_id
        ]

    await asyncio.to_thread(eventually, metered, PATIENCE_S, "the row of the judge's request")
    [row] = await asyncio.to_thread(metered)
    assert (row.principal, row.endpoint) == ("judge", "main.tests.judge")
    assert (row.prompt_tokens, row.completion_tokens) == (5, 7)


async def hear(asking: Client, said: str, parts: list[Part]) -> None:
    """Adds the parts of an answer that is judged."""
    async for part in asking.stream(ANSWERED, said, timeout=PATIENCE_S):
        parts.append(part)


async def test_nothing_of_an_answer_is_shown_before_it_is_judged(bus: Bus) -> None:
    async with client(bus) as asking:
        parts: list[Part] = []
        await hear(asking, "quite harmless", parts)
        assert [part.content for part in parts if part.content] == ["quite harmless"]
        assert parts[-1].reply is not None
        seen: list[Part] = []
        with pytest.raises(RequestRefused) as denied:
            await hear(asking, "quite harmful", seen)
        assert denied.value.refusal.reason is Reason.POLICY_DENIED
        assert not "".join(part.content for part in seen)
    rows = partial(bus.events, INFERENCE_RECORDED, denied.value.request_id)
    await asyncio.to_thread(eventually, rows, PATIENCE_S, "the row")
    assert all(row.response is None for row in await asyncio.to_thread(rows))
