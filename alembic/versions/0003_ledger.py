"""The tool's own tables in the schema spine_migrate: what was moved, what was refused, who did it.

An application that wants only runs and run_events stops at spine_0002.

Frozen: a released revision is never edited and imports nothing from spine_migrate, so that it always builds the same
tables. Names stand in op.f(): an application's own naming convention must not rename them.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "spine_0003"
down_revision = "spine_0002"
branch_labels = None
depends_on = None

SCHEMA = "spine_migrate"

# Looks first: CREATE SCHEMA IF NOT EXISTS asks for CREATE on the database even where a DBA has made the schema already.
_CREATE_SCHEMA = """\
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'spine_migrate') THEN
        CREATE SCHEMA spine_migrate;
    END IF;
END
$$"""

# Stays where something else lives in it (a version table, an application's view) or where a DBA made it for this role.
_DROP_SCHEMA_IF_OURS = """\
DO $$
BEGIN
    DROP SCHEMA spine_migrate;
EXCEPTION
    WHEN dependent_objects_still_exist OR insufficient_privilege THEN NULL;
END
$$"""


def _migration_id(table: str) -> tuple[sa.Column[int], sa.ForeignKeyConstraint]:
    return (
        sa.Column("migration_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["migration_id"],
            [f"{SCHEMA}.migration.migration_id"],
            name=op.f(f"{table}_migration_id_fkey"),
            ondelete="CASCADE",
        ),
    )


def _identity(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), sa.Identity(always=True), nullable=False)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False)


def _stamp(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.TIMESTAMP(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False)


def upgrade() -> None:
    op.execute(_CREATE_SCHEMA)
    _create_migration()
    _create_checkpoint()
    _create_quarantine()
    _create_link()
    _create_deferred_ddl()
    _create_audit()


def _create_migration() -> None:
    op.create_table(
        "migration",
        _identity("migration_id"),
        sa.Column("mapping", sa.Text(), nullable=False),
        sa.Column("mapping_digest", sa.Text(), nullable=False),
        sa.Column("source_table", sa.Text(), nullable=False),
        sa.Column("target_table", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("options", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("tool_version", sa.Text(), nullable=False),
        sa.Column("started_by", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        _stamp("started_at"),
        sa.Column("finished_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("rows_estimated", sa.BigInteger()),
        sa.Column("runner", sa.Text()),
        sa.PrimaryKeyConstraint("migration_id", name=op.f("migration_pkey")),
        sa.CheckConstraint("step IN ('backfill', 'done', 'undoing', 'undone')", name=op.f("migration_step_check")),
        sa.CheckConstraint("rows_estimated >= 0", name=op.f("migration_rows_estimated_check")),
        schema=SCHEMA,
    )
    op.create_index(
        op.f("uq_migration_not_undone"),
        "migration",
        ["mapping", "source_table", "target_table"],
        unique=True,
        postgresql_where=sa.text("step <> 'undone'"),
        schema=SCHEMA,
    )


def _create_checkpoint() -> None:
    op.create_table(
        "checkpoint",
        *_migration_id("checkpoint"),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("leaf_schema", sa.Text(), nullable=False),
        sa.Column("leaf_table", sa.Text(), nullable=False),
        sa.Column("filenode", sa.BigInteger(), nullable=False),
        sa.Column("low_block", sa.BigInteger(), nullable=False),
        sa.Column("high_block", sa.BigInteger()),
        sa.Column("position", sa.Text(), nullable=False),
        _count("rows_moved"),
        _count("rows_adopted"),
        _count("rows_quarantined"),
        _count("batches"),
        sa.Column("batch_size", sa.Integer()),
        sa.Column("done", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        _stamp("updated_at"),
        sa.PrimaryKeyConstraint("migration_id", "segment", name=op.f("checkpoint_pkey")),
        # Below zero only where rows that a segment moved were taken out again, which the segment of repairs counts.
        sa.CheckConstraint("rows_moved >= 0 OR segment < 0", name=op.f("checkpoint_rows_moved_check")),
        sa.CheckConstraint("rows_adopted >= 0", name=op.f("checkpoint_rows_adopted_check")),
        sa.CheckConstraint("rows_quarantined >= 0", name=op.f("checkpoint_rows_quarantined_check")),
        sa.CheckConstraint("batches >= 0", name=op.f("checkpoint_batches_check")),
        sa.CheckConstraint("batch_size > 0", name=op.f("checkpoint_batch_size_check")),
        schema=SCHEMA,
    )


def _create_quarantine() -> None:
    # json, not jsonb: the row is kept as it was, with an escaped NUL and with repeated keys, which jsonb cannot hold.
    op.create_table(
        "quarantine",
        _identity("quarantine_id"),
        *_migration_id("quarantine"),
        sa.Column("source_key", sa.Text(), nullable=False),
        sa.Column("source_row", postgresql.JSON(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("field", sa.Text()),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("sqlstate", sa.Text()),
        sa.Column("constraint_name", sa.Text()),
        sa.Column("colliding_row", postgresql.JSON()),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("1"), nullable=False),
        _stamp("created_at"),
        _stamp("updated_at"),
        sa.Column("discarded_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("discarded_by", sa.Text()),
        sa.PrimaryKeyConstraint("quarantine_id", name=op.f("quarantine_pkey")),
        sa.UniqueConstraint("migration_id", "source_key", name=op.f("quarantine_migration_id_source_key_key")),
        sa.CheckConstraint("attempts >= 0", name=op.f("quarantine_attempts_check")),
        sa.CheckConstraint("(discarded_at IS NULL) = (discarded_by IS NULL)", name=op.f("quarantine_discarded_check")),
        schema=SCHEMA,
    )
    op.create_index(op.f("ix_quarantine_reason"), "quarantine", ["migration_id", "reason"], schema=SCHEMA)


def _create_link() -> None:
    op.create_table(
        "link",
        *_migration_id("link"),
        sa.Column("target_key", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("wanted", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'waiting'"), nullable=False),
        sa.PrimaryKeyConstraint("migration_id", "target_key", "field", name=op.f("link_pkey")),
        sa.CheckConstraint("state IN ('waiting', 'broken')", name=op.f("link_state_check")),
        schema=SCHEMA,
    )


def _create_deferred_ddl() -> None:
    op.create_table(
        "deferred_ddl",
        *_migration_id("deferred_ddl"),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("drop_sql", sa.Text(), nullable=False),
        sa.Column("create_sql", sa.Text(), nullable=False),
        sa.Column("facts", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("built_at", sa.TIMESTAMP(timezone=True)),
        sa.PrimaryKeyConstraint("migration_id", "ordinal", name=op.f("deferred_ddl_pkey")),
        schema=SCHEMA,
    )


def _create_audit() -> None:
    # No foreign key: what was done stays on record when the migration's own row is gone.
    op.create_table(
        "audit",
        _identity("audit_id"),
        _stamp("at"),
        sa.Column("who", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.Column("tool_version", sa.Text(), nullable=False),
        sa.Column("migration_id", sa.BigInteger()),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("detail", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.PrimaryKeyConstraint("audit_id", name=op.f("audit_pkey")),
        schema=SCHEMA,
    )


def downgrade() -> None:
    for table in ("audit", "deferred_ddl", "link", "quarantine", "checkpoint", "migration"):
        op.drop_table(table, schema=SCHEMA)
    op.execute(_DROP_SCHEMA_IF_OURS)
