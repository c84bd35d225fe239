"""An answer as far as it has come: what every dialect grows from what its provider streams."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from schemas.events import (
    Completion,
    Delta,
    FinishReason,
    Reason,
    Refusal,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from workers.providers import ProviderRefused

# Of an answer; no model says so much, and its row must fit a record even when all is escaped.
MOST_CHARACTERS = 2 * 1024 * 1024
# The first half of a character that UTF-16 writes as two lies between these.
FIRST_HALVES = ("\ud800", "\udbff")


@dataclass(slots=True)
class Answer:
    """A completion that grows.

    Attributes:
        model: The model as asked, then as the provider reports it.
        begun: Whether the provider has said anything yet.
        finish_reason: Why the model stopped; None while it has not.
        usage: Tokens as the provider reports them; None while it has not.
        logprobs: One entry a token, where they were asked for.
    """

    model: str
    begun: bool = False
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)
    _content: list[str] = field(default_factory=list)
    _calls: dict[int, ToolCall] = field(default_factory=dict)
    _size: int = 0
    # Of the content (None) and of each call: the half of a character that has come.
    _halves_left: dict[int | None, str] = field(default_factory=dict)

    def grow(self, content: str = "", calls: Iterable[ToolCallDelta] = ()) -> Delta | None:
        """Adds text and pieces of tool calls; returns what is new, or None where that is nothing.

        Of each call the first id and the first name count: some servers say them in every piece.

        Raises:
            ProviderRefused: The answer is larger than any event may carry.
        """
        content = self._paired(None, content)
        pieces = tuple(self._call(piece) for piece in calls)
        if not content and not pieces:
            return None
        self._size += len(content) + sum(len(piece.arguments) for piece in pieces)
        if self._size > MOST_CHARACTERS:
            too_long = failed(f"the provider's answer passed {MOST_CHARACTERS} characters")
            raise ProviderRefused(too_long, self.usage)
        self._content.append(content)
        return Delta(content=content, tool_calls=pieces)

    def completion(self) -> Completion:
        """Returns the whole completion; its usage is all zeros where the provider told none.

        Raises:
            ProviderRefused: The stream ended before the completion did.
        """
        if self.finish_reason is None:
            raise ProviderRefused(stream_cut(), self.usage)
        return Completion(
            model=whole(self.model),
            content="".join(self._content),
            tool_calls=tuple(call for _, call in sorted(self._calls.items())),
            finish_reason=self.finish_reason,
            usage=self.usage or Usage(),
            logprobs=tuple(self.logprobs),
        )

    def _call(self, piece: ToolCallDelta) -> ToolCallDelta:
        known = self._calls.get(piece.index, ToolCall(id="", name="", arguments=""))
        new = ToolCallDelta(
            index=piece.index,
            id="" if known.id else whole(piece.id),
            name="" if known.name else whole(piece.name),
            arguments=self._paired(piece.index, piece.arguments),
        )
        self._calls[piece.index] = ToolCall(
            id=known.id + new.id,
            name=known.name + new.name,
            arguments=known.arguments + new.arguments,
        )
        return new

    def _paired(self, of: int | None, piece: str) -> str:
        """Returns a piece with the half that came before it, and without one that it ends in."""
        text = self._halves_left.pop(of, "") + piece
        if text and FIRST_HALVES[0] <= text[-1] <= FIRST_HALVES[1]:
            self._halves_left[of] = text[-1]
            text = text[:-1]
        return whole(text)


def whole(text: str) -> str:
    """Returns a text whose halves of characters are put together; one by itself is no character.

    JSON can write them apart (RFC 8259, section 8.2), and no event can carry them so.
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def stream_cut() -> Refusal:
    """Returns the refusal for a stream that ended before the completion did."""
    message = "the provider's stream ended before the completion did"
    return Refusal(reason=Reason.STREAM_CUT, message=message)


def failed(message: str) -> Refusal:
    """Returns the refusal for what is the provider's fault."""
    return Refusal(reason=Reason.PROVIDER_FAILED, message=message)
