"""Adherence: which policies a tenant is held to, whatever it asks."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

TABLES = """
CREATE TABLE adherence (
    principal text NOT NULL REFERENCES principal (name) ON DELETE CASCADE,
    policy text NOT NULL,
    PRIMARY KEY (principal, policy),
    CONSTRAINT adherence_policy_fkey
        FOREIGN KEY (policy) REFERENCES securable (name) ON DELETE RESTRICT
);
CREATE INDEX ON adherence (policy);
"""


def upgrade() -> None:
    """Makes the table."""
    op.execute(TABLES)
