"""Serves every connection of the catalog, each in the dialect that its type speaks.

Knows which connection a route names and where its secret is; knows no dialect's form. The secret is
resolved for each request, so a rotated one is picked up, and goes to that connection's dialect
alone. A connection that changes is opened anew for the next request; those under way end as they
began.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, replace

import structlog

from infra.catalog import CatalogView
from infra.dialling import trusted
from infra.secrets import SecretUnavailable, lend
from infra.settings import InferenceSettings
from schemas.events import (
    CatalogChanged,
    Completion,
    Delta,
    InferenceRequested,
    Reason,
    Refusal,
    Route,
)
from schemas.kinds import ConnectionSpec
from workers.providers import ProviderRefused, SecretUsed
from workers.providers.dialects import Dialect, speaker

log = structlog.get_logger()

# A route may name a connection that this process has not heard of yet: the gateway was faster.
HEARSAY_S = 2.0
# Of every connection, whatever its dialect: how many requests may be under way here at once.
MOST = "max_in_flight"
# Characters of a secret that tell it is quoted.
TELLING = 8


@dataclass(slots=True)
class Line:
    """A dialect that was opened for a connection as it was."""

    spec: ConnectionSpec
    dialect: Dialect
    under_way: int = 0
    retired: bool = False


class Outside:
    """A provider behind all connections.

    Attributes:
        view: The catalog; whoever runs the provider feeds it, and calls ``changed``.
    """

    def __init__(self) -> None:
        self.view = CatalogView()
        self._lines: dict[str, Line] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()

    def changed(self, change: CatalogChanged) -> None:
        """Hears of a change that the view has taken in."""
        if change.kind != "connection":
            return
        line = self._lines.get(change.name)
        if line is not None and line.spec != self.view.connections.get(change.name):
            self._retire(change.name)
        # Whoever waits for news has this event; the next one waits for the next news.
        self._news.set()
        self._news = asyncio.Event()

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion | SecretUsed, None]:
        """Yields what the connection's dialect yields, and before it that the secret is used."""
        await self._known(route.connection)
        with self._lent(route.connection) as line:
            secret = None
            if line.spec.secret is not None:
                used, secret = await _unlocked(line.spec.secret)
                yield used
                if used.failure:
                    raise _failed("the provider's key cannot be read on this platform")
            pieces = line.dialect.complete(request, route.model, secret)
            async with aclosing(pieces):
                with _unsaid(secret):
                    async for piece in pieces:
                        yield piece

    async def close(self) -> None:
        """Closes all dialects."""
        for name in list(self._lines):
            self._hang_up(self._lines.pop(name))
        await asyncio.gather(*self._closing)

    async def _known(self, name: str) -> None:
        """Waits a moment for a connection that is not known, and loads what its dialect needs.

        Raises:
            ProviderRefused: There is none.
        """
        if not name:
            raise _failed("the route names no connection, and this pool needs one")
        try:
            async with asyncio.timeout(HEARSAY_S):
                while name not in self.view.connections:
                    await self._news.wait()
        except TimeoutError:
            raise _failed(f"the catalog has no connection {name}") from None
        if name not in self._lines:
            with suppress(LookupError):
                # Some client libraries take seconds to load; streams go on meanwhile.
                await asyncio.to_thread(speaker, self.view.connections[name].type)

    @contextmanager
    def _lent(self, name: str) -> Iterator[Line]:
        line = self._line(name)
        line.under_way += 1
        try:
            yield line
        finally:
            line.under_way -= 1
            if line.retired and not line.under_way:
                self._hang_up(line)

    def _line(self, name: str) -> Line:
        spec = self.view.connections.get(name)
        if spec is None:
            raise _failed(f"the catalog has no connection {name} any more")
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _opened(name, spec)
        most = spec.options.get(MOST)
        if most is not None and line.under_way >= int(most):
            message = f"connection {name} has as many requests under way here as it may"
            raise ProviderRefused(Refusal(reason=Reason.RATE_LIMITED, message=message))
        return line

    def _retire(self, name: str) -> None:
        line = self._lines.pop(name)
        line.retired = True
        if not line.under_way:
            self._hang_up(line)

    def _hang_up(self, line: Line) -> None:
        task = asyncio.create_task(line.dialect.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def open_outside(settings: InferenceSettings) -> Outside:
    """Opens the provider; no connection is known yet, and no setting concerns it."""
    await asyncio.to_thread(trusted)
    return Outside()


def _opened(name: str, spec: ConnectionSpec) -> Line:
    options = {key: value for key, value in spec.options.items() if key != MOST}
    try:
        if not spec.options.get(MOST, "1").isdecimal():
            raise ValueError(f"{MOST} is a number")
        dialect = speaker(spec.type)(spec.model_copy(update={"options": options}))
    except (LookupError, ValueError) as problem:
        raise _failed(f"connection {name} cannot be used: {problem}") from None
    log.info("connection opened", connection=name, type=spec.type)
    return Line(spec, dialect)


async def _unlocked(reference: str) -> tuple[SecretUsed, str | None]:
    """Returns what is to be told of a secret, and the secret; a store may take a while."""
    try:
        secret = await asyncio.to_thread(lend, reference)
    except SecretUnavailable as lack:
        return SecretUsed(reference=reference, failure=str(lack)), None
    return SecretUsed(reference=reference), secret


@contextmanager
def _unsaid(secret: str | None) -> Iterator[None]:
    """Withholds a provider's words where they quote the secret it was sent, or a piece of it."""
    try:
        yield
    except ProviderRefused as refused:
        if not secret or not _quotes(refused.refusal.message, secret):
            raise
        message = "the provider refuses the request, in words that quote its key"
        refusal = replace(refused.refusal, message=message)
        raise ProviderRefused(refusal, refused.usage) from None


def _quotes(said: str, secret: str) -> bool:
    places = range(max(1, len(secret) - TELLING + 1))
    return any(secret[at : at + TELLING] in said for at in places)


def _failed(message: str) -> ProviderRefused:
    return ProviderRefused(Refusal(reason=Reason.PROVIDER_FAILED, message=message))
