"""A runner whose functions have an effect that can be counted: a line with the call's key.

    {"notes": PATH}     where the line goes

Killed behind its effect and before its end, a call is asked whether it had it: there the line is.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from workers.tools import Call
from workers.tools.calls import Office

# Long enough to be killed amid it, before the effect or behind it.
HALF_S = 0.1


class Counted:
    """Writes lines."""

    async def run(self, call: Call) -> Any:
        """Writes the line, after a while; ends a while later."""
        await asyncio.sleep(HALF_S)
        with Path(call.arguments["notes"]).open("a") as notes:
            notes.write(f"{call.call_id}\n")
        await asyncio.sleep(HALF_S)
        return "noted"

    async def reconcile(self, call: Call) -> Any:
        """Returns whether there is a line."""
        if call.call_id in Path(call.arguments["notes"]).read_text().splitlines():
            return {"done": True, "result": "noted"}
        return {"done": False}

    async def close(self) -> None:
        """Holds nothing."""


async def open_counted(office: Office) -> Counted:
    """Returns the runner."""
    return Counted()
