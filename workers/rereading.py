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

from infra.connectors.connect import Connect, ConnectRefused, ConnectUnreachable
from infra.connectors.database import Database
from infra.connectors.picking import picked
from infra.connectors.rereading import WELL, asked, ending, refusal, under_way
from infra.connectors.source import CaptureRefused, Source
from infra.connectors.topics import Topics
from infra.registry import Reader, SchemaMissing
from schemas.codec import Unreadable
from schemas.topics import capture_prefix

log = structlog.get_logger()

FIRST_WAIT_S = 5.0
# Bad ends after which it is not asked again.
MOST_TRIES = 6
AGAIN = "it is asked again by itself; see: tessera logs connect"
MENDED = "see: tessera logs connect; when that is mended, ask once more"


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
        self._request = 0
        self._tries = 0
        self._try_at = 0.0

    async def bring(self, database: Database, source: Source) -> Progress:
        """Asks for what was not asked yet; returns how it stands.

        Args:
            database: A session with its database.
            source: The table.

        Raises:
            BusUnreachable: No broker answers.
            ConnectUnreachable: Kafka Connect does not answer.
            DatabaseUnreachable: Its database does not.
        """
        if source.capture.resnapshot != self._request:
            self._request, self._tries = source.capture.resnapshot, 0
        offset = await self._connect.offset(source.name)
        if offset is None or offset.get("snapshot") or under_way(offset):
            return Progress()
        # Told before it is noted that no rows are read again any more.
        ended = ending(await self._notices(source), source.capture.resnapshot)
        if ended in WELL:
            self._tries = 0
            log.info("rows read again", table=source.table, request=source.capture.resnapshot)
            return Progress(ended=True)
        if ended is not None and (progress := self._ended_badly(ended)):
            return progress
        try:
            condition = await picked(database, source)
        except CaptureRefused as refused:
            reason = refusal(source.capture.resnapshot, str(refused))
            return Progress(reason=reason, remedy=refused.remedy)
        await self._ask(source, condition)
        return Progress()

    def _ended_badly(self, ended: str) -> Progress | None:
        """Returns what is told of a bad end; None where it is time to ask again."""
        reason = f"reading its rows again ended before it was through: {ended}"
        if self._tries >= MOST_TRIES:
            return Progress(reason=refusal(self._request, reason), remedy=MENDED)
        if time.monotonic() < self._try_at:
            return Progress(reason=reason, remedy=AGAIN)
        return None

    async def _ask(self, source: Source, condition: str | None) -> None:
        self._try_at = time.monotonic() + FIRST_WAIT_S * 2.0**self._tries
        self._tries += 1
        await self._connect.halt(source.name)
        try:
            offset = await self._connect.offset(source.name)
            if offset is not None:
                place = asked(offset, source, condition)
                await self._connect.note(source.name, capture_prefix(source.table), place)
        except ConnectRefused as problem:
            raise ConnectUnreachable(f"it was not halted: {problem}") from None
        finally:
            await self._connect.resume(source.name)
        log.info("rows are read again", table=source.table, request=source.capture.resnapshot)

    async def _notices(self, source: Source) -> list[Mapping[str, Any]]:
        records = await asyncio.to_thread(self._topics.notices, source)
        notices = []
        for each in records:
            try:
                notices.append((await self._reader.plain(each.key, each.value)).value or {})
            # It is none of its connector's.
            except (SchemaMissing, Unreadable):
                log.warning("notice unreadable", table=source.table, offset=each.offset)
        return notices
