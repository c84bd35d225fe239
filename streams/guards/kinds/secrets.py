"""Credentials: private keys, tokens of known providers, passwords in addresses.

Not covered: passwords that only the words around them give away, and tokens without a form of
their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from schemas.policies import SecretsRule
from streams.guards.found import Detector, Hit, last_run

# The longest private key that is masked to its end; one of RSA with 8192 bits has 6,400 characters.
LONGEST_KEY = 8000
# The longest run without spaces that is waited for; tokens that carry claims are long.
TOKEN = 4096
# Characters from the beginning of a form with spaces in it to the first run behind them.
OPENING = 100
# What such forms begin with.
OPENINGS = ("-----BEGIN", "Authorization:", "Bearer")

_KEY_END = r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"

# What each form begins with, and the form; where it has a group, that is the secret. Texts without
# the beginning, nearly all, are not searched for the form.
FORMS: dict[str, str] = {
    "-----BEGIN ": rf"-----BEGIN [A-Z0-9 ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----"
    rf"(?:(?s:.{{0,{LONGEST_KEY}}}?){_KEY_END}|(?s:.{{0,{LONGEST_KEY}}}))",
    "://": r"://[^\s:/@?#]{0,100}:([^\s@/]{1,300})@",
    "AIza": r"\bAIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])",
    "AKIA": r"\bAKIA[0-9A-Z]{16}\b",
    "ASIA": r"\bASIA[0-9A-Z]{16}\b",
    "Basic ": r"\bAuthorization:\s{0,8}Basic\s{1,8}([A-Za-z0-9+/=]{8,4000})",
    "Bearer ": r"\bBearer\s{1,8}([A-Za-z0-9._~+/=-]{20,4000})",
    "SG.": r"\bSG\.[\w-]{16,64}\.[\w-]{16,64}",
    "dapi": r"\bdapi[0-9a-f]{32}\b",
    "dckr_pat_": r"\bdckr_pat_[\w-]{20,64}",
    "dop_v1_": r"\bdop_v1_[0-9a-f]{64}\b",
    "eyJ": r"\beyJ[\w-]{8,2000}\.eyJ[\w-]{8,4000}\.[\w-]{8,1000}",
    "gho_": r"\bgho_[A-Za-z0-9]{36,255}",
    "ghp_": r"\bghp_[A-Za-z0-9]{36,255}",
    "ghr_": r"\bghr_[A-Za-z0-9]{36,255}",
    "ghs_": r"\bghs_[A-Za-z0-9]{36,255}",
    "ghu_": r"\bghu_[A-Za-z0-9]{36,255}",
    "github_pat_": r"\bgithub_pat_\w{22,255}",
    "glpat-": r"\bglpat-[\w-]{20,255}",
    "hf_": r"\bhf_[A-Za-z0-9]{30,64}",
    "npm_": r"\bnpm_[A-Za-z0-9]{36}\b",
    "pypi-": r"\bpypi-[\w-]{50,1000}",
    "rk_live_": r"\brk_live_[0-9A-Za-z]{20,255}",
    "sk-": r"\bsk-[\w-]{20,255}",
    "sk_live_": r"\bsk_live_[0-9A-Za-z]{20,255}",
    "xapp-": r"\bxapp-[0-9A-Za-z-]{20,255}",
    "xoxa-": r"\bxoxa-[0-9A-Za-z-]{10,255}",
    "xoxb-": r"\bxoxb-[0-9A-Za-z-]{10,255}",
    "xoxp-": r"\bxoxp-[0-9A-Za-z-]{10,255}",
    "xoxr-": r"\bxoxr-[0-9A-Za-z-]{10,255}",
    "xoxs-": r"\bxoxs-[0-9A-Za-z-]{10,255}",
}

_COMPILED = [(begins, re.compile(form, re.ASCII)) for begins, form in FORMS.items()]


def secrets(rule: SecretsRule) -> Detector:
    """Returns what finds credentials."""

    def find(text: str, begin: int) -> Iterator[Hit]:
        for begins, form in _COMPILED:
            if begins in text:
                for match in form.finditer(text, begin):
                    start, end = match.span(form.groups)
                    yield Hit(start, end, "SECRET", rule.action)

    return Detector(find=find, says="a credential", held_from=_held_from, follows=True)


def _held_from(text: str) -> int:
    run = last_run(text, TOKEN)
    opened = (text.rfind(each, max(0, run - OPENING)) for each in OPENINGS)
    return min([run, *(place for place in opened if place >= 0)])
