"""The server under measurement, and what the machine was doing meanwhile."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg

from spine_migrate.db.embedded import EmbeddedServer

# In both: checkpoints are asked for between measurements and must not fall into them, and autovacuum must not take one
# of the two processors from one side of a comparison.
_QUIET = {"max_wal_size": "16GB", "min_wal_size": "8GB", "checkpoint_timeout": "1h", "autovacuum": "off"}

#: ``wheel``: what initdb gives. ``production``: a server with 24 GB of memory as a DBA sets it up.
PROFILES = {
    "wheel": {**_QUIET, "shared_buffers": "128MB"},
    "production": {
        **_QUIET,
        "shared_buffers": "6GB",
        "effective_cache_size": "16GB",
        "work_mem": "32MB",
        "maintenance_work_mem": "1GB",
        "wal_buffers": "64MB",
        "random_page_cost": "1.1",
    },
}


@contextmanager
def running(folder: Path, profile: str, *, port: int | None = None) -> Iterator[EmbeddedServer]:
    """PostgreSQL 18 in ``folder``; databases made by an earlier run there are used again. ``port`` opens 127.0.0.1."""
    with EmbeddedServer(folder, 18, PROFILES[profile], port=port) as server:
        with psycopg.connect(server.url()) as connection:
            version = connection.execute("SHOW server_version").fetchone()
        assert version is not None
        print(
            f"PostgreSQL {version[0]}, settings {profile}: "
            + ", ".join(f"{name} {value}" for name, value in PROFILES[profile].items())
        )
        print(f"Python {platform.python_version()}, psycopg {psycopg.__version__}, {os.cpu_count()} cores, {load()}")
        yield server


def server_cpu(folder: Path) -> float:
    """Processor seconds of the server and all its sessions since its start, those that ended included."""
    postmaster = psutil.Process(int((folder / "cluster" / "postmaster.pid").read_text().split()[0]))
    own = postmaster.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for session in postmaster.children():
        with suppress(psutil.NoSuchProcess):
            times = session.cpu_times()
            total += times.user + times.system
    return float(total)


def load() -> str:
    return "load average " + " ".join(f"{average:.1f}" for average in os.getloadavg())
