"""Mappings bound to the tables of a test's database."""

from __future__ import annotations

from spine_migrate.carry.tables import Tables, find_tables
from spine_migrate.db.connect import Connection
from spine_migrate.mapping.load import load


def tables_of(connection: Connection, *entities: str) -> list[Tables]:
    """In the schema public, for capture-spine."""
    return [
        find_tables(connection, load(f"capture-spine/{entity}"), source_schema="public", target_schema="public")
        for entity in entities
    ]
