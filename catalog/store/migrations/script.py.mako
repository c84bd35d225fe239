"""${message}."""

from __future__ import annotations

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

UP = """
"""


def upgrade() -> None:
    """Takes the step."""
    op.execute(UP)
