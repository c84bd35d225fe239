"""Having rows of a captured table read again: asked once a request, until it is carried out whole.

What was asked lies where the connector notes how far it has read, so neither it nor this process
forgets. What came of it is told on the connector's own topic: only there stands that rows were left
out, since the database did not answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from infra.connectors.connect import Connect, Connector, ConnectRefused, ConnectUnreachable
from infra.connectors.database import Database
from infra.connectors.picking import picked
from infra.connectors.rereading import WELL, asked, ending, refusal, under_way
from infra.connectors.source import CaptureRefused, Source
from infra.connectors.topics import Topics
from infra.registry import Reader
from schemas.topics import capture_prefix

log = structlog.get_logger()

FIRST_WAIT_S, LONGEST_WAIT_S = 5.0, 300.0
AGAIN = "it is asked again by itself; see: tessera logs connect"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How a request stands.

    Attributes:
        ended: Whether it was carried out.
        reason: Why it is not, where something is wrong.
        remedy: What to do about it.
    """

    ended: bool = False
    reason: str | None = None
    remedy: str | None = None


class Rereading:
    """Rows of one captured table, read again.

    Args:
        connect: Runs its connector.
        topics: What its connector tells lies there.
        reader: Decodes that.
    """

    def __init__(self, connect: Connect, topics: Topics, reader: Reader) -> None:
        self._connect = connect
        self._topics = topics
        self._reader = reader
        self._tries = 0
        self._try_at = 0.0

    async def bring(
        self,
        database: Database,
        source: Source,
        connector: Connector,
    ) -> Progress:
        """Asks for what was not asked yet; returns how it stands.

        Args:
            database: A session with its database.
            source: The table.
            connector: Its connector, which reads changes, or was stopped on the way to be asked.

        Raises:
            BusUnreachable: No broker answers.
            ConnectUnreachable: Kafka Connect does not answer.
            DatabaseUnreachable: Its database does not.
        """
        offset = await self._connect.offset(source.name)
        if offset is None or offset.get("snapshot"):
            return Progress()
        if under_way(offset):
            if connector.state == "STOPPED":
                await self._connect.resume(source.name)
            return Progress()
        # Told before it is noted that no rows are read again any more.
        ended = ending(await self._notices(source), source.capture.resnapshot)
        if ended in WELL:
            self._tries = 0
            log.info("rows read again", table=source.table, request=source.capture.resnapshot)
            return Progress(ended=True)
        if ended is not None and time.monotonic() < self._try_at:
            reason = f"reading its rows again ended before it was through: {ended}"
            return Progress(reason=reason, remedy=AGAIN)
        try:
            condition = await picked(database, source)
        except CaptureRefused as refused:
            reason = refusal(source.capture.resnapshot, str(refused))
            return Progress(reason=reason, remedy=refused.remedy)
        await self._ask(source, condition)
        return Progress()

    async def _ask(self, source: Source, condition: str | None) -> None:
        self._try_at = time.monotonic() + min(FIRST_WAIT_S * 2**self._tries, LONGEST_WAIT_S)
        self._tries += 1
        await self._connect.halt(source.name)
        offset = await self._connect.offset(source.name)
        try:
            if offset is not None:
                place = asked(offset, source, condition)
                await self._connect.note(source.name, capture_prefix(source.table), place)
        except ConnectRefused as problem:
            raise ConnectUnreachable(f"it was not halted: {problem}") from None
        await self._connect.resume(source.name)
        log.info("rows are read again", table=source.table, request=source.capture.resnapshot)

    async def _notices(self, source: Source) -> list[Mapping[str, Any]]:
        records = await asyncio.to_thread(self._topics.notices, source)
        return [(await self._reader.plain(each.key, each.value)).value or {} for each in records]
