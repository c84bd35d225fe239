"""``python -m infra.stack [--bound]``: the supervisor process; ``LocalStack`` starts it."""

from __future__ import annotations

import sys

from infra.stack.settings import StackSettings
from infra.stack.supervisor import supervise

if __name__ == "__main__":
    raise SystemExit(supervise(StackSettings(), bound="--bound" in sys.argv[1:]))
