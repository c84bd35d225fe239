"""What was told last of each thing."""

from __future__ import annotations

from infra.latest import Latest

__all__ = ["Latest"]
