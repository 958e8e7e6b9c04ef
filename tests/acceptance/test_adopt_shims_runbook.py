"""runbooks/adopt-shims.md, from its first line to its last, on the sample application with real workers and a beat."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from spine_shims.modes import Mode, Side
from spine_shims.shipped import ShippedTask
from tests.acceptance.terminal import Terminal, Typed
from tests.celery_worker import until
from tests.command import environment
from tests.database import Database, Role, patient

#: A process of a busy machine may need longer than two seconds until it has read the modes.
_PATIENCE = """from spine_shims import configuration, modes

configuration._PATIENCE = 60.0
modes.Modes.__init__.__kwdefaults__["first_wait_seconds"] = 60.0
"""
_TASK = "from app.tasks.backup import run_backup_for_user as r"
_TESTS = Path(__file__).parents[1]
_RUNBOOK = (_TESTS.parent / "runbooks" / "adopt-shims.md").read_text(encoding="utf-8")
_BACKUP = "app.tasks.backup.run_backup_for_user"
#: The application's task modules and the shims that take their place, beside the two of the runbook's diff.
_OTHERS = {
    "batch_ingestion_tasks": "batch_ingestion",
    "copilot_chat_sync": "copilot_chat_sync",
    "recommendations": "recommendations",
    "sync": "sync",
}
#: What ``python -m app.produce`` prints, whoever executes it.
_RESULTS = {
    "delay": "full backup of 1",
    "apply_async": "incremental backup of 2",
    "by name": "collaborative of 7",
    "chain": "collaborative of 2",
    "chord": ["full backup of 5", "full backup of 6"],
}
#: What it has done by then, (what, subject), each once.
_DONE = sorted(
    [
        ("backup", "1 full"), ("backup", "2 incremental"), ("backup", "5 full"), ("backup", "6 full"),
        ("import", "i-1"), ("recommend", "3 collaborative"), ("recommend", "4 collaborative"), ("sync", "environments"),
    ]
)  # fmt: skip


def _blocks(language: str) -> list[str]:
    return [str(found) for found in re.findall(rf"^```{language}\n(.*?)^```", _RUNBOOK, re.MULTILINE | re.DOTALL)]


def _patched(folder: Path, diff: str) -> None:
    """The runbook's diff has no line numbers: what is before must be there once."""
    for of_file in diff.split("--- ")[1:]:
        name, _, hunks = of_file.partition("\n")
        for hunk in hunks.split("@@\n")[1:]:
            lines = hunk.splitlines()
            before, after = ("\n".join(line[1:] for line in lines if line[:1] != without) for without in ("+", "-"))
            text = (folder / name).read_text(encoding="utf-8")
            assert text.count(before) == 1, f"{name} does not have:\n{before}"
            (folder / name).write_text(text.replace(before, after), encoding="utf-8")


def _adopted(folder: Path, module: str, shim: str) -> None:
    """What the diff does to one task module, done to another one."""
    shims = import_module(f"spine_shims.capture_spine.{shim}")
    names = ", ".join(name for name, value in vars(shims).items() if type(value) is ShippedTask)
    path = folder / "app" / "tasks" / f"{module}.py"
    text = path.read_text(encoding="utf-8")
    app = "from app.celery_app import celery_app\n"
    text = text.replace(app, f"{app}from spine_shims.capture_spine.{shim} import {names}\n")
    text = re.sub(r"@celery_app\.task\n", "@celery_app.task()\n", text)
    text = re.sub(r"@celery_app\.task\((.*)\)\ndef (\w+)", r"@\2.legacy_body(app=celery_app, \1)\ndef \2", text)
    text = text.replace("app=celery_app, )", "app=celery_app)")
    path.write_text(text, encoding="utf-8")


@dataclass
class Site:
    """The application, deployed, and the operator's terminal."""

    folder: Path
    database: Database
    terminal: Terminal
    role: Role

    def produce(self) -> None:
        """Every way of calling, and each body once."""
        with self.database.connect() as connection:
            connection.execute("TRUNCATE work")
        (typed,) = self.types("python -W error::ResourceWarning -m app.produce")
        assert json.loads(typed.told) == _RESULTS
        assert sorted((what, subject) for what, subject, _ in self.work()) == _DONE

    def adopt(self) -> None:
        """What is no command: privileges, and the changes of the code, which are deployed at once here."""
        privileges, _ = _blocks("sql")
        of_the_imports, of_the_comparison = _blocks("diff")
        with self.database.connect() as connection:
            for script in ((self.folder / "grants.sql").read_text(), privileges):
                connection.execute(script.replace("TO capture", f"TO {self.role.name}").encode())
        _patched(self.folder, of_the_imports)
        (self.folder / "app" / "pipelines.py").write_text("\n\n".join(_blocks("python")), encoding="utf-8")
        for module, shim in _OTHERS.items():
            _adopted(self.folder, module, shim)
        _patched(self.folder, of_the_comparison)
        application = self.folder / "app" / "celery_app.py"
        code = application.read_text().replace("3600.0", "1.0")
        application.write_text(code.replace("from __future__ import annotations\n", _PATIENCE))

    def check_canary(self, percent: int) -> None:
        """Who is dispatched is so by its id, in every process."""
        mode = Mode.parse(f"canary={percent}%")
        some = [f"{percent:08d}-0000-4000-8000-{number:012d}" for number in range(400)]
        chosen = [one for one in some if mode.side(one) is Side.DISPATCH][:4]
        ids = chosen + [one for one in some if mode.side(one) is Side.LEGACY][:12]
        calls = f"[r.apply_async((1,), task_id=i) for i in {ids!r}]"
        self.types(f'python -c "{_TASK}; [one.get(timeout=60) for one in {calls}]"')
        query = "SELECT run_id::text FROM runs WHERE run_id = ANY (%s::uuid[]) AND status = 'completed'"
        until(lambda: {one for (one,) in self.rows(query, ids)} == {*chosen}, "These are not the runs")

    def compares_alike(self) -> bool:
        self.produce()
        compared = self.rows("SELECT DISTINCT data ->> 'equal' FROM run_events WHERE event_type = 'shadow_compared'")
        return compared == [("true",)]

    def check_senders(self) -> None:
        """Many processes have sent messages by now, all of them on this host. Workers tell of it now and then."""
        senders = "SELECT DISTINCT split_part(caller, ',', 1) FROM shim_call WHERE starts_with(caller, 'message from ')"
        until(lambda: self.rows(senders), "Nobody is said to have sent a message")
        assert len(self.rows(senders)) == 1

    def is_silent_in_two_weeks(self, gate: str) -> bool:
        """Two weeks later, as far as the tables can tell. What a worker has not stored yet, it stores meanwhile."""
        with self.database.connect() as connection:
            # Workers add to several rows at once, in another order.
            connection.execute("LOCK TABLE shim_call, shim_worker IN SHARE ROW EXCLUSIVE MODE")
            connection.execute("UPDATE shim_call SET first_seen = now() - interval '15 days'")
            connection.execute("UPDATE shim_call SET last_seen = first_seen")
            connection.execute("UPDATE shim_worker SET since = since - interval '20 days'")
        (typed,) = self.types(gate, codes=(0, 1))
        return typed.code == 0 and typed.told.startswith("Silent: no call of 1 task since")

    def types(self, block: str, **options: Any) -> list[Typed]:
        return self.terminal.types(block.replace(" capture ", f" {self.role.name} "), **options)

    def work(self) -> list[tuple[Any, ...]]:
        """What beat asks for, at moments of its own, is not among it."""
        return self.rows("SELECT what, subject, by FROM work WHERE subject NOT IN ('11 full', '12 full')")

    def runs(self) -> Counter[str]:
        """How many have completed, by handler. There are no others that have ended."""
        assert self.rows("SELECT * FROM runs WHERE status IN ('failed', 'cancelled', 'dead_lettered')") == []
        return Counter(name for (name,) in self.rows("SELECT name FROM runs WHERE status = 'completed'"))

    def produce_until(self, *, backed_up_by: str) -> None:
        """A mode counts within seconds."""

        def settled() -> bool:
            self.produce()
            return {by for what, _, by in self.work() if what == "backup"} == {backed_up_by}

        until(settled, f"Backups are not made by {backed_up_by}")

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.database.connect() as connection:
            return connection.execute(query, values).fetchall()

    def report(self) -> list[dict[str, Any]]:
        (typed,) = self.types("spine-migrate shims report --json")
        calls: list[dict[str, Any]] = json.loads(typed.told)["calls"]
        return calls


@pytest.fixture
def site(tmp_path: Path, database: Database, redis_url: str) -> Iterator[Site]:
    shutil.copytree(_TESTS / "sample_application" / "app", tmp_path / "app")
    role = database.add_role("capture")
    with database.connect() as connection:
        connection.execute("CREATE TABLE work (what TEXT, subject TEXT, by TEXT)")
        connection.execute(sql.SQL("GRANT SELECT, INSERT ON work TO {}").format(sql.Identifier(role.name)))
    of_application = {
        "DATABASE_URL": patient(database.url_as(role)),
        "CELERY_BROKER_URL": redis_url,
        "CELERY_RESULT_URL": redis_url,
    }
    with Terminal(tmp_path, environment(database.url, **of_application)) as terminal:
        yield Site(tmp_path, database, terminal, role)


def test_from_the_first_import_to_the_last(site: Site) -> None:
    prepare, workers, look, canary, watch, half, all_of_it, back, rest, shadow, clear, *end = _blocks("sh")
    gate, purge, check = end

    # As it was: an old worker, old producers, and messages that nobody has executed when the old worker goes.
    site.types("celery --app app.celery_app worker --concurrency 2 --loglevel WARNING & OLD=$!")
    site.produce()
    site.types("kill $OLD; wait $OLD")
    site.types(f'python -c "{_TASK}; [r.delay(n) for n in range(90, 95)]"')

    site.types(prepare)
    site.adopt()

    # In legacy mode nothing has changed, but it is known who calls.
    site.types(workers)
    until(lambda: {f"{n} full" for n in range(90, 95)} <= {one for _, one, _ in site.work()}, "The queued are not done")
    until(lambda: site.rows("SELECT 1 FROM shim_worker WHERE task = %s", _BACKUP), "No worker is announced")
    # Beat counts what it has sent every five seconds.
    until(lambda: site.rows("SELECT 1 FROM shim_call WHERE caller = 'beat: pending backups'"), "Beat sends nothing")
    site.types("kill $!; wait $!")
    site.produce()
    site.types(look)
    assert not site.runs()
    report = site.report()
    assert {call["side"] for call in report} == {"legacy"}
    callers = {call["caller"] for call in report}
    assert {f"app/produce.py:{line} main" for line in (22, 23, 25, 26, 28)} | {"beat: pending backups"} <= callers

    # Some calls, by the task's id.
    site.types(canary)
    site.check_canary(5)
    site.types(watch)
    site.types(half)
    site.check_canary(50)

    # All of one task, none, and all of all.
    site.types(all_of_it)
    site.produce_until(backed_up_by="pipeline")
    site.types(back)
    site.produce_until(backed_up_by=_BACKUP)
    site.types(f"{all_of_it}{rest}")
    site.produce_until(backed_up_by="pipeline")
    # A result may be there before its run is marked.
    until(lambda: not site.rows("SELECT FROM runs WHERE status IN ('pending', 'queued', 'running')"), "Runs do not end")
    before = site.runs()
    site.produce()
    of_one = {"backup": 4, "batch_import": 1, "recommendations": 2, "sync_environments": 1}
    until(lambda: site.runs() - before == of_one, lambda: f"Not these runs: {before}, {site.runs()}")

    # Both beside each other; the old one counts.
    site.types(shadow)
    _, differing = _blocks("sql")
    until(site.compares_alike, "Nothing is compared")
    assert site.rows(differing) == []
    site.types(clear)
    site.produce()

    # Who still calls, and nobody any more.
    site.types(gate, codes=(1,))
    site.check_senders()
    until(lambda: site.is_silent_in_two_weeks(gate), "There are calls")
    site.types(purge)
    site.types(check)


def test_after_the_last_day_a_call_is_an_error_that_can_be_put_off(site: Site) -> None:
    site.types(_blocks("sh")[0])
    site.adopt()
    application = site.folder / "app" / "celery_app.py"
    (given,) = re.findall(r"`(configure\(.*removal=.*?\))`", _RUNBOOK)
    text = application.read_text().replace('configure(os.environ["DATABASE_URL"])', given)
    application.write_text(re.sub(r"removal=\"[0-9-]+\"", 'removal="2026-03-31"', text))
    call = f'python -c "{_TASK}; r.delay(1)"'
    (refused,) = site.types(call, codes=(1,))
    assert "ShimRemoved: The task app.tasks.backup.run_backup_for_user worked until 2026-03-31" in refused.said
    site.types(f"SPINE_SHIMS_ALLOW_REMOVED_UNTIL=2999-12-31 {call}")
