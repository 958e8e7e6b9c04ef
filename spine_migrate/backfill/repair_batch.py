"""One batch of a repair: rows are looked at once more; those that are as they were compared are changed, others left.

Everything that a batch does is in one REPEATABLE READ transaction: the rows, the record of how they were, the links,
and what the checkpoints count as moved. A row that is written meanwhile fails the transaction, and it is done again, in
halves (``repair_parts``); one that is written all the time is held (``carry.steady``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql

from spine_migrate import __version__
from spine_migrate.backfill.setting import Setting
from spine_migrate.carry import references
from spine_migrate.carry.rows import REPAIRS, Care
from spine_migrate.carry.scope import Keys, Parameters
from spine_migrate.carry.steady import brief, level, steady, target_lock
from spine_migrate.db.captures import batch_in_flight, unless_rewritten
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute, rows
from spine_migrate.errors import Refused
from spine_migrate.mapping.emit.repair import Repairs


@dataclass(frozen=True)
class Wrong:
    """A row that is not as it should be, as it was found. ``seen`` is the hash of both sides."""

    kind: str
    source_key: str | None
    target_key: str | None
    seen: int

    @property
    def key(self) -> str:
        return self.source_key if self.source_key is not None else f"target {self.target_key}"


@dataclass(frozen=True)
class Kept:
    """A row that was not repaired. ``reason`` is a code, ``detail`` what it is about."""

    kind: str
    key: str
    reason: str
    detail: str | None = None


@dataclass
class Mended:
    """What one batch did: rows by kind (``quarantined``: missing ones that the rules refuse), columns, what it left."""

    rows: Counter[str] = field(default_factory=Counter)
    fields: Counter[str] = field(default_factory=Counter)
    kept: list[Kept] = field(default_factory=list)


def mend(connection: Connection, setting: Setting, repairs: Repairs, wrong: Sequence[Wrong], *, care: Care) -> Mended:
    """Repair some rows, all of one kind, in one transaction.

    Raises psycopg.Error, and Refused where a trigger interferes.
    """
    connection.isolation_level = level(held=care.held)
    batch = _Batch(connection, setting, repairs, care)
    with ExitStack() as whole:
        whole.enter_context(batch_in_flight(connection, setting.batches.lock))
        whole.enter_context(connection.transaction())
        brief(connection)
        if care.held:
            whole.enter_context(batch.steady(wrong))
        still = list(batch.still(wrong))
        {"missing": batch.missing, "differing": batch.differing, "extra": batch.extra}[wrong[0].kind](still)
        unless_rewritten(connection, setting.tables.binding.source, setting.tables.binding.target)
    return batch.mended


@dataclass
class _Batch:
    connection: Connection
    setting: Setting
    repairs: Repairs
    care: Care
    mended: Mended = field(default_factory=Mended)

    @property
    def _migration_id(self) -> int:
        return self.setting.migration_id

    def still(self, wrong: Sequence[Wrong]) -> Iterator[dict[str, Any]]:
        """Those that are in this transaction's snapshot what they were when they were compared."""
        keys = ([one.source_key for one in wrong], [one.target_key for one in wrong])
        now: dict[tuple[str | None, str | None], list[dict[str, Any]]] = {}
        for row in rows(self.connection, self.repairs.again(), self._migration_id, *keys):
            now.setdefault((row["source_key"], row["target_key"]), []).append(row)
        for one in wrong:
            found = now.get((one.source_key, one.target_key), [])
            if len(found) > 1:
                self._keep(one.kind, one.key, "duplicate")
            elif not found or (found[0]["kind"], found[0]["seen"]) != (one.kind, one.seen):
                self._keep(one.kind, one.key, "changed")
            else:
                yield found[0]

    def steady(self, wrong: Sequence[Wrong]) -> AbstractContextManager[None]:
        sources = [one.source_key for one in wrong if one.source_key is not None]
        parameters = Parameters()
        going = sql.SQL("SELECT unnest({})::{}").format(
            parameters.add([one.target_key for one in wrong if one.target_key is not None], "text[]"),
            self.repairs.target_key_type,
        )
        binding = self.repairs.binding
        return steady(self.connection, binding, sources, target_lock(binding, going, parameters))

    def _keep(self, kind: str, key: str, reason: str, detail: str | None = None) -> None:
        self.mended.kept.append(Kept(kind, key, reason, detail))

    def missing(self, still: list[dict[str, Any]]) -> None:
        """Move them as a run does, with every care: what the rules refuse goes to quarantine."""
        taken = {key for (key,) in execute(self.connection, self.repairs.unmarked(), [r["target_key"] for r in still])}
        going = []
        for row in still:
            if row["target_key"] in taken:
                self._keep("missing", row["source_key"], "key_taken")
            else:
                going.append(row)
        if not going:
            return
        keys = [row["source_key"] for row in going]
        done = self.setting.batches.move_keys(self.connection, Keys(self.repairs.binding, keys), self.care)
        if done.rows != len(keys):
            raise Refused("rows-vanished", "Legacy rows vanished inside a transaction; run the same command again.")
        values = {"migration_id": self._migration_id, "keys": keys, "tool_version": __version__}
        targets = {"target_keys": [row["target_key"] for row in going]}
        self.connection.execute(query("repair", "note_moved"), {**values, **targets})
        self.mended.rows += Counter(missing=done.moved + done.adopted, quarantined=done.quarantined)

    def differing(self, still: list[dict[str, Any]]) -> None:
        """Rows that differ in the same columns together, so that no other column is written."""
        groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in still:
            if row["reason"] is not None:
                self._keep("differing", row["source_key"], "refused", f"{row['reason']}: {', '.join(row['fields'])}")
            else:
                groups.setdefault(tuple(row["fields"]), []).append(row)
        for fields, same in groups.items():
            sources, targets = ([row[name] for row in same] for name in ("source_key", "target_key"))
            self._note("differing", targets, sources, list(fields))
            updated = execute(
                self.connection, self.repairs.update(fields), self._migration_id, sources, targets
            ).rowcount
            self._expect(updated, len(same))
            for link in [check.name for check in self.repairs.links if check.name in fields]:
                execute(self.connection, self.repairs.forget_link(), self._migration_id, targets, link)
                execute(self.connection, self.repairs.note_link(link), self._migration_id, sources)
            self.mended.rows["differing"] += len(same)
            self.mended.fields.update(dict.fromkeys(fields, len(same)))

    def extra(self, still: list[dict[str, Any]]) -> None:
        """A row that something points to stays: its deletion would be refused, or would take that along."""
        pointed = dict(self._pointed_to([row["target_key"] for row in still]))
        going = []
        for row in still:
            if row["target_key"] in pointed:
                self._keep("extra", f"target {row['target_key']}", "referenced", pointed[row["target_key"]])
            else:
                going.append(row["target_key"])
        if not going:
            return
        self._note("extra", going, [None] * len(going), [])
        gone = [key for (key,) in execute(self.connection, self.repairs.delete(), self._migration_id, going)]
        self._expect(len(gone), len(going))
        self.connection.execute(query("undo", "unlink"), {"migration_id": self._migration_id, "keys": gone})
        counted = {"migration_id": self._migration_id, "segment": REPAIRS, "adopted": 0, "quarantined": 0}
        self.connection.execute(query("backfill", "count_repairs"), {**counted, "moved": -len(gone)})
        self.mended.rows["extra"] += len(gone)

    def _pointed_to(self, keys: list[str]) -> Iterator[tuple[str, str]]:
        """Which of some target rows a row points to, and where that stands."""
        for one in references.references(self.connection, self.setting.tables.target.oid):
            joins = sql.SQL(" AND ").join(
                sql.SQL("r.{} = t.{}").format(sql.Identifier(here), sql.Identifier(there))
                for here, there in zip(one.columns, one.referenced, strict=True)
            )
            statement = sql.SQL(
                "SELECT DISTINCT t.{key}::text FROM {target} AS t JOIN {table} AS r ON {joins}"
                " WHERE t.{key} = ANY($1::text[]::{type}[])"
            ).format(
                key=sql.Identifier(self.repairs.binding.mapping.target.key),
                target=self.repairs.binding.target.identifier,
                table=one.table.identifier,
                joins=joins,
                type=self.repairs.key_type,
            )
            for (key,) in execute(self.connection, statement, keys):
                yield key, f"{one.table}.{', '.join(one.columns)}"

    def _note(self, kind: str, targets: list[str], sources: list[Any], fields: list[str]) -> None:
        execute(self.connection, self.repairs.note(), self._migration_id, kind, targets, sources, fields, __version__)

    def _expect(self, changed: int, wanted: int) -> None:
        if changed != wanted:
            raise Refused(
                "rows-kept",
                f"Of {wanted} rows of {self.repairs.binding.target} only {changed} could be changed; "
                f"a trigger or rule keeps them.",
            )
