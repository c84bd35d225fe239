"""The provider that workers/README.md shows is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infra.bootstrap import ROOT
from infra.settings import InferenceSettings
from tests.contract.asking import ask, hear
from tests.contract.conftest import at_once, opened


async def test_the_provider_of_the_readme_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "workers/README.md").read_text(), re.S)
    (tmp_path / "shout.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    async with opened("loud", at_once, InferenceSettings(provider="shout:open_shout")) as subject:
        heard = await hear(subject, ask("hello"))
    assert heard.text == heard.completions[0].content == "HELLO"
