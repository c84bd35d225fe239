"""The processor of agents: what it reads, and what comes for runs without a record of its own.

A caller who wants no answer any more, and the clock, say so on the topic that runs are answered on:
so that comes to whichever process goes on with the run, behind what came for it before. All
processes say it, and the first counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog

from infra.bus import BusUnreachable, PublishFailed, Record, RecordTooLarge
from infra.deadletters import bury
from infra.provision import require
from infra.registry import Reader, SchemaMissing
from infra.secrets import resolve
from infra.serving import AGENT_POOL
from infra.settings import ClientSettings, PostgresSettings, SettingInvalid
from infra.signing import KeyUnusable, Signer
from infra.tail import Tail
from infra.telemetry import RECORDS, Headers, consuming, described, now
from schemas.agents import run_id
from schemas.codec import Unreadable
from schemas.events import (
    DeadLetterCause,
    InferenceReplied,
    InferenceRouted,
    RequestCancelled,
)
from schemas.topics import (
    BEHIND,
    INFERENCE_ROUTED,
    LONGEST_DEADLINE_MS,
    REPLY,
    REQUEST_CANCELLED,
    Outgoing,
    Topic,
)
from streams.agents.conversations import Conversations
from streams.agents.folding import CANCELLED, CLOCK
from streams.agents.journal import Journal, JournalLost
from streams.agents.memory import Memory
from streams.agents.running import Agents
from streams.steps import Fail, Runtime, Taken, Work, vital

log = structlog.get_logger()

# How often a record is decided on whose run others go on with, too.
TRIES = 5
# How long until a run is told again that its time is over.
AGAIN = timedelta(minutes=1)
# Records under way at once.
MOST = 1000
# How far ahead a deadline may lie.
LONGEST = timedelta(milliseconds=LONGEST_DEADLINE_MS)
LOOK_S = 1.0
DRAIN_S = 10.0


class Working:
    """Work on the records of one topic.

    Args:
        runtime: What the process has at hand.
        fail: Ends the process.
        agents: All runs.
        go: Decides on an event, given its bytes, its place and what its record says of the trace.
    """

    def __init__(
        self,
        runtime: Runtime,
        fail: Fail,
        agents: Agents,
        go: Callable[[Any, bytes, str, Headers], Awaitable[None]],
    ) -> None:
        self._runtime = runtime
        self._fail = fail
        self._agents = agents
        self._go = go
        # By partition: the generation of the group in which its journal was read to the end.
        self._read_in: dict[int, int] = {}
        self._room = asyncio.Semaphore(MOST)
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, taken: Taken) -> None:
        """Decides on a record beside others; those of one run follow each other."""
        await self._runtime.publisher.room()
        partition = taken.record.partition
        if self._read_in.get(partition) != taken.generation:
            await self._agents.journal.reached(partition, taken.record.dated)
            self._read_in[partition] = taken.generation
        await self._room.acquire()
        task = asyncio.create_task(self._work(taken))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def close(self) -> None:
        """Lets what is under way come to its end, for a while."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_S)
        for task in self._tasks:
            task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()

    async def _work(self, taken: Taken) -> None:
        record = taken.record
        place = f"{record.topic}/{record.partition}/{record.offset}"
        try:
            with consuming(self._runtime.name, record.topic, taken.headers) as headers:
                await self._decide(taken, place, headers)
            taken.settle()
        except asyncio.CancelledError:
            raise
        # A surprise ends the process: the record is delivered again.
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    async def _decide(self, taken: Taken, place: str, headers: Headers) -> None:
        value = taken.record.value or b""
        for _ in range(TRIES):
            try:
                await self._go(taken.event, value, place, headers)
            # Another process went on with the run meanwhile: the journal says how.
            except JournalLost as lost:
                said = described(lost)
            # What the broker cannot do now it can do later.
            except BusUnreachable:
                raise
            except PublishFailed as failed:
                if not isinstance(failed, RecordTooLarge):
                    raise
                said = described(failed)
                break
            # Whatever a step raises, its record must not end one process after the other.
            except Exception as error:  # noqa: BLE001
                said = described(error)
                break
            else:
                RECORDS.labels("decided").inc()
                return
        await self._bury(taken.record, said)
        await self._agents.give_up(taken.event, place)

    async def _bury(self, record: Record, said: str) -> None:
        log.warning("step failed", error=said, topic=record.topic)
        publisher = self._runtime.publisher
        letter = bury(record, self._runtime.name, DeadLetterCause.STEP_FAILED, said)
        await publisher.publish(publisher.encode([letter]))


class Calls:
    """Tells runs that nobody waits for them any more. Made inside the running loop.

    Args:
        runtime: What the process has at hand.
        fail: Ends the process.
        journal: Knows the runs.
        reply: Topic that runs are answered on.
    """

    def __init__(
        self, runtime: Runtime, fail: Fail, journal: Journal, reply: Topic[InferenceReplied]
    ) -> None:
        self._runtime = runtime
        self._journal = journal
        self._reply = reply
        self._reader = Reader(runtime.codec, runtime.registry)
        self._arrived: asyncio.Queue[list[Record]] = asyncio.Queue()
        # A caller may be heard before its run begins.
        self._cancelled: dict[str, datetime] = {}
        self._tail = Tail(
            runtime.kafka,
            [REQUEST_CANCELLED.name],
            now() - LONGEST,
            self._arrived.put_nowait,
            f"{runtime.name}-control",
            fail=fail,
            committed=False,
        )
        self._tasks = [
            asyncio.create_task(vital(self._hear(), fail)),
            asyncio.create_task(vital(self._watch(), fail)),
        ]

    async def close(self) -> None:
        """Tells nobody anything more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._tail.close()

    async def _hear(self) -> None:
        await self._tail.start()
        await self._journal.complete()
        while True:
            for record in await self._arrived.get():
                try:
                    cancelled = await self._reader.read(record.value, RequestCancelled)
                except (Unreadable, SchemaMissing) as problem:
                    log.warning("cancellation unreadable", error=str(problem))
                    continue
                run = run_id(cancelled.request_id, cancelled.tenant)
                self._cancelled[run] = min(cancelled.deadline, now() + LONGEST)
                await self._tell_live([run], CANCELLED)

    async def _watch(self) -> None:
        await self._journal.complete()
        told: dict[str, datetime] = {}
        while True:
            instant = now()
            overdue = self._journal.overdue(instant)
            told = {run: at for run, at in told.items() if run in overdue and at > instant - AGAIN}
            await self._tell_live([run for run in overdue if run not in told], CLOCK)
            told = {**dict.fromkeys(overdue, instant), **told}
            await self._tell_live(tuple(self._cancelled), CANCELLED)
            for run in [each for each, until in self._cancelled.items() if until < instant]:
                del self._cancelled[run]
            await asyncio.sleep(LOOK_S)

    async def _tell_live(self, runs: Iterable[str], what: str) -> None:
        for run in runs:
            if self._journal.kept(run).goes_on:
                await self._tell(run, what)

    async def _tell(self, run: str, what: str) -> None:
        publisher = self._runtime.publisher
        told = InferenceReplied(request_id=f"{run}{BEHIND}{what}", result="{}", replied_at=now())
        await publisher.publish(publisher.encode([Outgoing(self._reply, told)]))


class Hearing(Working):
    """Work on replies; what goes on beside it ends with it."""

    def __init__(
        self, runtime: Runtime, fail: Fail, agents: Agents, calls: Calls, memory: Memory
    ) -> None:
        super().__init__(runtime, fail, agents, agents.hear)
        self._calls = calls
        self._memory = memory

    async def close(self) -> None:
        """Stops what goes on beside it."""
        await super().close()
        await self._calls.close()
        await self._agents.journal.close()
        await self._memory.close()


def open_agents(
    runtime: Runtime, client: ClientSettings, postgres: PostgresSettings, fail: Fail
) -> Mapping[Topic[Any], Work]:
    """Returns the work of the agents' processor.

    Args:
        runtime: What the process has at hand.
        client: As whom runs ask: who holds MANAGE on the root, and so may ask for others.
        postgres: Where conversations are kept.
        fail: Ends the process.

    Raises:
        ProvisioningFailed: A topic that the catalog names does not exist.
        SecretUnavailable: The key's reference leads nowhere.
        SettingInvalid: There is no key, or what there is is none.
    """
    if not client.key:
        raise SettingInvalid("CLIENT_KEY: agents ask for others, which takes a key to sign with")
    try:
        signer = Signer(resolve(client.key))
    except KeyUnusable as problem:
        raise SettingInvalid(f"CLIENT_KEY: {problem}") from None
    require(runtime.kafka)
    reply = REPLY.member(client.tenant)
    memory = Memory(Conversations(postgres))
    agents = Agents(runtime, fail, signer, reply.name, memory)
    calls = Calls(runtime, fail, agents.journal, reply)
    routed: Topic[InferenceRouted] = INFERENCE_ROUTED.member(AGENT_POOL)
    return {
        routed: Working(runtime, fail, agents, agents.begin),
        reply: Hearing(runtime, fail, agents, calls, memory),
    }
