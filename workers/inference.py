"""Inference: a routed request becomes parts on the way and one completed event at the end.

What a provider tells of secrets that it uses becomes facts for the audit. An answer that breaks off
is paid for all the same: what came of it is counted here, where the provider has not counted it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime

from infra import tokens
from infra.settings import InferenceSettings
from infra.telemetry import annotate, now
from schemas.events import (
    AuditOutcome,
    AuditRecorded,
    Completion,
    Delta,
    InferenceCompleted,
    InferencePart,
    InferenceReplied,
    InferenceRouted,
    Reason,
    Refusal,
    Task,
    Usage,
)
from schemas.topics import AUDIT_RECORDED, INFERENCE_COMPLETED, INFERENCE_PARTS, REPLY, Outgoing
from workers.providers import (
    Provider,
    ProviderBroken,
    ProviderRefused,
    RoutedReader,
    SecretUsed,
)
from workers.providers.checks import require_carriable
from workers.worker import Emit, Subject, WorkerBroken

# Names of https://opentelemetry.io/docs/specs/semconv/gen-ai/.
OPERATIONS: dict[Task, str] = {
    Task.AGENT: "invoke_agent",
    Task.CHAT: "chat",
    Task.EMBEDDING: "embeddings",
    Task.RERANK: "rerank",
    Task.SEARCH: "search",
    Task.TOOL: "execute_tool",
    Task.UNKNOWN: "unknown",
    Task.WRITE: "write",
}

# Seconds that a token waits for others at most, however many streams there are: well under the
# 0.2 s after which a text that grows seems to stand still.
LONGEST_WINDOW_S = 0.12


class Inference:
    """The work of an inference worker: asks the provider."""

    def __init__(self, provider: Provider, settings: InferenceSettings) -> None:
        self._provider = provider
        self._pace = Pace(settings.coalesce_ms / 1000, settings.parts_per_s)

    def begin(self, event: InferenceRouted, now: datetime) -> Answering:
        """Returns a fresh try at answering a routed request."""
        return Answering(event, now, self._provider, self._pace)

    async def close(self) -> None:
        """Closes the provider."""
        await self._provider.close()


class Answering:
    """One try at answering one request."""

    def __init__(
        self, routed: InferenceRouted, now: datetime, provider: Provider, pace: Pace
    ) -> None:
        request = routed.request
        self.subject = Subject(request.request_id, request.tenant, request.deadline)
        self._routed = routed
        self._provider = provider
        self._pace = pace
        self._started_at = now
        self._first_token_at: datetime | None = None
        self._parts = 0
        self._said: list[Delta] = []
        # Whether the provider was asked, and has not refused.
        self._asked = False

    async def perform(self, emit: Emit) -> Iterable[Outgoing]:
        """Streams parts where the caller wants them; concludes with what the provider says."""
        await self._until_due()
        parts = Coalescer(self._pace, lambda delta: emit(self._part(delta)))
        try:
            return [await self._answer(emit, parts)]
        except ProviderRefused as refused:
            self._asked = refused.refusal in (_MUTE, _SILENT)
            parts.flush()
            return [self._completed(refusal=refused.refusal, usage=refused.usage)]
        except ProviderBroken as broken:
            raise WorkerBroken(str(broken)) from broken
        finally:
            parts.close()

    def give_up(self, refusal: Refusal) -> Iterable[Outgoing]:
        """Concludes with a refusal."""
        return [self._completed(refusal=refusal)]

    async def _until_due(self) -> None:
        """Waits as long as the gateway wants a retry to wait; others go on meanwhile."""
        due = self._routed.not_before
        if due is not None and due > self._started_at:
            await asyncio.sleep((due - now()).total_seconds())
            self._started_at = now()

    async def _answer(self, emit: Emit, parts: Coalescer) -> Outgoing:
        """Asks the provider and hears it out, as long as it is not silent for too long.

        Raises:
            ProviderRefused: There is no completion.
        """
        routed, route = self._routed, self._routed.route
        heard = routed.request.stream and not routed.mirrored
        loop = asyncio.get_running_loop()
        try:
            async with (
                asyncio.timeout_at(_moment(loop, route.first_token_ms)) as silence,
                aclosing(_asked(self._provider, routed)) as answer,
            ):
                self._asked = True
                async for piece in answer:
                    if isinstance(piece, SecretUsed):
                        emit(self._used(piece))
                        continue
                    self._first_token_at = self._first_token_at or now()
                    if isinstance(piece, Completion):
                        require_carriable(piece)
                        parts.flush()
                        return self._completed(completion=self._counted(piece))
                    silence.reschedule(_moment(loop, route.idle_ms))
                    self._said.append(piece)
                    if heard:
                        parts.add(piece)
        except TimeoutError:
            if not silence.expired():
                raise
            raise ProviderRefused(_SILENT if self._first_token_at else _MUTE) from None
        raise RuntimeError("the provider ended without a completion")

    def _counted(self, completion: Completion) -> Completion:
        """Returns a completion that says what it used, if only as an estimate."""
        if completion.usage.prompt_tokens or completion.usage.completion_tokens:
            return completion
        said = (completion.content, *(call.arguments for call in completion.tool_calls))
        return replace(completion, usage=self._estimated(said))

    def _broken_off(self) -> Usage | None:
        """Returns what was used of an answer that broke off; None where none was to come.

        Who was asked has read the question, even if it is cut off before its first word.
        """
        if not (self._said or self._asked):
            return None
        pieces = (call.arguments for delta in self._said for call in delta.tool_calls)
        return self._estimated((*(delta.content for delta in self._said), *pieces))

    def _estimated(self, said: Iterable[str]) -> Usage:
        return Usage(
            prompt_tokens=tokens.estimate(self._routed.request),
            completion_tokens=tokens.count("".join(said)),
            estimated=True,
        )

    def _part(self, delta: Delta) -> Outgoing:
        routed, seq = self._routed, self._parts
        self._parts += 1
        if routed.parts_to is None:
            part = InferencePart(
                request_id=routed.request.request_id,
                tenant=routed.request.tenant,
                reply_to=routed.request.parts_to or routed.request.reply_to,
                attempt=routed.attempt,
                epoch=self._epoch,
                seq=seq,
                delta=delta,
                deadline=routed.request.deadline,
                endpoint=routed.request.endpoint,
                sealed=None if seq else routed.sealed,
            )
            return Outgoing(INFERENCE_PARTS, part)
        replied = InferenceReplied(
            request_id=routed.request.request_id,
            attempt=routed.attempt,
            epoch=self._epoch,
            seq=seq,
            delta=delta,
            replied_at=now(),
        )
        return Outgoing(REPLY.at(routed.parts_to), replied)

    def _used(self, used: SecretUsed) -> Outgoing:
        request, signed = self._routed.request, self._routed.signed
        named = self._routed.decision_id or request.request_id
        place = (named, self._routed.attempt, self._epoch, used.reference)
        recorded = AuditRecorded(
            audit_id=f"secret.used/{'/'.join(map(str, place))}",
            at=now(),
            source="inference",
            principal=request.principal,
            tenant=request.tenant,
            key_id=signed.key_id if signed else None,
            action="secret.used",
            kind="secret",
            name=used.reference,
            outcome=AuditOutcome.FAILED if used.failure else AuditOutcome.DONE,
            reason=used.failure,
            request_id=request.request_id,
        )
        return Outgoing(AUDIT_RECORDED, recorded)

    @property
    def _epoch(self) -> int:
        return int(self._started_at.timestamp() * 1000)

    def _completed(
        self,
        *,
        completion: Completion | None = None,
        refusal: Refusal | None = None,
        usage: Usage | None = None,
    ) -> Outgoing:
        task, model = self._routed.request.task, self._routed.route.model
        annotate({"gen_ai.operation.name": OPERATIONS[task], "gen_ai.request.model": model})
        if completion:
            annotate(
                {
                    "gen_ai.response.model": completion.model,
                    "gen_ai.usage.input_tokens": completion.usage.prompt_tokens,
                    "gen_ai.usage.output_tokens": completion.usage.completion_tokens,
                }
            )
        completed = InferenceCompleted(
            routed=self._routed,
            completion=completion,
            refusal=refusal,
            parts=self._parts,
            started_at=self._started_at,
            first_token_at=self._first_token_at,
            completed_at=now(),
            usage=None if completion else usage or self._broken_off(),
        )
        return Outgoing(INFERENCE_COMPLETED, completed)


class Pace:
    """How long what a stream says waits for more of it; longer while many streams say something.

    To the broker, to the gateway and to the caller a part costs the same however much it holds. So
    streams that would send more than so many parts a second together wait until they send just
    that, each for its share of a second, or for ``LONGEST_WINDOW_S``.

    Args:
        shortest_s: Seconds that it waits however few the others are.
        most_per_s: Parts a second.
    """

    def __init__(self, shortest_s: float, most_per_s: float) -> None:
        self._shortest_s = shortest_s
        self._most_per_s = most_per_s
        self._under_way = 0

    @property
    def window_s(self) -> float:
        """Seconds that it waits now."""
        share_s = min(self._under_way / self._most_per_s, LONGEST_WINDOW_S)
        return max(self._shortest_s, share_s)

    def begin(self) -> None:
        """Notes that a stream says something; who says nothing for a window counts no more."""
        self._under_way += 1

    def end(self) -> None:
        """Notes that a stream said nothing for a window, or ends."""
        self._under_way -= 1


class Coalescer:
    """Joins deltas that come close together, so that a record carries more than one token.

    The first delta goes at once; what comes within the window after a part goes together at the
    window's end, also when nothing more comes.

    Args:
        pace: Says how long the window is.
        send: Takes each joined delta.
    """

    def __init__(self, pace: Pace, send: Callable[[Delta], None]) -> None:
        self._pace = pace
        self._send = send
        self._waiting: list[Delta] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, delta: Delta) -> None:
        """Takes a delta in."""
        self._waiting.append(delta)
        if self._timer is None:
            self._pace.begin()
            self._tick()

    def flush(self) -> None:
        """Sends what waits, now."""
        if self._waiting:
            joined = Delta(
                content="".join(delta.content for delta in self._waiting),
                tool_calls=tuple(call for delta in self._waiting for call in delta.tool_calls),
            )
            self._waiting.clear()
            self._send(joined)

    def close(self) -> None:
        """Stops the clock; what still waits is forgotten."""
        if self._timer is not None:
            self._timer.cancel()
            self._rest()

    def _tick(self) -> None:
        if not self._waiting:
            self._rest()
            return
        self._timer = asyncio.get_running_loop().call_later(self._pace.window_s, self._tick)
        self.flush()

    def _rest(self) -> None:
        self._timer = None
        self._pace.end()


_MUTE = Refusal(
    reason=Reason.PROVIDER_TIMEOUT,
    message="the provider did not begin to answer as soon as its route asks",
)
_SILENT = Refusal(
    reason=Reason.PROVIDER_TIMEOUT,
    message="the provider fell silent in the middle of its answer",
)


def _asked(
    provider: Provider, routed: InferenceRouted
) -> AsyncGenerator[Delta | Completion | SecretUsed, None]:
    if isinstance(provider, RoutedReader):
        return provider.answer(routed)
    return provider.complete(routed.request, routed.route)


def _moment(loop: asyncio.AbstractEventLoop, wait_ms: int | None) -> float | None:
    """Returns when a wait is over, by the loop's clock; None where it has no end."""
    return None if wait_ms is None else loop.time() + wait_ms / 1000
