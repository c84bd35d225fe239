"""A step on its way: the run as it is by now, and what is emitted so far."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from schemas.events import (
    AgentTold,
    Completion,
    Event,
    FinishReason,
    Reason,
    Refusal,
    RequestCancelled,
    Usage,
)
from schemas.topics import AGENT_TOLD, REQUEST_CANCELLED, Outgoing, Topic
from streams.agents import facts, telling
from streams.agents.run import Run

ADDED, DONE = "response.output_item.added", "response.output_item.done"
# What an answer that is not whole is told as, in the words of the Responses API.
CUT: dict[FinishReason, str] = {
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.LENGTH: "max_output_tokens",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a run came to.

    Attributes:
        completion: Its answer.
        refusal: Why it has none; exactly one of both is set.
        cost: US dollars of all that it asked; None where that is not known.
    """

    completion: Completion | None = None
    refusal: Refusal | None = None
    cost: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a cause leads to.

    Attributes:
        run: The run after it.
        outgoing: What is emitted, in order.
        ended: What the run came to, in the one step that ends it.
    """

    run: Run
    outgoing: tuple[Outgoing, ...] = ()
    ended: Ended | None = None


class Progress:
    """One step: what it reads and writes is the run, and the clock stands at one moment."""

    def __init__(self, run: Run, now: datetime) -> None:
        self.run = run
        self.now = now
        self._outgoing: list[Outgoing] = []
        self._ended: Ended | None = None

    def step(self) -> Step:
        """Returns what came of it."""
        return Step(run=self.run, outgoing=tuple(self._outgoing), ended=self._ended)

    def emit(self, topic: Topic[Any], event: Event) -> None:
        """Puts an event behind what is emitted."""
        self._outgoing.append(Outgoing(topic, event))

    def add_whole(self, item: Mapping[str, Any]) -> None:
        """Tells the caller of an item that is there at once, as ``add`` does."""
        self.add(ADDED, item)
        self.add(DONE, item)

    def add(self, kind: str, item: Mapping[str, Any]) -> None:
        """Tells the caller of an item, if policies let its text be told."""
        self._tell(kind, None if self.run.quiet else item)

    def begin(self) -> None:
        """Tells the caller that the run goes."""
        self._tell("response.created", telling.response(self.run, "in_progress"))

    def complete(self, completion: Completion, said: Mapping[str, Any]) -> None:
        """Ends the run with an answer.

        Args:
            completion: The model's.
            said: The answer as it is told the caller.
        """
        cut = CUT.get(completion.finish_reason)
        output = [] if self.run.quiet else [said]
        self._end(
            Ended(completion=_final(completion), cost=self.run.cost),
            telling.response(
                self.run, "incomplete" if cut else "completed", incomplete=cut, output=output
            ),
        )

    def refuse(self, refusal: Refusal, bound: str | None = None) -> None:
        """Ends the run with a refusal, and whatever it waits for.

        Args:
            refusal: Why.
            bound: Which bound of its own it reached, in the words of that API.
        """
        self._call_off()
        if refusal.reason is Reason.CANCELLED:
            status = "cancelled"
        else:
            status = "incomplete" if bound else "failed"
        response = telling.response(self.run, status, incomplete=bound, error=refusal)
        self._end(Ended(refusal=refusal, cost=self.run.cost), response)

    def _end(self, ended: Ended, response: Mapping[str, Any]) -> None:
        # Where a policy looks first, what it leaves of the answer tells the end.
        if not (self.run.quiet and ended.completion):
            status = response["status"]
            # That API's stream has no word for the end of what was cancelled.
            self._tell(f"response.{'failed' if status == 'cancelled' else status}", response)
        self._ended = ended
        self.run = replace(self.run, calls=(), ended=True)

    def _call_off(self) -> None:
        """Calls off what is under way; what is past the deadline ends by itself."""
        if self.now >= self.run.deadline:
            return
        for call in self.run.calls:
            if call.state in {"approval", "asked"}:
                own = call.kind in {"recall", "remember"}
                cancelled = RequestCancelled(
                    request_id=self.run.call_id(call),
                    # As it was asked, so that whoever lets requests go on knows it again.
                    tenant=facts.tenant_of(self.run) if own else self.run.request.tenant,
                    cancelled_at=self.now,
                    deadline=self.run.deadline,
                )
                self.emit(REQUEST_CANCELLED, cancelled)

    def _tell(self, kind: str, item: Mapping[str, Any] | None) -> None:
        request = self.run.request
        if not request.stream:
            return
        told = AgentTold(
            request_id=request.request_id,
            tenant=request.tenant,
            seq=self.run.told,
            kind=kind,
            item=None if item is None else json.dumps(item, ensure_ascii=False),
            told_at=self.now,
        )
        # Beside the topic that the caller is answered on.
        self.emit(AGENT_TOLD.member(request.reply_to.rpartition(".")[2]), told)
        self.run = replace(self.run, told=self.run.told + 1)


def total(usages: Iterable[Usage]) -> Usage:
    """Returns the tokens of several turns together."""
    each = tuple(usages)
    return Usage(
        prompt_tokens=sum(one.prompt_tokens for one in each),
        completion_tokens=sum(one.completion_tokens for one in each),
        cached_tokens=sum(one.cached_tokens for one in each),
        reasoning_tokens=sum(one.reasoning_tokens for one in each),
        cache_write_tokens=sum(one.cache_write_tokens for one in each),
        estimated=any(one.estimated for one in each),
    )


def _final(completion: Completion) -> Completion:
    """Returns a run's answer: what it took was charged turn by turn."""
    reason = completion.finish_reason
    return Completion(
        model=completion.model,
        content=completion.content,
        finish_reason=reason if reason in CUT else FinishReason.STOP,
        usage=Usage(),
        logprobs=completion.logprobs,
    )
