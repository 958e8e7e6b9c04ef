"""What the compatibility view's INSTEAD OF triggers do, in PL/pgSQL.

INSTEAD OF triggers see the row as the statement's snapshot has it, and the server does not lock it or look at the WHERE
again, as it does for a table (PostgreSQL manual, 13.2.1). So an UPDATE writes the target row where the view still shows
what the statement saw, which the server does look at again; where it does not, the function locks the row and compares.
What others have changed meanwhile, in columns that this UPDATE leaves alone, stays. Where both changed one column, or
the row is to be deleted, only the statement knows what it would have done, and it is told to try again (40001): what
two workers claim at once is never granted twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.db.catalog import Name
from spine_migrate.db.definition import ForeignKey
from spine_migrate.mapping.emit.legacy_form import LegacyForm, waits
from spine_migrate.mapping.emit.legacy_rules import foreign_keys, rules
from spine_migrate.mapping.emit.links import LinkColumns
from spine_migrate.mapping.emit.put import Put
from spine_migrate.mapping.emit.renaming import Child, Renaming
from spine_migrate.mapping.emit.sql import forward, forward_value, key
from spine_migrate.mapping.emit.trigger_text import NEW, OLD, changed, differ, either, fail, row, when
from spine_migrate.mapping.model import Field
from spine_migrate.mapping.transforms.base import Sql

SCHEMA = "spine_migrate"
# A backend notes no more than one write in so many seconds.
NOTE_SECONDS = 3600
_KEY, _NEW_KEY, _HELD = "spine_key", "spine_new_key", "spine_held"
# The row as it stands now that it is locked, and as it is when it is written.
_NOW, _SHOWN = "spine_now", "spine_shown"
# NEW and OLD in a statement where the server has rows by these names (RETURNING, from PostgreSQL 18) or a column may.
_GIVEN, _BEFORE = "spine_given", "spine_before"


@dataclass(frozen=True)
class TriggerBodies:
    """``keys``: foreign keys of the legacy table that the target does not hold; ``children``: target rows that are
    deleted along with the row they point to; ``cascading``: columns of the legacy table that point to itself with ON
    DELETE CASCADE; ``following`` and ``pointing`` as ``Renaming`` has them.
    """

    form: LegacyForm
    links: LinkColumns
    keys: tuple[ForeignKey, ...] = ()
    children: tuple[Child, ...] = ()
    cascading: tuple[str, ...] = ()
    following: tuple[Child, ...] = ()
    pointing: tuple[str, ...] = ()

    def insert(self) -> sql.Composed:
        values = dict(forward(self.form.binding, "s"))
        for field in self.links.fields:
            values[field.target] = self.links.value(field)
        return self._body(
            [sql.SQL("{} ALIAS FOR new;").format(sql.Identifier(_GIVEN)), self._row(_SHOWN)],
            *rules(self.form, updating=False),
            sql.SQL("INSERT INTO {} AS t ({}) SELECT {} FROM {} RETURNING {};").format(
                self._target,
                sql.SQL(", ").join(map(sql.Identifier, values)),
                sql.SQL(", ").join(values.values()),
                row(NEW, self._names, "s"),
                self._as_shown(),
            ),
            self._refuse_unseen(),
            *(sql.SQL("{} := {};").format(sql.Identifier(_KEY), self._key_of(NEW)) for _ in self.links.fields[:1]),
            *self.links.record(_KEY, updating=False),
            *foreign_keys(self.form, self.keys, updating=False),
            self._note(),
            sql.SQL("RETURN {};").format(sql.Identifier(_SHOWN)),
        )

    def update(self) -> sql.Composed:
        put = Put(self.form, self.links, _KEY)
        renaming = Renaming(self.form, self.links, self.following, self.pointing)
        held, now = sql.Identifier(_HELD), sql.Identifier(_NOW)
        # What the view shows does not say whether these may be written.
        unseen = changed(self.form, put.reading | {self.form.binding.mapping.key})
        seen = sql.SQL("({} OR {} AND ROW({})::record *= {})").format(
            held,
            self.form.condition("t"),
            sql.SQL(", ").join(self.form.columns("t").values()),
            sql.Identifier(_BEFORE),
        )
        return self._body(
            [
                sql.SQL("{} ALIAS FOR new;").format(sql.Identifier(_GIVEN)),
                sql.SQL("{} ALIAS FOR old;").format(sql.Identifier(_BEFORE)),
                *map(self._row, (_NOW, _SHOWN)),
                sql.SQL("{} boolean := false;").format(held),
                sql.SQL("{} {};").format(sql.Identifier(_NEW_KEY), self._key_type),
                *put.variables,
            ],
            sql.SQL("{} := {};").format(sql.Identifier(_KEY), self._key_of(OLD)),
            sql.SQL("LOOP"),
            when(
                sql.SQL("{} OR NOT {}").format(held, unseen),
                *rules(self.form, updating=True),
                when(held, *renaming.statements(_KEY, _NEW_KEY, self._try_again()), *put.documents()),
                sql.SQL("{} RETURNING {};").format(put.update(seen), self._as_shown()),
                sql.SQL("EXIT WHEN FOUND;"),
                # A trigger of the target keeps it as it is.
                when(held, sql.SQL("RETURN NULL;")),
                *self._as_given(),
            ),
            *self._lock("NO KEY UPDATE"),
            when(
                self._stale(),
                when(self._seen_before(), sql.SQL("RETURN NULL;")),
                when(either(self._contested()), self._try_again()),
                *self._merge(),
                sql.SQL("{} := {};").format(sql.Identifier(OLD), now),
            ),
            sql.SQL("{} := true;").format(held),
            sql.SQL("END LOOP;"),
            self._refuse_unseen(),
            *self.links.record(_KEY, updating=True),
            *foreign_keys(self.form, self.keys, updating=True),
            self._note(),
            sql.SQL("RETURN {};").format(sql.Identifier(_SHOWN)),
        )

    def delete(self) -> sql.Composed:
        own = sql.Identifier(_KEY)
        return self._body(
            [self._row(_NOW)],
            sql.SQL("{} := {};").format(own, self._key_of(OLD)),
            *self._lock("UPDATE"),
            when(
                self._stale(),
                when(sql.SQL("NOT {}").format(self._seen_before()), self._try_again()),
                when(either(self._changed_otherwise()), sql.SQL("RETURN NULL;")),
            ),
            *(
                sql.SQL("DELETE FROM {} AS v WHERE v.{} = {};").format(
                    self._name.identifier,
                    sql.Identifier(column),
                    sql.Identifier(OLD, self.form.binding.mapping.key),
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
            *self.links.beside_unseen(
                _KEY,
                self._try_again(),
                sql.SQL("WITH forgotten AS ({}) DELETE FROM {} AS t WHERE t.{} = {};").format(
                    self.links.forget(_KEY), self._target, self._target_key, own
                ),
            ),
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
        return key(self.form.binding, variable)

    @property
    def _key_type(self) -> sql.SQL:
        mapping = self.form.binding.mapping
        return sql.SQL(mapping.target.columns[mapping.target.key].type.name)

    def _row(self, variable: str) -> Sql:
        return sql.SQL("{} {};").format(sql.Identifier(variable), self._name.identifier)

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
        yield sql.SQL("SELECT {} INTO {} FROM {} AS t WHERE t.{} = {} AND {} FOR {} OF t;").format(
            sql.SQL(", ").join(self.form.columns("t").values()),
            sql.Identifier(_NOW),
            self._target,
            self._target_key,
            sql.Identifier(_KEY),
            self.form.condition("t"),
            sql.SQL(strength),
        )
        yield when(sql.SQL("NOT FOUND"), sql.SQL("RETURN NULL;"))

    def _as_given(self) -> Iterator[Sql]:
        """Generated columns as they were before ``rules`` worked them out."""
        for column in self.form.definition.columns:
            if column.generated is not None:
                yield sql.SQL("{} := {};").format(sql.Identifier(NEW, column.name), sql.Identifier(OLD, column.name))

    def _stale(self) -> Sql:
        return sql.SQL("{} *<> {}").format(sql.Identifier(_NOW), sql.Identifier(OLD))

    def _contested(self) -> Iterator[Sql]:
        for name in self._names:
            yield sql.SQL("({} AND {})").format(differ(self.form, name, NEW, OLD), differ(self.form, name, _NOW, OLD))

    def _merge(self) -> Iterator[Sql]:
        for name in self._names:
            yield sql.SQL("IF NOT ({}) THEN {} := {}; END IF;").format(
                differ(self.form, name, NEW, OLD), sql.Identifier(NEW, name), sql.Identifier(_NOW, name)
            )

    def _changed_otherwise(self) -> Iterator[Sql]:
        """But for what a row that this statement has deleted before has cleared in this one (ON DELETE SET NULL)."""
        for name in self._names:
            if name in self.links.cleared:
                yield sql.SQL("{} IS NOT NULL AND {}").format(
                    sql.Identifier(_NOW, name), differ(self.form, name, _NOW, OLD)
                )
            else:
                yield differ(self.form, name, _NOW, OLD)

    def _seen_before(self) -> Sql:
        """Whether this very statement has changed the row already, by a join that meets it twice: once is enough, as
        for a table. Such a version is of a transaction that is still under way, and not another's, since the row is
        locked.
        """
        newest = sql.SQL("pg_snapshot_xmax(pg_current_snapshot())::text::numeric")
        # xmin is the low half of a full transaction id. One at the snapshot's end or beyond has not ended: ours, whose
        # number may be higher than that of the last transaction that has (savepoints have numbers of their own).
        ahead = sql.SQL("(t.xmin::text::numeric - n.newest % 4294967296 + 6442450944) % 4294967296 - 2147483648")
        return sql.SQL(
            "EXISTS (SELECT FROM {} AS t CROSS JOIN LATERAL (SELECT {} AS newest) AS n CROSS JOIN LATERAL"
            " (SELECT {} AS ahead) AS a WHERE t.{} = {} AND CASE WHEN a.ahead >= 0 THEN true"
            " ELSE pg_xact_status((n.newest + a.ahead)::text::xid8) = 'in progress' END)"
        ).format(self._target, newest, ahead, self._target_key, sql.Identifier(_KEY))

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
        # By the clock, not by when the transaction began, and never rounded up: until the end of the hour of its last
        # note a session may write without another (``writers.RESOLUTION``).
        hour = sql.SQL("floor(extract(epoch FROM clock_timestamp()) / {})::text").format(sql.Literal(NOTE_SECONDS))
        return when(
            sql.SQL("current_setting({}, true) IS DISTINCT FROM {}").format(setting, hour),
            # Before the note, which is of the hour that this names, or of a later one.
            sql.SQL("PERFORM set_config({}, {}, false);").format(setting, hour),
            sql.SQL(
                "INSERT INTO spine_migrate.view_write (migration_id, role, application, operation)"
                " VALUES ({}, session_user, current_setting('application_name'), TG_OP);"
            ).format(sql.Literal(self.form.migration_id)),
        )

    def _as_shown(self) -> sql.Composed:
        """For RETURNING: the row as the view shows it from now on. Without a key where it would not show it."""
        columns = self.form.columns("t", self._wanted)
        name = self.form.binding.mapping.key
        kind = next(one.sql_type for one in self.form.definition.columns if one.name == name)
        columns[name] = sql.SQL("(CASE WHEN {} THEN {} END)::{}").format(
            self.form.condition("t", self._wanted), columns[name], sql.SQL(kind)
        )
        return sql.SQL("{} INTO {}").format(sql.SQL(", ").join(columns.values()), sql.Identifier(_SHOWN))

    def _wanted(self, field: Field) -> Sql | None:
        """What a link wants is written down after the row; what it is, NEW says."""
        return forward_value(self.form.binding, field, _GIVEN) if waits(field) else None

    def _refuse_unseen(self) -> sql.Composed:
        """A row that the view would not show belongs to one that it does not show either, which the legacy table had
        not. One that a trigger of the target has kept from being written was not written.
        """
        message = f"what {self._name} holds would not be shown there, as it belongs to no row with a legacy form"
        return when(
            sql.SQL("{} IS NULL").format(sql.Identifier(_SHOWN, self.form.binding.mapping.key)),
            when(sql.SQL("NOT FOUND"), sql.SQL("RETURN NULL;")),
            fail("23503", sql.Literal(message), table=self._name.table, schema=self._name.schema),
        )
