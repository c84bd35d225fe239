"""The functions that come with the platform can be applied, those of the seed and the others."""

from __future__ import annotations

import pytest

from catalog.store.store import Store
from infra.bootstrap import ROOT
from schemas.kinds import FunctionVersionSpec, Version
from tests.catalog.commanding import Office
from tests.catalog.test_applying import said

pytestmark = pytest.mark.stack


def test_functions_that_come_with_the_platform_can_be_applied(store: Store) -> None:
    office = Office(store)
    seed = [each for each in said((ROOT / "catalog/seed.yaml").read_text())]
    functions = [each for each in seed if each["kind"] == "function"]
    tools = said((ROOT / "catalog/tools.yaml").read_text())
    assert office.ask("apply", documents=[*functions, *tools]).result["applied"]
    languages = {}
    for name in ("calculator", "current_time", "http_get", "sql_query"):
        _, body = office.view.entry("version", f"main.default.{name}@1") or (0, None)
        spec = FunctionVersionSpec.model_validate(Version.model_validate_json(body or "").spec)
        languages[name] = (spec.language, spec.effect)
    assert languages == {
        "calculator": ("python", "pure"),
        "current_time": ("python", "pure"),
        "http_get": ("http", "pure"),
        "sql_query": ("sql", "pure"),
    }
