"""What functions share that go to a connection of the catalog."""

from __future__ import annotations

from datetime import UTC, datetime

from infra.catalog import CatalogView
from infra.secrets import SecretUnavailable
from schemas.kinds import ConnectionSpec
from schemas.shapes import length
from workers.tools import Call, Fault, ToolFailed
from workers.tools.calls import Office


def connection_of(call: Call, view: CatalogView, type_: str) -> ConnectionSpec:
    """Returns the connection that a function goes to.

    Raises:
        ToolFailed: It names none, or none of this type.
    """
    name = call.spec.connection
    if name is None:
        raise ToolFailed(Fault.SOURCE, f"{call.function} names no connection: give it one")
    spec = view.connections.get(name)
    if spec is None:
        raise ToolFailed(Fault.SOURCE, f"the catalog has no connection {name}")
    if spec.type != type_:
        raise ToolFailed(
            Fault.SOURCE, f"connection {name} is of type {spec.type}: name one of type {type_}"
        )
    return spec


async def secret_of(call: Call, connection: ConnectionSpec, office: Office) -> str | None:
    """Returns the secret of a connection, read now; None where it has none.

    Raises:
        ToolFailed: It is not where its reference points.
    """
    if connection.secret is None:
        return None
    try:
        return await office.secret(call, connection.secret)
    except SecretUnavailable:
        raise ToolFailed(
            Fault.UNREACHABLE,
            f"the secret of connection {call.spec.connection} cannot be read on this platform",
        ) from None


def seconds_left(call: Call) -> float:
    """Returns how long a call may take from now on.

    Raises:
        ToolFailed: Its time is over.
    """
    until = (call.deadline - datetime.now(UTC)).total_seconds()
    if until <= 0:
        raise ToolFailed(Fault.LIMIT, "its time was over before it began")
    return min(until, length(call.spec.timeout).total_seconds())


def out_of_time(call: Call) -> ToolFailed:
    """Returns the failure of a call that took as long as it may."""
    return ToolFailed(Fault.LIMIT, f"it took longer than it may ({call.spec.timeout})")


def unanswered(call: Call, failure: ToolFailed) -> ToolFailed:
    """Returns the failure of a call that was sent whole, and of which nothing more was heard.

    It may have had its effect: what may not be repeated needs a person.
    """
    if call.spec.effect != "reconcile":
        return failure
    return ToolFailed(Fault.UNSETTLED, f"{failure.message}; whether it had its effect is not known")
