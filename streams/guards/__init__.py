"""Guardrails: what is asked and answered, held to the rules of policies.

Pure, like all steps. ``guard_request`` stands before a model; behind it stand
``guard_completion`` for a whole answer and ``PartGuard`` for one that comes in parts.
"""

from __future__ import annotations

from streams.guards.asking import (
    answer_texts,
    remote_rules,
    request_texts,
    with_answer_texts,
    with_request_texts,
)
from streams.guards.completions import Released, guard_completion
from streams.guards.parts import PartGuard, holds_all, holds_parts
from streams.guards.requests import Guarded, guard_request, masked_request
from streams.guards.seal import Seal, SealBroken

__all__ = [
    "Guarded",
    "PartGuard",
    "Released",
    "Seal",
    "SealBroken",
    "answer_texts",
    "guard_completion",
    "guard_request",
    "holds_all",
    "holds_parts",
    "masked_request",
    "remote_rules",
    "request_texts",
    "with_answer_texts",
    "with_request_texts",
]
