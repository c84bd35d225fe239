"""The functions in Python that a catalog begins with, in a bare interpreter as tool workers use."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.calling import shipped

CALLS = """
import json
said = json.loads(input())
names = {"__name__": "function"}
exec(said["source"], names)
try:
    print(json.dumps([names[said["name"]](**said["arguments"]), None]))
except Exception as error:
    print(json.dumps([None, f"{type(error).__name__}: {error}"]))
"""


async def run(name: str, **arguments: object) -> tuple[Any, str | None]:
    """Returns what a function returns and what it raises."""
    spec = shipped(f"main.default.{name}", "catalog/seed.yaml")
    asked = {"source": spec["source"], "name": name, "arguments": arguments}
    bare = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", CALLS),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(bare.communicate(json.dumps(asked).encode()), 120)
    result, error = json.loads(said)
    return result, error


ARITHMETIC: dict[str, float] = {
    "(17 + 4) * 2 ** 3": 168,
    " -7 // 2 ": -4,
    "7 % 4 - +1.5": 1.5,
    "1 / 4": 0.25,
    "2 ** -2": 0.25,
    "2 ** 100": 2**100,
    "+".join("1" * 200): 200,
}


@pytest.mark.parametrize("expression", ARITHMETIC)
async def test_arithmetic_is_worked_out(expression: str) -> None:
    assert await run("calculator", expression=expression) == (ARITHMETIC[expression], None)


UNKNOWN: dict[str, str] = {
    "": "no arithmetic",
    "1 +": "no arithmetic",
    "2; 3": "no arithmetic",
    "(" * 250 + "1" + ")" * 249: "no arithmetic",
    "x": "only numbers",
    "__import__('os').system('true')": "only numbers",
    "(1).__class__": "only numbers",
    "'a' * 9": "only numbers",
    "True + 1": "only numbers",
    "[1 for _ in (1,)]": "only numbers",
    "1 if 1 else 2": "only numbers",
    "1 << 2": "only numbers",
    "2j": "only numbers",
    "9 ** 9 ** 9": "too large",
    "10.0 ** 400": "OverflowError",
    "1e308 * 10": "too large",
    "1e999": "too large",
    "(-8) ** 0.5": "no real number",
    "1 / 0": "ZeroDivisionError",
}


@pytest.mark.parametrize("expression", UNKNOWN)
async def test_what_is_no_arithmetic_or_too_large_is_said_so(expression: str) -> None:
    result, error = await run("calculator", expression=expression)
    assert result is None
    assert UNKNOWN[expression] in str(error)


async def test_numbers_stay_of_a_size() -> None:
    longest = "9" * 100 + "**12"
    result, error = await run("calculator", expression=f"({longest}) * ({longest})")
    assert (result, error) == (None, "OverflowError: the number is too large")


async def test_it_is_now_in_any_time_zone() -> None:
    found, error = await run("current_time")
    now = datetime.now(UTC)
    assert error is None
    assert abs(datetime.fromisoformat(found["time"]) - now) < timedelta(minutes=1)
    assert found["timezone"] == "UTC"
    there, error = await run("current_time", timezone="Asia/Kolkata")
    assert error is None
    assert datetime.fromisoformat(there["time"]).utcoffset() == timedelta(hours=5, minutes=30)
    assert there["weekday"] == datetime.fromisoformat(there["time"]).strftime("%A")


@pytest.mark.parametrize("zone", ["Nowhere", "../../etc/passwd", "/etc/passwd", ""])
async def test_a_time_zone_that_is_none_is_said_so(zone: str) -> None:
    result, error = await run("current_time", timezone=zone)
    assert result is None
    assert "there is no such time zone" in str(error)
