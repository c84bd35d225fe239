"""What a client hears: whole answers, and parts that become one."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.events import Attempt, Completion, InferenceReplied, ToolCallDelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to a request.

    Attributes:
        request_id: Names the request in the inference table.
        completion: The whole answer with usage.
        tried: Routes that failed before.
    """

    request_id: str
    completion: Completion
    tried: tuple[Attempt, ...] = ()

    @property
    def content(self) -> str:
        """The text of the answer."""
        return self.completion.content


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of an answer.

    Attributes:
        content: Text to append.
        tool_calls: Pieces of tool calls to append.
        restarted: Whether what came before is void: the answer begins anew with this part.
        reply: The whole answer; only in the last part.
    """

    content: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    restarted: bool = False
    reply: Reply | None = None


@dataclass(slots=True)
class Stitch:
    """Puts the parts of one request together, whatever is repeated, late or begun anew."""

    version: tuple[int, int] = (-1, -1)
    seen: int = 0
    content: str = ""

    def add(self, replied: InferenceReplied) -> Part | None:
        """Returns what a part adds, or None where it adds nothing."""
        delta = replied.delta
        version = (replied.attempt, replied.epoch)
        if delta is None or version < self.version:
            return None
        restarted = version > self.version and self.seen > 0
        if version > self.version:
            # A try whose beginning is missing does not void what is shown.
            if replied.seq:
                return None
            self.version, self.seen, self.content = version, 0, ""
        # Behind a gap nothing is shown: the terminal reply carries the whole text.
        if replied.seq != self.seen:
            return None
        self.seen += 1
        self.content += delta.content
        return Part(content=delta.content, tool_calls=delta.tool_calls, restarted=restarted)

    def end(self, reply: Reply) -> Part:
        """Returns the last part: what of the whole answer has not been seen."""
        whole = reply.content
        if whole.startswith(self.content):
            return Part(content=whole[len(self.content) :], reply=reply)
        return Part(content=whole, restarted=True, reply=reply)


class CallFailed(Exception):
    """A function came to no result.

    Attributes:
        fault: Why, in a word: ``arguments``, ``limit``, ``raised`` and so on (workers/tools).
        message: Why, in words for people and models.
    """

    def __init__(self, fault: str, message: str) -> None:
        super().__init__(f"{fault}: {message}")
        self.fault = fault
        self.message = message
