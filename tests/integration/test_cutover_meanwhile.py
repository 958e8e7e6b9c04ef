"""What somebody changes between the gates and the switch."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from functools import partial
from typing import LiteralString

import pytest

from spine_migrate.db.patience import Patience
from spine_migrate.errors import Refused
from tests.cutting import Pair
from tests.database import Database
from tests.legacy import build
from tests.waiting import WAITING, until

_CHANGES: tuple[tuple[LiteralString, str], ...] = (
    ("CREATE VIEW late AS SELECT execution_id FROM executions", "view public.late"),
    ("CREATE OR REPLACE VIEW late AS SELECT execution_id FROM executions WHERE lane = 'x'", "view public.late"),
    (
        "CREATE FUNCTION late() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM executions; END",
        "function public.late()",
    ),
    ("ALTER TABLE executions ALTER COLUMN lane SET DEFAULT 'late'", "column public.executions.lane"),
    ("ALTER TABLE executions ADD CONSTRAINT late CHECK (lane <> 'x')", "constraint late ON public.executions"),
    ("CREATE TABLE pointing (id uuid REFERENCES executions)", "constraint pointing_id_fkey ON public.pointing"),
    ("CREATE UNIQUE INDEX late_key ON executions (execution_id, lane)", "unique index public.late_key"),
    ("ALTER TABLE runs ENABLE ROW LEVEL SECURITY", "table public.runs"),
    ("ALTER TABLE runs DISABLE ROW LEVEL SECURITY", "table public.runs"),
    ("CREATE POLICY late ON executions USING (true)", "policy late ON public.executions"),
    ("GRANT SELECT ON executions TO PUBLIC", "table public.executions"),
    (
        "CREATE TRIGGER late BEFORE UPDATE ON executions EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "trigger late ON public.executions",
    ),
    ("ALTER TABLE executions ADD COLUMN late text", "column public.executions.late"),
)


@pytest.fixture
def pair(database: Database) -> Pair:
    legacy = build(database)
    legacy.many_executions(3)
    pair = Pair(legacy)
    pair.begin()
    return pair


def test_what_is_changed_after_the_gates_is_refused_by_name(pair: Pair) -> None:
    """Once more with the tables locked: it may have been made while the locks were waited for."""
    legacy = pair.legacy
    for statement, named in _CHANGES:
        with pytest.raises(Refused, match=re.escape(f"({named}")) as refused:
            pair.switch(meanwhile=partial(legacy.execute, statement))
        assert refused.value.precondition == "changed"
    legacy.execute("ALTER TABLE executions DROP COLUMN late")
    with legacy.connect() as other:
        other.autocommit = False
        other.execute("LOCK TABLE executions IN ACCESS SHARE MODE")

        def replace() -> None:
            """While the switch waits for us."""
            time.sleep(0.8)
            other.execute("CREATE OR REPLACE VIEW late AS SELECT execution_id FROM executions")
            other.commit()

        waiting = threading.Thread(target=replace)
        with pytest.raises(Refused, match=re.escape("(view public.late)")):
            pair.switch(meanwhile=waiting.start)
        waiting.join()
    assert legacy.value("SELECT to_regclass('executions_legacy') IS NULL")


def test_what_is_changed_before_a_way_back_is_refused_by_name(pair: Pair) -> None:
    """What is made over the target is nothing to it, whatever else it reads."""
    legacy = pair.legacy
    pair.switch()
    for statement, named in (
        ("CREATE TABLE pointing (id uuid REFERENCES runs)", "constraint pointing_id_fkey ON public.pointing"),
        ("ALTER TABLE executions_legacy ADD late int NOT NULL DEFAULT 1", "column public.executions_legacy.late"),
    ):
        with pytest.raises(Refused, match=re.escape(f"({named}")) as refused:
            pair.back(meanwhile=partial(legacy.execute, statement))
        assert refused.value.precondition == "changed"
        assert legacy.value("SELECT to_regclass('executions_legacy') IS NOT NULL")
    legacy.execute("DROP TABLE pointing")
    legacy.execute("ALTER TABLE executions_legacy DROP late")
    late: LiteralString = (
        "CREATE VIEW late AS SELECT status FROM runs WHERE run_id IN (SELECT execution_id FROM executions)"
    )
    pair.back(meanwhile=partial(legacy.execute, late))
    assert legacy.value("SELECT count(*) FROM late") == 3


def test_a_view_that_is_replaced_while_a_way_back_waits_is_not_put_back_as_it_was(pair: Pair) -> None:
    """It hangs on one of the views in the legacy tables' places, while the other is waited for."""
    legacy = pair.legacy
    pair = replace(pair, patience=Patience(lock_timeout=9000, seconds=30))
    pair.switch()
    legacy.execute("CREATE VIEW late AS SELECT event_id FROM execution_events")
    with legacy.connect() as other:
        other.autocommit = False
        other.execute("SELECT count(*) FROM executions")

        def change() -> None:
            waits: LiteralString = WAITING + " AND l.relation = 'executions'::regclass"
            until(lambda: legacy.rows(waits), "nobody waits")
            legacy.execute(
                "CREATE OR REPLACE VIEW late AS SELECT event_id FROM execution_events WHERE event_type = 'x'"
            )
            other.commit()

        changing = threading.Thread(target=change)
        # Where an attempt began after the change, it has seen it.
        refused = ""
        try:
            pair.back(meanwhile=changing.start)
        except Refused as error:
            refused = str(error)
        changing.join()
    if refused:
        assert "(view public.late)" in refused
        pair.back()
    assert "'x'" in legacy.value("SELECT pg_get_viewdef('late'::regclass)")
    assert legacy.value("SELECT relkind FROM pg_class WHERE oid = 'executions'::regclass") == "r"
