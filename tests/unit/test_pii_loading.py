"""Finders of personal data are loaded once, whoever needs them at the same time."""

from __future__ import annotations

import subprocess
import sys

from infra.bootstrap import ROOT

# Each takes its own way into what is to be loaded: by a name, by a number.
SCRIPT = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from streams.guards.pii import find

texts = {"PERSON": "Ask Ada Lovelace", "IP_ADDRESS": "at 192.168.3.4",
    "CREDIT_CARD": "4" + "1" * 15}
together = Barrier(len(texts))

def look(kind):
    together.wait(30)
    return [span.entity for span in find(texts[kind], {kind})]

with ThreadPoolExecutor(len(texts)) as threads:
    print([*threads.map(look, texts)])
"""


def test_whoever_looks_while_the_finders_are_loaded_finds_all_the_same() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-1000:]
    assert ran.stdout.strip() == "[['PERSON'], ['IP_ADDRESS'], ['CREDIT_CARD']]"
