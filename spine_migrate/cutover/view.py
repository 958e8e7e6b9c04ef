"""The compatibility view in the legacy table's place: what it is made from; how it is made and removed.

The order of a switch: ``facts`` and ``create`` while the legacy table has its own name, the view set ``aside``; then
both are renamed. The way back: ``drop``, and rename it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from spine_migrate.carry.tables import Tables
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.definition import Definition, ForeignKey, definition, grants
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.db.runtime_tables import EVENTS, HANDOFF, NO_ACTION, RESTRICT, pointing
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.legacy_form import LegacyForm
from spine_migrate.mapping.emit.links import LinkColumns
from spine_migrate.mapping.emit.renaming import Child
from spine_migrate.mapping.emit.trigger_bodies import TriggerBodies
from spine_migrate.mapping.emit.view import View, grant, revoke

_CASCADE, _SET_NULL = "c", "n"


@dataclass(frozen=True)
class Facts:
    """``legacy`` and ``target``: how the two tables are defined; ``view``: what is made from that."""

    tables: Tables
    legacy: Definition
    target: Definition
    view: View

    @property
    def form(self) -> LegacyForm:
        return self.view.form


def facts(
    connection: Connection,
    tables: Tables,
    migration_id: int,
    *,
    name: Name | None = None,
    parent: Facts | None = None,
    others: Sequence[Tables] = (),
) -> Facts:
    """``name``: what the view is called, where the legacy table has given the name up already. ``parent``: of the
    migration whose rows this one's rows refer to. ``others``: the tables of the migrations that refer to this one.

    The session's search_path is to be pinned (``db.connect.PINNED``).
    """
    legacy = definition(connection, name or tables.source.name, tables.source.oid)
    target = definition(connection, tables.target.name, tables.target.oid)
    form = LegacyForm(tables.binding, legacy, migration_id, parent.form if parent is not None else None)
    itself = [key for key in legacy.foreign_keys if key.to_itself and len(key.columns) == 1]
    linked = {field.source for field in tables.binding.mapping.links}
    bodies = TriggerBodies(
        form=form,
        links=LinkColumns(
            form,
            enforced=frozenset(key.columns[0] for key in itself if key.columns[0] in linked),
            cleared=frozenset(key.columns[0] for key in itself if key.on_delete == _SET_NULL),
        ),
        keys=tuple(key for key in legacy.foreign_keys if not _held_by_target(tables.binding, target, key)),
        children=(*_children(legacy, others), *_events(connection, target, others)),
        cascading=tuple(key.columns[0] for key in itself if key.on_delete == _CASCADE),
        following=tuple(_following(connection, target, others)),
        pointing=tuple(
            key.columns[0]
            for key in target.foreign_keys
            if key.to_itself and len(key.columns) == 1 and key.on_update == NO_ACTION
        ),
    )
    return Facts(tables, legacy, target, View(bodies))


def create(connection: Connection, made: Facts) -> None:
    """The view, its defaults, triggers, owner, comments and privileges. Where it is not set aside, the legacy table has
    another name by now.
    """
    view = made.view
    execute(connection, view.create())
    for statement in (*view.defaults(), *view.triggers(), *view.comments()):
        execute(connection, statement)
    _own(connection, made)
    # What ALTER DEFAULT PRIVILEGES has given to a new view was not given to the old table.
    ((oid,),) = connection.execute("SELECT %s::regclass::oid", (str(view.name),)).fetchall()
    for role in {one.role for one in grants(connection, oid)}:
        execute(
            connection,
            sql.SQL("REVOKE ALL ON {} FROM {}").format(
                view.name.identifier, sql.SQL("PUBLIC") if role is None else sql.Identifier(role)
            ),
        )
    for statement in view.grants():
        execute(connection, statement)


def aside(name: Name, migration_id: int) -> Name:
    """What a view is called while the legacy table has its ``name``."""
    return Name(name.schema, f"spine_view_{migration_id}")


def set_aside(made: Facts, migration_id: int) -> Facts:
    """A view of that name; its triggers speak of the legacy table's, which it gets before anybody calls them."""
    return replace(made, view=replace(made.view, aside=aside(made.legacy.name, migration_id)))


def carry_grants(connection: Connection, made: Facts, name: Name) -> None:
    """What was granted and revoked on the view since it was made, on the table ``name`` as well."""
    ((oid,),) = connection.execute("SELECT %s::regclass::oid", (str(made.view.name),)).fetchall()
    before, now = set(made.legacy.grants), set(grants(connection, oid))
    for one in before - now:
        execute(connection, revoke(name, one))
    for one in now - before:
        execute(connection, grant(name, one))


def drop(connection: Connection, made: Facts) -> None:
    """The view and what was made for it; nothing where there is none, and nothing to a table by its name."""
    name = made.view.name
    ((there,),) = connection.execute(query("view", "is_view"), {"schema": name.schema, "name": name.table}).fetchall()
    for statement in made.view.drop(view=there):
        execute(connection, statement)


def _own(connection: Connection, made: Facts) -> None:
    ((role,),) = connection.execute("SELECT current_user::text").fetchall()
    if role != made.legacy.owner:
        execute(
            connection,
            sql.SQL("ALTER VIEW {} OWNER TO {}").format(made.view.name.identifier, sql.Identifier(made.legacy.owner)),
        )


def _held_by_target(binding: Binding, target: Definition, key: ForeignKey) -> bool:
    """Whether a foreign key of the target stands for one of the legacy table: both rows are in the target."""
    if len(key.columns) != 1:
        return False
    fields = [field for field in binding.mapping.carriers(key.columns[0]) if field.link or field.requires]
    held = {tuple(one.columns) for one in target.foreign_keys}
    return any((field.target,) in held for field in fields)


def _children(legacy: Definition, others: Sequence[Tables]) -> list[Child]:
    found: list[Child] = []
    for key in legacy.inbound:
        for other in others:
            field = other.binding.mapping.required
            if (
                key.oid == other.source.oid
                and key.on_delete == _CASCADE
                and field is not None
                and key.columns == [field.column]
            ):
                found.append(Child(other.target.name, field.target))
    return found


def _events(connection: Connection, target: Definition, others: Sequence[Tables]) -> Iterator[Child]:
    """What the runtime has noted of a run goes with it, as in a purge, where no legacy table has the events: the
    application, which knows of none, could not delete its row else. Not where this role may not delete them.
    """
    for key in pointing(target, EVENTS, moved=_moved(others)):
        if key.on_delete in (NO_ACTION, RESTRICT) and _may(connection, key, "DELETE"):
            yield Child(key.table, key.columns[0])


def _following(connection: Connection, target: Definition, others: Sequence[Tables]) -> Iterator[Child]:
    """The same, and who has the run, where it is given another key. Not where this role may not change them."""
    for key in (*pointing(target, EVENTS, moved=_moved(others)), *pointing(target, HANDOFF)):
        if key.on_update == NO_ACTION and _may(connection, key, "UPDATE"):
            yield Child(key.table, key.columns[0])


def _moved(others: Sequence[Tables]) -> set[int]:
    return {other.target.oid for other in others}


def _may(connection: Connection, key: ForeignKey, privilege: str) -> bool:
    values = {"oid": key.oid, "privilege": privilege}
    ((may,),) = connection.execute(query("view", "may"), values).fetchall()
    return bool(may)
