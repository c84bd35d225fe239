"""Calls on their way: from a request over the queue to a runner, and what each comes to.

In the queue is what was asked, never a secret and never a function's source: whoever runs a call
has the function from the catalog.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from infra.catalog import CatalogView
from infra.settings import ToolsSettings
from schemas.kinds import FunctionVersionSpec
from schemas.shapes import Shape
from workers.tools import Call, Fault, Runner, ToolFailed

# UTF-8 bytes of what a call comes to, as JSON.
MOST_RESULT_BYTES = 256 * 1024

Resolve = Callable[[Call, str], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """What a runner is opened with.

    Attributes:
        view: The catalog, complete and kept so.
        settings: How calls are run.
        secret: Returns the secret that a connection of the catalog refers to, for a call; its use
            goes into the audit. Raises SecretUnavailable.
    """

    view: CatalogView
    settings: ToolsSettings
    secret: Resolve


# Raises SandboxUnavailable for what this machine will lack tomorrow too; all else ends the process.
Opening = Callable[[Office], Awaitable[Runner]]

# Dotted paths, by language.
RUNNERS: dict[str, str] = {
    "http": "workers.tools.http:open_http",
    "mcp": "workers.tools.mcp:open_mcp",
    "python": "workers.tools.python:open_python",
    "sql": "workers.tools.sql:open_sql",
}


@runtime_checkable
class Reconciler(Protocol):
    """A runner whose functions can say whether an earlier call had its effect."""

    async def reconcile(self, call: Call) -> Any:
        """Returns ``{"done": true, "result": ...}`` or ``{"done": false}``; None without a hook.

        The function is asked with the idempotency key and the arguments of the call; it must not
        have the effect itself.

        Raises:
            ToolFailed: It cannot say.
        """


class Wanted(Shape):
    """A call as the queue carries it.

    Attributes:
        call_id: As in ``Call``; so are those that are named alike.
        arguments: As JSON, written the one way.
        position: Of the catalog in which the function was found.
    """

    call_id: str
    function: str
    version: int
    arguments: str
    tenant: str
    principal: str
    deadline: datetime
    position: int

    @property
    def digest(self) -> str:
        """What is the same for the same call alone: who calls what, and with what."""
        what = [self.tenant, self.principal, self.function, self.version, self.arguments]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def wanted(call: Call, position: int) -> Wanted:
    """Returns a call as the queue carries it."""
    return Wanted(
        call_id=call.call_id,
        function=call.function,
        version=call.version,
        arguments=json.dumps(call.arguments, sort_keys=True),
        tenant=call.tenant,
        principal=call.principal,
        deadline=call.deadline,
        position=position,
    )


def called(wanted: Wanted, spec: FunctionVersionSpec) -> Call:
    """Returns the call that the queue has carried."""
    return Call(
        call_id=wanted.call_id,
        function=wanted.function,
        version=wanted.version,
        spec=spec,
        arguments=json.loads(wanted.arguments),
        tenant=wanted.tenant,
        principal=wanted.principal,
        deadline=wanted.deadline,
    )


def version_of(view: CatalogView, function: str, number: int) -> FunctionVersionSpec:
    """Returns a version of a function.

    Raises:
        ToolFailed: The catalog has none that can be read.
    """
    found = view.functions.find(function, str(number))
    if found is None:
        raise ToolFailed(Fault.SOURCE, f"the catalog has no {function}@{number} any more")
    return found.version


def returned(result: Any) -> str:
    """Returns what a call comes to that has a result.

    Raises:
        ToolFailed: It is no JSON, or too much.
    """
    try:
        text = json.dumps({"result": result}, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (RecursionError, TypeError, ValueError):
        raise ToolFailed(Fault.RAISED, "what it returned is no JSON value") from None
    if size > MOST_RESULT_BYTES:
        raise ToolFailed(
            Fault.LIMIT,
            f"its result has {size} bytes and may have {MOST_RESULT_BYTES}: ask for less",
        )
    return text


def failed(failure: ToolFailed) -> str:
    """Returns what a call comes to that has no result."""
    error: Mapping[str, str] = {"kind": failure.fault, "message": failure.message}
    return json.dumps({"error": error})
