"""``spine-migrate shims shadow``: what the mode shadow has compared, summed up, and the gate on it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result
from psycopg.types.json import Jsonb

from spine_migrate.cli import main
from spine_migrate.db import schema
from tests.database import Database

BILL, SEND = "shop.tasks.bill", "shop.tasks.send"


@pytest.fixture
def shadows(database: Database) -> Database:
    database.arrange(schema.upgrade)
    return database


def add(database: Database, task: str | None, *events: dict[str, Any], days_ago: int = 0) -> None:
    """As ``spine_shims.shadowing`` writes it, which tests/integration/test_shims_shadow.py holds it to."""
    with database.connect() as connection:
        for data in events:
            connection.execute(
                "WITH run AS (INSERT INTO runs (kind, name, metadata) VALUES ('pipeline', 'work', %s) RETURNING run_id)"
                " INSERT INTO run_events (run_id, event_type, data, source, timestamp)"
                " SELECT run_id, 'shadow_compared', %s, 'spine_shims', now() - make_interval(days => %s) FROM run",
                (Jsonb({} if task is None else {"celery_task": task}), Jsonb(data), days_ago),
            )


def equal(times: int) -> list[dict[str, Any]]:
    return [{"equal": True, "paths": []}] * times


def differing(*paths: str) -> dict[str, Any]:
    return {"equal": False, "paths": list(paths)}


def shadow(database: Database, *words: str, code: int = 0) -> Result:
    ended = CliRunner().invoke(main, ["shims", "shadow", *words, "--target", database.url])
    assert ended.exit_code == code, ended.output
    return ended


def told(database: Database, *words: str, code: int = 0) -> Any:
    return json.loads(shadow(database, *words, "--json", code=code).stdout)


def test_the_sum_of_each_task(shadows: Database) -> None:
    add(shadows, BILL, *equal(5), differing("$.rows[0].n", "$.rows[7].n", "$.at"), differing("$.rows[3].n"))
    add(shadows, BILL, {"equal": False, "old_error": None, "error": "Flaky"}, {"equal": None, "why": "no JSON"})
    add(shadows, None, *equal(1))
    document = told(shadows)
    bill, work = document["tasks"]
    assert (document["format"], document["verdict"], bill["task"], work["task"]) == (1, None, BILL, "work")
    assert {name: bill[name] for name in ("compared", "matches", "mismatches", "not_comparable", "rate")} == {
        "compared": 8, "matches": 5, "mismatches": 3, "not_comparable": 1, "rate": 0.375,
    }  # fmt: skip
    assert bill["places"] == [
        {"path": "$.rows[*].n", "count": 2},
        {"path": "$.at", "count": 1},
        {"path": "error: Flaky, was none", "count": 1},
    ]
    assert (bill["rate_below"], work["rate_below"]) == (pytest.approx(0.710760, rel=1e-5), pytest.approx(0.95))
    shown = shadow(shadows).stdout
    assert f"{BILL} differs at $.rows[*].n: 2 of 8" in shown


def test_only_some(shadows: Database) -> None:
    add(shadows, BILL, *equal(2))
    add(shadows, BILL, differing("$"), days_ago=9)
    add(shadows, SEND, *equal(1))
    assert [(one["task"], one["compared"]) for one in told(shadows, "--since", "7d")["tasks"]] == [(BILL, 2), (SEND, 1)]
    assert [(one["task"], one["compared"]) for one in told(shadows, "--task", BILL)["tasks"]] == [(BILL, 3)]


def test_the_gate_has_three_ends(shadows: Database) -> None:
    gate = ("--max-rate", "0.1")
    add(shadows, BILL, *equal(28))
    unknown = told(shadows, *gate, code=4)
    assert (unknown["verdict"], unknown["tasks"][0]["comparisons_needed"]) == ("could not tell", 29)
    assert "for 10% at a confidence of 0.95 it takes 29 comparisons with 0 mismatches, and there are 28." in (
        shadow(shadows, *gate, code=4).stdout
    )
    add(shadows, BILL, *equal(1))
    assert told(shadows, *gate)["verdict"] == "equal"
    assert "the mismatch rate is below 10% at a confidence of 0.95" in shadow(shadows, *gate).stdout
    # One mismatch in 30 is no proof of anything; four in 33 are more than a tenth.
    add(shadows, BILL, differing("$"))
    assert told(shadows, *gate, code=4)["tasks"][0]["comparisons_needed"] == 46
    add(shadows, BILL, *([differing("$")] * 3))
    assert told(shadows, *gate, code=1)["verdict"] == "different"
    assert "the mismatch rate is 12.1%, above 10%" in shadow(shadows, *gate, code=1).stdout


def test_what_came_to_nothing_proves_nothing(shadows: Database) -> None:
    add(shadows, BILL, *([{"equal": None, "why": "no JSON"}] * 100))
    (bill,) = told(shadows, "--max-rate", "0.5", code=4)["tasks"]
    assert (bill["compared"], bill["rate"], bill["rate_below"], bill["not_comparable"]) == (0, None, 1.0, 100)


def test_a_task_without_a_comparison_is_not_told(shadows: Database) -> None:
    assert shadow(shadows).stderr == "Nothing was compared.\n"
    assert shadow(shadows, "--max-rate", "0.5", code=4).stderr == "Nothing was compared.\n"
    add(shadows, BILL, *equal(100))
    missing = shadow(shadows, "--task", BILL, "--task", SEND, "--max-rate", "0.5", code=4)
    assert missing.stderr == f"Nothing was compared of {SEND}.\n"


@pytest.mark.parametrize(
    "words", [("--max-rate", "0"), ("--max-rate", "1"), ("--confidence", "1"), ("--since", "soon")]
)
def test_mistakes_end_with_2(words: tuple[str, str], shadows: Database) -> None:
    shadow(shadows, *words, code=2)


def test_a_database_without_the_tables_is_refused(database: Database) -> None:
    assert "spine-migrate db upgrade" in shadow(database, code=3).stderr
