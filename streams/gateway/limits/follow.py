"""Following the ledger: one thread reads the partitions that this process decides on.

Which ones they are changes as partitions come and go, so this is no tail of whole topics. The next
lot is only read when the loop is done with the last, so nothing piles up in memory.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable

from confluent_kafka import Consumer, KafkaException, TopicPartition

from infra.bus import BATCH, TRANSFER_S, Record, fetch
from infra.settings import KafkaSettings
from schemas.topics import USAGE_COUNTED

POLL_S = 0.05


class LedgerLost(RuntimeError):
    """The ledger can no longer be followed, or another decides what is decided here."""


class Follower:
    """Reads partitions of the ledger; made inside the running loop.

    Args:
        kafka: Where the broker is.
        name: Client id.
        deliver: Awaited in the loop with each lot of records, in the order of their partitions.
        fail: Called in the loop, once, with what ended the reading.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        name: str,
        deliver: Callable[[list[Record]], Awaitable[None]],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._deliver = deliver
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "client.id": f"{name}-ledger",
                "group.id": f"{name}-ledger",
                "enable.auto.commit": False,
                # Entries that are gone unseen would be missing from the counters.
                "auto.offset.reset": "error",
                "isolation.level": "read_uncommitted",
                "fetch.wait.max.ms": 100,
                "queued.max.messages.kbytes": 16 * 1024,
                "log_level": 0,
            }
        )
        # Up to where each partition is read.
        self._at: dict[int, int] = {}
        self._wanted: deque[tuple[int, int | None, Callable[[], None]]] = deque()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._read, name="ledger", daemon=True)
        self._thread.start()

    def follow(self, partition: int, offset: int, begun: Callable[[], None]) -> None:
        """Reads a partition from an offset on.

        ``begun`` is called in the loop; what is delivered afterwards begins at the offset, or
        before it.
        """
        self._wanted.append((partition, offset, begun))

    def leave(self, partition: int) -> None:
        """Reads a partition no more."""
        self._wanted.append((partition, None, _ignore))

    async def close(self) -> None:
        """Stops reading."""
        self._closing.set()
        await asyncio.to_thread(self._thread.join, TRANSFER_S)

    def _read(self) -> None:
        try:
            while not self._closing.is_set():
                while self._wanted:
                    self._move(*self._wanted.popleft())
                if records := self._fetch():
                    asyncio.run_coroutine_threadsafe(self._pass_on(records), self._loop).result()
                    self._at.update((each.partition, each.offset + 1) for each in records)
        except KafkaException as problem:
            self._break(LedgerLost(f"{USAGE_COUNTED.name}: {problem.args[0].str()}"))
        # A thread that ended unseen would leave decisions waiting for ever.
        except Exception as error:  # noqa: BLE001
            self._break(error)
        finally:
            self._consumer.close()

    def _fetch(self) -> list[Record]:
        if self._at:
            return fetch(self._consumer, BATCH, POLL_S)
        self._closing.wait(POLL_S)
        return []

    async def _pass_on(self, records: list[Record]) -> None:
        if not self._closing.is_set():
            await self._deliver(records)

    def _move(self, partition: int, offset: int | None, begun: Callable[[], None]) -> None:
        at = self._at.get(partition)
        if offset is None or (at is not None and offset < at):
            if at is not None:
                self._consumer.incremental_unassign([self._place(partition)])
                del self._at[partition]
            at = None
        if offset is not None and at is None:
            self._consumer.incremental_assign([self._place(partition, offset)])
            self._at[partition] = offset
        self._loop.call_soon_threadsafe(begun)

    def _place(self, partition: int, offset: int = 0) -> TopicPartition:
        return TopicPartition(USAGE_COUNTED.name, partition, offset)

    def _break(self, error: BaseException) -> None:
        if not self._closing.is_set():
            self._loop.call_soon_threadsafe(self._fail, error)


def _ignore() -> None:
    pass
