"""What a run goes on by: the request that begins it, and whatever comes for it afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.agents import run_of
from schemas.events import InferenceReplied, InferenceRequested, InferenceRouted
from schemas.openai import parsed
from streams.agents.conversation import NOTHING_SAID, Conversation


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A caller asked an agent, and the gateway let it.

    Attributes:
        routed: What came.
        reply_to_agents: Reply topic that runs are answered on.
        earlier: The conversation that it goes on with.
    """

    routed: InferenceRouted
    reply_to_agents: str
    earlier: Conversation = NOTHING_SAID

    @property
    def request(self) -> InferenceRequested:
        """What the caller asked."""
        return self.routed.request

    @property
    def quiet(self) -> bool:
        """Whether a policy looks at the answer before anybody hears of it."""
        return self.routed.parts_to is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What the call of a number asked for was answered, or refused."""

    number: int
    replied: InferenceReplied


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A person let the call of a number go on, or did not, or nobody said so in time.

    Attributes:
        number: The call.
        granted: Whether it goes on.
        principal: Who decided; empty where nobody did.
        reason: What that one said.
    """

    number: int
    granted: bool
    principal: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The caller wants no answer any more."""


@dataclass(frozen=True, slots=True)
class Expired:
    """The clock says that the run's deadline has passed."""


Cause = Answered | Cancelled | Decided | Expired


def caused(replied: InferenceReplied) -> Answered | Decided | None:
    """Returns what a reply to a run's own request tells the run; None where it tells nothing.

    A decision comes as the result of a command; parts of an answer are nobody's here.
    """
    call = run_of(replied.request_id)
    if call is None:
        return None
    if replied.completion is not None or replied.refusal is not None:
        return Answered(number=call[1], replied=replied)
    said = parsed(replied.result or "")
    if not isinstance(said, dict):
        return None
    return Decided(
        number=call[1],
        granted=said.get("granted") is True,
        principal=str(said.get("principal") or ""),
        reason=str(said.get("reason") or ""),
    )
