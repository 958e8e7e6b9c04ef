"""What the view cannot keep of what the legacy table does, or not without something that has to be made first."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql
from psycopg.rows import dict_row

from spine_migrate.carry.references import references
from spine_migrate.cutover.dependent import Dependent
from spine_migrate.cutover.expressions import expressions
from spine_migrate.cutover.key_index import has_index, missing
from spine_migrate.cutover.uniqueness import keeper, sources
from spine_migrate.cutover.view import Facts
from spine_migrate.db import catalog
from spine_migrate.db.catalog import UniqueIndex
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query

# A view is read as its owner, and its rows are locked as its owner (SELECT ... FOR UPDATE).
_OWNER_NEEDS = ["SELECT", "UPDATE"]
# Types that are read from text by functions which are not immutable, so that no index can have them.
_NOT_IMMUTABLE = ("enum", "timestamp with time zone", "timestamp without time zone", "date", "json")


def limits(connection: Connection, made: Facts) -> list[Dependent]:
    """What blocks first. The session's search_path is pinned."""
    found = [
        *_row_security(connection, made),
        *_columns(made),
        *_uniqueness(connection, made),
        *_stricter(connection, made),
        *_odd_constraints(connection, made),
        *expressions(connection, made.legacy.oid),
        *_owner(connection, made),
        *_references(connection, made),
        *missing(connection, made),
        *_indexes(connection, made),
        *_pointing(connection, made),
    ]
    return sorted(found, key=lambda one: not one.blocks)


def _row_security(connection: Connection, made: Facts) -> Iterator[Dependent]:
    owner, values = made.legacy.owner, {"oid": made.target.oid, "role": made.legacy.owner}
    ((hides,),) = connection.execute(query("view", "hides_rows"), values).fetchall()
    if hides:
        yield Dependent(
            str(made.target.name),
            "row security",
            f"The view will belong to {owner}, the table's owner, and row security of the target hides rows from it.",
            "Give that role a policy that lets it see every row, then take it on yourself; or BYPASSRLS.",
        )
    if made.legacy.row_security:
        yield Dependent(
            str(made.legacy.name),
            "row security",
            "Row security of the table does not hold for the view, so roles would see rows that they may not see.",
            "Take it off the table once nobody depends on it, or move the application off the table with --no-view.",
        )


def _columns(made: Facts) -> Iterator[Dependent]:
    mapping = made.tables.binding.mapping
    for column in made.legacy.columns:
        name = f"{made.legacy.name}.{sql.Identifier(column.name).as_string(None)}"
        if not mapping.brings_back(column.name):
            yield Dependent(
                name,
                "column",
                "The mapping does not carry it, so the view has NULL there, and what is written there is lost"
                + (": a NOT NULL column, without which no row has a legacy form." if column.not_null else "."),
                "Carry it in the mapping where anybody still needs it.",
                blocks=column.not_null,
            )
        if made.tables.binding.live[column.name].type == "json":
            yield Dependent(
                name,
                "column",
                "The target keeps it as jsonb: spaces, the order of keys and repeated keys are not what was written.",
                "Know it.",
                blocks=False,
            )
        if column.identity == "a" or column.generated is not None:
            yield Dependent(
                name,
                "column",
                "The table refuses a value for it (428C9); the view cannot tell every value that was given from none.",
                "Know it.",
                blocks=False,
            )


def _uniqueness(connection: Connection, made: Facts) -> Iterator[Dependent]:
    binding = made.tables.binding
    candidates = catalog.unique_indexes(connection, made.tables.target.oid)
    for index in [*_primary(connection, made), *catalog.unique_indexes(connection, made.tables.source.oid)]:
        # No two rows have one key in the target.
        if binding.mapping.key in index.columns or keeper(connection, binding, index, candidates) is not None:
            continue
        yield Dependent(
            sql.Identifier(made.legacy.name.schema, index.name).as_string(None),
            "unique index",
            f"Nothing in {made.target.name} keeps apart what it keeps apart"
            f" ({', '.join(index.expressions)}{f' WHERE {index.predicate}' if index.predicate else ''}).",
            "Give the target a unique index over what the mapping makes of these columns, for the same rows or more.",
        )


def _stricter(connection: Connection, made: Facts) -> Iterator[Dependent]:
    """Unique indexes of the target for which the legacy table has none: the application never met their refusals."""
    own = [*_primary(connection, made), *catalog.unique_indexes(connection, made.tables.source.oid)]
    whole = [set(one.columns) for one in own if one.predicate is None and "" not in one.columns]
    for index in catalog.unique_indexes(connection, made.tables.target.oid):
        decided_by = sources(made.tables.binding, index)
        if decided_by and not any(columns <= decided_by for columns in whole):
            yield Dependent(
                sql.Identifier(made.target.name.schema, index.name).as_string(None),
                "unique index",
                f"It refuses (23505) what the legacy table takes: rows that agree in {', '.join(sorted(decided_by))}"
                f"{f', those with {index.predicate}' if index.predicate else ''}.",
                "Know it: rows of the past that it refused are in quarantine; let the application write no others.",
                blocks=False,
            )


def _primary(connection: Connection, made: Facts) -> Iterator[UniqueIndex]:
    """The primary key, which need not be over the mapping's key."""
    with connection.cursor(row_factory=dict_row) as cursor:
        for one in cursor.execute(query("definition", "indexes"), {"oid": made.legacy.oid}).fetchall():
            if one["is_primary"]:
                columns = tuple(one["columns"])
                yield UniqueIndex(one["name"], columns, None, nulls_distinct=True, columns=columns, valid=True)


def _odd_constraints(connection: Connection, made: Facts) -> Iterator[Dependent]:
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(query("view", "odd_constraints"), {"oid": made.legacy.oid}).fetchall()
    for one in found:
        name = f"{sql.Identifier(one['name']).as_string(None)} ON {made.legacy.name}"
        if one["exclusion"]:
            yield Dependent(
                name,
                "exclusion constraint",
                f"Nothing in {made.target.name} excludes what it excludes ({one['definition']}).",
                "Give the target an exclusion constraint over what the mapping makes of these columns, or drop it.",
            )
        else:
            yield Dependent(
                name,
                "deferrable constraint",
                "What it may put off until the commit, the view refuses at once.",
                "Try the transactions that put it off (SET CONSTRAINTS) on a copy.",
                blocks=False,
            )


def _owner(connection: Connection, made: Facts) -> Iterator[Dependent]:
    """A view reads as its owner, who is the legacy table's."""
    owner, target = made.legacy.owner, made.target.name
    with connection.cursor(row_factory=dict_row) as cursor:
        missing = cursor.execute(
            query("view", "missing_privileges"),
            {"role": owner, "target": str(target), "wanted": _OWNER_NEEDS},
        ).fetchall()
    for one in missing:
        statement = sql.SQL("GRANT {} ON {} TO {}").format(
            sql.SQL(one["privilege"]), sql.SQL(one["object"]), sql.Identifier(owner)
        )
        yield Dependent(
            one["object"],
            "privilege",
            f"The view will belong to {owner}, the table's owner, as whom it is read, and that role lacks"
            f" {one['privilege']} here.",
            "Grant it.",
            f"{statement.as_string(None)};",
        )


def _references(connection: Connection, made: Facts) -> Iterator[Dependent]:
    """Foreign keys that the trigger functions check as the role that makes them."""
    for key in made.view.bodies.keys:
        if key.to_itself:
            continue
        ((allowed, role),) = connection.execute(query("view", "may_reference"), {"table": str(key.to)}).fetchall()
        if not allowed:
            statement = sql.SQL("GRANT SELECT, UPDATE ON {} TO {}").format(key.to.identifier, sql.Identifier(role))
            yield Dependent(
                str(key.to),
                "privilege",
                f"The view's triggers check {key.name} as {role}, which may not read {key.to} and hold its rows.",
                "Grant it.",
                f"{statement.as_string(None)};",
            )


def _indexes(connection: Connection, made: Facts) -> Iterator[Dependent]:
    """For each index of the legacy table but that of its key, whether the same look-up through the view has one."""
    binding = made.tables.binding
    with connection.cursor(row_factory=dict_row) as cursor:
        legacy = cursor.execute(query("definition", "indexes"), {"oid": made.legacy.oid}).fetchall()
    columns = made.form.columns(binding.target.table)
    served: set[tuple[str, ...]] = {(binding.mapping.key,)}
    for index in legacy:
        names = tuple(index["columns"])
        if not names or len(names) != len(index["expressions"]) or names in served:
            continue
        served.add(names)
        if has_index(connection, made, [_plain_target(made, name) for name in names]):
            continue
        possible = all(_immutable(made, name) for name in names)
        statement = sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} USING {} ({}) WHERE {};").format(
            sql.Identifier(f"spine_view_{index['name']}"[:63]),
            binding.target.identifier,
            sql.Identifier(index["method"]),
            sql.SQL(", ").join(sql.SQL("({})").format(columns[name]) for name in names),
            made.form.constants(binding.target.table),
        )
        yield Dependent(
            sql.Identifier(made.legacy.name.schema, index["name"]).as_string(None),
            "index",
            f"A look-up by {', '.join(names)} through the view finds no index on {made.target.name}.",
            "Create it before the cutover, where the application looks rows up so."
            if possible
            else "Ask by other columns: what the mapping makes of these, no index can have.",
            statement.as_string(None) if possible else None,
            blocks=False,
        )


def _pointing(connection: Connection, made: Facts) -> Iterator[Dependent]:
    """For each row that is deleted through the view the server looks who points to it."""
    for one in references(connection, made.target.oid):
        if one.indexed:
            continue
        column = one.columns[0]
        statement = sql.SQL("CREATE INDEX{} {} ON {} ({}) WHERE {} IS NOT NULL;").format(
            sql.SQL("" if one.partitioned else " CONCURRENTLY"),
            sql.Identifier(f"spine_view_{column}"[:63]),
            one.table.identifier,
            sql.Identifier(column),
            sql.Identifier(column),
        )
        yield Dependent(
            f"{sql.Identifier(one.name).as_string(None)} ON {one.table}",
            "index",
            f"No index serves it: each DELETE through the view, and each change of a key, reads {one.table} whole.",
            "Create it before the cutover, where the application deletes rows.",
            statement.as_string(None),
            blocks=False,
        )


def _plain_target(made: Facts, name: str) -> str | None:
    """The target column that a legacy column is read from as it stands."""
    field = made.tables.binding.mapping.carrier(name)
    if field is None or field.path or field.steps or field.keep or field.link:
        return None
    return field.target


def _immutable(made: Facts, name: str) -> bool:
    field = made.tables.binding.mapping.carrier(name)
    live = made.tables.binding.live[name].type
    if field is None or (field.link and field.keep is None):
        return False
    inside = bool(field.path) or field.keep is not None
    return live != "enum" and not (inside and live in _NOT_IMMUTABLE)
