"""Tools: functions of the catalog, run for whoever may execute them.

What a call comes to is JSON text in one of two forms: ``{"result": ...}``, or
``{"error": {"kind": ..., "message": ...}}``, which a model can read and mend.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from schemas.kinds import FunctionVersionSpec


class Fault(StrEnum):
    """Why a call came to no result."""

    ARGUMENTS = "arguments"  # they do not fit the parameters
    FORBIDDEN = "forbidden"  # it tried what it may not: an address, a write, the network
    LIMIT = "limit"  # time, memory, size: stopped
    RAISED = "raised"  # the function itself failed
    SOURCE = "source"  # it cannot be run at all: it does not import, the statement is none
    UNREACHABLE = "unreachable"  # what it goes to does not answer
    UNSETTLED = "unsettled"  # it began once and may have had its effect: a person must look


class ToolFailed(Exception):
    """A call came to no result.

    Attributes:
        fault: Why.
        message: In words for the model and the person behind it; quotes no secret and no data.
    """

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(f"{fault}: {message}")
        self.fault = fault
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Where a call goes on that was cut off.

    Attributes:
        last: What an earlier attempt of the same call saved last, as JSON; None where none did.
        save: Takes JSON in the place of what was saved before; returns once it is durable, and
            where the call is somebody else's by now, never: it is cancelled.
    """

    last: str | None
    save: Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of a function.

    Attributes:
        call_id: Id of its request, the same however often it is delivered: the idempotency key.
        function: Three-level name.
        version: Its number.
        spec: What that version is.
        arguments: Checked against its parameters.
        tenant: Who pays.
        principal: Who acts.
        deadline: When nobody waits any more.
        checkpoint: Where it goes on; None where nothing keeps that.
    """

    call_id: str
    function: str
    version: int
    spec: FunctionVersionSpec
    arguments: Mapping[str, Any]
    tenant: str
    principal: str
    deadline: datetime
    checkpoint: Checkpoint | None = None


class Runner(Protocol):
    """Runs the functions of one language."""

    async def run(self, call: Call) -> Any:
        """Returns what the function returns: a JSON value.

        Raises:
            ToolFailed: It comes to no result.
        """

    async def close(self) -> None:
        """Gives back what it holds."""
