"""The shims' tables, beside runs: shim_mode (which mode an old task is in), shim_call (who still calls it), shim_worker
(which workers have its shim).

Frozen: a released revision is never edited and imports nothing from spine_migrate, so that it always builds the same
tables. Names stand in op.f(): an application's own naming convention must not rename them.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.sql.elements import quoted_name

from alembic import context, op

revision = "spine_0005"
down_revision = "spine_0004"
branch_labels = None
depends_on = None

_MODES = r"^(legacy|dispatch|shadow|canary=(100(\.0{1,9})?|0?[0-9]{1,2}(\.[0-9]{1,9})?)%)$"


def _target_schema() -> str | None:
    """``-x target_schema=X``, else the main option ``spine_target_schema``, else None: the search_path decides."""
    chosen = context.get_x_argument(as_dictionary=True).get("target_schema")
    chosen = chosen or context.config.get_main_option("spine_target_schema")
    return quoted_name(chosen, quote=True) if isinstance(chosen, str) and chosen else None


def _text(name: str, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), server_default=None if default is None else sa.text(default), nullable=False)


def _instant(name: str, default: str | None = None) -> sa.Column[object]:
    made = sa.text(default) if default is not None else None
    return sa.Column(name, sa.TIMESTAMP(timezone=True), server_default=made, nullable=False)


def upgrade() -> None:
    schema = _target_schema()
    op.create_table(
        "shim_mode",
        _text("task"),
        _text("mode"),
        _text("set_by", "SESSION_USER"),
        _instant("set_at", "now()"),
        sa.PrimaryKeyConstraint("task", name=op.f("shim_mode_pkey")),
        sa.CheckConstraint(f"mode ~ '{_MODES}'", name=op.f("shim_mode_mode_check")),
        schema=schema,
    )
    key = ("task", "caller", "host", "version", "mode", "side")
    op.create_table(
        "shim_call",
        *map(_text, key),
        sa.Column("count", sa.BigInteger(), nullable=False),
        _instant("first_seen"),
        _instant("last_seen"),
        sa.PrimaryKeyConstraint(*key, name=op.f("shim_call_pkey")),
        schema=schema,
    )
    watched = ("task", "host", "version", "since")
    op.create_table(
        "shim_worker",
        *map(_text, watched[:3]),
        _instant("since"),
        _instant("seen_at"),
        sa.PrimaryKeyConstraint(*watched, name=op.f("shim_worker_pkey")),
        schema=schema,
    )


def downgrade() -> None:
    schema = _target_schema()
    for table in ("shim_worker", "shim_call", "shim_mode"):
        op.drop_table(table, schema=schema)
