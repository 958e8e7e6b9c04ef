"""What holds the applier back: a person for as long as it takes, a busy server until the changes are too old."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from spine_migrate.carry import orders
from spine_migrate.carry.known import chosen
from spine_migrate.carry.settings import Settings
from spine_migrate.cli import main
from spine_migrate.cutover.group import group
from spine_migrate.db.captures import FORWARD
from spine_migrate.db.connect import PINNED, connect
from spine_migrate.errors import ConfigurationError, Refused
from spine_migrate.mapping.load import load
from spine_migrate.notices import Throttle
from spine_migrate.sync.loop import follow
from spine_migrate.sync.members import Followed, Options
from spine_migrate.sync.turn import turn_of
from tests.cutting import Pair
from tests.legacy import Legacy, arranged, uuid
from tests.observers import Remembering
from tests.syncing import lag_of, logged, move_live
from tests.waiting import LONGEST, until


@arranged
def live(legacy: Legacy) -> None:
    """Ten executions, moved, their changes captured."""
    legacy.many_executions(10)
    move_live(legacy)


@dataclass
class Following:
    """``said``: what each report says of the executions, as ``(held by, in words, overdue)``."""

    seen: Remembering = field(default_factory=Remembering)
    said: list[tuple[str | None, str, bool]] = field(default_factory=list)
    failure: BaseException | None = None

    def hear(self, followed: Sequence[Followed]) -> None:
        held, overdue = followed[0].held, followed[0].overdue
        self.said.append((None, "", False) if held is None else (held.by, held.detail, overdue))

    def is_held(self, by: str | None, *, overdue: bool = False) -> None:
        """It says so, and after two more rounds still does."""
        until(lambda: self.failure or self._last() == (by, overdue), lambda: f"{by}: {self.said}")
        at = len(self.said)
        until(lambda: self.failure or len(self.said) > at + 1, "it says nothing")
        assert self._last() == (by, overdue)
        assert self.failure is None, self.failure

    def _last(self) -> tuple[str | None, bool] | None:
        return (self.said[-1][0], self.said[-1][2]) if self.said else None


@contextmanager
def following(legacy: Legacy, **options: Any) -> Iterator[Following]:
    """An applier; it ends cleanly at the end of the block, whatever holds it back."""
    going, stop = Following(), threading.Event()

    def run() -> None:
        try:
            follow(legacy.url, options=Options(**options), stop=stop, report=going.hear, observer=going.seen)
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            going.failure = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield going
    finally:
        stop.set()
        thread.join(LONGEST)
    assert not thread.is_alive()
    assert going.failure is None, going.failure


def order(legacy: Legacy, word: str) -> None:
    with connect(legacy.url) as connection:
        (orders.pause if word == "pause" else orders.resume)(connection, chosen(connection))


def printed(legacy: Legacy, *words: str) -> str:
    return str(CliRunner().invoke(main, [*words, "--target", legacy.url]).stdout)


@contextmanager
def lock_waited_for(legacy: Legacy) -> Iterator[None]:
    """One session waits for a lock on the legacy table that is in nobody else's way."""
    with legacy.connect() as first, legacy.connect() as second:
        first.autocommit = second.autocommit = False
        lock = "LOCK TABLE executions IN SHARE UPDATE EXCLUSIVE MODE"
        first.execute(lock)
        waiting = threading.Thread(target=second.execute, args=(lock,))
        waiting.start()
        try:
            yield
        finally:
            first.rollback()
            waiting.join()


def test_a_pause_holds_it_wholly(live: Legacy) -> None:
    """Whatever the age of a change, and the cutover's catching up too; all that shows it says how many wait."""
    order(live, "pause")
    with following(live, max_hold=0.0) as going:
        going.is_held("pause")
        live.executions(11, 12)
        live.execute("UPDATE spine_migrate.change_log SET at = at - interval '1 day'")
        going.is_held("pause")
        assert len(logged(live)) == 2
        assert live.value("SELECT count(*) FROM runs") == 10
        shown = printed(live, "sync", "status")
        assert "  held back by pause since " in shown
        assert "spine-migrate resume lets it go on; 2 changes wait" in shown
        assert "  changes are followed, 2 not applied yet\n  held back by pause since " in printed(live, "status")
        watched = printed(live, "watch", "--once")
        assert "forward lag 2 changes" in watched
        assert "paused by " in watched
        with pytest.raises(Refused, match="spine-migrate resume first") as refusal:
            Pair(live, ("executions",)).switch()
        assert refusal.value.precondition == "paused"
        order(live, "resume")
        until(lambda: not logged(live), "it does not go on")
        going.is_held(None)
    live.prove()
    assert [(one.signal, one.before) for one in going.seen.of(Throttle)] == [("pause", None), (None, "pause")]


def test_a_pause_file_and_an_end_while_it_is_there(live: Legacy, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    with following(live, pause_file=str(hold), max_hold=0.0) as going:
        live.executions(11)
        going.is_held("pause-file")
        assert logged(live)
        assert "held back by pause-file since" in printed(live, "status")
    assert logged(live), "it ends without having applied anything"
    assert live.value("SELECT held_by FROM spine_migrate.control") is None
    assert "held back" not in printed(live, "sync", "status")
    with pytest.raises(ConfigurationError, match="no folder"):
        follow(
            live.url,
            options=Options(pause_file="/nowhere/hold"),
            stop=threading.Event(),
            report=lambda _: None,
        )


def test_a_busy_server_holds_it_until_a_change_is_too_old(live: Legacy) -> None:
    """Then those that are as old are applied, batch by batch, of the size that is set; and it says so."""
    live.execute("UPDATE spine_migrate.control SET settings = '{\"batch-size\": 1}'")
    with lock_waited_for(live), following(live, settings=Settings(max_lock_waits=0), max_hold=3600) as going:
        going.is_held("max-lock-waits")
        for key in (11, 12, 13):
            live.executions(key)
        going.is_held("max-lock-waits")
        assert len(logged(live)) == 3
        live.execute(
            "UPDATE spine_migrate.change_log"
            " SET at = at - CASE row_key WHEN %s THEN interval '45 minutes' ELSE interval '2 hours' END",
            uuid(13),
        )
        until(lambda: logged(live) == [uuid(13)], "the old ones are not applied")
        assert live.value("SELECT count(*) FROM runs") == 12
        going.is_held("max-lock-waits", overdue=True)
        words = "changes older than 3600 s are applied all the same"
        assert words in going.said[-1][1]
        until(lambda: words in printed(live, "sync", "status"), "status does not say so")
        assert logged(live) == [uuid(13)]
        with connect(live.url, settings=PINNED) as connection:
            members = group(connection, [load("capture-spine/executions")])
            turn_of(connection, members, FORWARD).drain(connection, seconds=30, stop=threading.Event())
        assert not logged(live), "a cutover does not wait for a quiet server"
    live.prove()
    assert lag_of(live).nothing
    assert {one.signal for one in going.seen.of(Throttle)} == {"max-lock-waits"}


def test_who_is_held_goes_on_when_the_server_is_quiet(live: Legacy) -> None:
    with following(live, settings=Settings(max_lock_waits=0)) as going:
        with lock_waited_for(live):
            going.is_held("max-lock-waits")
            live.executions(11)
            going.is_held("max-lock-waits")
            assert logged(live)
        until(lambda: not logged(live), "it does not go on")
    live.prove()
