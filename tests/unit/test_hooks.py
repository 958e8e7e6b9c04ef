"""Hooks: what they are told, who may veto, and that nothing a hook does holds a migration up."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from spine_migrate import __version__
from spine_migrate.errors import ConfigurationError, Refused
from spine_migrate.notices import (
    Before,
    Compared,
    End,
    Notice,
    Quarantined,
    Subject,
    Throttle,
    Transition,
    Verdict,
)
from spine_migrate.observe.executable import Executable, first_line, in_folder
from spine_migrate.observe.facts import EVENTS, IN_ENVIRONMENT
from spine_migrate.observe.hooks import Hooks
from spine_migrate.observe.webhook import Webhook, named
from tests.observers import Heard, executable, listening
from tests.processes import lives
from tests.waiting import until

SUBJECT = Subject("app/rows", 7, '"public"."old rows"', '"public"."runs"')
BEFORE = Before(SUBJECT, "backfill", "backfill")
ABOUT = {
    "migration_id": 7, "mapping": "app/rows", "source_table": '"public"."old rows"', "target_table": '"public"."runs"',
}  # fmt: skip
#: A notice, the last event that it is, and its facts.
TOLD: list[tuple[Notice, str, dict[str, object]]] = [
    (BEFORE, "before-backfill", {**ABOUT, "stage": "backfill", "step": "backfill"}),
    (
        Transition(SUBJECT, "backfill", "done", ends="backfill"),
        "after-backfill",
        {**ABOUT, "step": "done", "from_step": "backfill", "stage": "backfill"},
    ),
    (Transition(SUBJECT, None, "backfill"), "on-transition", {**ABOUT, "step": "backfill", "from_step": None}),
    (
        Quarantined(SUBJECT, {"too_long": 2, "orphan": 1}),
        "on-quarantine",
        {**ABOUT, "rows": 3, "reasons": {"too_long": 2, "orphan": 1}},
    ),
    (
        Throttle(SUBJECT, "replica_lag", "40 MB behind", before="paused", seconds=12.34),
        "on-throttle",
        {**ABOUT, "signal": "replica_lag", "detail": "40 MB behind", "before": "paused", "seconds": 12.3},
    ),
    (
        Verdict("different", (Compared(SUBJECT, "different", 4),), ("unfinished",)),
        "on-verdict",
        {
            "verdict": "different",
            "differences": 4,
            "migrations": [{**ABOUT, "verdict": "different", "differences": 4}],
            "codes": ["unfinished"],
        },
    ),
    (End("compare", 3, "no-migration"), "on-end", {"command": "compare", "exit_code": 3, "code": "no-migration"}),
]


def hooks(folder: Path, heard: Heard | None = None, seconds: float = 20.0) -> Hooks:
    return Hooks(in_folder(folder).items(), seconds=seconds, say=heard or Heard())


@pytest.mark.parametrize(("notice", "event", "facts"), TOLD, ids=[event for _, event, _ in TOLD])
def test_the_facts_are_on_stdin_and_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notice: Notice, event: str, facts: dict[str, object]
) -> None:
    """Every fact, as JSON and as text; one that an event does not have is empty, whatever stood there."""
    monkeypatch.setenv("SPINE_VERDICT", "stale")
    monkeypatch.setenv("SPINE_STEP", "stale")
    executable(tmp_path / "hooks", event, f"cat > {tmp_path}/stdin; env -0 > {tmp_path}/env")
    heard = Heard()
    with hooks(tmp_path / "hooks", heard) as called:
        called.notice(notice)
    assert heard.said == []
    told = json.loads((tmp_path / "stdin").read_bytes())
    assert told.pop("at").endswith("+00:00")
    assert told == {"format": 1, "tool_version": __version__, "event": event, **facts}
    lines = (tmp_path / "env").read_text().split("\0")
    env = dict(line.split("=", 1) for line in lines if line)
    for name in IN_ENVIRONMENT:
        value = {"event": event, **facts}.get(name)
        expected = "" if value is None else value if isinstance(value, str) else json.dumps(value)
        assert env[f"SPINE_{name.upper()}"] == expected, name
    assert env["PATH"] == os.environ["PATH"]


def test_a_hook_before_a_stage_vetoes_with_its_first_line(tmp_path: Path) -> None:
    file = executable(tmp_path, "before-backfill", "echo; echo 'the  freeze\tis on' >&2; echo more >&2; exit 3")
    with hooks(tmp_path) as called, pytest.raises(Refused) as refused:
        called.notice(BEFORE)
    assert refused.value.precondition == "hook-veto"
    assert refused.value.sentence == (
        f"The hook before-backfill ({file}) vetoes: exit code 3: the  freeze is on; nothing was changed."
    )


def test_a_veto_that_talks_without_end_is_cut() -> None:
    assert first_line(b"\n \n" + b"a" * 1000 + b"\nb") == "a" * 200 + "..."
    assert first_line(b"\x1b[31mred\x07\nb") == " [31mred "
    assert first_line(b"\xff\xfe") == "\ufffd\ufffd"
    assert first_line(b"") == ""


def test_any_other_hook_that_fails_is_told_and_nothing_else(tmp_path: Path) -> None:
    """The hooks after it are called all the same, in the order of the events."""
    executable(tmp_path, "on-transition", f"echo $SPINE_STEP >> {tmp_path}/steps; exit 1")
    heard = Heard()
    with hooks(tmp_path, heard) as called:
        called.notice(Transition(SUBJECT, None, "backfill"))
        called.notice(Transition(SUBJECT, "backfill", "done", ends="backfill"))
    assert (tmp_path / "steps").read_text().split() == ["backfill", "done"]
    sentence = f"The hook on-transition ({tmp_path / 'on-transition'}) failed: exit code 1; the command goes on."
    assert heard.said == [(sentence, "hook-failed", "warning")] * 2


def test_a_hook_that_takes_too_long_is_killed_with_what_it_has_started(tmp_path: Path) -> None:
    executable(tmp_path, "before-backfill", f"sleep 1000 & echo $! > {tmp_path}/pid; wait")
    # Long enough for a busy machine to start a shell.
    with hooks(tmp_path, seconds=15.0) as called, pytest.raises(Refused, match="took more than 15 seconds"):
        called.notice(BEFORE)
    with suppress(psutil.NoSuchProcess):
        started = psutil.Process(int((tmp_path / "pid").read_text()))
        until(lambda: not lives(started), "What the hook has started lives on.")


def test_what_a_hook_leaves_in_the_background_holds_nothing_up(tmp_path: Path) -> None:
    executable(tmp_path, "before-backfill", f"sleep 1000 & echo $! > {tmp_path}/pid")
    try:
        with hooks(tmp_path, seconds=100.0) as called:
            called.notice(BEFORE)
        assert psutil.pid_exists(int((tmp_path / "pid").read_text()))
    finally:
        psutil.Process(int((tmp_path / "pid").read_text())).kill()


@pytest.mark.parametrize(
    ("script", "why"),
    [("exit 7", "exit code 7"), ("kill -TERM $$", "killed by signal 15")],
)
def test_how_a_hook_failed(tmp_path: Path, script: str, why: str) -> None:
    assert Executable(executable(tmp_path, "on-end", script))(b"", os.environ, 20) == why


def test_a_hook_that_cannot_be_started_vetoes(tmp_path: Path) -> None:
    file = executable(tmp_path, "before-backfill", "exit 0")
    file.write_bytes(b"\x7fELF nothing")
    with hooks(tmp_path) as called, pytest.raises(Refused, match="cannot be started"):
        called.notice(BEFORE)


class Busy:
    """A hook that is at work until it is let go; the reasons that it was told."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.told: list[dict[str, int]] = []

    def __call__(self, body: bytes, _environment: Mapping[str, str], _seconds: float) -> None:
        self.begun.set()
        assert self.go.wait(30)
        self.told.append(json.loads(body)["reasons"])


def test_rows_in_quarantine_are_added_up_while_a_hook_is_busy() -> None:
    """A batch never waits for a hook, and no row is told twice or not at all."""
    busy = Busy()
    other = Subject("app/others", 8)
    with Hooks([("on-quarantine", busy)], seconds=1, say=Heard()) as called:
        called.notice(Quarantined(SUBJECT, {"orphan": 1}))
        assert busy.begun.wait(30)
        for _ in range(100):
            called.notice(Quarantined(SUBJECT, {"orphan": 1, "too_long": 2}))
        called.notice(Quarantined(other, {"orphan": 5}))
        busy.go.set()
    assert busy.told == [{"orphan": 1}, {"orphan": 100, "too_long": 200}, {"orphan": 5}]


def test_a_hook_that_is_asked_comes_after_all_that_was_told(tmp_path: Path) -> None:
    """And no two are called at once."""
    for event in ("on-transition", "after-backfill", "before-backfill"):
        executable(tmp_path, event, f"sleep 0.2; echo $SPINE_EVENT >> {tmp_path}/called")
    with hooks(tmp_path) as called:
        called.notice(Transition(SUBJECT, "backfill", "done", ends="backfill"))
        called.notice(BEFORE)
        assert (tmp_path / "called").read_text().split() == ["on-transition", "after-backfill", "before-backfill"]


def test_a_folder_of_hooks_is_checked_when_the_command_starts(tmp_path: Path) -> None:
    """A misspelt veto that is never called would be worse than none."""
    with pytest.raises(ConfigurationError, match="is not a folder"):
        in_folder(tmp_path / "none")
    (tmp_path / "README.md").write_text("ours")
    good = executable(tmp_path, "before-cutover", "exit 0")
    assert in_folder(tmp_path) == {"before-cutover": Executable(good)}
    good.chmod(0o644)
    with pytest.raises(ConfigurationError, match="before-cutover is not executable"):
        in_folder(tmp_path)
    good.rename(tmp_path / "before-cutofer")
    with pytest.raises(ConfigurationError, match="before-cutofer is called like no event; events are before-backfill,"):
        in_folder(tmp_path)


def test_a_url_is_posted_the_facts() -> None:
    with listening() as there:
        heard = Heard()
        with Hooks([named(f"on-verdict={there.url}/team?token=secret")], seconds=20, say=heard) as called:
            called.notice(Verdict("equal"))
            called.notice(End("compare", 0))
        assert heard.said == []
        ((path, told),) = there.posted
        assert path == "/team?token=secret"
        assert (told["event"], told["verdict"]) == ("on-verdict", "equal")


@pytest.mark.parametrize(("status", "why"), [(400, "it answers 400"), (503, "it answers 503"), (302, "it answers 302")])
def test_any_answer_but_yes_vetoes_and_no_secret_is_told(status: int, why: str) -> None:
    with listening() as there:
        there.status = status
        hook = named(f"before-backfill={there.url}/path-secret?token=secret")
        with Hooks([hook], seconds=20, say=Heard()) as called, pytest.raises(Refused) as refused:
            called.notice(BEFORE)
        assert refused.value.sentence == f"The hook before-backfill ({there.url}) vetoes: {why}; nothing was changed."
        assert len(there.posted) == 1, "no redirect is followed"


def test_a_url_that_does_not_answer_vetoes_in_time() -> None:
    with listening() as there:
        there.hold.clear()
        assert Webhook(there.url)(b"{}", {}, 0.5) == "it did not answer within 0.5 seconds"
        url = there.url
    assert "it cannot be reached" in str(Webhook(url)(b"{}", {}, 20))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http://host.example/x", "--hook takes EVENT=URL"),
        ("on-nothing=http://host.example", "--hook takes EVENT=URL"),
        ("on-end=file:///etc/passwd", "none of http or https"),
        ("on-end=http://", "none of http or https"),
        ("on-end=http://[bad", "none of http or https"),
        ("on-end=http://host.example:99999", "none of http or https"),
        ("on-end=https://me:secret@host.example/", "has a login in it"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_repeating_it(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as refused:
        named(text)
    assert "secret" not in refused.value.sentence
    assert "host.example" not in refused.value.sentence


def test_every_stage_asks_before_and_tells_after() -> None:
    assert {event.partition("-")[2] for event in EVENTS if event.startswith("before-")} == {
        event.partition("-")[2] for event in EVENTS if event.startswith("after-")
    }
