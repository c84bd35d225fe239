"""Calls of functions, and what a runner is opened with, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.bootstrap import ROOT
from infra.secrets import SecretUnavailable
from infra.settings import ToolsSettings
from schemas.kinds import FunctionVersionSpec
from tests.seed import Document, documents, view_of
from workers.tools import Call, Fault, Runner, ToolFailed
from workers.tools.calls import Office

CONNECTION = "main.tests.outside"
WORD = "a-word-that-is-nowhere-told"
CALL_ID = "request-1//acme//3"


def office(
    *connections: dict[str, Any], secret: str = WORD, settings: ToolsSettings | None = None
) -> Office:
    """Returns what a runner is opened with where the catalog has these connections.

    The first is called ``CONNECTION``; a ``name`` in another is its own.
    """
    made: list[Document] = []
    for spec in connections:
        name = spec.pop("name", CONNECTION)
        made.append({"kind": "connection", "name": name, "spec": spec})

    async def told(call: Call, reference: str) -> str:
        if reference == "env:NOWHERE":
            raise SecretUnavailable("env:NOWHERE is empty or missing")
        return secret

    return Office(view=view_of(made), settings=settings or ToolsSettings(), secret=told)


def call(
    source: str,
    arguments: dict[str, Any] | None = None,
    *,
    names: Iterable[str] = (),
    seconds: float = 60.0,
    call_id: str = CALL_ID,
    **more: Any,
) -> Call:
    """Returns a call of a function whose parameters are named as these, else as the arguments."""
    given = arguments or {}
    plain: dict[str, Any] = {
        # Whoever runs it was chosen by its language already.
        "language": "sql",
        "source": source,
        "parameters": {"type": "object", "properties": {name: {} for name in {*given, *names}}},
        "connection": CONNECTION,
        "timeout": "60s",
    }
    return Call(
        call_id=call_id,
        function="main.tests.function",
        version=1,
        spec=FunctionVersionSpec.model_validate({**plain, **more}),
        arguments=given,
        tenant="acme",
        principal="alice",
        deadline=datetime.now(UTC) + timedelta(seconds=seconds),
    )


async def fails(runner: Runner, asked: Call, fault: Fault, *words: str) -> str:
    """Returns what a call says that comes to no result for this reason, in these words."""
    with pytest.raises(ToolFailed) as failure:
        await runner.run(asked)
    said = failure.value.message
    assert failure.value.fault is fault, said
    for word in words:
        assert word in said
    assert WORD not in said
    return said


def shipped(name: str, file: str) -> dict[str, Any]:
    """Returns the spec of a function that comes with the platform."""
    found = next(each for each in documents(ROOT / Path(file)) if each["name"] == name)
    spec: dict[str, Any] = found["versions"][0]["spec"]
    return spec
