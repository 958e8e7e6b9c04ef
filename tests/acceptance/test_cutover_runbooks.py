"""runbooks/cutover.md and runbooks/rollback.md: what an operator is told to type does what is said there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from spine_migrate.cutover.gates import examine
from tests.command import environment
from tests.cutting import BOTH, Pair
from tests.legacy import Legacy, arranged, uuid

_RUNBOOKS = Path(__file__).parents[2] / "runbooks"


def _text(name: str) -> str:
    return (_RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")


def _blocks(name: str) -> list[str]:
    return [str(found) for found in re.findall(r"^```sh\n(.*?)^```", _text(name), re.MULTILINE | re.DOTALL)]


@arranged
def legacy(legacy: Legacy) -> None:
    """Ten executions, moved, and one in quarantine, which the runbook accepts."""
    legacy.many_executions(10)
    Pair(legacy).begin()
    legacy.executions(20, status="odd")
    Pair(legacy).apply()


def _types(legacy: Legacy, lines: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", "-c", lines],
        check=False,
        capture_output=True,
        text=True,
        env=environment(legacy.url),
        timeout=240,
    )


def test_there_and_back_by_the_books(legacy: Legacy) -> None:
    dry_run, accept, cutover, afterwards = _blocks("cutover")
    closed = _types(legacy, dry_run)
    assert closed.returncode == 3
    assert "CLOSED  quarantine" in closed.stdout
    assert _types(legacy, accept).returncode == 0
    assert _types(legacy, dry_run).returncode == 0
    done = _types(legacy, cutover)
    assert (done.returncode, "The tables were locked for" in done.stdout) == (0, True), done.stderr
    legacy.executions(11)
    assert _types(legacy, afterwards).returncode == 0
    assert legacy.value("SELECT count(*) FROM executions_legacy WHERE execution_id = %s", uuid(11)) == 1

    rollback, after_rollback, before_cutover = _blocks("rollback")
    done = _types(legacy, rollback)
    assert (done.returncode, "Rolled back" in done.stdout) == (0, True), done.stderr
    done = _types(legacy, after_rollback)
    assert done.returncode == 0, done.stdout + done.stderr
    legacy.prove(*BOTH)
    done = _types(legacy, before_cutover)
    assert done.returncode == 0, done.stdout + done.stderr
    assert legacy.value("SELECT count(*) FROM runs") == 0
    assert legacy.value("SELECT count(*) FROM executions") == 12


def test_the_gates_are_those_that_there_are() -> None:
    """The table of gates goes by what the code names."""
    told = set(re.findall(r"^\| `([a-z-]+)` \|", _text("cutover"), re.MULTILINE))
    source = Path(examine.__code__.co_filename).read_text(encoding="utf-8")
    assert told == {"parity", *re.findall(r'Gate\(\s*"([a-z-]+)"', source)}
