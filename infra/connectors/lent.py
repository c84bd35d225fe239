"""Passwords that connectors log in with: a file each, in the one folder that Connect reads.

The reference in the catalog is resolved here, by the rules for what is lent, whatever store it is
of. Connect gets a place and never the word, so that none of its answers, topics or logs has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from infra.connectors.source import MARK


class Lent:
    """The folder; for its owner alone.

    Args:
        folder: The same for Connect, which is told of it in its own settings.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    def place(self, name: str) -> Path:
        """Returns where a connector's password is, or will be."""
        return self._folder / name

    def password(self, name: str) -> str | None:
        """Returns what is lent to a connector; None where nothing is.

        Raises:
            OSError: It cannot be read.
        """
        try:
            return self.place(name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def lend(self, name: str, password: str) -> bool:
        """Lends a password; returns whether it was not lent already.

        Raises:
            OSError: The folder cannot be written to.
        """
        if self.password(name) == password:
            return False
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Whole or not at all, also for who reads meanwhile.
        fresh = self._folder / f".{name}"
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(password)
        fresh.rename(self.place(name))
        return True

    def take_back(self, name: str) -> None:
        """Lends to a connector no more."""
        self.place(name).unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        """Yields the connectors that something is lent to."""
        if self._folder.is_dir():
            yield from (each.name for each in self._folder.glob(f"{MARK}*"))
