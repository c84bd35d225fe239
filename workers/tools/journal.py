"""The journal of tool calls: what has begun, who has it, and what it came to; in PostgreSQL.

A call is begun by whoever finds it new, or finds that the lease of its last holder is over. Each
beginning has a higher attempt than the one before, and what an older attempt says counts no more.
The clock is the database's alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID, uuid4

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
DO $$ BEGIN
    -- Asked for again, a column that is there already would lock out all who read meanwhile.
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attname = 'checkpoint' AND NOT attisdropped
            AND attrelid = 'tessera_tools.calls'::regclass) THEN
        ALTER TABLE tessera_tools.calls ADD COLUMN checkpoint text;
    END IF;
END $$;
"""
BEGIN = """
INSERT INTO tessera_tools.calls AS c (call_id, digest, function, version, tenant, principal,
    effect, state, attempt, doubtful, holder, lease_until)
VALUES (%(call_id)s, %(digest)s, %(function)s, %(version)s, %(tenant)s, %(principal)s,
    %(effect)s, 'STARTED', 1, false, %(holder)s, clock_timestamp() + %(lease)s)
ON CONFLICT (call_id) DO UPDATE SET state = 'STARTED', attempt = c.attempt + 1,
    doubtful = c.state = 'STARTED' AND c.effect = 'reconcile', holder = excluded.holder,
    lease_until = excluded.lease_until
WHERE c.digest = excluded.digest
    AND (c.state = 'OPEN' OR (c.state = 'STARTED' AND c.lease_until <= clock_timestamp()))
"""
STANDING = """call_id, digest, state, attempt, doubtful, holder, outcome,
    lease_until <= clock_timestamp() AS over"""
BEGUN = f"""
SELECT {STANDING}, checkpoint FROM tessera_tools.calls WHERE call_id = %(call_id)s
"""
# Asked again and again by whoever waits, who has no use for checkpoints.
LOOK = f"""
SELECT {STANDING} FROM tessera_tools.calls WHERE call_id = ANY(%(call_ids)s)
"""
RENEW = """
UPDATE tessera_tools.calls SET lease_until = clock_timestamp() + %(lease)s
WHERE call_id = %(call_id)s AND attempt = %(attempt)s AND state = 'STARTED' RETURNING call_id
"""
SAVE = """
UPDATE tessera_tools.calls SET checkpoint = %(checkpoint)s
WHERE call_id = %(call_id)s AND attempt = %(attempt)s AND state = 'STARTED' RETURNING call_id
"""
# What a person must look at may yet be begun once more.
FINISH = f"""
WITH finished AS (
    UPDATE tessera_tools.calls
    SET state = %(state)s, outcome = %(outcome)s, ended_at = clock_timestamp(),
        checkpoint = CASE WHEN %(state)s = 'UNSETTLED' THEN checkpoint END
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
# What a person must look at: also what was lost with everybody who waited.
LEFT = """(state = 'UNSETTLED'
    OR (state = 'STARTED' AND effect = 'reconcile' AND lease_until <= clock_timestamp()))"""
SETTLE = f"""
UPDATE tessera_tools.calls
SET state = CASE WHEN %(outcome)s::text IS NULL THEN 'OPEN' ELSE 'DONE' END, outcome = %(outcome)s,
    holder = %(settling)s, ended_at = clock_timestamp(),
    checkpoint = CASE WHEN %(outcome)s::text IS NULL THEN checkpoint END
WHERE call_id = %(call_id)s AND {LEFT} RETURNING call_id
"""
SETTLED = """
SELECT call_id FROM tessera_tools.calls WHERE call_id = %(call_id)s AND holder = %(settling)s
"""
UNSETTLED = f"""
SELECT call_id, function || '@' || version AS function, tenant, principal, attempt, began_at
FROM tessera_tools.calls WHERE {LEFT} ORDER BY began_at, call_id
"""
# A call that began and was lost with everybody who waited is left to a person. A bite at a time, so
# that nobody else waits long, and none is larger than a statement has time for.
PURGE = """
DELETE FROM tessera_tools.calls WHERE call_id IN (
    SELECT call_id FROM tessera_tools.calls
    WHERE (state IN ('DONE', 'OPEN') AND ended_at < clock_timestamp() - %(kept)s)
        OR (state = 'STARTED' AND effect <> 'reconcile'
            AND lease_until < clock_timestamp() - %(kept)s)
    LIMIT %(bite)s
    FOR UPDATE SKIP LOCKED
)
RETURNING call_id
"""
BITE = 1000


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
        doubtful: Whether an earlier attempt may have had an effect that must not come twice.
        checkpoint: What an earlier attempt saved last, as JSON; None where none did.
    """

    attempt: int
    doubtful: bool
    checkpoint: str | None = None


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
    """A call that a person must settle: what was called, for whom, how often and since when."""

    call_id: str
    function: str
    tenant: str
    principal: str
    attempt: int
    began_at: datetime


class Journal:
    """The journal; every call of it may raise JournalUnreachable.

    All that is asked of it may be asked twice and counts once.

    Args:
        sessions: With its database.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def begin(
        self, wanted: Wanted, effect: str, lease: timedelta, holder: UUID | None = None
    ) -> Began | Entry:
        """Begins a call where it is new, or its last holder's lease is over.

        Args:
            wanted: The call.
            effect: Whether it may be repeated.
            lease: For how long it is one's own.
            holder: Who asks, where the same may ask again; a new one each time if left out.

        Returns:
            Began where it is one's own now; else how it stands: done, left to a person, in
            somebody's hands, or another call under the same id.
        """
        holder = holder or uuid4()
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
        [row] = await self._sessions.ask(BEGUN, {"call_id": wanted.call_id})
        if row["holder"] == holder and row["state"] == State.STARTED:
            return Began(
                attempt=row["attempt"], doubtful=row["doubtful"], checkpoint=row["checkpoint"]
            )
        return _entry(row)

    async def look(self, call_ids: Iterable[str]) -> dict[str, Entry]:
        """Returns how calls stand; those that nobody has begun are missing."""
        rows = await self._sessions.ask(LOOK, {"call_ids": list(call_ids)})
        return {row["call_id"]: _entry(row) for row in rows}

    async def renew(self, call_id: str, attempt: int, lease: timedelta) -> bool:
        """Makes a lease last so much longer from now; returns whether it is one's own still."""
        values = {"call_id": call_id, "attempt": attempt, "lease": lease}
        return bool(await self._sessions.ask(RENEW, values))

    async def save(self, call_id: str, attempt: int, checkpoint: str) -> bool:
        """Notes, as JSON, where a call goes on if it is cut off; gone when it ends.

        Returns:
            False where it is somebody else's to say.
        """
        values = {"call_id": call_id, "attempt": attempt, "checkpoint": checkpoint}
        return bool(await self._sessions.ask(SAVE, values))

    async def finish(
        self, call_id: str, attempt: int, outcome: str, state: State = State.DONE
    ) -> bool:
        """Notes what a call came to; returns False where it was somebody else's to say."""
        values = {"call_id": call_id, "attempt": attempt, "outcome": outcome, "state": state}
        return bool(await self._sessions.ask(FINISH, values))

    async def release(self, call_id: str, attempt: int) -> None:
        """Ends a lease before its time, so that another may begin."""
        await self._sessions.ask(RELEASE, {"call_id": call_id, "attempt": attempt})

    async def settle(self, call_id: str, outcome: str | None, settling: UUID | None = None) -> bool:
        """Settles, for a person, what is left to one.

        Args:
            call_id: Which call.
            outcome: What it came to, as JSON; None to let it be begun once more.
            settling: What this is known by.

        Returns:
            False where nothing is left, or it was begun once more before this was heard of.
        """
        values = {"call_id": call_id, "outcome": outcome, "settling": settling or uuid4()}
        if await self._sessions.ask(SETTLE, values):
            return True
        # Asked once more when its session was lost, it finds nothing left but its own work.
        return bool(await self._sessions.ask(SETTLED, values))

    async def unsettled(self) -> list[Unsettled]:
        """Returns what a person must settle, the oldest first."""
        return [Unsettled(**row) for row in await self._sessions.ask(UNSETTLED)]

    async def purge(self, kept: timedelta = KEPT) -> int:
        """Forgets calls that ended so long ago; returns how many."""
        purged = 0
        while bite := len(await self._sessions.ask(PURGE, {"kept": kept, "bite": BITE})):
            purged += bite
        return purged

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
