"""The same move by pgloader, through a view of the mapping's expressions.

pgloader reads the rows into its own process and writes them by COPY; it commits a batch at a time, so a link to a row
in a later batch would be refused: it is told to disable the target's triggers, which takes a superuser and leaves the
foreign keys unchecked. It judges nothing; what the server refuses goes to a file.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from psycopg import sql

from benchmarks.history import EXECUTIONS, History, history
from benchmarks.rounds import Side, compare
from benchmarks.setup import Setup
from spine_migrate.carry.tables import find_tables
from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.sql import forward
from spine_migrate.mapping.load import load

_COMMANDS = """\
LOAD DATABASE FROM {url} INTO {url}
WITH data only, disable triggers, workers = 2, concurrency = 1, prefetch rows = 5000, batch size = 10MB
MATERIALIZE ALL VIEWS
INCLUDING ONLY TABLE NAMES MATCHING 'runs' IN SCHEMA 'as_runs'
ALTER SCHEMA 'as_runs' RENAME TO 'public';
"""


def pgloader(setup: Setup) -> None:
    program = shutil.which("pgloader")
    if program is None:
        print("pgloader is not installed (Debian: apt-get install pgloader); nothing is compared.")
        return
    print(subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout.split("\n")[0])
    with setup.server() as server, tempfile.TemporaryDirectory() as folder:
        clean = history(server, executions=setup.rows)
        _make_view(clean)
        print(f"{setup.rows:,} executions, none awkward")

        def load_all() -> None:
            _run(program, clean, Path(folder))

        sides = {
            "pgloader": Side(clean.empty_target, load_all),
            "1 worker": Side(clean.empty_target, lambda: clean.move(EXECUTIONS)),
        }
        compare(setup.alternate(sides), "pgloader", rows=setup.rows)


def _make_view(clean: History) -> None:
    with clean.connect() as connection:
        binding = find_tables(connection, load(EXECUTIONS), source_schema=None, target_schema=None).binding
        connection.execute("DROP SCHEMA IF EXISTS as_runs CASCADE")
        connection.execute("CREATE SCHEMA as_runs")
        values = [
            sql.SQL("{} AS {}").format(value, sql.Identifier(name)) for name, value in forward(binding, "s").items()
        ]
        execute(
            connection,
            sql.SQL("CREATE VIEW as_runs.runs AS SELECT {} FROM {} AS s").format(
                sql.SQL(", ").join(values), binding.source.identifier
            ),
        )


def _run(program: str, clean: History, folder: Path) -> None:
    parts = urlsplit(clean.url)
    where = parse_qs(parts.query)
    url = f"postgresql://postgres@unix:{where['host'][0]}:{where['port'][0]}{parts.path}"
    commands = folder / "move.load"
    commands.write_text(_COMMANDS.format(url=url))
    done = subprocess.run(
        [program, "--root-dir", str(folder), str(commands)], check=False, capture_output=True, text=True
    )
    with clean.connect() as connection:
        ((rows,),) = connection.execute("SELECT count(*) FROM public.runs").fetchall()
    assert rows == clean.rows["executions"], done.stdout[-2000:] + done.stderr[-2000:]
