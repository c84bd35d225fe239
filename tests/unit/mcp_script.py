"""An MCP server that says what it is told, however wrong: ``mcp_script.py ANSWER``; no SDK.

The answer ``told`` is what the argument of each call names, from that call on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"id": {"type": "string"}},
    "required": ["id"],
}
RESULTS: dict[str, Any] = {
    "initialize": {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "script", "version": "1"},
    },
    "tools/call": {"content": [{"type": "text", "text": "done"}]},
    "tools/list": {"tools": [{"name": "order", "inputSchema": SCHEMA}]},
}


def answer(how: str, method: str) -> str | None:
    """Returns the line that answers; None where there is no answer."""
    if method not in RESULTS:
        return '{"jsonrpc": "2.0", "id": ID, "error": {"code": -32601, "message": "none"}}'
    result = json.dumps(RESULTS[method])
    if how == "endless" and method == "tools/list":
        result = json.dumps({**RESULTS[method], "nextCursor": "more"})
    if how == "changed" and method == "tools/list":
        more = {**SCHEMA, "properties": {**SCHEMA["properties"], "day": {"type": "string"}}}
        result = json.dumps({"tools": [{"name": "order", "inputSchema": more}]})
    if method == "tools/call":
        if how in ("changed", "deaf", "fails", "leaves", "works"):
            told = {"type": "text", "text": str(os.getpid())}
            result = json.dumps({"content": [told], "isError": how == "fails"})
        if how == "asks":
            result = '{"resultType": "input_required", "inputRequests": {}}'
        if how == "garbage":
            result = '{"content": 7}'
        if how == "large":
            result = json.dumps({"content": [{"type": "text", "text": "x" * 5_000_000}]})
        if how == "refuses":
            return '{"jsonrpc": "2.0", "id": ID, "error": {"code": -32602, "message": "no id"}}'
        if how == "silent":
            return None
    return f'{{"jsonrpc": "2.0", "id": ID, "result": {result}}}'


def note(asked: dict[str, Any]) -> None:
    """Notes a call in the file that it names; the first one of all never ends."""
    notes = Path(asked["params"]["arguments"]["id"])
    first = not notes.exists()
    with notes.open("a") as file:
        file.write(f"{asked['params']['_meta']['idempotency-key']} {os.getpid()}\n")
    if first:
        time.sleep(600)


def hold(asked: dict[str, Any]) -> None:
    """Hangs, and leaves its output to a process that is not of its group."""
    with subprocess.Popen(["/bin/sleep", "600"], start_new_session=True) as holder:
        Path(asked["params"]["arguments"]["id"]).write_text(f"{holder.pid} \n")


def main(how: str) -> None:
    """Answers until nobody asks."""
    if how == "dead":
        sys.exit(1)
    if how == "mute":
        time.sleep(600)
    told = how == "told"
    for line in sys.stdin:
        asked = json.loads(line)
        print("what a library prints")
        if told and asked["method"] == "tools/call":
            how = asked["params"]["arguments"]["id"]
        if how == "dies" and asked["method"] == "tools/call":
            sys.exit(1)
        if how == "notes" and asked["method"] == "tools/call":
            note(asked)
        if how == "holds" and asked["method"] == "tools/call":
            hold(asked)
        if "id" in asked and (said := answer(how, asked["method"])):
            print(said.replace("ID", json.dumps(asked["id"]), 1), flush=True)
        if how == "leaves":
            sys.exit(1)
        if how == "deaf":
            time.sleep(600)
    if how == "lingers":
        time.sleep(600)


if __name__ == "__main__":
    main(sys.argv[1])
