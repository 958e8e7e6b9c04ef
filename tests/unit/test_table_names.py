"""Names of tables as they are typed: as in SQL."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from spine_migrate.cli.table_names import name, renamed

_ANY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("text", "schema", "table"),
    [
        ("Jobs", None, "jobs"),
        ("App.Jobs", "app", "jobs"),
        ('"App"."Old ""jobs"""', "App", 'Old "jobs"'),
        ('app."a.b=c"', "app", "a.b=c"),
    ],
)
def test_names(text: str, schema: str | None, table: str) -> None:
    assert name(text) == (schema, table)


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a.b.c", '"a', '""', "a b", "a=b"])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no name of a table"):
        name(text)


@given(schema=_ANY, table=_ANY, new=_ANY)
def test_whatever_is_quoted_comes_back(schema: str, table: str, new: str) -> None:
    old, to = sql.Identifier(schema, table).as_string(None), sql.Identifier(new).as_string(None)
    assert name(old) == (schema, table)
    assert renamed(f"{old}={to}") == ((schema, table), new)


@pytest.mark.parametrize("text", ["", "a", "a=", "=b", "a=b=c", "a=b.c"])
def test_what_renames_nothing(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not OLD=NEW"):
        renamed(text)
