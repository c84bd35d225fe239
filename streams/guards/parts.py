"""Parts of an answer, held to the policies on their way."""

from __future__ import annotations

from schemas.events import Delta, Refusal, ToolCallDelta
from streams.guards.channel import Channel
from streams.guards.completions import call_channel, content_channel, opened
from streams.guards.findings import Findings
from streams.guards.rules import Policies, guards
from streams.guards.seal import Seal


def holds_parts(policies: Policies, sealed: bytes | None) -> bool:
    """Returns whether parts of an answer must be looked at or changed before the caller sees them.

    Args:
        policies: By name, in order.
        sealed: What was withheld from the model.
    """
    return sealed is not None or any(
        not guard.rule.shadow and (guard.applies("output") or guard.applies("tools"))
        for guard in guards(policies)
    )


def holds_all(policies: Policies) -> bool:
    """Returns whether no part of an answer may be seen: somebody else is asked about the whole."""
    return any(
        guard.detector.remote and not guard.rule.shadow and guard.applies("output")
        for guard in guards(policies)
    )


class PartGuard:
    """Holds the parts of one answer to the policies.

    All parts of one try go through one of these, in order; what comes out of it is, put together,
    what ``guard_completion`` makes of the whole. Of that, some comes late: as much as may still
    turn out to be a placeholder, or as the rules must see to judge (``Detector``). Once it refuses,
    it says the same of everything.

    Args:
        policies: By name, in order.
        seal: Opens what was withheld.
        tenant: Who pays.
        request_id: The request that is answered.
        sealed: What was withheld from the model.
    """

    def __init__(
        self,
        policies: Policies,
        seal: Seal,
        *,
        tenant: str,
        request_id: str,
        sealed: bytes | None,
    ) -> None:
        # A rule that is only evaluated is evaluated on the whole.
        self._guards = [guard for guard in guards(policies) if not guard.rule.shadow]
        self._findings = Findings()
        values = opened(seal, tenant, request_id, sealed)
        self._refusal = values if isinstance(values, Refusal) else None
        self._values = {} if isinstance(values, Refusal) else values
        self._content = content_channel(self._guards, self._values, self._findings)
        self._calls: dict[int, Channel] = {}
        self._spoke = False

    def feed(self, delta: Delta) -> Delta | Refusal:
        """Returns what the caller may see now; empty where that is nothing yet."""
        content = ""
        if delta.content:
            self._spoke = True
            content = self._show(self._content, delta.content)
        calls: list[ToolCallDelta] = []
        for piece in delta.tool_calls:
            channel = self._calls.get(piece.index)
            if channel is None:
                channel = call_channel(self._guards, self._values, self._findings)
                self._calls[piece.index] = channel
            arguments = self._show(channel, piece.arguments)
            if piece.id or piece.name or arguments:
                calls.append(
                    ToolCallDelta(
                        index=piece.index, id=piece.id, name=piece.name, arguments=arguments
                    )
                )
        return self._refusal or Delta(content=content, tool_calls=tuple(calls))

    def finish(self) -> Delta | Refusal:
        """Returns what was held back of an answer that is whole."""
        content = ""
        if self._spoke or not self._calls:
            content = self._show(self._content)
        calls = [
            ToolCallDelta(index=index, arguments=arguments)
            for index, channel in sorted(self._calls.items())
            if (arguments := self._show(channel))
        ]
        return self._refusal or Delta(content=content, tool_calls=tuple(calls))

    def _show(self, channel: Channel, piece: str | None = None) -> str:
        """Returns what a channel lets show of the next piece, or of the rest."""
        if self._refusal:
            return ""
        shown = channel.finish() if piece is None else channel.feed(piece)
        if isinstance(shown, Refusal):
            self._refusal = shown
            return ""
        return shown.reply
