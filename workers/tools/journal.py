"""The journal of tool calls: what has begun, who has it, and what it came to; in PostgreSQL.

A call is begun by whoever finds it new, or finds that the lease of its last holder is over. Each
beginning has a higher attempt than the one before, and what an older attempt says counts no more.
The clock is the database's alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from uuid import uuid4

from infra.settings import PostgresSettings
from workers.tools.calls import Wanted
from workers.tools.sessions import Sessions, make_database

CHANNEL = "tessera_tools"
KEPT = timedelta(days=7)

# What two processes make at the same time is made by one of them.
LOCK = 5_171_830_244
MAKING = f"""
SELECT pg_advisory_xact_lock({LOCK});
CREATE SCHEMA IF NOT EXISTS tessera_tools;
CREATE TABLE IF NOT EXISTS tessera_tools.calls (
    call_id text PRIMARY KEY,
    digest text NOT NULL,
    function text NOT NULL,
    version int NOT NULL,
    tenant text NOT NULL,
    principal text NOT NULL,
    effect text NOT NULL,
    state text NOT NULL CHECK (state IN ('DONE', 'OPEN', 'STARTED', 'UNSETTLED')),
    attempt int NOT NULL,
    doubtful boolean NOT NULL,
    holder uuid NOT NULL,
    lease_until timestamptz NOT NULL,
    outcome text,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz
);
CREATE INDEX IF NOT EXISTS calls_ended ON tessera_tools.calls (ended_at);
"""
BEGIN = """
INSERT INTO tessera_tools.calls AS c (call_id, digest, function, version, tenant, principal,
    effect, state, attempt, doubtful, holder, lease_until)
VALUES (%(call_id)s, %(digest)s, %(function)s, %(version)s, %(tenant)s, %(principal)s,
    %(effect)s, 'STARTED', 1, false, %(holder)s, clock_timestamp() + %(lease)s)
ON CONFLICT (call_id) DO UPDATE SET state = 'STARTED', attempt = c.attempt + 1,
    doubtful = c.state = 'STARTED', holder = excluded.holder, lease_until = excluded.lease_until
WHERE c.digest = excluded.digest
    AND (c.state = 'OPEN' OR (c.state = 'STARTED' AND c.lease_until <= clock_timestamp()))
"""
LOOK = """
SELECT call_id, digest, state, attempt, doubtful, holder, outcome,
    lease_until <= clock_timestamp() AS over
FROM tessera_tools.calls WHERE call_id = ANY(%(call_ids)s)
"""
RENEW = """
UPDATE tessera_tools.calls SET lease_until = clock_timestamp() + %(lease)s
WHERE call_id = %(call_id)s AND attempt = %(attempt)s AND state = 'STARTED' RETURNING call_id
"""
FINISH = f"""
WITH finished AS (
    UPDATE tessera_tools.calls
    SET state = %(state)s, outcome = %(outcome)s, ended_at = clock_timestamp()
    WHERE call_id = %(call_id)s AND attempt = %(attempt)s AND state = 'STARTED' RETURNING call_id
)
SELECT pg_notify('{CHANNEL}', call_id) FROM finished
"""
RELEASE = f"""
WITH released AS (
    UPDATE tessera_tools.calls SET lease_until = clock_timestamp()
    WHERE call_id = %(call_id)s AND attempt = %(attempt)s AND state = 'STARTED' RETURNING call_id
)
SELECT pg_notify('{CHANNEL}', call_id) FROM released
"""
SETTLE = """
UPDATE tessera_tools.calls
SET state = CASE WHEN %(outcome)s::text IS NULL THEN 'OPEN' ELSE 'DONE' END, outcome = %(outcome)s
WHERE call_id = %(call_id)s AND state = 'UNSETTLED' RETURNING call_id
"""
UNSETTLED = """
SELECT call_id, function || '@' || version AS function, tenant, principal
FROM tessera_tools.calls WHERE state = 'UNSETTLED' ORDER BY began_at, call_id
"""
# A call that began and was lost with everybody who waited is left to a person.
PURGE = """
DELETE FROM tessera_tools.calls
WHERE (state = 'DONE' AND ended_at < clock_timestamp() - %(kept)s)
    OR (state IN ('OPEN', 'STARTED') AND effect <> 'reconcile'
        AND lease_until < clock_timestamp() - %(kept)s)
RETURNING call_id
"""


class State(StrEnum):
    """How a call stands."""

    DONE = "DONE"
    OPEN = "OPEN"  # a person lets it be begun once more
    STARTED = "STARTED"
    UNSETTLED = "UNSETTLED"  # a person must look


@dataclass(frozen=True, slots=True, kw_only=True)
class Began:
    """A call is one's own, until its lease is over.

    Attributes:
        attempt: What one's own words about it are known by.
        doubtful: Whether an earlier attempt may have had its effect.
    """

    attempt: int
    doubtful: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A call as the journal has it.

    Attributes:
        digest: What tells the call from another under the same id.
        state: How it stands.
        attempt: How often it was begun.
        over: Whether the lease of whoever has begun it is over.
        outcome: What it came to, as JSON; None while it has not.
    """

    digest: str
    state: State
    attempt: int
    over: bool
    outcome: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsettled:
    """A call that a person must settle: what was called, and for whom."""

    call_id: str
    function: str
    tenant: str
    principal: str


class Journal:
    """The journal; every call of it may raise JournalUnreachable.

    All that is asked of it may be asked twice and counts once.

    Args:
        sessions: With its database.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def begin(self, wanted: Wanted, effect: str, lease: timedelta) -> Began | Entry:
        """Begins a call where it is new, or its last holder's lease is over.

        Returns:
            Began where it is one's own now; else how it stands: done, left to a person, in
            somebody's hands, or another call under the same id.
        """
        holder = uuid4()
        values = {
            "call_id": wanted.call_id,
            "digest": wanted.digest,
            "function": wanted.function,
            "version": wanted.version,
            "tenant": wanted.tenant,
            "principal": wanted.principal,
            "effect": effect,
            "holder": holder,
            "lease": lease,
        }
        await self._sessions.ask(BEGIN, values)
        [row] = await self._sessions.ask(LOOK, {"call_ids": [wanted.call_id]})
        if row["holder"] == holder and row["state"] == State.STARTED:
            return Began(attempt=row["attempt"], doubtful=row["doubtful"])
        return _entry(row)

    async def look(self, call_ids: Iterable[str]) -> dict[str, Entry]:
        """Returns how calls stand; those that nobody has begun are missing."""
        rows = await self._sessions.ask(LOOK, {"call_ids": list(call_ids)})
        return {row["call_id"]: _entry(row) for row in rows}

    async def renew(self, call_id: str, attempt: int, lease: timedelta) -> bool:
        """Makes a lease last so much longer from now; returns whether it is one's own still."""
        values = {"call_id": call_id, "attempt": attempt, "lease": lease}
        return bool(await self._sessions.ask(RENEW, values))

    async def finish(
        self, call_id: str, attempt: int, outcome: str, state: State = State.DONE
    ) -> bool:
        """Notes what a call came to; returns False where it was somebody else's to say."""
        values = {"call_id": call_id, "attempt": attempt, "outcome": outcome, "state": state}
        return bool(await self._sessions.ask(FINISH, values))

    async def release(self, call_id: str, attempt: int) -> None:
        """Ends a lease before its time, so that another may begin."""
        await self._sessions.ask(RELEASE, {"call_id": call_id, "attempt": attempt})

    async def settle(self, call_id: str, outcome: str | None) -> bool:
        """Settles, for a person, what is left to one; returns False where nothing is.

        Args:
            call_id: Which call.
            outcome: What it came to, as JSON; None to let it be begun once more.
        """
        return bool(await self._sessions.ask(SETTLE, {"call_id": call_id, "outcome": outcome}))

    async def unsettled(self) -> list[Unsettled]:
        """Returns what a person must settle, the oldest first."""
        return [Unsettled(**row) for row in await self._sessions.ask(UNSETTLED)]

    async def purge(self, kept: timedelta = KEPT) -> int:
        """Forgets calls that ended so long ago; returns how many."""
        return len(await self._sessions.ask(PURGE, {"kept": kept}))

    @asynccontextmanager
    async def hearing(self) -> AsyncIterator[AsyncIterator[str]]:
        """Gives the ids of calls that end, or are given up, from now on, as they do."""
        async with self._sessions.own() as session:
            await session.execute(f"LISTEN {CHANNEL}")
            # It holds the session until it is closed.
            async with aclosing(session.notifies()) as heard:
                yield (each.payload async for each in heard)

    async def close(self) -> None:
        """Closes its sessions."""
        await self._sessions.close()


async def open_journal(settings: PostgresSettings, database: str) -> Journal:
    """Opens the journal, and makes what is missing of it; called inside the running loop.

    Raises:
        JournalUnreachable: The server does not answer.
        SecretUnavailable: The password's reference leads nowhere.
    """
    await make_database(settings, database)
    sessions = Sessions(settings, database)
    await sessions.ask(MAKING)
    return Journal(sessions)


def _entry(row: dict[str, object]) -> Entry:
    outcome = row["outcome"]
    return Entry(
        digest=str(row["digest"]),
        state=State(str(row["state"])),
        attempt=int(str(row["attempt"])),
        over=bool(row["over"]),
        outcome=None if outcome is None else str(outcome),
    )
