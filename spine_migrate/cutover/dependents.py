"""Everything that hangs on the legacy table and would not hang on the view in its place.

A rename changes the name and nothing else: whatever the server has resolved already (views, rules, bodies of standard
SQL, policies, foreign keys) follows the table and silently goes on reading and writing it. What is text until it runs
(PL/pgSQL, the application's statements) finds the view. So the former must be pointed anew, and the latter must be
something that a view can do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from spine_migrate.cutover import sql_text
from spine_migrate.cutover.dependent import Dependent
from spine_migrate.db.catalog import Relation
from spine_migrate.db.connect import Connection
from spine_migrate.db.definition import ForeignKey, definition
from spine_migrate.db.queries import query
from spine_migrate.db.raw import rows

# Statements of pg_stat_statements that are looked at, the most frequent first.
_STATEMENTS = 10_000
# A foreign key that lets nobody delete what it points to: no action, restrict.
_REFUSES = ("a", "r")
_OBJECT_KINDS = {"v": "view", "m": "materialized view"}


def find(connection: Connection, relation: Relation) -> list[Dependent]:
    """All of it, what blocks first. Definitions are as the server prints them now, so this is asked before the rename;
    the session's search_path is to be pinned (``db.connect.PINNED``), for names to have their schema.
    """
    found = [
        *followers(connection, relation),
        *_rules(connection, relation),
        *_texts(connection, relation),
        *_statements(connection, relation),
        *_row_types(connection, relation),
        *_policies(connection, relation),
        *_triggers(connection, relation),
        *_foreign_keys(connection, relation),
        *_relatives(connection, relation),
        *_publications(connection, relation),
        *_subscriptions(connection, relation),
        *_sequences(connection, relation),
    ]
    return sorted(found, key=lambda one: not one.blocks)


def followers(connection: Connection, relation: Relation) -> list[Dependent]:
    """Views and functions that follow a table, or the view in its place, under whatever name it has."""
    return [*_views(connection, relation), *_routines(connection, relation)]


def _ask(connection: Connection, name: str, relation: Relation) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query("dependents", name), {"oid": relation.oid, "table": relation.name.table}).fetchall()


def _views(connection: Connection, relation: Relation) -> Iterator[Dependent]:
    for found in _ask(connection, "views", relation):
        body = found["definition"].rstrip().rstrip(";")
        options = f" WITH ({found['options']})" if found["options"] else ""
        breaks = "It follows the table under its new name and would go on reading rows that nobody writes any more."
        if found["needs_key"]:
            yield Dependent(
                found["name"],
                _OBJECT_KINDS[found["kind"]],
                f"{breaks} It groups by the table's primary key alone, which a view has none of.",
                "Write every selected column into its GROUP BY before the cutover; then it is made again by this tool.",
            )
        elif found["kind"] == "m":
            yield Dependent(
                found["name"],
                "materialized view",
                breaks,
                "Drop it before the cutover, and create it after it, with its indexes and privileges.",
                f"DROP MATERIALIZED VIEW {found['name']};\n"
                f"CREATE MATERIALIZED VIEW {found['name']}{options} AS\n{body};",
            )
        elif found["temporary"]:
            yield Dependent(found["name"], "view", breaks, "It is of another session: end that before the cutover.")
        else:
            yield from _shapes(connection, relation, found["name"], "view", body)
            yield Dependent(
                found["name"],
                "view",
                breaks,
                "Create it again right after the rename, in the same transaction: the columns stay as they are.",
                f"CREATE OR REPLACE VIEW {found['name']}{options} AS\n{body};",
            )


def _rules(connection: Connection, relation: Relation) -> Iterator[Dependent]:
    for found in _ask(connection, "rules", relation):
        name = sql.Identifier(found["rule"]).as_string(None)
        breaks = (
            "It goes along with the table, and nothing fires it when the view is written."
            if found["own"]
            else "It follows the table under its new name and would go on writing or reading that."
        )
        yield Dependent(
            f"{name} ON {found['on_table']}",
            "rule",
            breaks,
            "Drop it and do what it does in the application, or create it again after the cutover where it is of "
            "another table.",
            found["definition"] if not found["own"] else f"DROP RULE {name} ON {found['on_table']};",
        )


def _routines(connection: Connection, relation: Relation) -> Iterator[Dependent]:
    for found in _ask(connection, "routines", relation):
        if found["by_type"]:
            yield Dependent(
                found["name"],
                "row type function",
                "It takes or gives rows of the table's type, which goes along with the table; the view's rows are of "
                "another type.",
                "Drop it before the cutover and create it after it, when the name stands for the view's type.",
                found["definition"],
            )
        else:
            yield from _shapes(connection, relation, found["name"], "function", found["definition"] or "")
            yield Dependent(
                found["name"],
                "function",
                "Its body was resolved when it was created, so it follows the table under its new name.",
                "Create it again right after the rename, in the same transaction.",
                found["definition"],
            )


def _shapes(connection: Connection, relation: Relation, name: str, kind: str, text: str) -> Iterator[Dependent]:
    """What no view takes, in a definition that is run again after the rename; it blocks, having no statement."""
    schema, table = relation.name.schema, relation.name.table
    for shape in sql_text.broken(text, schema, table, connection.info.server_version):
        yield Dependent(name, kind, f"{shape.breaks} ({shape.name} in its definition)", shape.remedy)


def _texts(connection: Connection, relation: Relation) -> Iterator[Dependent]:
    schema, table = relation.name.schema, relation.name.table
    for found in _ask(connection, "texts", relation):
        if not sql_text.mentions(found["text"], schema, table):
            continue
        shapes = list(sql_text.broken(found["text"], schema, table, connection.info.server_version))
        for shape in shapes:
            yield Dependent(found["name"], "function", f"{shape.breaks} ({shape.name} in its text)", shape.remedy)
        if not shapes:
            yield Dependent(
                found["name"],
                "function",
                "Its text names the table and will find the view, which takes what was seen there.",
                "Try it on a copy.",
                blocks=False,
            )


def _statements(connection: Connection, relation: Relation) -> Iterator[Dependent]:
    """What applications have sent, where pg_stat_statements keeps it; its constants are left out there."""
    for place in _ask(connection, "statement_statistics", relation):
        seen = rows(
            connection,
            sql.SQL(
                "SELECT query, sum(calls)::bigint AS calls FROM {}"
                " WHERE dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())"
                " AND strpos(lower(query), lower($1)) > 0"
                " GROUP BY query ORDER BY 2 DESC LIMIT $2"
            ).format(sql.Identifier(place["schema"], "pg_stat_statements")),
            relation.name.table,
            _STATEMENTS,
        )
        for one in seen:
            name = relation.name
            for shape in sql_text.broken(one["query"], name.schema, name.table, connection.info.server_version):
                text = " ".join(one["query"].split())
                yield Dependent(
                    text,
                    "statement",
                    f"{shape.breaks} It was called {one['calls']} times.",
                    f"{shape.remedy} If no program sends it any more, forget it with pg_stat_statements_reset().",
                )


def _row_types(connection: Connection, relation: Relation) -> Iterator[Dependent]:
    for found in _ask(connection, "row_type_columns", relation):
        yield Dependent(
            found["name"],
            "column",
            "It holds rows of the table's type, which goes along with the table.",
            "Store JSON, or the columns, instead.",
        )


def _policies(connection: Connection, relation: Relation) -> Iterator[Dependent]:
    for found in _ask(connection, "policies", relation):
        name = f"{sql.Identifier(found['policy']).as_string(None)} ON {found['on_table']}"
        if found["own"]:
            yield Dependent(
                name,
                "policy",
                "It goes along with the table: through the view every role that may read it sees every row.",
                "Put row security on the target, and give the view an owner that it applies to; or drop the policy.",
            )
        else:
            yield Dependent(
                name,
                "policy",
                "It follows the table under its new name and would decide by rows that nobody writes any more.",
                "Drop it and create it again right after the rename.",
            )


def _triggers(connection: Connection, relation: Relation) -> Iterator[Dependent]:
    for found in _ask(connection, "triggers", relation):
        yield Dependent(
            found["name"] if found["own"] else f"{found['name']} ON {found['on_table']}",
            "trigger",
            "It goes along with the table: no write through the view fires it, but what is carried back to the table.",
            "Do what it does in a trigger of the target or in the application, and drop it or disable it.",
            f"ALTER TABLE {found['on_table']} DISABLE TRIGGER {sql.Identifier(found['name']).as_string(None)};",
        )


def _foreign_keys(connection: Connection, relation: Relation) -> Iterator[Dependent]:
    made = definition(connection, relation.name, relation.oid)
    for key in made.inbound:
        if not key.to_itself:
            yield Dependent(
                _key_name(key),
                "foreign key",
                "It follows the table under its new name, and refuses what points to rows that are only in the target.",
                "Point it at the target in the transaction of the switch (NOT VALID), and VALIDATE it afterwards. Not "
                "before: while the application writes the table, its rows reach the target a moment later.",
                f"ALTER TABLE {key.table} DROP CONSTRAINT {sql.Identifier(key.name).as_string(None)};",
            )
    for key in made.foreign_keys:
        drop = f"ALTER TABLE {key.table} DROP CONSTRAINT {sql.Identifier(key.name).as_string(None)};"
        if key.to_itself:
            deleting = " or deletes a row together with those that point to it" if key.on_delete in _REFUSES else ""
            yield Dependent(
                _key_name(key),
                "foreign key",
                f"The table looks at the end of a statement, the view row by row: it refuses one that inserts a row "
                f"before that which it points to{deleting}.",
                "Know it where each row is written by a statement of its own; or drop it, and nothing is checked.",
                drop,
            )
        elif key.on_delete not in _REFUSES:
            yield Dependent(
                _key_name(key),
                "foreign key",
                f"What it does when a row of {key.to} goes ({key.definition}) is done to the legacy table alone.",
                "Drop it, and remove such rows through the view first.",
                drop,
            )
        else:
            yield Dependent(
                _key_name(key),
                "foreign key",
                f"The view's triggers check what is written. A row of {key.to} is held by the legacy table until a "
                f"change is carried back there: who deletes a row through the view, and then the one that it pointed "
                f"to, is refused.",
                f"Know it where rows of {key.to} are not deleted so soon; or drop it, and nothing is checked.",
                drop,
            )


def _key_name(key: ForeignKey) -> str:
    return f"{sql.Identifier(key.name).as_string(None)} ON {key.table}"


def _relatives(connection: Connection, relation: Relation) -> Iterator[Dependent]:
    for found in _ask(connection, "relatives", relation):
        if found["role"] == "parent":
            what = "partition" if found["partition"] else "child"
            yield Dependent(
                found["name"],
                f"{what} of",
                f"The table is a {what} of it and stays one under its new name; a view cannot be.",
                f"Migrate {found['name']} as a whole, or take the table out of it.",
            )
        else:
            yield Dependent(
                found["name"],
                "partition" if found["partition"] else "child",
                "Who reads or writes it by its own name does not come by the view.",
                "Use the name of the whole.",
                blocks=False,
            )


def _publications(connection: Connection, relation: Relation) -> Iterator[Dependent]:
    for found in _ask(connection, "publications", relation):
        yield Dependent(
            found["name"],
            "publication",
            "It goes on publishing the table under its new name; a view is not published.",
            "Publish the target, and let subscribers read that.",
        )


def _subscriptions(connection: Connection, relation: Relation) -> Iterator[Dependent]:
    for found in _ask(connection, "subscriptions", relation):
        yield Dependent(
            found["name"],
            "subscription",
            "It writes to the table by its name, and a view is none that logical replication writes to: it would stop.",
            "Take the table out of what is published to it, and let those who write there write to the target.",
        )


def _sequences(connection: Connection, relation: Relation) -> Iterator[Dependent]:
    for found in _ask(connection, "sequences", relation):
        others = f"; {', '.join(found['used_by'])} takes values from it as well" if found["used_by"] else ""
        yield Dependent(
            found["name"],
            "sequence",
            "The view takes its values from it, and it belongs to the legacy table, with which it would be dropped"
            f"{others}.",
            "Know it; retire drops it with the table unless it is another table's by then.",
            blocks=False,
        )
