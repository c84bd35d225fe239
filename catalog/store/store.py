"""The catalog in PostgreSQL; nothing else writes it.

A change, what is told of it on the bus and its audit are one transaction. The database keeps the
rules that must hold whoever writes (``migrations/``); the words for a refusal are put here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, select

from catalog.store import outbox
from catalog.store.change import Change
from catalog.store.entries import everything
from catalog.store.ledger import Actor
from catalog.store.refusals import CatalogRefused
from catalog.store.tables import CLOCK
from infra.sql import connect
from schemas.events import CatalogChanged

__all__ = ["Actor", "CatalogRefused", "Change", "Snapshot", "Store", "connect"]

MIGRATIONS = "catalog.store:migrations"


class Snapshot(NamedTuple):
    """Every entry at one position of the clock, in the order of their changes."""

    position: int
    entries: list[CatalogChanged]


class Store:
    """The tables of the catalog; every call blocks.

    Args:
        engine: From ``infra.sql.connect``; may be shared by threads.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def migrate(self) -> None:
        """Brings the tables up to date; safe to repeat, and in two processes at once."""
        config = Config()
        config.set_main_option("script_location", MIGRATIONS)
        with self.engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @contextmanager
    def change(self, actor: Actor) -> Iterator[Change]:
        """Yields a change; commits it at the end of the block, undoes it on any exception.

        One change at a time: the next waits until this block has ended, so nothing slow belongs
        in it.
        """
        with self.engine.begin() as connection:
            change = Change(connection, actor)
            yield change
            change.close()

    def entries(self) -> Iterator[CatalogChanged]:
        """Yields every entry that is not gone, with the position of its last change."""
        yield from self.snapshot().entries

    def snapshot(self) -> Snapshot:
        """Returns every entry, and up to which change that is."""
        with self._reading() as connection:
            position = connection.execute(select(CLOCK.c.position)).scalar_one()
            return Snapshot(position, [entry.changed() for entry in everything(connection)])

    def waiting(self) -> list[outbox.Waiting]:
        """Returns the oldest events of the outbox."""
        with self._reading() as connection:
            return outbox.waiting(connection)

    def forget(self, last: int) -> None:
        """Removes events of the outbox up to an id."""
        with self.engine.begin() as connection:
            outbox.forget(connection, last)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        isolated = self.engine.execution_options(isolation_level="REPEATABLE READ")
        with isolated.begin() as connection:
            yield connection
