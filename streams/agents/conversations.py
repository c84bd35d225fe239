"""Conversations in PostgreSQL: kept when a run ends, read when another goes on with it.

Whoever was forgotten at some moment is forgotten with all that began before it, also what is still
under way then: it is not kept when it ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from infra.settings import PostgresSettings
from infra.sql import Database
from schemas.topics import AGENT_JOURNALED

DATABASE = "tessera_agents"
# In one statement: each ends soon, however much there is to delete.
BITE = 500

# What two processes make at the same time is made by one of them.
LOCK = 5_171_830_245
MAKING = (
    f"SELECT pg_advisory_xact_lock({LOCK})",
    # An id may hold any character, also one that PostgreSQL's texts cannot.
    """
    CREATE TABLE IF NOT EXISTS conversations (
        run_id bytea PRIMARY KEY,
        tenant text NOT NULL,
        principal text NOT NULL,
        agent text NOT NULL,
        turns int NOT NULL,
        conversation text NOT NULL,
        began_at timestamptz NOT NULL,
        ended_at timestamptz NOT NULL,
        until timestamptz NOT NULL
    )
    """,
    "CREATE INDEX IF NOT EXISTS conversations_of ON conversations (principal, ended_at)",
    "CREATE INDEX IF NOT EXISTS conversations_until ON conversations (until)",
    """
    CREATE TABLE IF NOT EXISTS forgotten (
        principal text,
        tenant text,
        at timestamptz NOT NULL,
        PRIMARY KEY (principal, tenant)
    )
    """,
)
# Who keeps and who forgets of the same principal wait for each other, so that each sees the other.
KEEPS = "SELECT pg_advisory_xact_lock_shared(hashtextextended(%(principal)s, 0))"
FORGETS = "SELECT pg_advisory_xact_lock(hashtextextended(%(principal)s, 0))"
# An empty tenant stands for all.
COVERS = """f.principal = {0}.principal AND f.tenant IN ('', {0}.tenant)
    AND f.at >= {0}.began_at"""
FORGOTTEN = f"(SELECT FROM forgotten AS f WHERE {COVERS})"
KEEP = f"""
INSERT INTO conversations
SELECT new.* FROM (VALUES (%(run_id)s::bytea, %(tenant)s::text, %(principal)s::text,
    %(agent)s::text, %(turns)s::int, %(conversation)s::text, %(began_at)s::timestamptz,
    %(ended_at)s::timestamptz, %(until)s::timestamptz))
    AS new (run_id, tenant, principal, agent, turns, conversation, began_at, ended_at, until)
WHERE until > clock_timestamp() AND NOT EXISTS {FORGOTTEN.format("new")}
ON CONFLICT (run_id) DO NOTHING
"""
READ = f"""
SELECT conversation FROM conversations AS c
WHERE run_id = %(run_id)s AND tenant = %(tenant)s AND principal = %(principal)s
    AND until > clock_timestamp() AND NOT EXISTS {FORGOTTEN.format("c")}
"""
LIST = f"""
SELECT run_id, tenant, principal, agent, turns, ended_at, until FROM conversations AS c
WHERE until > clock_timestamp() AND NOT EXISTS {FORGOTTEN.format("c")}
    AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
    AND (%(principal)s::text IS NULL OR principal = %(principal)s)
    AND (%(agent)s::text IS NULL OR agent = %(agent)s)
ORDER BY ended_at DESC LIMIT %(most)s
"""
SHOW = f"""
SELECT conversation FROM conversations AS c
WHERE run_id = %(run_id)s AND until > clock_timestamp() AND NOT EXISTS {FORGOTTEN.format("c")}
"""
MARK = """
INSERT INTO forgotten VALUES (%(principal)s, %(tenant)s, clock_timestamp())
ON CONFLICT (principal, tenant) DO UPDATE SET at = excluded.at
"""
FORGET = f"""
DELETE FROM conversations WHERE run_id IN (
    SELECT run_id FROM conversations AS c
    WHERE principal = %(principal)s AND EXISTS {FORGOTTEN.format("c")} LIMIT {BITE} FOR UPDATE)
RETURNING 1
"""
SWEEP = f"""
DELETE FROM conversations WHERE run_id IN (
    SELECT run_id FROM conversations WHERE until <= clock_timestamp()
    LIMIT {BITE} FOR UPDATE SKIP LOCKED)
RETURNING 1
"""
# Who forgot somebody may have been interrupted.
FINISH = f"""
DELETE FROM conversations WHERE run_id IN (
    SELECT run_id FROM forgotten AS f JOIN conversations AS c ON {COVERS.format("c")}
    LIMIT {BITE} FOR UPDATE OF c SKIP LOCKED)
RETURNING 1
"""
# As long as a run that began before may be taken in again, or a conversation of it is left.
UNMARK = f"""
DELETE FROM forgotten AS f WHERE at < clock_timestamp() - %(old)s::interval
    AND NOT EXISTS (SELECT FROM conversations AS c WHERE {COVERS.format("c")})
"""
OLD = timedelta(milliseconds=AGENT_JOURNALED.retention_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A conversation, without what was said.

    Attributes:
        run_id: The run that left it.
        tenant: Whose run it was,
        principal: and who asked.
        agent: Name of the agent.
        turns: How often the model spoke.
        ended_at: When the run ended.
        until: Until when it is kept.
    """

    run_id: str
    tenant: str
    principal: str
    agent: str
    turns: int
    ended_at: datetime
    until: datetime


class Conversations:
    """What was said in runs that are over. All methods raise DatabaseUnreachable.

    Args:
        settings: Where PostgreSQL is; the database is ``tessera_agents``, whatever they name.
    """

    def __init__(self, settings: PostgresSettings) -> None:
        where = settings.model_copy(update={"database": DATABASE})
        self._database = Database(where, MAKING)

    async def keep(self, kept: Kept, conversation: str, began_at: datetime) -> None:
        """Keeps a conversation; nothing where its time is over, or who asked was forgotten since.

        Args:
            kept: Whose it is; what was kept before under its run stays.
            conversation: What was said.
            began_at: When the run began.
        """
        await self._database.ask(
            KEEPS,
            KEEP,
            run_id=kept.run_id.encode(),
            tenant=kept.tenant,
            principal=kept.principal,
            agent=kept.agent,
            turns=kept.turns,
            conversation=conversation,
            began_at=began_at,
            ended_at=kept.ended_at,
            until=kept.until,
        )

    async def read(self, run_id: str, tenant: str, principal: str) -> str | None:
        """Returns what was said in a run that this principal asked for; None where nothing is."""
        found = await self._database.ask(
            READ, run_id=run_id.encode(), tenant=tenant, principal=principal
        )
        return str(found[0][0]) if found else None

    async def show(self, run_id: str) -> str | None:
        """Returns what was said in a run, whoever asked; None where nothing is kept."""
        found = await self._database.ask(SHOW, run_id=run_id.encode())
        return str(found[0][0]) if found else None

    async def list(
        self, tenant: str | None, principal: str | None, agent: str | None, most: int
    ) -> list[Kept]:
        """Returns conversations, the latest first; None stands for all."""
        found = await self._database.ask(
            LIST, tenant=tenant, principal=principal, agent=agent, most=most
        )
        return [
            Kept(
                run_id=run_id.decode(),
                tenant=tenant,
                principal=principal,
                agent=agent,
                turns=turns,
                ended_at=ended_at,
                until=until,
            )
            for run_id, tenant, principal, agent, turns, ended_at, until in found
        ]

    async def forget(self, principal: str, tenant: str | None) -> int:
        """Forgets all of a principal that began until now; returns how many conversations.

        Interrupted, it is forgotten all the same: nobody reads it, and ``sweep`` deletes it.

        Args:
            principal: Who asked.
            tenant: For this tenant alone; None for whichever.
        """
        await self._database.ask(FORGETS, MARK, principal=principal, tenant=tenant or "")
        # One at a time of the same principal, lest each wait for rows that the other has.
        return await self._all(FORGETS, FORGET, principal=principal)

    async def sweep(self) -> int:
        """Deletes what is past its time, or forgotten; returns how many conversations."""
        deleted = await self._all(SWEEP) + await self._all(FINISH)
        await self._database.ask(UNMARK, old=OLD)
        return deleted

    def close(self) -> None:
        """Closes what is open."""
        self._database.close()

    async def _all(self, *statements: str, **values: object) -> int:
        """Deletes bite by bite; returns how many rows."""
        total = 0
        while deleted := len(await self._database.ask(*statements, **values)):
            total += deleted
        return total
