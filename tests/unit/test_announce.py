"""What holds a run back is told when it changes, with what it was before and for how long."""

from __future__ import annotations

from spine_migrate.backfill.announce import Announcer
from spine_migrate.notices import Subject, Throttle
from tests.observers import Remembering

SUBJECT = Subject("app/rows", 1)


def test_each_change_is_told_once_with_its_time() -> None:
    now = [100.0]
    seen = Remembering()
    announcer = Announcer(seen, SUBJECT, clock=lambda: now[0])
    for moment, signal, detail in (
        (100.0, None, None),
        (101.0, "max-lag-bytes", "40 MB behind"),
        (102.0, "max-lag-bytes", "41 MB behind"),
        (105.0, "pause", "paused by ada"),
        (107.5, None, None),
        (108.0, None, None),
        (110.0, "pause", None),
    ):
        now[0] = moment
        announcer.held(signal, detail)
    assert seen.notices == [
        Throttle(SUBJECT, "max-lag-bytes", "40 MB behind"),
        Throttle(SUBJECT, "pause", "paused by ada", before="max-lag-bytes", seconds=4.0),
        Throttle(SUBJECT, None, before="pause", seconds=2.5),
        Throttle(SUBJECT, "pause"),
    ]
