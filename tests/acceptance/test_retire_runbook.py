"""runbooks/retire.md: what an operator is told to type does what is said there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from spine_migrate.cutover import retire_gates
from tests.command import environment
from tests.cutting import Pair
from tests.legacy import Legacy, arranged

_RUNBOOK = (Path(__file__).parents[2] / "runbooks" / "retire.md").read_text(encoding="utf-8")


@arranged
def legacy(legacy: Legacy) -> None:
    """Five executions, cut over eight days ago."""
    legacy.many_executions(5)
    pair = Pair(legacy)
    pair.begin()
    pair.switch()
    legacy.execute("UPDATE spine_migrate.cutover SET at = at - interval '8 days'")


def _types(legacy: Legacy, lines: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", "-c", lines],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(legacy.url),
        timeout=240,
    )


def test_by_the_book(legacy: Legacy, tmp_path: Path) -> None:
    """Allowed first, as in an application's deploy; then dropped by the command, which uses that archive."""
    dry_run, retire, allow, check, undo = re.findall(r"^```sh\n(.*?)^```", _RUNBOOK, re.MULTILINE | re.DOTALL)
    done = _types(legacy, dry_run, tmp_path)
    assert (done.returncode, "DROP TABLE" in done.stdout) == (0, True), done.stdout + done.stderr
    done = _types(legacy, allow, tmp_path)
    assert (done.returncode, "retire is allowed" in done.stdout) == (0, True), done.stdout + done.stderr
    assert legacy.value("SELECT count(*) FROM executions") == 5
    done = _types(legacy, retire, tmp_path)
    assert (done.returncode, "retired (archive" in done.stdout) == (0, True), done.stdout + done.stderr
    done = _types(legacy, check, tmp_path)
    assert (done.returncode, "Sound" in done.stdout, "nothing left to do" in done.stdout) == (0, True, True), (
        done.stderr
    )
    done = _types(legacy, undo, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert legacy.value("SELECT count(*) FROM archived.executions_legacy") == 5


def test_the_gates_are_those_that_there_are() -> None:
    """The table of gates goes by what the code names."""
    told = set(re.findall(r"^\| `([a-z-]+)` \|", _RUNBOOK, re.MULTILINE))
    source = Path(retire_gates.__file__).read_text(encoding="utf-8")
    assert told == {"parity", "mapping", "pause", "quarantine", *re.findall(r'Gate\(\s*"([a-z-]+)"', source)}
