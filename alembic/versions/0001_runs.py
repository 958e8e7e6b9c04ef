"""The table runs (seed 000, section "SQL Schema Migration"): one row per unit of work.

Frozen: a released revision is never edited and imports nothing from spine_migrate, so that it always builds the same
tables. Names stand in op.f(): an application's own naming convention must not rename them.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.elements import quoted_name

from alembic import context, op

revision = "spine_0001"
down_revision = None
branch_labels = ("spine_expand",)
depends_on = None


def _target_schema() -> str | None:
    """``-x target_schema=X``, else the main option ``spine_target_schema``, else None: the search_path decides."""
    chosen = context.get_x_argument(as_dictionary=True).get("target_schema")
    chosen = chosen or context.config.get_main_option("spine_target_schema")
    return quoted_name(chosen, quote=True) if isinstance(chosen, str) and chosen else None


def upgrade() -> None:
    schema = _target_schema()
    own_key = "runs.run_id" if schema is None else f"{schema}.runs.run_id"
    op.create_table(
        "runs",
        sa.Column("run_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("params", postgresql.JSONB(), server_default=sa.text("'{}'")),
        sa.Column("priority", sa.String(20), server_default=sa.text("'normal'")),
        sa.Column("lane", sa.String(50), server_default=sa.text("'default'")),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("correlation_id", sa.String(255)),
        sa.Column("parent_run_id", sa.Uuid()),
        sa.Column("status", sa.String(20), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("external_ref", sa.String(255)),
        sa.Column("executor_name", sa.String(50)),
        sa.Column("result", postgresql.JSONB()),
        sa.Column("error", sa.Text()),
        sa.Column("error_type", sa.String(100)),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("1")),
        sa.Column("retry_of_run_id", sa.Uuid()),
        sa.Column("max_retries", sa.Integer(), server_default=sa.text("3")),
        sa.Column("trigger_source", sa.String(50), server_default=sa.text("'api'")),
        sa.Column("metadata", postgresql.JSONB(), server_default=sa.text("'{}'")),
        sa.Column("tags", postgresql.JSONB(), server_default=sa.text("'{}'")),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()")),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("completed_at", sa.TIMESTAMP(timezone=True)),
        sa.PrimaryKeyConstraint("run_id", name=op.f("runs_pkey")),
        sa.ForeignKeyConstraint(["parent_run_id"], [own_key], name=op.f("runs_parent_run_id_fkey")),
        sa.ForeignKeyConstraint(["retry_of_run_id"], [own_key], name=op.f("runs_retry_of_run_id_fkey")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_idempotency")),
        schema=schema,
    )
    op.create_index(
        op.f("ix_runs_one_active_per_entity"),
        "runs",
        [sa.text("(metadata->>'entity_type')"), sa.text("(metadata->>'entity_id')")],
        unique=True,
        postgresql_where=sa.text("status IN ('pending', 'queued', 'running')"),
        schema=schema,
    )


def downgrade() -> None:
    op.drop_table("runs", schema=_target_schema())
