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
