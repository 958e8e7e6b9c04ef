"""A script that is forked off a process which has loaded the libraries ends as one that is started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from tests.loaded import Loaded

_TELLS = """#!/usr/bin/env python
import json, os, sys
ours = [name for name in sys.modules if name.startswith("spine_")]
json.dump([sys.argv, sys.path[:2], os.getcwd(), os.environ["WORD"], "HOME" in os.environ, ours, __name__], sys.stdout)
sys.stderr.write("said")
sys.exit(7)
"""


@pytest.fixture(scope="module")
def loaded() -> Iterator[Loaded]:
    made = Loaded()
    yield made
    made.close()


def _run(loaded: Loaded, folder: Path, script: str, seconds: float = 60.0, **env: str) -> tuple[int | None, str, str]:
    (folder / "script").write_text(script, encoding="utf-8")
    given = {name: value for name, value in os.environ.items() if name != "HOME"}
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        words = [str(folder / "script"), "a", "b c"]
        code = loaded.run(words, {**given, **env}, folder, (out, err), seconds)
        out.seek(0)
        err.seek(0)
        return code, out.read(), err.read()


def test_it_has_words_folder_and_environment_of_its_own_and_nothing_of_ours(loaded: Loaded, tmp_path: Path) -> None:
    code, told, said = _run(loaded, tmp_path, _TELLS, WORD="x", PYTHONPATH=str(tmp_path / "path"))
    assert (code, said) == (7, "said")
    assert json.loads(told) == [
        [str(tmp_path / "script"), "a", "b c"],
        [str(tmp_path), str(tmp_path / "path")],
        str(tmp_path), "x", False, [], "__main__",
    ]  # fmt: skip


def test_one_after_the_other_however_it_ends(loaded: Loaded, tmp_path: Path) -> None:
    assert _run(loaded, tmp_path, "print('done')") == (0, "done\n", "")
    assert _run(loaded, tmp_path, "import os; os.kill(os.getpid(), 9)")[0] == -9
    code, _, said = _run(loaded, tmp_path, "1 / 0")
    assert (code, said.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")
    with pytest.raises(subprocess.TimeoutExpired):
        _run(loaded, tmp_path, "import time; time.sleep(60)", seconds=0.1)
    assert _run(loaded, tmp_path, "print('again')") == (0, "again\n", "")


def test_what_an_interpreter_reads_when_it_starts_is_left_to_one_that_is_started(
    loaded: Loaded, tmp_path: Path
) -> None:
    assert _run(loaded, tmp_path, _TELLS, WORD="x", PYTHONOPTIMIZE="2" if sys.flags.optimize != 2 else "1") == (
        None, "", "",
    )  # fmt: skip
