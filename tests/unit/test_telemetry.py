"""What a process says of itself: enough to find the cause, and nothing that a caller said."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.bootstrap import ROOT
from infra.telemetry import TRACEPARENT, consuming, described, new_traceparent, now, trace_id

PROMPT = "my card is 4111 1111 1111 1111"
CREDENTIAL = "sk-live-0123456789"

Line = dict[str, Any]


def caught(message: str) -> Exception:
    try:
        raise ValueError(message)
    except ValueError as error:
        return error


@given(message=st.text(min_size=9))
def test_a_described_error_quotes_nothing(message: str) -> None:
    said = described(caught(message))
    assert said.startswith("ValueError at test_telemetry.py:")
    # Nothing of it may stand there but by chance of the fixed words.
    assert message not in said.replace("ValueError at test_telemetry.py:", "")


def test_a_described_error_names_the_innermost_place() -> None:
    with pytest.raises(json.JSONDecodeError) as problem:
        json.loads(PROMPT)
    assert described(problem.value).startswith("JSONDecodeError at decoder.py:")
    assert "card" not in described(problem.value)


def test_an_error_that_was_never_raised_is_described_by_its_kind() -> None:
    assert described(ValueError(PROMPT)) == "ValueError"


def test_a_new_trace_is_found_again_in_the_headers() -> None:
    parent = new_traceparent()
    version, trace, span, flags = parent.split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "01")
    assert trace_id([("other", b"x"), (TRACEPARENT, parent.encode())]) == trace
    assert new_traceparent() != parent


NO_PARENTS = [
    None,
    b"",
    b"nonsense",
    b"\xff\xfe",
    b"00-a-b-c-d",
    b"00-" + b"a" * 1_000_000 + b"-b7ad6b7169203331-01",
    b"00-" + b"A" * 32 + b"-b7ad6b7169203331-01",
    b"00-" + b"a" * 32 + b"-b7ad6b7169203331-01\n",
]


@pytest.mark.parametrize("value", NO_PARENTS)
def test_a_header_that_is_no_traceparent_carries_no_trace(value: bytes | None) -> None:
    assert trace_id([(TRACEPARENT, value)]) is None


def test_no_headers_carry_no_trace() -> None:
    assert trace_id([]) is None


@given(value=st.none() | st.binary(), other=st.binary())
def test_any_headers_can_be_consumed(value: bytes | None, other: bytes) -> None:
    with consuming("group", "topic", [(TRACEPARENT, value), ("other", other)]) as onward:
        assert list(onward) == [(TRACEPARENT, value)]
    trace_id([(TRACEPARENT, value)])


def test_a_traceparent_too_long_to_be_one_goes_no_further() -> None:
    with consuming("group", "topic", [(TRACEPARENT, b"0" * 1_000_000)]) as onward:
        assert list(onward) == []


def test_now_is_what_the_log_can_keep() -> None:
    instant = now()
    assert instant.microsecond % 1000 == 0
    assert instant.utcoffset() is not None


def lines(script: str) -> list[Line]:
    """Runs a script in a process of its own; returns its log lines, each of which is JSON."""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    return [json.loads(line) for line in ran.stderr.splitlines()]


CONFIGURED = """
import asyncio, logging, structlog
from infra.settings import TelemetrySettings
from infra.telemetry import configure
configure("tests", TelemetrySettings({settings}))
"""


def test_a_log_line_names_the_process_and_the_moment() -> None:
    script = CONFIGURED.format(settings="") + "structlog.get_logger().info('ready', port=1)"
    [line] = lines(script)
    assert (line["event"], line["process"], line["level"], line["port"]) == (
        "ready",
        "tests",
        "info",
        1,
    )
    assert line["timestamp"].endswith("Z")


def test_what_is_below_the_level_is_not_said() -> None:
    script = CONFIGURED.format(settings="log_level='error'")
    assert lines(script + "structlog.get_logger().warning('no')") == []
    assert lines(script + "logging.getLogger('library').info('no')") == []


def test_a_library_that_logs_an_exception_does_not_show_its_text() -> None:
    script = (
        CONFIGURED.format(settings="")
        + f"""
try:
    raise ValueError({PROMPT!r})
except ValueError:
    logging.getLogger("library").exception("it failed")
"""
    )
    [line] = lines(script)
    assert line["event"] == "it failed"
    assert line["logger"] == "library"
    assert line["error"].startswith("ValueError at <string>:")
    assert "4111" not in json.dumps(line)


@pytest.mark.parametrize("library", ["asyncio", "faust.transport", "mode.services"])
def test_a_library_that_puts_an_error_into_its_words_does_not_show_its_text(library: str) -> None:
    script = (
        CONFIGURED.format(settings="")
        + f"""
logging.getLogger({library!r}).error("agent raised: %r", ValueError({PROMPT!r}))
"""
    )
    [line] = lines(script)
    assert line["event"] == "agent raised: %r"
    assert "4111" not in json.dumps(line)


def test_a_task_that_fails_unseen_does_not_show_its_error() -> None:
    script = (
        CONFIGURED.format(settings="")
        + f"""
async def fail():
    raise ValueError({PROMPT!r})

async def main():
    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task

asyncio.run(main())
"""
    )
    [line] = lines(script)
    assert line["event"] == "Task exception was never retrieved"
    assert "4111" not in json.dumps(line)


def test_a_library_that_logs_an_exception_as_a_value_does_not_show_its_text() -> None:
    script = (
        CONFIGURED.format(settings="")
        + f"""
error = ValueError({PROMPT!r})
logging.getLogger("library").error("it failed", exc_info=error)
"""
    )
    [line] = lines(script)
    assert line["error"] == "ValueError"
    assert "4111" not in json.dumps(line)


def test_a_step_that_fails_is_logged_with_neither_prompt_nor_credential() -> None:
    script = (
        CONFIGURED.format(settings="")
        + f"""
from tests.unit.failing_step import run
run({PROMPT!r}, {CREDENTIAL!r})
"""
    )
    said = lines(script)
    assert [line["event"] for line in said] == ["step failed"]
    assert said[0]["error"].startswith("ValueError at failing_step.py:")
    text = json.dumps(said)
    assert "4111" not in text
    assert CREDENTIAL not in text
