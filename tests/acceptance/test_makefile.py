"""The Makefile finds a Python that runs, on machines where the first one on PATH does not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import spine_migrate

CHECKOUT = Path(spine_migrate.__file__).parents[1]


def _script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def chosen(tmp_path: Path) -> Path:
    """The only folder on PATH apart from what make itself needs."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("make", "bash", "rm", "touch", "test", "echo"):
        found = shutil.which(tool)
        assert found is not None
        (tools / tool).symlink_to(found)
    return tools


def _make(*path: Path, venv: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(path[-1] / "make"), f"{venv}/.ready", f"VENV={venv}"],
        check=False,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        env={"PATH": ":".join(map(str, path))},
    )


def test_a_shim_that_fails_is_passed_over(chosen: Path, tmp_path: Path) -> None:
    """The shims stand first on PATH and for a newer version; the stand-in for a working one says that it was asked."""
    for name in ("python3.14", "python3"):
        _script(tmp_path / "shims" / name, "exit 127")
    _script(tmp_path / "real" / "python3", f'[ "$1" = -c ] && exec {sys.executable} "$@"; echo "asked: $*"; exit 9')
    ended = _make(tmp_path / "shims", tmp_path / "real", chosen, venv=tmp_path / "venv")
    assert f"asked: -m venv {tmp_path / 'venv'}" in ended.stdout
    assert ended.returncode != 0


def test_without_a_python_it_says_so(chosen: Path, tmp_path: Path) -> None:
    _script(tmp_path / "old" / "python3", "exit 1")
    ended = _make(tmp_path / "old", chosen, venv=tmp_path / "venv")
    assert ended.returncode != 0
    assert "No Python 3.11 or later" in ended.stderr
