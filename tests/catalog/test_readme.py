"""What the catalog's README shows works as it stands there."""

from __future__ import annotations

import re
from typing import Any

import pytest
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import text

from catalog.store.store import MIGRATIONS, Store
from infra.bootstrap import ROOT
from tests.catalog.acting import begun
from tests.catalog.commanding import Office
from tests.catalog.test_applying import said

pytestmark = pytest.mark.stack


def test_the_step_of_the_readme_lets_a_kind_in(store: Store) -> None:
    [shown] = re.findall(r"```python\n(.*?)```", (ROOT / "catalog/README.md").read_text(), re.S)
    step: dict[str, Any] = {}
    exec(shown, step)
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    assert step["down_revision"] == ScriptDirectory.from_config(config).get_current_head()
    with begun(store).engine.begin() as connection:
        with Operations.context(MigrationContext.configure(connection)):
            step["upgrade"]()
        connection.execute(
            text(
                "INSERT INTO securable (name, kind, parent, owner, created_at, created_by, "
                "position, changed_at, changed_by) VALUES ('main.default.sales', 'dashboard', "
                "'main.default', 'root', now(), 'root', 6, now(), 'root')"
            )
        )
    assert len(list(store.entries())) == 6


def test_what_the_main_readme_shows_of_policies_can_be_applied(store: Store) -> None:
    office = Office(store)
    shown = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    seed = (ROOT / "catalog" / "seed.yaml").read_text()
    model = next(each for each in said(seed) if each["kind"] == "model")
    assert office.ask("apply", documents=[model, *said(shown[0])]).result["applied"]
    assert office.ask("apply", documents=said(shown[0])).result["steps"] == []
