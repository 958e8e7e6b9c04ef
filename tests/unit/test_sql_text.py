"""What the search through SQL text finds that no view takes, and what it leaves alone."""

from __future__ import annotations

import pytest

from spine_migrate.cutover.sql_text import broken, mentions

TABLE = ("public", "executions")


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("INSERT INTO executions (a) VALUES (1)\n  ON CONFLICT (a) DO NOTHING", "ON CONFLICT"),
        ('insert into "public"."executions" as e values (1) on conflict do nothing', "ON CONFLICT"),
        ("MERGE INTO executions USING b ON true WHEN MATCHED THEN DELETE", "MERGE"),
        ("TRUNCATE executions", "TRUNCATE"),
        ("truncate table only a, public . executions cascade", "TRUNCATE"),
        ("COPY executions (a, b) TO STDOUT", "COPY TO"),
        ("UPDATE executions SET a = 1 WHERE CURRENT OF c", "WHERE CURRENT OF"),
        ("SELECT * FROM executions TABLESAMPLE system (1)", "TABLESAMPLE"),
        ("SELECT ctid FROM executions", "system column"),
        ("SELECT pg_get_serial_sequence('public.executions', 'id')", "serial sequence"),
        (
            "UPDATE executions SET a = 1 WHERE id IN (SELECT id FROM executions LIMIT 1 FOR UPDATE SKIP LOCKED)",
            "IN (... LIMIT ... FOR UPDATE)",
        ),
        ("ALTER TABLE executions ADD COLUMN a int", "DDL"),
        ("CREATE INDEX i ON executions (a)", "DDL"),
    ],
)
def test_what_no_view_takes(text: str, shape: str) -> None:
    assert [found.name for found in broken(f"BEGIN; {text}; END;", *TABLE, 160_000)] == [shape]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM executions WHERE a = 1 FOR UPDATE SKIP LOCKED",
        "UPDATE executions SET a = 1 WHERE id = (SELECT id FROM executions LIMIT 1 FOR UPDATE SKIP LOCKED)",
        "INSERT INTO executions VALUES (1) RETURNING a",
        "COPY executions FROM STDIN",
        "MERGE INTO executions USING b ON true WHEN MATCHED THEN DELETE",
        "INSERT INTO others SELECT a FROM executions; INSERT INTO others VALUES (1) ON CONFLICT DO NOTHING",
        "SELECT 1 FROM executions; -- TRUNCATE executions",
        "SELECT 1 FROM executions /* TABLESAMPLE,\n ctid */",
        "TRUNCATE executions_archive, my_executions; SELECT ctid FROM others",
    ],
)
def test_what_a_view_takes(text: str) -> None:
    """Another table's statements, and comments, are none of ours."""
    assert list(broken(text, *TABLE, 170_000)) == []


def test_a_name_is_a_word() -> None:
    assert mentions("SELECT FROM EXECUTIONS", *TABLE)
    assert mentions('SELECT FROM "executions"', *TABLE)
    assert not mentions("SELECT FROM executions_legacy, my_executions, executions$1", *TABLE)
    assert not mentions("-- executions", *TABLE)
    assert mentions('SELECT FROM "odd (name"', "public", "odd (name")
