"""What the compatibility view's INSTEAD OF triggers do, in PL/pgSQL.

INSTEAD OF triggers see the row as the statement's snapshot has it, and the server does not lock it or look at the WHERE
again, as it does for a table (PostgreSQL manual, 13.2.1). So the function locks the target row and compares. What
others have changed meanwhile, in columns that this UPDATE leaves alone, stays. Where both changed one column, or the
row is to be deleted, only the statement knows what it would have done, and it is told to try again (40001): what two
workers claim at once is never granted twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.db.catalog import Name
from spine_migrate.db.definition import ForeignKey
from spine_migrate.mapping.emit.legacy_form import LegacyForm
from spine_migrate.mapping.emit.legacy_rules import foreign_keys, rules
from spine_migrate.mapping.emit.links import LinkColumns
from spine_migrate.mapping.emit.put import Put
from spine_migrate.mapping.emit.sql import forward, key
from spine_migrate.mapping.emit.trigger_text import NOW, differ, either, fail, row, when
from spine_migrate.mapping.transforms.base import Sql

SCHEMA = "spine_migrate"
# A backend notes no more than one write in so many seconds.
NOTE_SECONDS = 3600
_KEY, _NEW_KEY = "spine_key", "spine_new_key"


@dataclass(frozen=True)
class Child:
    """Target rows that the legacy schema deletes along with the row they point to (ON DELETE CASCADE)."""

    target: Name
    column: str


@dataclass(frozen=True)
class TriggerBodies:
    """``keys``: foreign keys of the legacy table that the target does not hold; ``cascading``: columns of the legacy
    table that point to itself with ON DELETE CASCADE.
    """

    form: LegacyForm
    links: LinkColumns
    keys: tuple[ForeignKey, ...] = ()
    children: tuple[Child, ...] = ()
    cascading: tuple[str, ...] = ()

    def insert(self) -> sql.Composed:
        values = dict(forward(self.form.binding, "s"))
        for field in self.links.fields:
            values[field.target] = self.links.value(field)
        return self._body(
            [],
            *rules(self.form, updating=False),
            sql.SQL("INSERT INTO {} AS t ({}) SELECT {} FROM {} RETURNING t.{} INTO {};").format(
                self._target,
                sql.SQL(", ").join(map(sql.Identifier, values)),
                sql.SQL(", ").join(values.values()),
                row("new", self._names, "s"),
                self._target_key,
                sql.Identifier(_KEY),
            ),
            *self.links.record(_KEY, updating=False),
            *foreign_keys(self.form, self.keys, updating=False),
            self._note(),
            *self._shown(_KEY),
            sql.SQL("RETURN NEW;"),
        )

    def update(self) -> sql.Composed:
        put = Put(self.form, self.links, _KEY)
        key_changes = sql.SQL("{} <> {}").format(sql.Identifier(_NEW_KEY), sql.Identifier(_KEY))
        return self._body(
            [self._now(), sql.SQL("{} {};").format(sql.Identifier(_NEW_KEY), self._key_type), *put.variables],
            *self._lock("NO KEY UPDATE"),
            when(
                self._stale(),
                self._seen_before(),
                when(either(self._contested()), self._try_again()),
                *self._merge(),
            ),
            *rules(self.form, updating=True),
            sql.SQL("{} := {};").format(sql.Identifier(_NEW_KEY), self._key_of("new")),
            when(key_changes, *self.links.release(_KEY)),
            *put.statements(),
            when(key_changes, self.links.rename(_KEY, _NEW_KEY)),
            *self.links.record(_NEW_KEY, updating=True),
            *foreign_keys(self.form, self.keys, updating=True),
            self._note(),
            *self._shown(_NEW_KEY),
            sql.SQL("RETURN NEW;"),
        )

    def delete(self) -> sql.Composed:
        own = sql.Identifier(_KEY)
        return self._body(
            [self._now()],
            *self._lock("UPDATE"),
            when(self._stale(), self._seen_before(), self._try_again()),
            *(
                sql.SQL("DELETE FROM {} AS v WHERE v.{} = {};").format(
                    self._name.identifier,
                    sql.Identifier(column),
                    sql.Identifier("old", self.form.binding.mapping.key),
                )
                for column in self.cascading
            ),
            *(
                sql.SQL("DELETE FROM {} AS c WHERE c.{} = {};").format(
                    child.target.identifier, sql.Identifier(child.column), own
                )
                for child in self.children
            ),
            *self.links.release(_KEY),
            sql.SQL("DELETE FROM {} AS t WHERE t.{} = {};").format(self._target, self._target_key, own),
            self.links.forget(_KEY),
            self._note(),
            sql.SQL("RETURN OLD;"),
        )

    @property
    def _name(self) -> Name:
        return self.form.definition.name

    @property
    def _target(self) -> sql.Identifier:
        return self.form.binding.target.identifier

    @property
    def _target_key(self) -> sql.Identifier:
        return sql.Identifier(self.form.binding.mapping.target.key)

    @property
    def _names(self) -> list[str]:
        return [column.name for column in self.form.definition.columns]

    def _key_of(self, variable: str) -> Sql:
        return sql.SQL("(SELECT {} FROM {})").format(
            key(self.form.binding, "s"), row(variable, [self.form.binding.mapping.key], "s")
        )

    @property
    def _key_type(self) -> sql.SQL:
        mapping = self.form.binding.mapping
        return sql.SQL(mapping.target.columns[mapping.target.key].type.name)

    def _now(self) -> Sql:
        return sql.SQL("{} {};").format(sql.Identifier(NOW), self._name.identifier)

    def _body(self, variables: Iterable[Sql], *statements: Sql) -> sql.Composed:
        return sql.SQL("\n#variable_conflict use_column\nDECLARE\n{}\nBEGIN\n{}\nEND;\n").format(
            sql.SQL("\n").join(
                [
                    sql.SQL("{} {};").format(sql.Identifier(_KEY), self._key_type),
                    sql.SQL("spine_refused text;"),
                    *variables,
                ]
            ),
            sql.SQL("\n").join(statements),
        )

    def _lock(self, strength: str) -> Iterator[Sql]:
        """The row as it stands now, held; where it is gone by now, the statement has no such row, as for a table."""
        yield sql.SQL("{} := {};").format(sql.Identifier(_KEY), self._key_of("old"))
        yield sql.SQL("SELECT {} INTO {} FROM {} AS t WHERE t.{} = {} AND {} FOR {} OF t;").format(
            sql.SQL(", ").join(self.form.columns("t").values()),
            sql.Identifier(NOW),
            self._target,
            self._target_key,
            sql.Identifier(_KEY),
            self.form.condition("t"),
            sql.SQL(strength),
        )
        yield when(sql.SQL("NOT FOUND"), sql.SQL("RETURN NULL;"))

    def _stale(self) -> Sql:
        return sql.SQL("{} *<> {}").format(sql.Identifier(NOW), sql.Identifier("old"))

    def _contested(self) -> Iterator[Sql]:
        for name in self._names:
            yield sql.SQL("({} AND {})").format(differ(name, "new", "old"), differ(name, NOW, "old"))

    def _merge(self) -> Iterator[Sql]:
        for name in self._names:
            yield sql.SQL("IF NOT ({}) THEN {} := {}; END IF;").format(
                differ(name, "new", "old"), sql.Identifier("new", name), sql.Identifier(NOW, name)
            )

    def _seen_before(self) -> Sql:
        """A row that this very statement has changed already, by a join that meets it twice: once is enough, as for a
        table. Such a version is of a transaction that is still under way, and not another's, since the row is locked.
        """
        newest = sql.SQL("pg_snapshot_xmax(pg_current_snapshot())::text::numeric")
        # xmin is the low half of a full transaction id; the newest one that there is has the other half.
        full = sql.SQL("({0} - ({0} - t.xmin::text::numeric + 4294967296) % 4294967296)::text::xid8").format(newest)
        return when(
            sql.SQL("EXISTS (SELECT FROM {} AS t WHERE t.{} = {} AND pg_xact_status({}) = 'in progress')").format(
                self._target, self._target_key, sql.Identifier(_KEY), full
            ),
            sql.SQL("RETURN NULL;"),
        )

    def _try_again(self) -> Sql:
        return fail(
            "40001",
            sql.Literal(f"could not serialize access to {self._name} due to concurrent update"),
            hint="The table is a view by now, for which the server cannot look at the WHERE again. "
            "Run the transaction again.",
            table=self._name.table,
            schema=self._name.schema,
        )

    def _note(self) -> Sql:
        """That there was a write, for ``retire``: one row per backend and hour. Nothing but inserted, so that no writer
        waits for another and serializable transactions do not meet in it.
        """
        setting = sql.Literal(f"{SCHEMA}.view_{self.form.migration_id}")
        hour = sql.SQL("(extract(epoch FROM now())::bigint / {})::text").format(sql.Literal(NOTE_SECONDS))
        return when(
            sql.SQL("current_setting({}, true) IS DISTINCT FROM {}").format(setting, hour),
            sql.SQL(
                "INSERT INTO spine_migrate.view_write (migration_id, role, application, operation)"
                " VALUES ({}, session_user, current_setting('application_name'), TG_OP);"
            ).format(sql.Literal(self.form.migration_id)),
            sql.SQL("PERFORM set_config({}, {}, false);").format(setting, hour),
        )

    def _shown(self, key_variable: str) -> Iterator[Sql]:
        """NEW as the view shows it now, for RETURNING. A row that it would not show belongs to one that it does not
        show either, which the legacy table had not.
        """
        yield sql.SQL("SELECT {} INTO NEW FROM {} AS t WHERE t.{} = {} AND {};").format(
            sql.SQL(", ").join(self.form.columns("t").values()),
            self._target,
            self._target_key,
            sql.Identifier(key_variable),
            self.form.condition("t"),
        )
        message = f"what {self._name} holds would not be shown there, as it belongs to no row with a legacy form"
        yield when(
            sql.SQL("NOT FOUND"),
            fail("23503", sql.Literal(message), table=self._name.table, schema=self._name.schema),
        )
