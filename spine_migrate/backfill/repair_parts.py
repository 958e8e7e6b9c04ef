"""The rows of a repair's batch in ever smaller parts: where the server refuses a row, and where others write one.

At REPEATABLE READ a batch fails where one of its rows is written after its snapshot, and an application that writes the
same rows all the time makes it fail each time. So it is not tried again but halved at once, down to the row at fault,
which is held then (``carry.steady``). Rows that somebody has locked are left for later, without those beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import psycopg
from psycopg import sql

from spine_migrate.backfill.repair_batch import Kept, Mended, Wrong
from spine_migrate.carry.control import Control
from spine_migrate.carry.rows import Care, refusal
from spine_migrate.db.connect import Connection
from spine_migrate.db.faults import CONTENDED, HOT, blames_row, is_among
from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.chosen import of_target_keys
from spine_migrate.mapping.emit.repair import Repairs

# Repairs rows of one kind, in one transaction.
Mend = Callable[[list[Wrong], Care, Connection], Mended]
BUSY = "busy"


@dataclass(frozen=True)
class Part:
    """``patient``: a lock that is none of the rows' is in the way, and waited for as a lost server is."""

    wrong: list[Wrong]
    care: Care
    patient: bool = False

    @property
    def halves(self) -> list[Part]:
        """The first last, as from a stack."""
        middle = len(self.wrong) // 2
        return [replace(self, wrong=part) for part in (self.wrong[middle:], self.wrong[:middle])]


@dataclass
class Parts:
    """A batch. Rows that others write or hold for too long come back as kept, with the reason ``BUSY``."""

    control: Control
    repairs: Repairs
    mend: Mend

    def __call__(self, kind: str, batch: list[Wrong]) -> Iterator[Mended]:
        parts = [Part(batch, Care(orphans=True, collisions=True))]
        while parts:
            part = parts.pop()
            try:
                work = partial(self.mend, part.wrong, part.care)
                yield self.control.retried(work, but=HOT if part.patient else CONTENDED)
            except psycopg.Error as error:
                if is_among(error, CONTENDED):
                    rest, busy = self._apart(part, error)
                    parts += rest
                    if busy:
                        yield Mended(kept=[Kept(kind, one.key, BUSY) for one in busy])
                elif not blames_row(error):
                    raise
                elif len(part.wrong) > 1:
                    parts += part.halves
                elif kind == "missing" and part.care.refused is None:
                    parts.append(replace(part, care=replace(part.care, refused=refusal(error))))
                else:
                    about = " ".join(filter(None, (error.sqlstate, error.diag.constraint_name)))
                    yield Mended(kept=[Kept(kind, part.wrong[0].key, "server_refused", about)])

    def _apart(self, part: Part, error: psycopg.Error) -> tuple[list[Part], list[Wrong]]:
        """What is tried next, and what is not to be had at present."""
        if not is_among(error, HOT):
            locked = self.control.retried(partial(self._locked, part.wrong))
            if not locked and part.patient:
                raise error
            rest = [one for one in part.wrong if one.target_key not in locked]
            busy = [one for one in part.wrong if one.target_key in locked]
            return [replace(part, wrong=rest, patient=not locked)] if rest else [], busy
        if len(part.wrong) > 1:
            return part.halves, []
        if not part.care.held:
            return [replace(part, care=replace(part.care, held=True))], []
        return [], part.wrong

    def _locked(self, wrong: list[Wrong], connection: Connection) -> set[str]:
        """Keys of target rows that somebody else holds at this moment."""
        chosen = of_target_keys(self.repairs, 1)
        statement = sql.SQL(
            "WITH free AS MATERIALIZED (SELECT t.{key} AS key FROM {target} AS t WHERE {chosen} FOR UPDATE SKIP LOCKED)"
            " SELECT t.{key}::text FROM {target} AS t WHERE {chosen} AND t.{key} NOT IN (SELECT key FROM free)"
        ).format(
            key=sql.Identifier(self.repairs.binding.mapping.target.key),
            target=self.repairs.binding.target.identifier,
            chosen=chosen,
        )
        keys = [one.target_key for one in wrong if one.target_key is not None]
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        return {key for (key,) in execute(connection, statement, keys)}
