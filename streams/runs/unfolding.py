"""A run as a tree, out of its journal: taken in once more, as whoever went on with it did."""

from __future__ import annotations

from collections.abc import Mapping

from infra.registry import Reader, SchemaMissing
from schemas.agents import call_id, run_id
from schemas.codec import Unreadable
from schemas.events import (
    AgentJournaled,
    ApprovalWanted,
    Completion,
    InferenceCompleted,
    InferenceReplied,
    InferenceRequested,
    Reason,
    Refusal,
    Role,
    Task,
)
from schemas.topics import BEHIND
from streams.agents.causes import Decided, caused
from streams.agents.folding import Folded, JournalUnsound, Taken, fold
from streams.agents.run import Run
from streams.runs.node import Node

# What a request asks, where no turn of a model called for it.
KINDS: Mapping[Task, str] = {
    Task.AGENT: "agent",
    Task.CHAT: "turn",
    Task.SEARCH: "index",
    Task.TOOL: "function",
    Task.WRITE: "index",
}
UNLIKE = (JournalUnsound, SchemaMissing, Unreadable)


async def unfolded(run: str, journals: Mapping[str, list[AgentJournaled]], reader: Reader) -> Node:
    """Returns a run with all that it asked, and the runs below it.

    Args:
        run: Its id, which is among the journals.
        journals: What is known of it, and of runs below it.
        reader: Reads what came for them.
    """
    unfolding = Unfolding(journals[run][0])
    await unfolding.take_all(journals[run], reader)
    for call in unfolding.agents():
        below = run_id(call.request_id, unfolding.node.tenant)
        if below in journals:
            call.below.append(await unfolded(below, journals, reader))
    return unfolding.node


class Unfolding:
    """The tree of one run on its way.

    Args:
        first: The first entry of its journal.

    Attributes:
        node: The run.
    """

    def __init__(self, first: AgentJournaled) -> None:
        self.node = Node(
            request_id=first.run_id.rpartition(BEHIND)[0],
            kind="run",
            name=first.agent,
            tenant=first.tenant,
            asked_at=first.at,
        )
        self._asked: dict[str, Node] = {}
        # What the model calls its calls.
        self._ids: dict[str, str] = {}
        self._turn = self.node
        self._told = True

    def agents(self) -> list[Node]:
        """Returns the calls that other agents were asked with."""
        return [each for each in self._asked.values() if each.kind in {"agent", "handoff"}]

    async def take_all(self, entries: list[AgentJournaled], reader: Reader) -> None:
        """Takes the entries of the journal in, as far as they can be."""
        folded: Folded | None = None
        for entry in entries:
            try:
                taken = await fold(folded, entry, reader)
                came = await _came(entry, reader)
            # An older version of the platform may have gone by other rules.
            except UNLIKE as problem:
                self.node.reason = f"what came at {entry.at:%H:%M:%SZ} is not shown: {problem}"
                if entries[-1].ended:
                    self.node.state, self.node.ended_at = "ended", entries[-1].at
                return
            self._take(folded, entry, came, taken)
            folded = taken.folded

    def _take(
        self,
        before: Folded | None,
        entry: AgentJournaled,
        came: InferenceReplied | None,
        taken: Taken,
    ) -> None:
        run = taken.folded.run
        if before is None:
            # Where a policy looks at answers first, the log shows more than callers may see.
            self._told = not run.quiet
            self.node.said = self._text(_last_said(run))
        elif came is not None:
            self._hear(before.run, came, entry)
        turn = self._turn
        for _, event in taken.outgoing:
            if isinstance(event, InferenceRequested):
                self._ask(event, entry)
            elif isinstance(event, ApprovalWanted):
                node = self._asked[event.request_id]
                node.state, node.approval, node.asked_at = "waits", event.approval_id, entry.at
            elif isinstance(event, InferenceCompleted):
                self._end(event, entry)
        self._settle(turn, run, entry)

    def _hear(self, before: Run, came: InferenceReplied, entry: AgentJournaled) -> None:
        node = self._asked.get(came.request_id)
        if node is None:
            return
        cause = caused(came)
        if isinstance(cause, Decided):
            self._decide(node, cause, entry)
        elif came.completion is not None:
            node.state, node.ended_at = "completed", entry.at
            self._answer(node, came.completion)
            for number, call in enumerate(came.completion.tool_calls, start=before.next_number):
                tool = before.definition.tools.get(call.name)
                called = Node(
                    request_id=call_id(before.run_id, number),
                    kind="unknown" if tool is None else tool.kind,
                    name=call.name if tool is None else tool.target,
                    said=self._text(call.arguments),
                )
                self._asked[called.request_id] = called
                self._ids[called.request_id] = call.id
                node.below.append(called)
        elif came.refusal is not None:
            _fail(node, came.refusal, entry)

    def _decide(self, node: Node, decided: Decided, entry: AgentJournaled) -> None:
        if decided.granted:
            node.state = "running"
            return
        node.state, node.ended_at = "failed", entry.at
        by = f"denied by {decided.principal}" if decided.principal else "nobody decided in time"
        node.reason = f"{by}: {decided.reason}" if decided.reason else by

    def _answer(self, node: Node, completion: Completion) -> None:
        node.result = self._text(completion.content or completion.found or "")
        node.model = completion.model
        node.prompt_tokens = completion.usage.prompt_tokens
        node.completion_tokens = completion.usage.completion_tokens

    def _ask(self, asked: InferenceRequested, entry: AgentJournaled) -> None:
        node = self._asked.get(asked.request_id)
        if node is None:
            kind = KINDS.get(asked.task, "")
            node = Node(request_id=asked.request_id, kind=kind, name=asked.endpoint)
            self._asked[asked.request_id] = node
            parent = self.node if kind == "turn" else self._turn
            parent.below.append(node)
        if node.kind == "turn":
            self._turn = node
        node.state, node.asked_at = "running", node.asked_at or entry.at

    def _settle(self, turn: Node, run: Run, entry: AgentJournaled) -> None:
        """Says what became of calls of a turn for which nobody was asked."""
        calls = {run.call_id(call): call for call in run.calls}
        answers = {each.tool_call_id: each.content for each in run.transcript}
        for node in turn.below:
            call = calls.get(node.request_id)
            if node.asked_at is None and (call is None or call.state == "answered"):
                node.state, node.asked_at, node.ended_at = "failed", entry.at, entry.at
                node.reason = "it could not be called"
                result = answers.get(self._ids[node.request_id], "")
                node.result = self._text(call.result if call else result)

    def _end(self, completed: InferenceCompleted, entry: AgentJournaled) -> None:
        self.node.cost = completed.cost_usd
        if completed.refusal is not None:
            _fail(self.node, completed.refusal, entry)
        elif completed.completion is not None:
            self.node.state, self.node.ended_at = "completed", entry.at
            self.node.result = self._text(completed.completion.content)
        for each in self._asked.values():
            if each.ended_at is None and each.asked_at is not None:
                each.state, each.ended_at = "cancelled", entry.at

    def _text(self, text: str) -> str:
        return text if self._told else ""


def _fail(node: Node, refusal: Refusal, entry: AgentJournaled) -> None:
    node.state = "cancelled" if refusal.reason is Reason.CANCELLED else "failed"
    node.reason = f"{refusal.reason}: {refusal.message}"
    node.ended_at = entry.at


def _last_said(run: Run) -> str:
    said = [each.content for each in run.conversation if each.role is Role.USER]
    return said[-1] if said else ""


async def _came(entry: AgentJournaled, reader: Reader) -> InferenceReplied | None:
    """Returns the reply that an entry took in; None where it took in something else."""
    if entry.seq == 0 or not entry.cause_topic:
        return None
    return await reader.read(entry.cause, InferenceReplied)
