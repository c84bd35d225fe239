"""Runs functions in Python, each call in a process of its own."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from schemas.shapes import length
from workers.tools import Call, Fault, ToolFailed
from workers.tools.sandbox import Bounds, FunctionMissing, check, run

RECONCILE = "reconcile"


class PythonRunner:
    """Runs functions of language ``python``."""

    async def run(self, call: Call) -> Any:
        """Returns what the function returns.

        Raises:
            SandboxUnavailable: This machine cannot confine it.
            ToolFailed: It comes to no result.
        """
        return await _run(call, call.function)

    async def reconcile(self, call: Call) -> Any:
        """Returns what the source's function ``reconcile`` says of an earlier call.

        It has the arguments, the key and the checkpoint of that call, and returns
        ``{"done": true, "result": ...}`` or ``{"done": false}``. None where the source has no such
        function.

        Raises:
            SandboxUnavailable: This machine cannot confine it.
            ToolFailed: It comes to no result.
        """
        try:
            return await _run(call, RECONCILE)
        except FunctionMissing:
            return None

    async def close(self) -> None:
        """Holds nothing: a process ends with its call."""


async def _run(call: Call, function: str) -> Any:
    bounds = bounds_of(call, datetime.now(UTC))
    # Where a model is asked for it, it is an argument like any other.
    named = "checkpoint" in call.spec.parameters.get("properties", {})
    return await run(
        call.spec.source,
        function,
        call.arguments,
        bounds,
        call.call_id,
        checkpoint=None if named else call.checkpoint,
    )


async def open_python(_: object) -> PythonRunner:
    """Returns a runner, once a call has shown that this machine can confine one.

    It needs nothing of the office that runners are opened with.

    Raises:
        SandboxUnavailable: It cannot; says what is missing.
    """
    await check(Bounds(wall_s=60))
    return PythonRunner()


def bounds_of(call: Call, now: datetime) -> Bounds:
    """Returns what a call may take: what its version says, and never past its deadline.

    Raises:
        ToolFailed: Nobody waits any more.
    """
    left = (call.deadline - now).total_seconds()
    if left <= 0:
        raise ToolFailed(Fault.LIMIT, "its time was over before it began")
    wall_s = min(left, length(call.spec.timeout).total_seconds())
    return Bounds(
        wall_s=wall_s,
        cpu_s=math.ceil(wall_s),
        memory_mib=call.spec.memory_mb,
        network=call.spec.network,
    )
