"""What a user installs is complete: the wheel, and the wheel that the source archive makes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import spine_migrate

CHECKOUT = Path(spine_migrate.__file__).parents[1]

_ASK_THE_INSTALLED = """
from importlib.metadata import entry_points
from spine_migrate import resources
from spine_migrate.named_queries import load
print(resources.mappings_dir())
print(resources.alembic_dir())
for part in ("db", "execution"):
    files = (resources._PACKAGE / part / "sql").glob("*.sql")
    print(sum(len(load(f"spine_migrate.{part}", path.stem)) for path in files))
import spine_shims
print(spine_shims.__file__)
print(*{script.value for script in entry_points(group="console_scripts", name="spine-migrate")})
print(*{plugin.value for plugin in entry_points(group="pytest11", name="spine_migrate")})
"""


def _build(source: Path, target: str, into: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(into)],
        check=True,
        cwd=source,
        capture_output=True,
    )
    (built,) = into.iterdir()
    return built


def _in_wheel(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as opened:
        return set(opened.namelist())


def _in_checkout(folder: str, inside: str) -> set[str]:
    """The files below ``folder``, under the names that the wheel must give them."""
    files = (path for path in (CHECKOUT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {f"{inside}/{path.relative_to(CHECKOUT / folder).as_posix()}" for path in files}


def _unpack(archive: Path, into: Path) -> Path:
    """By hand: extractall warns without a filter in Python 3.12, and has none before 3.11.4."""
    with tarfile.open(archive) as opened:
        for member in opened.getmembers():
            content = opened.extractfile(member)
            assert content is not None, f"{member.name} is no file"
            target = into / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())
    (top,) = into.iterdir()
    return top


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(CHECKOUT, "wheel", tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_the_package_its_data_and_nothing_else(wheel: Path) -> None:
    names = {name for name in _in_wheel(wheel) if ".dist-info/" not in name}
    assert names == (
        _in_checkout("spine_migrate", "spine_migrate")
        | _in_checkout("shims/spine_shims", "spine_shims")
        | _in_checkout("alembic", "spine_migrate/_data/alembic")
        | _in_checkout("mappings", "spine_migrate/_data/mappings")
    )
    assert {"spine_migrate/py.typed", "spine_shims/py.typed", "spine_migrate/_data/alembic/env.py"} <= names


def test_the_installed_wheel_finds_its_data_and_command(wheel: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(wheel, tmp_path, format="zip")
    asked = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{_ASK_THE_INSTALLED}"],
        check=True,
        cwd=tmp_path.parent,
        capture_output=True,
        text=True,
    )
    mappings, revisions, queries, runtime_queries, shims, command, plugin = asked.stdout.splitlines()
    assert Path(mappings) == tmp_path / "spine_migrate" / "_data" / "mappings"
    assert Path(revisions) == tmp_path / "spine_migrate" / "_data" / "alembic"
    assert Path(shims) == tmp_path / "spine_shims" / "__init__.py"
    assert int(queries) > 0
    assert int(runtime_queries) > 0
    assert command == "spine_migrate.cli:main"
    assert plugin == "spine_migrate.pytest_plugin"


def test_the_source_archive_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    archive = _build(CHECKOUT, "sdist", tmp_path / "sdist")
    source = _unpack(archive, tmp_path / "unpacked")
    again = _build(source, "wheel", tmp_path / "again")
    assert _in_wheel(again) == _in_wheel(wheel)
    assert (source / "tests" / "conftest.py").exists()
