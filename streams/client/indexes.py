"""What a client asks of indexes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

from schemas.events import Task
from schemas.search import Found, Hit, Search, Write, Written
from streams.client.connection import Connection
from streams.terms import ScanOptions, SearchOptions, Terms


class Indexes(Connection):
    """Searches indexes, and writes to those that have no source."""

    async def search(self, index: str, query: str = "", **options: Unpack[SearchOptions]) -> Found:
        """Searches an index and returns what it finds, the best first.

        Cancelling and errors are as with ``chat``.

        Args:
            index: Three-level name.
            query: What is searched for; not needed where a vector is given.
            options: How; see ``SearchOptions``.

        Raises:
            ValidationError: The options are out of their bounds.
        """
        search = Search.model_validate(_how(options))
        found = await self._of_index(index, Task.SEARCH, search, options, query or None)
        return Found.model_validate_json(found)

    async def fetch(
        self, index: str, keys: Sequence[Mapping[str, Any]], **options: Unpack[ScanOptions]
    ) -> tuple[Hit, ...]:
        """Returns the chunks of the rows with these keys; what there is not, or not seen, lacks.

        Args:
            index: Three-level name.
            keys: Values of the key columns, of at most 1,000 rows.
            options: What of them; see ``ScanOptions``.
        """
        search = Search.model_validate({"operation": "fetch", "keys": keys, **_how(options)})
        found = await self._of_index(index, Task.SEARCH, search, options)
        return Found.model_validate_json(found).hits

    async def scan(
        self, index: str, page: int = 500, **options: Unpack[ScanOptions]
    ) -> AsyncGenerator[Hit, None]:
        """Yields all chunks of an index in the order of their keys.

        Args:
            index: Three-level name.
            page: How many are asked for at once.
            options: Which; see ``ScanOptions``. Tags and timeout are those of each page.
        """
        search = Search.model_validate({"operation": "scan", "k": page, **_how(options)})
        while True:
            answer = await self._of_index(index, Task.SEARCH, search, options)
            found = Found.model_validate_json(answer)
            for hit in found.hits:
                yield hit
            if found.next is None:
                return
            search = search.model_copy(update={"after": found.next})

    async def upsert(
        self, index: str, rows: Sequence[Mapping[str, Any]], **terms: Unpack[Terms]
    ) -> Written:
        """Writes rows to an index that has no source; returns which of them could not be.

        Args:
            index: Three-level name.
            rows: At most 1,000, each whole: key columns, the columns of the text, and what is kept;
                with ``vector``, that is taken instead of embedding the text.
            terms: What may be said of any request; see ``Terms``.

        Raises:
            ValidationError: There are no rows, or too many.
        """
        write = Write.model_validate({"operation": "upsert", "rows": rows})
        return Written.model_validate_json(await self._of_index(index, Task.WRITE, write, terms))

    async def delete(
        self, index: str, keys: Sequence[Mapping[str, Any]], **terms: Unpack[Terms]
    ) -> Written:
        """Deletes rows of an index that has no source; arguments and errors as with ``upsert``."""
        write = Write.model_validate({"operation": "delete", "keys": keys})
        return Written.model_validate_json(await self._of_index(index, Task.WRITE, write, terms))

    async def _of_index(
        self, index: str, task: Task, how: Search | Write, terms: Terms, query: str | None = None
    ) -> str:
        """Asks an index, and returns what it answers as JSON."""
        request = replace(
            self.request(index, terms),
            task=task,
            query=query,
            search=how.model_dump_json(exclude_defaults=True),
        )
        return (await self.whole(request)).completion.found or "{}"


def _how(options: Terms) -> dict[str, Any]:
    """Returns what options say of a search."""
    aside = Terms.__optional_keys__
    return {name: value for name, value in options.items() if name not in aside}
