"""How Alembic runs the steps: on the connection that ``Store.migrate`` hands over."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

# Any number that no other program takes on this database.
LOCK = 7_265_747_265_613


def run() -> None:
    """Brings the database up to date; who comes second waits and finds nothing left."""
    connection = context.config.attributes["connection"]
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    context.configure(connection=connection, transactional_ddl=True)
    context.run_migrations()


run()
