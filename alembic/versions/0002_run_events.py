"""The table run_events (seed 000, section "SQL Schema Migration"): what happened to a run, in order.

Frozen: a released revision is never edited and imports nothing from spine_migrate, so that it always builds the same
tables. Names stand in op.f(): an application's own naming convention must not rename them.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.elements import quoted_name

from alembic import context, op

revision = "spine_0002"
down_revision = "spine_0001"
branch_labels = None
depends_on = None


def _target_schema() -> str | None:
    """``-x target_schema=X``, else the main option ``spine_target_schema``, else None: the search_path decides."""
    chosen = context.get_x_argument(as_dictionary=True).get("target_schema")
    chosen = chosen or context.config.get_main_option("spine_target_schema")
    return quoted_name(chosen, quote=True) if isinstance(chosen, str) and chosen else None


def upgrade() -> None:
    schema = _target_schema()
    # A column object, not the string "schema.runs.run_id": only the object keeps the quoting of the schema's name.
    runs = sa.Table("runs", sa.MetaData(), sa.Column("run_id", sa.Uuid()), schema=schema)
    op.create_table(
        "run_events",
        sa.Column("event_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("event_type", sa.String(50), nullable=False),
        sa.Column("timestamp", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()")),
        sa.Column("data", postgresql.JSONB(), server_default=sa.text("'{}'")),
        sa.Column("source", sa.String(50), server_default=sa.text("'dispatcher'")),
        sa.PrimaryKeyConstraint("event_id", name=op.f("run_events_pkey")),
        sa.ForeignKeyConstraint(["run_id"], [runs.c.run_id], name=op.f("run_events_run_id_fkey")),
        schema=schema,
    )
    op.create_index(op.f("ix_run_events_run_id"), "run_events", ["run_id"], schema=schema)


def downgrade() -> None:
    op.drop_table("run_events", schema=_target_schema())
