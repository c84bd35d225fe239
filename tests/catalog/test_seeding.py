"""The first start: what an empty catalog begins with."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.registrar.process import opened
from catalog.registrar.seeding import SeedInvalid
from catalog.store.store import Store
from infra.settings import CatalogSettings
from infra.signing import Signer, generate
from infra.stack.places import OPERATOR
from infra.stack.processes import SEED
from schemas.kinds import ROOT, Privilege
from tests.catalog.commanding import LIMITS, told

pytestmark = pytest.mark.stack


@pytest.fixture
def settings(tmp_path: Path) -> CatalogSettings:
    key = tmp_path / "operator.pem"
    key.write_text(generate())
    return CatalogSettings(seed=SEED, first_key=f"file:{key}", first_principal=OPERATOR)


def test_the_seed_of_the_local_stack_makes_its_endpoint_and_its_operator(
    store: Store, settings: CatalogSettings
) -> None:
    opened(store, settings, LIMITS)
    first = store.snapshot()
    # A second start finds it as it is.
    commands = opened(store, settings, LIMITS)
    assert store.snapshot() == first
    view = commands.view
    assert "main.default.smollm2" in view.endpoints
    assert view.access.holds(OPERATOR, Privilege.MANAGE, ROOT)
    assert view.access.may("demo", Privilege.QUERY, "main.default.smollm2")
    [key] = view.keys.values()
    signer = Signer(Path(settings.first_key.removeprefix("file:")).read_text())
    assert (key.key_id, key.principal) == (signer.key_id, OPERATOR)


def test_a_public_key_is_enough(store: Store, settings: CatalogSettings, tmp_path: Path) -> None:
    signer, public = Signer(generate()), tmp_path / "operator.pub"
    public.write_text(told(signer))
    given = settings.model_copy(update={"first_key": f"file:{public}"})
    assert list(opened(store, given, LIMITS).view.keys) == [signer.key_id]


WRONG: dict[str, tuple[str, str]] = {
    "no key": ("first_key", "file:/nowhere/key.pem"),
    "no such principal": ("first_principal", "boss"),
    "nothing to read": ("seed", "/nowhere/seed.yaml"),
}
SAID = {
    "no key": "CATALOG_FIRST_KEY: file:/nowhere/key.pem cannot be read",
    "no such principal": "must have a user or service_principal boss and the tenant in its spec",
    "nothing to read": "/nowhere/seed.yaml cannot be read",
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_setting_is_named_and_nothing_is_made(
    store: Store, settings: CatalogSettings, what: str
) -> None:
    field, value = WRONG[what]
    given = settings.model_copy(update={field: Path(value) if field == "seed" else value})
    with pytest.raises(SeedInvalid, match=SAID[what]):
        opened(store, given, LIMITS)
    assert store.snapshot().position == 0
