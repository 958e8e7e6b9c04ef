"""A streaming standby of an embedded server."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from spine_migrate.db.embedded import EmbeddedServer, bundled_binaries


@contextmanager
def standby(primary: EmbeddedServer, version: int) -> Iterator[EmbeddedServer]:
    """Follows ``primary`` by a walsender of the name ``standby``, without a slot; removed at the end of the block."""
    folder = Path(tempfile.gettempdir()) / f"spine-test-{token_hex(6)}"
    folder.mkdir(mode=0o700)
    # What tells a folder of ours from any other.
    (folder / "lock").touch(mode=0o600)
    subprocess.run(
        [
            str(bundled_binaries(version) / "pg_basebackup"),
            *("--dbname", f"{primary.url()}&application_name=standby", "--pgdata", str(folder / "copy")),
            *("--write-recovery-conf", "--checkpoint", "fast", "--no-sync"),
        ],
        check=True,
        capture_output=True,
    )
    if os.geteuid() == 0:
        # The server runs as another account then; see EmbeddedServer.
        account = pwd.getpwnam("nobody")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)
    # Only now: another session of tests removes a cluster that nobody has locked.
    (folder / "copy").rename(folder / "cluster")
    with EmbeddedServer(folder, version, {"fsync": "off", "shared_buffers": "16MB"}, delete_on_close=True) as server:
        yield server
