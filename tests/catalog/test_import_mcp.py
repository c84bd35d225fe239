"""Functions out of the tools of an MCP server: what is made of them, and by the command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from catalog.operator.importing import Source, offered
from catalog.operator.words import Unclear
from infra.bootstrap import ROOT
from infra.mcp.server import Tool
from infra.settings import PostgresSettings
from schemas.kinds import ConnectionSpec
from tests.catalog.towns import begun
from tests.harness import Bus

CONNECTION, SCHEMA = "main.default.shop", "main.shop"
SOURCE = Source(CONNECTION, SCHEMA)
SCRIPT = str(ROOT / "tests/unit/mcp_script.py")
Documents = dict[str, dict[str, Any]]


def tool(
    name: str = "order", *, reads: bool = False, repeatable: bool = False, **more: Any
) -> Tool:
    said = {"description": "Finds an order.\nBy its id.", "parameters": {"type": "object"}, **more}
    return Tool(name=name, reads=reads, repeatable=repeatable, **said)


def made(*tools: Tool, source: Source = SOURCE) -> Documents:
    """What is there once tools were imported."""
    return {each["name"]: each for each in source.documents(tools, {})}


def newest(documents: list[dict[str, Any]]) -> dict[str, Any]:
    [document] = documents
    spec: dict[str, Any] = document["versions"][-1]["spec"]
    return spec


def test_a_tool_becomes_a_function_that_is_called_once() -> None:
    assert SOURCE.documents([tool()], {}) == [
        {
            "kind": "function",
            "name": "main.shop.order",
            "comment": "Finds an order.",
            "versions": [
                {
                    "spec": {
                        "language": "mcp",
                        "source": "order",
                        "connection": CONNECTION,
                        "effect": "reconcile",
                        "description": "Finds an order.\nBy its id.",
                        "parameters": {"type": "object"},
                    }
                }
            ],
        }
    ]


@pytest.mark.parametrize(
    ("hinting", "effect"),
    [(tool(reads=True), "pure"), (tool(repeatable=True), "idempotent"), (tool(), "reconcile")],
)
def test_only_who_is_trusted_says_what_may_be_repeated(hinting: Tool, effect: str) -> None:
    trusted = Source(CONNECTION, SCHEMA, trusted=True)
    assert newest(trusted.documents([hinting], {}))["effect"] == effect
    assert newest(SOURCE.documents([hinting], {}))["effect"] == "reconcile"


def test_a_tool_that_is_as_it_was_adds_nothing() -> None:
    there = made(tool())
    assert SOURCE.documents([tool()], there)[0]["versions"] == there["main.shop.order"]["versions"]


@pytest.mark.parametrize("changed", [{"description": "new"}, {"parameters": {"type": "null"}}])
def test_a_tool_that_changed_adds_a_version_that_keeps_what_a_person_said(
    changed: dict[str, Any],
) -> None:
    there = made(tool())
    spec = there["main.shop.order"]["versions"][0]["spec"]
    spec |= {"effect": "idempotent", "timeout": "30s"}
    [document] = SOURCE.documents([tool(**changed)], there)
    assert [each["spec"] for each in document["versions"]] == [spec, {**spec, **changed}]


@pytest.mark.parametrize(
    ("name", "called"), [("a.b/c d", "a_b_c_d"), ("-x", "_x"), ("ü" * 200, "_" * 100)]
)
def test_a_name_that_the_catalog_does_not_have_is_changed(name: str, called: str) -> None:
    assert SOURCE.documents([tool(name)], {})[0]["name"] == f"main.shop.{called}"


def test_what_cannot_be_a_function_is_refused() -> None:
    with pytest.raises(Unclear, match=r"a\.b and a_b would all be main\.shop\.a_b.*--only"):
        SOURCE.documents([tool("a.b"), tool("a_b")], {})
    with pytest.raises(Unclear, match="the parameters of order are none"):
        SOURCE.documents([tool(parameters={"type": "nothing"})], {})
    others = made(tool(), source=Source("main.default.other", SCHEMA))
    for there in (others, made(tool()) | {"main.shop.a_b": made(tool("a.b"))["main.shop.a_b"]}):
        with pytest.raises(Unclear, match="take another schema"):
            SOURCE.documents([tool(), tool("a_b")], there)


def test_functions_whose_tools_are_gone_are_named() -> None:
    there = made(tool(), tool("old")) | made(tool("x"), source=Source("main.default.b", SCHEMA))
    there["main.shop"] = {"kind": "schema", "name": "main.shop"}
    assert list(SOURCE.gone([tool()], there.values())) == ["main.shop.old"]


async def test_a_server_that_does_not_say_what_it_offers_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOOLS_MCP_COMMANDS", json.dumps({"dead": [sys.executable, SCRIPT, "dead"]}))
    with pytest.raises(Unclear, match="does not answer"):
        await offered(ConnectionSpec(type="mcp", url="stdio://dead"))
    with pytest.raises(Unclear, match="TOOLS_MCP_COMMANDS has no shop"):
        await offered(ConnectionSpec(type="mcp", url="stdio://shop"))


@pytest.mark.stack
def test_a_servers_tools_are_imported_once_and_again_when_they_change(
    bus: Bus, postgres: PostgresSettings, tmp_path: Path
) -> None:
    town = begun(bus, postgres, tmp_path)
    spec = json.dumps({"type": "mcp", "url": "stdio://shop"})

    def imported(how: str, *words: str) -> str:
        commands = {"shop": [sys.executable, "-I", "-S", SCRIPT, how]}
        ran = town.run(
            *("catalog", "import-mcp", CONNECTION, SCHEMA, *words),
            TOOLS_MCP_COMMANDS=json.dumps(commands),
        )
        assert "Traceback" not in ran.stderr
        return ran.stdout + ran.stderr

    with town.registrar():
        town.run("catalog", "create", "schema", SCHEMA)
        town.run("catalog", "create", "connection", CONNECTION, "--spec", spec)
        assert "applied: 2 changes" in imported("well", "--yes")
        assert imported("well", "--yes") == "nothing to do\n"
        assert "applied: 1 changes" in imported("changed", "--yes")
        assert "has no tool pay; it has: order" in imported("well", "--only", "pay")
        found = json.loads(town.run("catalog", "get", "main.shop.order@2", "--json").stdout)
        assert sorted(found["spec"]["parameters"]["properties"]) == ["day", "id"]
