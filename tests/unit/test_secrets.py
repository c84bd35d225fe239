"""infra/secrets.py: references to secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.bootstrap import ROOT
from infra.secrets import SecretUnavailable, lend, resolve


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


OWN = {
    "a process's environment": "file:/proc/self/environ",
    "a setting": "env:GATEWAY_SEAL",
    "a setting that is not set": "env:CATALOG_FIRST_KEY",
    "a setting's file": "file:{folder}/operator",
    "a setting's file by another way": "file:{folder}/deeper/../operator",
    "a setting's file through a link": "file:{folder}/link",
    "a setting's variable": "env:WORD",
    "the stack's key": "file:{home}/run/operator.pem",
    "the stack's variable": "env:POSTGRES_SECRET",
    "the vector store's key": "env:WEAVIATE_API_KEY",
    "the stack's key where it is by default": f"file:{ROOT}/.tessera/run/operator.pem",
    "what a setting has elsewhere": "vault:own",
}
LENT = {
    "a file": "file:{folder}/lent",
    "a store": "vault:lent",
    "a variable": "env:PROVIDER_KEY",
}


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process with secrets of its own and some that may be lent."""
    for name in ("deeper", "home/run"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("home/run/operator.pem", "lent", "operator"):
        (tmp_path / name).write_text("value")
    (tmp_path / "link").symlink_to(tmp_path / "operator")
    for name, value in {
        "CLIENT_KEY": f"file:{tmp_path / 'operator'}",
        "GATEWAY_SEAL": "env:WORD",
        "POSTGRES_PASSWORD": "vault:own",
        "POSTGRES_SECRET": "value",
        "PROVIDER_KEY": "value",
        "SECRETS_STORES": '{"vault": "tests.unit.test_secrets:hold"}',
        "WORD": "value",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.mark.parametrize("what", OWN)
def test_a_secret_of_the_platform_itself_is_lent_to_nobody(
    platform: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    if "default" not in what:
        monkeypatch.setenv("STACK_HOME", str(platform / "home"))
    reference = OWN[what].format(folder=platform, home=platform / "home")
    with pytest.raises(SecretUnavailable, match="lent to no connection"):
        lend(reference)


@pytest.mark.parametrize("what", LENT)
def test_what_else_is_referred_to_is_lent(platform: Path, what: str) -> None:
    assert lend(LENT[what].format(folder=platform)).startswith("value")


def test_what_cannot_be_a_path_leads_nowhere() -> None:
    with pytest.raises(SecretUnavailable, match="cannot be read: ValueError"):
        lend("file:/\0")
