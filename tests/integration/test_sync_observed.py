"""What the applier tells its observer: lag, what was applied, rows in quarantine by reason, a server that is lost."""

from __future__ import annotations

import threading
from collections import Counter

from spine_migrate.notices import Lag, Notice, Quarantined, Retry, Subject
from spine_migrate.sync.loop import follow
from spine_migrate.sync.members import Options
from tests.database import Database
from tests.legacy import Legacy, arranged, uuid
from tests.observers import Remembering
from tests.syncing import move_live


@arranged
def live(legacy: Legacy) -> None:
    """Ten executions, moved, their changes captured."""
    legacy.many_executions(10)
    move_live(legacy)


def test_lag_and_quarantine_add_up(live: Legacy) -> None:
    """Each change and each row once, whatever the number of reports; the reasons are those of the ledger."""
    live.executions(11, 12)
    live.execute("UPDATE executions SET status = 'no such status' WHERE execution_id IN (%s, %s)", uuid(3), uuid(4))
    live.execute("UPDATE executions SET pipeline_name = repeat('p', 1000) WHERE execution_id = %s", uuid(5))
    seen = Remembering()
    (done,) = follow(
        live.url,
        options=Options(once=True, batch_rows=1),
        stop=threading.Event(),
        report=lambda _: None,
        observer=seen,
    )
    about = Subject("capture-spine/executions", done.migration_id, '"public"."executions"', '"public"."runs"')
    lags = seen.of(Lag)
    assert {one.subject for one in lags} == {about}
    assert sum(one.applied for one in lags) == done.applied.entries > 0
    assert (lags[-1].direction, lags[-1].rows, lags[-1].seconds) == ("forward", 0, 0)
    reasons: Counter[str] = Counter()
    for notice in seen.of(Quarantined):
        reasons.update(notice.reasons)
    assert reasons == {"unknown_value": 2, "too_long": 1}
    assert sorted(reason for _, reason, *_ in live.quarantine()) == sorted(reasons.elements())
    again = Remembering()
    live.execute("UPDATE executions SET error = 'again' WHERE execution_id = %s", uuid(3))
    follow(live.url, options=Options(once=True), stop=threading.Event(), report=lambda _: None, observer=again)
    assert not again.of(Quarantined), "it was in there before"


def test_a_session_that_is_lost_is_told(live: Legacy, database: Database) -> None:
    stop, followed, lost = threading.Event(), threading.Event(), threading.Event()

    class Watching(Remembering):
        def notice(self, notice: Notice, /) -> None:
            super().notice(notice)
            (lost if isinstance(notice, Retry) else followed).set()

    seen = Watching()
    values = {"options": Options(), "stop": stop, "report": lambda _: None, "observer": seen}
    following = threading.Thread(target=follow, args=(live.url,), kwargs=values)
    following.start()
    try:
        assert followed.wait(60)
        with database.connect_admin(autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = %s AND application_name = 'spine-migrate'",
                (database.name,),
            )
        assert lost.wait(60)
    finally:
        stop.set()
        following.join(60)
    assert {(one.cause, one.subject.mapping) for one in seen.of(Retry)} == {
        ("connection_lost", "capture-spine/executions")
    }
