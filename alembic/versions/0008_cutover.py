"""Cutover in the schema spine_migrate: what was switched, writes through a view, acceptance of quarantined rows.

Frozen: a released revision is never edited and imports nothing from spine_migrate, so that it always builds the same
tables. Names stand in op.f(): an application's own naming convention must not rename them.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "spine_0008"
down_revision = "spine_0007"
branch_labels = None
depends_on = None

SCHEMA = "spine_migrate"
_STEPS = "step IN ('backfill', 'done', 'undoing', 'undone')"
_MORE_STEPS = "step IN ('backfill', 'done', 'cutover', 'retired', 'undoing', 'undone')"
# Each says it itself: a caller need not have USAGE on the schema, by whose name one could call the other.
_REFUSAL = (
    "RAISE EXCEPTION USING ERRCODE = '40001', MESSAGE = 'could not serialize access due to a cutover',"
    " DETAIL = 'The snapshot of the transaction is older than the switch of its tables.',"
    " HINT = 'Run the transaction again.'"
)


def _stamp(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.TIMESTAMP(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False)


def upgrade() -> None:
    _check_steps(_MORE_STEPS)
    _create_cutover()
    _create_view_write()
    _create_set_aside()
    _create_fence()
    op.add_column("quarantine", sa.Column("accepted_at", sa.TIMESTAMP(timezone=True)), schema=SCHEMA)
    # What was accepted is the row as it was: a row that has changed since, by this digest, is open again.
    for column in ("accepted_by", "accepted_reason", "accepted_digest"):
        op.add_column("quarantine", sa.Column(column, sa.Text()), schema=SCHEMA)
    op.create_check_constraint(
        op.f("quarantine_accepted_check"),
        "quarantine",
        "num_nulls(accepted_at, accepted_by, accepted_reason, accepted_digest) IN (0, 4)",
        schema=SCHEMA,
    )


def _check_steps(condition: str) -> None:
    op.drop_constraint(op.f("migration_step_check"), "migration", schema=SCHEMA, type_="check")
    op.create_check_constraint(op.f("migration_step_check"), "migration", condition, schema=SCHEMA)


def _create_cutover() -> None:
    # source_table is the application's name for it, which the view has now; the migration's names the renamed table.
    op.create_table(
        "cutover",
        sa.Column("migration_id", sa.BigInteger(), nullable=False),
        _stamp("at"),
        sa.Column("by", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.Column("tool_version", sa.Text(), nullable=False),
        sa.Column("source_table", sa.Text(), nullable=False),
        sa.Column("legacy_table", sa.Text(), nullable=False),
        sa.Column("view", sa.Boolean(), nullable=False),
        sa.Column("triggers", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("remade", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("foreign_keys", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("rolled_back_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("settled_at", sa.TIMESTAMP(timezone=True)),
        sa.PrimaryKeyConstraint("migration_id", name=op.f("cutover_pkey")),
        sa.ForeignKeyConstraint(
            ["migration_id"],
            [f"{SCHEMA}.migration.migration_id"],
            name=op.f("cutover_migration_id_fkey"),
            ondelete="CASCADE",
        ),
        schema=SCHEMA,
    )


def _create_view_write() -> None:
    # Writers insert here and never wait for each other: no key, no foreign key.
    op.create_table(
        "view_write",
        sa.Column("migration_id", sa.BigInteger(), nullable=False),
        _stamp("at"),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("application", sa.Text()),
        sa.Column("operation", sa.Text()),
        schema=SCHEMA,
    )


def _create_set_aside() -> None:
    # Target rows as they were before a rollback gave them what their legacy rows say; no foreign key, as for repair.
    op.create_table(
        "set_aside",
        sa.Column("set_aside_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("migration_id", sa.BigInteger(), nullable=False),
        sa.Column("target_key", sa.Text(), nullable=False),
        _stamp("at"),
        sa.Column("before", postgresql.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("set_aside_id", name=op.f("set_aside_pkey")),
        schema=SCHEMA,
    )
    op.create_index(op.f("ix_set_aside_migration"), "set_aside", ["migration_id", "target_key"], schema=SCHEMA)


def _create_fence() -> None:
    kinds = {"old_snapshot": "boolean LANGUAGE plpgsql STABLE", "refuse_old_snapshot": "trigger LANGUAGE plpgsql"}
    for function, kind in kinds.items():
        op.execute(f"CREATE FUNCTION spine_migrate.{function}() RETURNS {kind} AS $$BEGIN {_REFUSAL}; END$$")
    # Who reads a view must be able to call what its condition names, also where default privileges say otherwise.
    op.execute("GRANT EXECUTE ON FUNCTION spine_migrate.old_snapshot() TO PUBLIC")


_REFUSE_WHILE_CUT_OVER = """\
DO $$
BEGIN
    IF EXISTS (SELECT FROM spine_migrate.migration WHERE step IN ('cutover', 'retired')) THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = 'tables are cut over; run spine-migrate rollback first';
    END IF;
END
$$"""

# What a cutover that was rolled back has left on the target for the next one, of which there will be none.
_DROP_KEY_INDEXES = """\
DO $$
DECLARE
    one regclass;
BEGIN
    FOR one IN SELECT DISTINCT i.indexrelid::regclass
                 FROM spine_migrate.migration m
                 JOIN pg_index i ON i.indrelid = to_regclass(m.target_table)
                 JOIN pg_class c ON c.oid = i.indexrelid
                WHERE starts_with(c.relname::text, 'spine_key_' || m.migration_id || '_')
    LOOP
        EXECUTE 'DROP INDEX ' || one;
    END LOOP;
END
$$"""


# What a rollback has left on a legacy table means something for an hour, to transactions from before it.
_DROP_FENCES = """\
DO $$
DECLARE
    one regclass;
BEGIN
    FOR one IN SELECT t.tgrelid::regclass
                 FROM pg_trigger t
                WHERE t.tgname = 'spine_fence' AND t.tgfoid = 'spine_migrate.refuse_old_snapshot'::regproc
    LOOP
        EXECUTE 'DROP TRIGGER spine_fence ON ' || one;
    END LOOP;
END
$$"""


def downgrade() -> None:
    op.execute(_REFUSE_WHILE_CUT_OVER)
    op.execute(_DROP_FENCES)
    op.execute(_DROP_KEY_INDEXES)
    for function in ("refuse_old_snapshot", "old_snapshot"):
        op.execute(f"DROP FUNCTION spine_migrate.{function}()")
    op.drop_constraint(op.f("quarantine_accepted_check"), "quarantine", schema=SCHEMA, type_="check")
    for column in ("accepted_digest", "accepted_reason", "accepted_by", "accepted_at"):
        op.drop_column("quarantine", column, schema=SCHEMA)
    for table in ("set_aside", "view_write", "cutover"):
        op.drop_table(table, schema=SCHEMA)
    _check_steps(_STEPS)
