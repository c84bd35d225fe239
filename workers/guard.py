"""Judging what waits: each rule that somebody else answers is asked, in order.

The first that refuses ends it. A later one sees what an earlier one put in place of the texts. One
that cannot be asked refuses, too, unless its policy says that it may fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any

import structlog

from infra.asker import Asker
from infra.catalog import CatalogView
from infra.settings import ClientSettings
from infra.telemetry import now
from schemas.events import (
    AuditOutcome,
    AuditRecorded,
    CatalogChanged,
    InferenceHeld,
    InferenceJudged,
    Judgement,
    Reason,
    Refusal,
)
from schemas.policies import RemoteRule
from schemas.shapes import length
from schemas.topics import AUDIT_RECORDED, INFERENCE_JUDGED, Outgoing
from workers.guards import Case, Office, Unjudged, Verdict
from workers.guards.function import ask_function
from workers.guards.http import ask_service
from workers.guards.judge import ask_judge
from workers.guards.lines import Lines
from workers.worker import Emit, Subject

log = structlog.get_logger()

# `Any`: each kind takes its own rule.
KINDS: dict[str, Callable[[Any, Case, Office], Awaitable[Verdict]]] = {
    "function": ask_function,
    "http": ask_service,
    "judge": ask_judge,
}
# The gateway may have heard of a rule before this process did.
HEARSAY_S = 2.0
# What is counted where a rule that may fail has failed.
FAILED = "FAILED"
# Refusals that say it themselves; all else is that nothing was judged.
OWN = frozenset({Reason.CANCELLED, Reason.DEADLINE_EXPIRED})
THINGS = {"input": "this request", "output": "the answer"}


class Guarding:
    """The work of a guard worker.

    Args:
        asker: Asks endpoints, as the platform.
        client: As whom.

    Attributes:
        view: The catalog; whoever runs this feeds it, and calls ``changed``.
    """

    def __init__(self, asker: Asker, client: ClientSettings) -> None:
        self.view = CatalogView()
        self.office = Office(view=self.view, asker=asker, client=client, lines=Lines())
        self._news = asyncio.Event()

    def changed(self, change: CatalogChanged) -> None:
        """Hears of a change that the view has taken in."""
        if change.kind == "policy":
            # Whoever waits for news has this event; the next one waits for the next news.
            self._news.set()
            self._news = asyncio.Event()

    def begin(self, event: InferenceHeld, now: datetime) -> Judging:
        """Returns a fresh try at judging what is held."""
        return Judging(event, now, self)

    async def close(self) -> None:
        """Closes the lines to services."""
        await self.office.lines.close()

    async def rule(self, name: str) -> RemoteRule:
        """Returns a rule; waits a moment for one that is not known.

        Raises:
            Unjudged: There is none.
        """
        try:
            async with asyncio.timeout(HEARSAY_S):
                while (found := self._found(name)) is None:
                    await self._news.wait()
        except TimeoutError:
            raise Unjudged("it is in the catalog no more") from None
        return found

    def _found(self, name: str) -> RemoteRule | None:
        policy, _, rule = name.partition("/")
        spec = self.view.policies.get(policy)
        for each in spec.rules if spec else ():
            if each.name == rule and isinstance(each, RemoteRule):
                return each
        return None


class Judging:
    """One try at judging something."""

    def __init__(self, held: InferenceHeld, instant: datetime, work: Guarding) -> None:
        self.subject = Subject(held.request_id, held.tenant, held.until)
        self._held = held
        self._began = instant
        self._work = work
        self._texts = held.texts
        self._judgements: list[Judgement] = []
        self._approvals: list[str] = []

    async def perform(self, emit: Emit) -> Iterable[Outgoing]:
        """Asks one rule after the other; concludes with what they say."""
        refusal = None
        for name in self._held.rules:
            refusal = await self._asked(name, emit)
            if refusal is not None:
                break
        return [self._judged(refusal)]

    def give_up(self, refusal: Refusal) -> Iterable[Outgoing]:
        """Concludes with a refusal: nothing was judged."""
        if refusal.reason not in OWN:
            refusal = _unjudged(self._held.rules[0] if self._held.rules else "", self._held, None)
        return [self._judged(refusal)]

    async def _asked(self, name: str, emit: Emit) -> Refusal | None:
        """Asks one rule and notes what it says; returns the refusal that follows of it."""
        rule = None
        try:
            rule = await self._work.rule(name)
            verdict = await self._verdict(name, rule, emit)
        except Unjudged as lack:
            log.warning("guard failed", rule=name, stage=self._held.stage, error=str(lack))
            if rule is None or not (rule.fail_open or rule.shadow):
                return _unjudged(name, self._held, lack)
            self._note(name, "ALLOW", FAILED, shadow=rule.shadow)
            return None
        self._note(name, verdict.says, verdict.label.upper(), shadow=rule.shadow)
        if rule.shadow:
            return None
        if verdict.says == "DENY":
            return _denied(name, self._held)
        if verdict.says == "ASK":
            self._approvals.append(name)
        if verdict.says == "MASK":
            self._texts = verdict.texts
        return None

    async def _verdict(self, name: str, rule: RemoteRule, emit: Emit) -> Verdict:
        def tell(reference: str, failure: str | None) -> None:
            emit(self._used(name, reference, failure))

        case = Case(name=name, held=self._held, texts=self._texts, tell=tell)
        kind: str = rule.type  # type: ignore[attr-defined]
        try:
            async with asyncio.timeout(length(rule.timeout).total_seconds()) as limit:
                return await KINDS[kind](rule, case, self._work.office)
        except TimeoutError:
            if not limit.expired():
                raise
            raise Unjudged(f"it was not answered within {rule.timeout}") from None

    def _note(self, name: str, verdict: str, found: str, *, shadow: bool) -> None:
        counted = {found: 1} if found else {}
        judgement = Judgement(
            rule=name, stage=self._held.stage, verdict=verdict, found=counted, shadow=shadow
        )
        self._judgements.append(judgement)

    def _judged(self, refusal: Refusal | None) -> Outgoing:
        changed = self._texts != self._held.texts
        judged = InferenceJudged(
            tenant=self._held.tenant,
            held=self._held,
            judgements=tuple(self._judgements),
            texts=self._texts if changed else (),
            approvals=tuple(self._approvals),
            refusal=refusal,
            judged_at=now(),
        )
        return Outgoing(INFERENCE_JUDGED, judged)

    def _used(self, name: str, reference: str, failure: str | None) -> Outgoing:
        client, began = self._work.office.client, int(self._began.timestamp() * 1000)
        recorded = AuditRecorded(
            audit_id=f"secret.used/{self._held.held_id}/{name}/{began}/{reference}",
            at=now(),
            source="guard",
            principal=client.principal,
            tenant=client.tenant,
            action="secret.used",
            kind="secret",
            name=reference,
            outcome=AuditOutcome.FAILED if failure else AuditOutcome.DONE,
            reason=failure,
            request_id=self._held.request_id,
        )
        return Outgoing(AUDIT_RECORDED, recorded)


def _denied(name: str, held: InferenceHeld) -> Refusal:
    todo = "ask for something else" if held.stage == "output" else "ask otherwise"
    return Refusal(
        reason=Reason.POLICY_DENIED,
        message=f"rule {name} stops {_thing(held)}: whoever it asks says no; {todo}",
        rule=name,
    )


def _unjudged(name: str, held: InferenceHeld, lack: Unjudged | None) -> Refusal:
    because = f" ({lack})" if lack else ""
    return Refusal(
        reason=Reason.POLICY_FAILED,
        message=f"rule {name} could not judge {_thing(held)}{because}, so it does not pass; "
        "try again later, or tell whoever keeps the policy",
        rule=name or None,
    )


def _thing(held: InferenceHeld) -> str:
    return THINGS.get(held.stage, "what waits")
