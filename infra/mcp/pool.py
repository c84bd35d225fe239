"""Sessions with MCP servers, some of them kept for the next call: to start one takes far longer.

Kept are those of commands of this machine, each for whom it was opened alone (``Place``), after an
answer alone, and for a while alone. Who finds none has one of its own, as if none were ever kept:
nobody waits for another's. What its connection or secret was before ends with the next call through
it, or when its time is over. Sessions over HTTP begin in milliseconds, and none is kept.

Covered: what was cut off, broke, or is not known to be over is in no later call's session. Not
covered: what a server remembers of the calls of one place, which is its own affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from infra.mcp.server import STDIO, UNREACHABLE, Server, ServerFailed
from schemas.kinds import ConnectionSpec

# How long a session that was kept may take to show that it is of use still.
CHECK_S = 2.0

Work = Callable[[Server], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a session leads, and for whom: of one place is what is alike in all of this.

    Attributes:
        tenant: Whose calls it has.
        connection: Name of the connection.
        spec: Where that leads now.
        secret: Of the connection, as it is now.
    """

    tenant: str
    connection: str
    spec: ConnectionSpec
    secret: str | None = field(repr=False)

    def replaces(self, other: Place) -> bool:
        """Returns whether another is of what this one's connection was before, whoever's it is."""
        return self.connection == other.connection and (
            (self.spec, self.secret) != (other.spec, other.secret)
        )


class Session:
    """A session of one place, which has one call at a time. Made inside the running loop.

    It lives in a task of its own: what the SDK opens is to be closed by the task that opened it.

    Args:
        place: Where it leads.
        server: Is asked; nobody else opens it.

    Attributes:
        began: When, on the loop's clock.
        life: The task; it is over when the command has ended.
    """

    def __init__(self, place: Place, server: Server) -> None:
        self.place = place
        self.server = server
        self.began = asyncio.get_running_loop().time()
        self._asked: asyncio.Queue[tuple[Work, asyncio.Future[Any]] | None] = asyncio.Queue()
        self._waiting: asyncio.Future[Any] | None = None
        self._stopped = False
        self.life = asyncio.create_task(self._live())

    @property
    def whole(self) -> bool:
        """Whether all that was asked is answered, and it has not broken."""
        answered = self._waiting is None or self._waiting.done()
        return answered and not self.life.done()

    async def ask(self, work: Work) -> Any:
        """Returns what some work with the server comes to; nothing else is under way.

        Raises:
            Exception: Of the work.
            ServerFailed: The work says so, as of a tool that failed, and the session is whole
                still; or it cannot be opened, or broke.
        """
        self._waiting = asyncio.get_running_loop().create_future()
        self._asked.put_nowait((work, self._waiting))
        await asyncio.wait((self._waiting, self.life), return_when=asyncio.FIRST_COMPLETED)
        if self._waiting.done():
            return self._waiting.result()
        if not self.life.cancelled():
            self.life.result()
        raise ServerFailed(*UNREACHABLE)

    def stop(self) -> None:
        """Lets it end; what is under way is cut off."""
        if self._stopped:
            # Cut off once more, it would not see its command's end.
            return
        if self.whole:
            self._asked.put_nowait(None)
        else:
            self.life.cancel()
        self._stopped = True

    async def gone(self) -> None:
        """Returns when it has ended, and its command with it."""
        await asyncio.wait((self.life,))

    async def _live(self) -> None:
        async with self.server.opened():
            while asked := await self._asked.get():
                work, answer = asked
                try:
                    answer.set_result(await work(self.server))
                except ServerFailed as problem:
                    # What breaks a session is told of when it is left.
                    answer.set_exception(problem)


class Pool:
    """Lends sessions, and keeps some. Made inside the running loop.

    Args:
        commands: What ``stdio://NAME`` may stand for, by name: a program and its arguments.
        most: Sessions kept at once; for one more, the one that nobody took for longest ends.
        most_alike: Of these, of one place.
        idle_s: How long one is kept that nobody takes.
        age_s: How old one may be that is kept: a command is bounded for all its calls together.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        *,
        most: int,
        most_alike: int,
        idle_s: float,
        age_s: float,
    ) -> None:
        self._commands = commands
        self._most = most
        self._most_alike = most_alike
        self._idle_s = idle_s
        self._age_s = age_s
        self._living: set[Session] = set()
        # By session, when it is given up; the one that was kept last is last.
        self._kept: dict[Session, asyncio.TimerHandle] = {}

    @asynccontextmanager
    async def lent(self, place: Place, check: Work) -> AsyncIterator[Session]:
        """Lends a session for a block, by the end of which it is kept, or has ended.

        Whoever is cut off in the block does not wait for that end, which comes all the same.

        Args:
            place: Where it leads.
            check: Is asked of it first. One that was kept is replaced by a new one if it fails, or
                does not pass within ``CHECK_S``.

        Raises:
            Exception: Of the check.
            ServerFailed: A new one cannot be opened.
        """
        session = await self._checked(place, check)
        cut_off = False
        try:
            yield session
        except asyncio.CancelledError:
            cut_off = True
            raise
        finally:
            if not self._keeps(session):
                session.stop()
                if not cut_off:
                    await session.gone()

    async def close(self) -> None:
        """Ends all sessions, and cuts off what is under way."""
        living = list(self._living)
        for each in living:
            each.stop()
        for each in living:
            await each.gone()

    async def _checked(self, place: Place, check: Work) -> Session:
        for each in [each for each in self._kept if place.replaces(each.place)]:
            self._give_up(each)
        alike = [each for each in self._kept if each.place == place]
        if alike:
            self._kept.pop(alike[-1]).cancel()
            with suppress(ServerFailed, TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    return await _after(alike[-1], check)
        return await _after(self._opened(place), check)

    def _opened(self, place: Place) -> Session:
        session = Session(place, Server(place.spec, place.secret, self._commands))
        self._living.add(session)
        session.life.add_done_callback(lambda _: self._forget(session))
        return session

    def _keeps(self, session: Session) -> bool:
        """Keeps a session if that may be; returns whether it does."""
        loop = asyncio.get_running_loop()
        left = min(self._idle_s, session.began + self._age_s - loop.time())
        alike = sum(each.place == session.place for each in self._kept)
        if (
            not session.whole
            or not session.place.spec.url.startswith(STDIO)
            or left <= 0
            or alike >= self._most_alike
            or self._most <= 0
        ):
            return False
        if len(self._kept) >= self._most:
            # The one that nobody took for longest.
            self._give_up(next(iter(self._kept)))
        self._kept[session] = loop.call_later(left, self._give_up, session)
        return True

    def _give_up(self, session: Session) -> None:
        self._kept.pop(session).cancel()
        session.stop()

    def _forget(self, session: Session) -> None:
        self._living.discard(session)
        if timer := self._kept.pop(session, None):
            timer.cancel()
        # What broke a session that nobody asks any more is nobody's concern.
        if not session.life.cancelled():
            session.life.exception()


async def _after(session: Session, check: Work) -> Session:
    """Returns a session that has passed a check; ends any other."""
    try:
        await session.ask(check)
    except asyncio.CancelledError:
        session.stop()
        raise
    except BaseException:
        session.stop()
        await session.gone()
        raise
    return session
