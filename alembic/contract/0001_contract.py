"""The other end of a migration: what the legacy side still has goes, once ``spine-migrate retire --allow`` has let it.

Its upgrade refuses by name until then, and has nothing to do where ``spine-migrate retire`` was there before. It is
done by functions that ``spine_0009`` has installed, and that the command calls as well.

Frozen: a released revision is never edited and imports nothing from spine_migrate.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic.util import CommandError

from alembic import context, op

revision = "spine_contract_0001"
down_revision = None
branch_labels = ("spine_contract",)
depends_on = "spine_0009"

# The longest that the application waits at each attempt, and how long attempts go on.
_CONTRACT = "SELECT spine_migrate.contract(interval '200 milliseconds', interval '60 seconds')"
_OURS = {"55000", "25001", "2BP01", "55P03"}


def upgrade() -> None:
    if context.is_offline_mode():
        op.execute(_CONTRACT)
        return
    try:
        op.execute(_CONTRACT)
    except sa.exc.DBAPIError as error:
        state, sentence, detail = _said(error.orig)
        if state not in _OURS:
            raise
        more = f" ({detail})" if detail else ""
        raise CommandError(f"spine_contract: {sentence}{more}.") from error


def _said(error: BaseException | None) -> tuple[str | None, str, str | None]:
    """SQLSTATE, sentence and detail of the server, by the application's own driver: psycopg and psycopg2 have them in
    diag, asyncpg in an error of its own, which is the cause of SQLAlchemy's.
    """
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    diag = getattr(error, "diag", None)
    if diag is not None:
        return state, diag.message_primary, diag.message_detail
    own = error.__cause__ if error is not None else None
    return state, getattr(own, "message", str(error)), getattr(own, "detail", None)


def downgrade() -> None:
    message = (
        "spine_contract: the legacy tables are gone, and no revision brings them back;"
        " spine-migrate archive restore makes them anew from their archive, and runbooks/retire.md says how"
    )
    raise CommandError(f"{message}.")
