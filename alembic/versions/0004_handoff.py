"""The runtime's own tables, beside runs: run_handoff, from a committed run to the worker that has it, and run_guard.

Frozen: a released revision is never edited and imports nothing from spine_migrate, so that it always builds the same
tables. Names stand in op.f(): an application's own naming convention must not rename them.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.elements import quoted_name

from alembic import context, op

revision = "spine_0004"
down_revision = "spine_0003"
branch_labels = None
depends_on = None


def _target_schema() -> str | None:
    """``-x target_schema=X``, else the main option ``spine_target_schema``, else None: the search_path decides."""
    chosen = context.get_x_argument(as_dictionary=True).get("target_schema")
    chosen = chosen or context.config.get_main_option("spine_target_schema")
    return quoted_name(chosen, quote=True) if isinstance(chosen, str) and chosen else None


def _instant(name: str, *, nullable: bool) -> sa.Column[object]:
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable)


def _flag(name: str, default: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), server_default=sa.text(default), nullable=False)


def upgrade() -> None:
    schema = _target_schema()
    op.execute(sa.schema.CreateSequence(sa.Sequence("run_fence", schema=schema)))
    # A column object, not the string "schema.runs.run_id": only the object keeps the quoting of the schema's name.
    runs = sa.Table("runs", sa.MetaData(), sa.Column("run_id", sa.Uuid()), schema=schema)
    op.create_table(
        "run_handoff",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("lane", sa.String(50), nullable=False),
        _flag("waiting", "true"),
        _instant("due_at", nullable=False),
        _instant("next_at", nullable=True),
        _instant("expires_at", nullable=True),
        sa.Column("timeout_seconds", sa.Double()),
        sa.Column("retry_delay_seconds", sa.Double(), nullable=False),
        sa.Column("retries_left", sa.Integer(), nullable=False),
        sa.Column("publications", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("fence", sa.BigInteger()),
        sa.Column("worker", sa.Text()),
        _flag("leased", "false"),
        _flag("cancel_requested", "false"),
        sa.Column("message", postgresql.JSONB()),
        sa.PrimaryKeyConstraint("run_id", name=op.f("run_handoff_pkey")),
        sa.ForeignKeyConstraint(["run_id"], [runs.c.run_id], name=op.f("run_handoff_run_id_fkey"), ondelete="CASCADE"),
        schema=schema,
    )
    # What the relay looks for, and what counts against a lane's bound; runs that have ended are in neither.
    for column, condition in (("next_at", "next_at IS NOT NULL"), ("lane", "waiting")):
        op.create_index(
            op.f(f"ix_run_handoff_{column}"),
            "run_handoff",
            [column],
            schema=schema,
            postgresql_where=sa.text(condition),
        )
    op.create_table(
        "run_guard",
        sa.Column("entity_type", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        _instant("expires_at", nullable=False),
        sa.PrimaryKeyConstraint("entity_type", "entity_id", name=op.f("run_guard_pkey")),
        schema=schema,
    )


def downgrade() -> None:
    schema = _target_schema()
    op.drop_table("run_guard", schema=schema)
    op.drop_table("run_handoff", schema=schema)
    op.execute(sa.schema.DropSequence(sa.Sequence("run_fence", schema=schema)))
