"""Lineage: what came from what, and how far the bus has been read for it."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

# The ids stand for kind and name (catalog.edges.node_id), which may be longer than an index takes.
TABLES = """
CREATE TABLE lineage_edge (
    downstream_id uuid NOT NULL,
    relation text NOT NULL CHECK (relation <> ''),
    upstream_id uuid NOT NULL,
    downstream_kind text NOT NULL CHECK (downstream_kind <> ''),
    downstream text NOT NULL CHECK (downstream <> ''),
    upstream_kind text NOT NULL CHECK (upstream_kind <> ''),
    upstream text NOT NULL CHECK (upstream <> ''),
    attributes jsonb NOT NULL CHECK (jsonb_typeof(attributes) = 'object'),
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL CHECK (last_at >= first_at),
    cause_id text NOT NULL,
    PRIMARY KEY (downstream_id, relation, upstream_id)
);
CREATE INDEX lineage_edge_downstream
    ON lineage_edge (downstream_id, last_at DESC, relation, upstream_id);
CREATE INDEX lineage_edge_upstream
    ON lineage_edge (upstream_id, last_at DESC, relation, downstream_id);

CREATE TABLE lineage_position (
    topic text NOT NULL,
    partition integer NOT NULL CHECK (partition >= 0),
    next bigint NOT NULL CHECK (next >= 0),
    PRIMARY KEY (topic, partition)
);
"""


def upgrade() -> None:
    """Makes the two tables."""
    op.execute(TABLES)
