"""``make storm SEED=… MINUTES=… PG_BIN=…``: one long storm."""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from secrets import token_hex

from spine_migrate.db.embedded import EmbeddedServer
from tests.chaos.storm.run import SLICE, size, storm
from tests.chaos.storm.stage import SETTINGS
from tests.conftest import SERVER_SETTINGS


def main() -> None:
    parser = argparse.ArgumentParser(prog="make storm")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--pg-bin", type=Path, help="the folder of another server's programs")
    given = parser.parse_args()
    version = 18 if given.pg_bin is None else _version(given.pg_bin)
    again = f"make storm SEED={given.seed} MINUTES={given.minutes:g}" + (
        f" PG_BIN={given.pg_bin}" if given.pg_bin else ""
    )
    _say(f"PostgreSQL {version}: {again}")
    folder = Path(tempfile.mkdtemp(prefix="spine-storm-"))
    data = Path(tempfile.gettempdir()) / f"spine-test-{token_hex(6)}"
    settings = {**SERVER_SETTINGS, **SETTINGS}
    begun = time.monotonic()
    extent = SLICE if given.minutes <= 1 else size(given.minutes)
    try:
        with EmbeddedServer(data, version, settings, binaries=given.pg_bin, delete_on_close=True) as server:
            try:
                _say(storm(server, given.seed, extent, folder, _say))
            except BaseException:
                (folder / "server.log").write_bytes((data / "server.log").read_bytes())
                raise
    except BaseException:
        _say(f"What writers, tool and server have said is in {folder}. The same again: {again}")
        raise
    _say(f"{time.monotonic() - begun:.0f} s; {again}")


def _version(binaries: Path) -> int:
    said = subprocess.run([binaries / "pg_ctl", "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"(\d+)\.", said)
    assert found is not None, said
    return int(found[1])


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
