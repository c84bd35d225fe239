"""Rules that somebody else decides: a model, a function, a service."""

from __future__ import annotations

from schemas.policies import RemoteRule
from streams.guards.found import Detector


def remote(rule: RemoteRule) -> Detector:
    """Returns that somebody is to be asked about the whole text."""
    return Detector(whole=True, remote=True)
