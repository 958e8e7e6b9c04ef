"""The legacy table's own rules, held against a row that is written through the view: what the table would have refused.

Lengths, enums and typmods are not here: the server applies a view's column types before its triggers run. Unique
constraints are those of the target (see ``cutover.view``). Constraints are held against the columns that an UPDATE
changes, since a row that another writer made may never have kept them, which is no reason to refuse this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from psycopg import sql

from spine_migrate.db.definition import ForeignKey
from spine_migrate.mapping.emit.legacy_form import LegacyForm
from spine_migrate.mapping.emit.sql import Judgement, judgements, verdict
from spine_migrate.mapping.emit.trigger_text import NEW, OLD, changed, differ, fail, row, when
from spine_migrate.mapping.transforms.base import Sql


def rules(form: LegacyForm, *, updating: bool) -> Iterator[Sql]:
    """Statements over NEW, and OLD where ``updating``, in the order in which a table checks; before the target is
    written.
    """
    yield from _generated(form, updating=updating)
    yield from _not_null(form)
    yield from _checks(form, updating=updating)
    yield from _judged(form, updating=updating)


def _names(form: LegacyForm) -> list[str]:
    return [column.name for column in form.definition.columns]


def _generated(form: LegacyForm, *, updating: bool) -> Iterator[Sql]:
    """Columns that the legacy table works out by itself take no value."""
    table = form.definition.name.table
    for column in form.definition.columns:
        if column.generated is None:
            continue
        new = sql.Identifier(NEW, column.name)
        given = sql.SQL("{} IS NOT NULL").format(new)
        if updating:
            # DEFAULT, which a table takes, comes as NULL.
            given = sql.SQL("{} AND {}").format(given, differ(form, column.name, NEW, OLD))
        message = f"column {_quoted(column.name)} of {_quoted(table)} can only be set to DEFAULT, it is generated"
        yield when(given, fail("428C9", sql.Literal(message), column=column.name, table=table))
        yield sql.SQL("{} := (SELECT {} FROM {});").format(
            new, sql.SQL(column.generated), row(NEW, _names(form), table)
        )


def _not_null(form: LegacyForm) -> Iterator[Sql]:
    name = form.definition.name
    for column in form.definition.columns:
        if column.not_null:
            place = f"column {_quoted(column.name)} of relation {_quoted(name.table)}"
            yield when(
                sql.SQL("{} IS NULL").format(sql.Identifier(NEW, column.name)),
                fail(
                    "23502",
                    sql.Literal(f"null value in {place} violates not-null constraint"),
                    column=column.name,
                    table=name.table,
                    schema=name.schema,
                ),
            )


def _checks(form: LegacyForm, *, updating: bool) -> Iterator[Sql]:
    name = form.definition.name
    for check in form.definition.checks:
        broken = sql.SQL("(SELECT ({}) FROM {}) IS FALSE").format(
            sql.SQL(check.expression), row(NEW, _names(form), name.table)
        )
        message = f"new row for relation {_quoted(name.table)} violates check constraint {_quoted(check.name)}"
        held: Sql = when(
            broken,
            fail("23514", sql.Literal(message), constraint=check.name, table=name.table, schema=name.schema),
        )
        yield when(changed(form, check.columns), held) if updating and check.columns else held


def _judged(form: LegacyForm, *, updating: bool) -> Iterator[Sql]:
    """What the mapping cannot carry."""
    found = list(judgements(form.binding, NEW))
    if updating:
        found = [_if_changed(form, one) for one in found if one.field.column in form.binding.live]
    if not found:
        return
    table = form.definition.name.table
    message = sql.SQL("format({}, spine_refused)").format(
        sql.Literal(f"{table.replace('%', '%%')} is a view by now and cannot hold this row: %s")
    )
    asked = (
        sql.SQL("spine_refused := {};").format(verdict(found, "detail")),
        when(
            sql.SQL("spine_refused IS NOT NULL"),
            fail("23514", message, table=table, schema=form.definition.name.schema),
        ),
    )
    if updating:
        yield when(changed(form, {one.field.source for one in found}), *asked)
    else:
        yield from asked


def _if_changed(form: LegacyForm, judgement: Judgement) -> Judgement:
    refusal = judgement.refusal
    condition = sql.SQL("CASE WHEN {} THEN {} END").format(changed(form, [judgement.field.source]), refusal.condition)
    return replace(judgement, refusal=replace(refusal, condition=condition))


def foreign_keys(form: LegacyForm, keys: tuple[ForeignKey, ...], *, updating: bool) -> Iterator[Sql]:
    """``keys``: those that the target holds by none of its own. As the server checks them: after the row was written; a
    NULL in any column is no reference; the row that is found is held.
    """
    name = form.definition.name
    for key in keys:
        conditions: list[Sql] = [sql.SQL("{} IS NOT NULL").format(sql.Identifier(NEW, one)) for one in key.columns]
        if updating:
            conditions.append(changed(form, key.columns))
        found = sql.SQL("PERFORM FROM {} AS r WHERE {} FOR KEY SHARE;").format(
            (name if key.to_itself else key.to).identifier,
            sql.SQL(" AND ").join(
                sql.SQL("{} {} {}").format(sql.Identifier("r", there), sql.SQL(operator), sql.Identifier(NEW, here))
                for here, there, operator in zip(key.columns, key.referenced, key.operators, strict=True)
            ),
        )
        message = f"insert or update on table {_quoted(name.table)} violates foreign key constraint {_quoted(key.name)}"
        yield when(
            sql.SQL(" AND ").join(conditions),
            found,
            when(
                sql.SQL("NOT FOUND"),
                fail("23503", sql.Literal(message), constraint=key.name, table=name.table, schema=name.schema),
            ),
        )


def _quoted(name: str) -> str:
    return f'"{name}"'
