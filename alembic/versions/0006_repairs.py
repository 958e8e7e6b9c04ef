"""The table repair in the schema spine_migrate: each target row that a repair has made, changed or removed, as it was.

Frozen: a released revision is never edited and imports nothing from spine_migrate, so that it always builds the same
tables. Names stand in op.f(): an application's own naming convention must not rename them.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "spine_0006"
down_revision = "spine_0005"
branch_labels = None
depends_on = None

SCHEMA = "spine_migrate"


def upgrade() -> None:
    # No foreign key: what was done stays on record when the migration's own row is gone.
    op.create_table(
        "repair",
        sa.Column("repair_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.TIMESTAMP(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("who", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.Column("tool_version", sa.Text(), nullable=False),
        sa.Column("migration_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("source_key", sa.Text()),
        sa.Column("target_key", sa.Text()),
        sa.Column("fields", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("before", postgresql.JSON()),
        sa.PrimaryKeyConstraint("repair_id", name=op.f("repair_pkey")),
        sa.CheckConstraint("kind IN ('missing', 'quarantined', 'differing', 'extra')", name=op.f("repair_kind_check")),
        schema=SCHEMA,
    )
    op.create_index(op.f("ix_repair_migration"), "repair", ["migration_id", "target_key"], schema=SCHEMA)


def downgrade() -> None:
    op.drop_table("repair", schema=SCHEMA)
