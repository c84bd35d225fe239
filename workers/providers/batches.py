"""Texts of all requests under way, embedded together.

A model takes thirty texts in little more time than one, if they are about as long. So what waits
is kept in the order of length, whoever asked, and a batch is a run of neighbours in it. Knows no
torch: an ``Encoder`` does the work, in a thread of its own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from workers.providers import ProviderBroken

log = structlog.get_logger()

Vector = tuple[float, ...]

# How long an idle model waits for a second text.
WINDOW_S = 0.002
# The longest of a batch against its shortest, and tokens beside: what is shorter is filled up, and
# costs as much.
WIDEST = 1.5
ROOM = 8


@dataclass(slots=True, frozen=True)
class Tokens:
    """What a model reads of a text.

    Attributes:
        ids: The tokens' numbers, those at the ends among them.
        cut: Whether the text goes on behind them.
    """

    ids: Sequence[int]
    cut: bool = False


class Encoder(Protocol):
    """A model. Its methods are called from threads, ``embed`` from several at once; both block."""

    def read(self, texts: Sequence[str]) -> list[Tokens]:
        """Returns the tokens of texts."""

    def embed(self, batch: Sequence[Sequence[int]]) -> list[Vector]:
        """Returns the vectors of tokens.

        Raises:
            RuntimeError: The model is broken.
        """


@dataclass(slots=True, frozen=True, kw_only=True)
class Embedded:
    """The vectors of texts, in their order, how many tokens were read, and whether any was cut."""

    vectors: tuple[Vector, ...]
    tokens: int
    cut: bool


@dataclass(slots=True, eq=False)
class _Asked:
    """One request's texts: what has come of them, and how many have come to nothing yet."""

    found: dict[int, Vector]
    left: int
    done: asyncio.Future[None]


@dataclass(slots=True, frozen=True)
class _Text:
    ids: Sequence[int]
    place: int
    asked: _Asked = field(repr=False)


class Batches:
    """Embeds texts, those of many requests at a time.

    Args:
        encoder: The model.
        most: Texts in a batch.
        widest: Its longest against its shortest, in tokens.
        lanes: Batches that are computed at once.
    """

    def __init__(self, encoder: Encoder, most: int, widest: float = WIDEST, lanes: int = 1) -> None:
        self._encoder = encoder
        self._most = most
        self._widest = widest
        # In the order of length.
        self._waiting: list[_Text] = []
        # How many texts of each request wait, the request that has waited longest first.
        self._askers: Counter[_Asked] = Counter()
        self._some = asyncio.Event()
        self._turn = 0
        self._broken: ProviderBroken | None = None
        self._reading = ThreadPoolExecutor(1, "tokens")
        self._computing = ThreadPoolExecutor(lanes, "model")
        self._running = [asyncio.create_task(self._run()) for _ in range(lanes)]

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Returns the vectors of texts.

        Cancelled, it takes back what has not begun; a batch that is being computed goes on, for
        others may have texts in it.

        Raises:
            ProviderBroken: The model is.
        """
        loop = asyncio.get_running_loop()
        read = await loop.run_in_executor(self._reading, self._encoder.read, texts)
        asked = _Asked({}, len(read), loop.create_future())
        try:
            self._enter(asked, read)
            if read:
                await asked.done
        finally:
            self._leave(asked)
        return Embedded(
            vectors=tuple(asked.found[place] for place in range(len(read))),
            tokens=sum(len(each.ids) for each in read),
            cut=any(each.cut for each in read),
        )

    async def close(self) -> None:
        """Ends the threads; whoever waits is told that the model is gone."""
        for lane in self._running:
            lane.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._fail(ProviderBroken("the model is closed"))
        for thread in (self._reading, self._computing):
            thread.shutdown(wait=False, cancel_futures=True)

    def _enter(self, asked: _Asked, read: Sequence[Tokens]) -> None:
        if self._broken is not None:
            raise self._broken
        self._waiting += [_Text(each.ids, place, asked) for place, each in enumerate(read)]
        # What is sorted stays so: this takes time in proportion.
        self._waiting.sort(key=_length)
        self._askers[asked] = len(read)
        self._some.set()

    def _leave(self, asked: _Asked) -> None:
        if self._askers.pop(asked, 0):
            self._waiting = [text for text in self._waiting if text.asked is not asked]

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                if not self._waiting:
                    self._some.clear()
                    await self._some.wait()
                    await asyncio.sleep(WINDOW_S)
                if batch := self._next():
                    ids = [text.ids for text in batch]
                    made = await loop.run_in_executor(self._computing, self._encoder.embed, ids)
                    _hand_out(batch, made)
        # Whatever it was, nobody else would ever tell those who wait.
        except Exception as error:  # noqa: BLE001
            log.error("model failed", reason=type(error).__name__)
            told = str(error) if isinstance(error, ModelUnsound) else type(error).__name__
            self._fail(ProviderBroken(f"the model failed: {told}"))

    def _fail(self, broken: ProviderBroken) -> None:
        self._broken = broken
        for asked in self._askers:
            if not asked.done.done():
                asked.done.set_exception(broken)

    def _next(self) -> list[_Text]:
        """Takes a batch out of what waits: nothing only where nothing waits any more."""
        if not self._waiting:
            return []
        low, high = self._run_around(self._first())
        batch = self._waiting[low:high]
        del self._waiting[low:high]
        for text in batch:
            self._askers[text.asked] -= 1
        return batch

    def _first(self) -> int:
        """Returns the place of the text that the next batch is made around.

        By turns it is one of whoever has least left, so that a query does not wait for a thousand
        documents, and one of whoever came first, so that those do not wait for ever.
        """
        self._turn += 1
        left = [asked for asked, count in self._askers.items() if count]
        chosen = left[0] if self._turn % 2 else min(left, key=self._askers.__getitem__)
        return next(at for at, text in enumerate(self._waiting) if text.asked is chosen)

    def _run_around(self, place: int) -> tuple[int, int]:
        """Returns where a run of texts that are nearly as long begins and ends."""
        lengths, low, high = self._waiting, place, place + 1
        while high - low < self._most:
            shorter = _length(lengths[low - 1]) if low else None
            longer = _length(lengths[high]) if high < len(lengths) else None
            shortest, longest = _length(lengths[low]), _length(lengths[high - 1])
            if shorter is not None and longest > self._widest * shorter + ROOM:
                shorter = None
            if longer is not None and longer > self._widest * shortest + ROOM:
                longer = None
            if longer is None and shorter is None:
                break
            if longer is None or (shorter is not None and shortest - shorter < longer - longest):
                low -= 1
            else:
                high += 1
        return low, high


class ModelUnsound(RuntimeError):
    """What a model says cannot be used; the message says why, and quotes no text."""


def _length(text: _Text) -> int:
    return len(text.ids)


def _hand_out(batch: Sequence[_Text], made: Sequence[Vector]) -> None:
    for text, vector in zip(batch, made, strict=True):
        asked = text.asked
        asked.found[text.place] = vector
        asked.left -= 1
        # Whoever has left does not wait.
        if not asked.left and not asked.done.done():
            asked.done.set_result(None)
