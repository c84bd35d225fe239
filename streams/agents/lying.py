"""Which requests lie on the log of late."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Container, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from infra.bus import Publisher, Record
from infra.past import stepped, written
from infra.settings import KafkaSettings
from infra.signing import claim, claimed
from streams.agents.kept import SKEW
from streams.steps import home_of

log = structlog.get_logger()


# Each is one of its own, whatever it says.
@dataclass(slots=True, eq=False)
class _Wanted:
    """Requests that somebody looks for: where, since when, and by which claims."""

    places: set[tuple[str, bytes]]
    since: datetime
    claims: set[str]
    found: set[str] = field(default_factory=set)


class Requests:
    """Finds requests on the log by what their answers claim.

    After a crash many look at once: who comes while others look waits, and the next look is for
    all who wait.

    Args:
        kafka: Where the broker is.
        publisher: Knows topics.
        name: The process.
    """

    def __init__(self, kafka: KafkaSettings, publisher: Publisher, name: str) -> None:
        self._kafka = kafka
        self._publisher = publisher
        self._name = f"{name}-requests"
        self._looking = asyncio.Lock()
        self._waiting: list[_Wanted] = []

    async def lying(
        self, places: Iterable[tuple[str, bytes]], claims: Iterable[str], since: datetime
    ) -> set[str]:
        """Returns by which of some claims a request lies on the log by now.

        Args:
            places: Topics and keys of the requests.
            claims: What their answers claim.
            since: When the first may have been put there.

        Raises:
            BusUnreachable: No broker answers.
            LookupError: There is no such topic.
        """
        wanted = _Wanted(set(places), since - SKEW, set(claims))
        if not wanted.claims:
            return set()
        self._waiting.append(wanted)
        try:
            async with self._looking:
                if wanted in self._waiting:
                    await self._look([*self._waiting])
        finally:
            if wanted in self._waiting:
                self._waiting.remove(wanted)
        return wanted.found

    async def _look(self, lot: list[_Wanted]) -> None:
        """Looks for what several want, and lets them go."""
        claims = set().union(*(each.claims for each in lot))
        places: defaultdict[tuple[str, int], set[bytes]] = defaultdict(set)
        for topic, key in set().union(*(each.places for each in lot)):
            count = await self._publisher.partitions(topic)
            places[topic, home_of(key, count)].add(key)
        since = min(each.since for each in lot)
        found: set[str] = set()
        for (topic, partition), keys in places.items():
            lots = written(self._kafka, topic, partition, since, self._name)
            async with aclosing(stepped(lots)) as lying:
                async for records in lying:
                    found |= claims & _claims(records, keys)
        for each in lot:
            each.found = each.claims & found
        self._waiting = [each for each in self._waiting if each not in lot]
        log.info("requests looked for", requests=len(claims), found=len(found))


def _claims(records: Iterable[Record], keys: Container[bytes | None]) -> set[str]:
    """Returns what answers to those of some records claim that have one of some keys."""
    return {claim(claimed(each.headers, each.value or b"")) for each in records if each.key in keys}
