"""Journals of runs, read off the log."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime
from uuid import uuid4

from infra.registry import Reader, SchemaMissing
from infra.settings import KafkaSettings
from infra.tail import until_now
from schemas.codec import Unreadable
from schemas.events import AgentJournaled
from schemas.topics import AGENT_JOURNALED, root_of
from streams.steps import home_of


class Journals(dict[str, list[AgentJournaled]]):
    """The entries of runs, in order, by the id of a run.

    Attributes:
        unreadable: Records that lie among them and are no entry. Anybody may write there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unreadable = 0
        self._last: dict[str, int] = {}

    @property
    def broken(self) -> set[str]:
        """Runs of which an entry is missing: those behind it are not among these."""
        return {run for run, last in self._last.items() if last >= len(self.get(run, ()))}

    def take(self, entry: AgentJournaled) -> None:
        """Puts an entry behind those of its run; of two with one number the first counts."""
        known = self.get(entry.run_id, [])
        if known and known[-1].ended:
            return
        self._last[entry.run_id] = max(entry.seq, self._last.get(entry.run_id, 0))
        if entry.seq == len(known):
            self[entry.run_id] = [*known, entry]


async def begun_since(kafka: KafkaSettings, reader: Reader, since: datetime) -> Journals:
    """Returns the journals of the runs that began since an instant, by what the log has now.

    Raises:
        BusUnreachable: No broker answers.
        LookupError: Provisioning has not run.
        TailBroken: The log cannot be read.
    """
    return await _read(kafka, reader, since, None)


async def of_request(
    kafka: KafkaSettings, reader: Reader, request_id: str, since: datetime
) -> Journals:
    """Returns the journals of the run of a request and of all runs below it; errors as above."""
    return await _read(kafka, reader, since, root_of(request_id))


async def _read(
    kafka: KafkaSettings, reader: Reader, since: datetime, root: str | None
) -> Journals:
    journals = Journals()
    key = None if root is None else root.encode()
    home = None if key is None else lambda count: home_of(key, count)
    lying = until_now(kafka, [AGENT_JOURNALED.name], since, f"runs-{uuid4()}", home)
    async with aclosing(lying) as records:
        async for record in records:
            if key not in (None, record.key):
                continue
            # Agents pass over what is no entry, too.
            try:
                journals.take(await reader.read(record.value, AgentJournaled))
            except (Unreadable, SchemaMissing):
                journals.unreadable += 1
    return journals
