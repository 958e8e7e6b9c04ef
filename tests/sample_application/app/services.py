"""What the application does, and writes down in the table ``work``; whether a task asks for it or a pipeline."""

from __future__ import annotations

import os
from collections.abc import Sequence

import psycopg


def users_without_backup() -> list[int]:
    return [11, 12]


def back_up(user_id: int, backup_type: str, *, by: str) -> str:
    _note("backup", f"{user_id} {backup_type}", by)
    return f"{backup_type} backup of {user_id}"


def import_documents(import_id: str, documents: Sequence[str], *, by: str) -> int:
    _note("import", import_id, by)
    return len(documents)


def recommend(model: str, user_id: int, *, by: str) -> str:
    _note("recommend", f"{user_id} {model}", by)
    return model


def sync(what: str, *, by: str) -> None:
    _note("sync", what, by)


def _note(what: str, subject: str, by: str) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute("INSERT INTO work VALUES (%s, %s, %s)", (what, subject, by))
