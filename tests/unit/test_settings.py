"""A variable that holds what it cannot is named, and what it holds is not repeated."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.bootstrap import ROOT
from infra.settings import ClientSettings, HealthSettings, InferenceSettings, SettingInvalid
from infra.stack.settings import StackSettings

WRONG = "not-a-number-but-a-secret"


@pytest.mark.parametrize(
    ("settings", "variable"),
    [(HealthSettings, "HEALTH_PORT"), (StackSettings, "STACK_KAFKA_PORT")],
)
def test_a_number_that_is_none_is_named(
    settings: type[HealthSettings | StackSettings], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, WRONG)
    with pytest.raises(SettingInvalid, match=rf"{variable}: .*valid integer") as raised:
        settings()
    assert WRONG not in str(raised.value)


@pytest.mark.parametrize("value", ["{", "[1]"])
def test_arguments_for_the_engine_must_be_an_object(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_ENGINE", value)
    with pytest.raises(SettingInvalid, match="INFERENCE_ENGINE: "):
        InferenceSettings()


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("HEALTH_PORT", ("workers", "inference")),
        ("INFERENCE_ENGINE", ("workers", "inference")),
        ("KAFKA_SESSION_TIMEOUT_MS", ("infra.provision",)),
        ("KAFKA_SESSION_TIMEOUT_MS", ("streams", "ask", "hello")),
        ("KAFKA_SESSION_TIMEOUT_MS", ("streams", "gateway")),
        ("STACK_KAFKA_PORT", ("infra.artifacts", "kafka")),
        ("STACK_KAFKA_PORT", ("infra.cli", "status")),
    ],
)
def test_a_process_says_it_in_one_line(variable: str, words: tuple[str, ...]) -> None:
    done = said(*words, **{variable: WRONG})
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert variable in line
    assert WRONG not in line


def test_an_empty_tenant_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIENT_TENANT", "")
    with pytest.raises(SettingInvalid, match=r"^CLIENT_TENANT is empty$"):
        ClientSettings()


@pytest.mark.parametrize(("module", "name"), [("infra.cli", "tessera"), ("infra.audit", "audit")])
def test_help_names_the_command_that_is_typed(module: str, name: str) -> None:
    shown = said(module, "--help").stdout
    assert name in shown
    assert "python" not in shown.lower()


def test_a_schema_that_cannot_be_read_is_named() -> None:
    done = said("streams", "ask", "--json-schema", "missing.json", "hello")
    assert done.returncode == 2
    assert "missing.json cannot be read" in done.stderr.splitlines()[-1]


def test_a_folder_that_is_no_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    done = said("infra.cli", "up", "--only", "redis", STACK_HOME=str(tmp_path / "home"))
    assert done.returncode == 1
    assert done.stderr.startswith("tessera: ")
    assert len(done.stderr.strip().splitlines()) == 1


def said(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
