"""A runner whose functions do one thing that can be counted: a line in a file.

    {"notes": PATH}                     where lines go: what happened, the call's id, the process's
    {"notes": PATH, "until": PATH}      waits first, until the file is there
    {"notes": PATH, "after": PATH}      waits with the answer, until the file is there

A function whose source is ``hook`` can say whether a call had its effect.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from workers.tools import Call
from workers.tools.calls import Office
from workers.tools.sandbox import SandboxUnavailable

LOOK_S = 0.1


class Effects:
    """Writes lines."""

    async def run(self, call: Call) -> Any:
        """Returns the key and the process, once it has waited and written."""
        note(call, "began")
        try:
            await there(call.arguments.get("until"))
            note(call, "effect")
            await there(call.arguments.get("after"))
        except asyncio.CancelledError:
            note(call, "stopped")
            raise
        return {"key": call.call_id, "pid": os.getpid()}

    async def reconcile(self, call: Call) -> Any:
        """Returns whether there is a line of the effect."""
        if call.spec.source != "hook":
            return None
        note(call, "asked")
        lines = Path(call.arguments["notes"]).read_text().splitlines()
        if any(line.startswith(f"effect {call.call_id} ") for line in lines):
            return {"done": True, "result": "it was there"}
        return {"done": False}

    async def close(self) -> None:
        """Holds nothing."""


async def open_effects(office: Office) -> Effects:
    """Returns the runner."""
    return Effects()


async def open_nowhere(office: Office) -> Effects:
    """Raises what a runner does that lacks something."""
    raise SandboxUnavailable("this machine has no effects")


async def there(path: str | None) -> None:
    """Returns when a file is there."""
    while path is not None and not Path(path).exists():
        await asyncio.sleep(LOOK_S)


def note(call: Call, what: str) -> None:
    """Adds a line."""
    line = f"{what} {call.call_id} {os.getpid()}\n"
    with Path(call.arguments["notes"]).open("a") as notes:
        notes.write(line)
