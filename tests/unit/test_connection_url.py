"""Connection URLs whose password was not percent-encoded: nothing of it may come back in a message."""

from __future__ import annotations

import pytest

from spine_migrate.db.connect import conninfo, describe
from spine_migrate.errors import ConfigurationError


@pytest.mark.parametrize("password", ["S3cr@etWord", "S3cr/etWord", "123/etWord", "S3cr/et@Word", "S3cr?et@Word"])
def test_a_password_that_libpq_would_take_for_a_place_is_not_repeated(password: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        conninfo(f"postgresql://app:{password}@db.example:5432/legacy")
    assert "S3cr" not in str(refused.value)
    assert "Word" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:S3cr%40etW%2Ford@db.example:5432/legacy?sslmode=require&options=-c%20x%3Da@b",
        "postgresql://app:S3cr?etWord@db.example:5432/legacy",
        "host=db.example user=app password=a@b/c@d dbname=legacy port=5432",
    ],
)
def test_a_password_that_is_written_right_may_hold_anything(url: str) -> None:
    assert describe(url) == "legacy on db.example:5432 as app"
