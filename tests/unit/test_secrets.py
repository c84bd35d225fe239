"""infra/secrets.py: references to secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.secrets import SecretUnavailable, resolve


def test_a_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_TEST_KEY", "value")
    assert resolve("env:TESSERA_TEST_KEY") == "value"


def test_a_file_is_read_without_its_newline(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("value\n")
    assert resolve(f"file:{tmp_path / 'key'}") == "value"


def test_a_reference_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for reference in (
        "env:TESSERA_TEST_NOTHING",
        f"file:{tmp_path / 'nothing'}",
        f"file:{tmp_path / 'empty'}",
        f"file:{tmp_path}",
    ):
        with pytest.raises(SecretUnavailable, match=reference):
            resolve(reference)


@pytest.mark.parametrize("written", ["sk-secret", "vault:sk-secret", "env:", ""])
def test_what_is_no_reference_may_be_the_secret_and_is_not_repeated(written: str) -> None:
    with pytest.raises(SecretUnavailable) as caught:
        resolve(written)
    assert "sk-secret" not in str(caught.value)


def hold(place: str) -> str:
    """A store of somebody's own."""
    if place == "sealed":
        raise RuntimeError("the value is sk-secret")
    return f"value at {place}"


def test_a_store_of_ones_own_is_asked_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SecretUnavailable, match="SECRETS_STORES"):
        resolve("vault:app/key")
    monkeypatch.setenv("SECRETS_STORES", '{"vault": "tests.unit.test_secrets:hold"}')
    assert resolve("vault:app/key") == "value at app/key"
    with pytest.raises(SecretUnavailable) as caught:
        resolve("vault:sealed")
    assert str(caught.value) == "vault:sealed cannot be read: RuntimeError"


def test_a_store_that_does_not_exist_is_an_error_that_names_the_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRETS_STORES", '{"vault": "tests.unit.nowhere:hold"}')
    with pytest.raises(SecretUnavailable, match="vault:app/key cannot be read"):
        resolve("vault:app/key")


def test_no_store_stands_in_for_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_TEST_KEY", "value")
    monkeypatch.setenv("SECRETS_STORES", '{"env": "tests.unit.test_secrets:hold"}')
    assert resolve("env:TESSERA_TEST_KEY") == "value"
