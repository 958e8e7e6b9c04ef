"""Change capture in the schema spine_migrate: what is captured, the log of keys, what waits; and control of a run.

Frozen: a released revision is never edited and imports nothing from spine_migrate, so that it always builds the same
tables. Names stand in op.f(): an application's own naming convention must not rename them.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "spine_0007"
down_revision = "spine_0006"
branch_labels = None
depends_on = None

SCHEMA = "spine_migrate"


def _stamp(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.TIMESTAMP(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False)


def _time(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.TIMESTAMP(timezone=True))


def _owned_by(table: str, column: str, owner: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], [f"{SCHEMA}.{owner}.{column}"], name=op.f(f"{table}_{column}_fkey"), ondelete="CASCADE"
    )


def upgrade() -> None:
    _create_capture()
    _create_change_log()
    _create_pending()
    _create_control()


def _create_capture() -> None:
    op.create_table(
        "capture",
        sa.Column("capture_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("migration_id", sa.BigInteger(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("relation", sa.Text(), nullable=False),
        sa.Column("style", sa.Text(), nullable=False),
        sa.Column("why", sa.Text()),
        sa.Column("tool_version", sa.Text(), nullable=False),
        sa.Column("installed_by", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        _stamp("installed_at"),
        sa.Column("caught_up", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("applied", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        _time("applied_at"),
        sa.PrimaryKeyConstraint("capture_id", name=op.f("capture_pkey")),
        _owned_by("capture", "migration_id", "migration"),
        sa.UniqueConstraint("migration_id", "direction", name=op.f("capture_migration_id_direction_key")),
        sa.CheckConstraint("direction IN ('forward', 'reverse')", name=op.f("capture_direction_check")),
        sa.CheckConstraint("style IN ('statement', 'row')", name=op.f("capture_style_check")),
        schema=SCHEMA,
    )


def _create_change_log() -> None:
    # No foreign key and no index but one: every statement of the application pays for what stands here. It begins with
    # the capture, so that what waits for another is not read to find that nothing waits. No number of a sequence, since
    # lastval() of the application would give that one then; so there is no key, and a publication of all tables, which
    # refuses to delete where there is none, gets the whole row. What is applied is deleted, so autovacuum goes by
    # numbers of rows, not by the size of a table that is nearly empty.
    op.create_table(
        "change_log",
        sa.Column("capture_id", sa.BigInteger(), nullable=False),
        sa.Column("row_key", sa.Text()),
        _stamp("at"),
        schema=SCHEMA,
    )
    op.create_index(op.f("ix_change_log"), "change_log", ["capture_id", "at"], schema=SCHEMA)
    op.execute("ALTER TABLE spine_migrate.change_log REPLICA IDENTITY FULL")
    op.execute(
        "ALTER TABLE spine_migrate.change_log SET (autovacuum_vacuum_scale_factor = 0,"
        " autovacuum_vacuum_threshold = 20000, autovacuum_analyze_scale_factor = 0,"
        " autovacuum_analyze_threshold = 200000)"
    )


def _create_pending() -> None:
    op.create_table(
        "pending",
        sa.Column("capture_id", sa.BigInteger(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("row_key", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("detail", sa.Text()),
        _stamp("since"),
        sa.PrimaryKeyConstraint("capture_id", "why", "row_key", name=op.f("pending_pkey")),
        _owned_by("pending", "capture_id", "capture"),
        sa.CheckConstraint("why IN ('gone', 'deferred', 'all')", name=op.f("pending_why_check")),
        sa.CheckConstraint("attempts >= 0", name=op.f("pending_attempts_check")),
        schema=SCHEMA,
    )


def _create_control() -> None:
    op.create_table(
        "control",
        sa.Column("migration_id", sa.BigInteger(), nullable=False),
        _time("paused_at"),
        sa.Column("paused_by", sa.Text()),
        sa.Column("settings", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("held_by", sa.Text()),
        sa.Column("held_detail", sa.Text()),
        _time("held_since"),
        _stamp("updated_at"),
        sa.PrimaryKeyConstraint("migration_id", name=op.f("control_pkey")),
        _owned_by("control", "migration_id", "migration"),
        sa.CheckConstraint("(paused_at IS NULL) = (paused_by IS NULL)", name=op.f("control_paused_check")),
        sa.CheckConstraint("(held_by IS NULL) = (held_since IS NULL)", name=op.f("control_held_check")),
        schema=SCHEMA,
    )


# Triggers would be left that write to a log which is gone, so that the application's writes failed.
_REFUSE_WHILE_CAPTURED = """\
DO $$
BEGIN
    IF EXISTS (SELECT FROM spine_migrate.capture) THEN
        RAISE EXCEPTION USING ERRCODE = '55000',
            MESSAGE = 'changes of a table are captured; run spine-migrate sync stop, or rollback, first';
    END IF;
END
$$"""


def downgrade() -> None:
    op.execute(_REFUSE_WHILE_CAPTURED)
    for table in ("control", "pending", "change_log", "capture"):
        op.drop_table(table, schema=SCHEMA)
