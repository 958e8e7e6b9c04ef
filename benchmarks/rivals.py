"""Row parity beside the tools that others use, on the same rows with the same differences, and what each of them finds.

The corpus of tests/corpus.py is injected into a moved history. The other tools know no mapping: they are given a table
``as_runs.runs`` that holds what the legacy rows become, with its primary key, and making it is not counted. They are
installed from the package index into environments of their own; what does not install is said and left out. Every side
is a process of its own, so that its start and its memory count. All report the keys of the rows that differ.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from psycopg import sql

from benchmarks.history import EXECUTIONS, History, copy_of, history
from benchmarks.rounds import Side, compare
from benchmarks.setup import Setup
from spine_migrate.carry.tables import find_tables
from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.sql import forward
from spine_migrate.mapping.load import load
from tests.corpus import KINDS, inject

_KEY = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_EACH = 10


@dataclass(frozen=True)
class Ran:
    """What one process printed, its most resident memory in MB, how it ended, and the MB that the server wrote to
    temporary files meanwhile.
    """

    output: str
    megabytes: float
    status: int
    temporary: float = 0.0


@dataclass(frozen=True)
class Tool:
    """``keys`` reads the keys of the rows that differ out of what ``command`` printed."""

    name: str
    command: list[str]
    keys: Callable[[str], set[str]]


def rivals(setup: Setup) -> None:
    port = _free_port()
    with setup.server(port=port) as server, tempfile.TemporaryDirectory() as folder:
        moved = copy_of(server, history(server, executions=setup.rows), "rivals")
        moved.empty_target()
        moved.move(EXECUTIONS)
        expected = _injected(moved)
        began = time.perf_counter()
        _make_table(moved)
        print(f"  what the others compare was made in {time.perf_counter() - began:.1f} s, which is not counted")
        outside = _role(moved, port)
        print(f"{setup.rows:,} executions, moved; {len(KINDS)} kinds of difference in {_EACH} rows each")
        tools = [*_ours(moved, Path(folder)), *_theirs(moved, outside, setup.folder)]
        ran: dict[str, Ran] = {}

        def once(tool: Tool) -> None:
            before = _temporary(moved)
            ran[tool.name] = replace(_run(tool.command), temporary=_temporary(moved) - before)

        sides = {tool.name: Side(lambda: None, partial(once, tool)) for tool in tools}
        compare(setup.alternate(sides), tools[0].name, rows=setup.rows)
        for tool in tools:
            _tell(tool, ran[tool.name], expected)


def _tell(tool: Tool, ran: Ran, expected: dict[str, set[str]]) -> None:
    every = set().union(*expected.values())
    found = tool.keys(ran.output)
    missed = sorted(kind for kind, keys in expected.items() if not keys <= found)
    print(
        f"  {tool.name}: exit {ran.status}, {ran.megabytes:.0f} MB, {ran.temporary:.0f} MB of temporary"
        f" files, finds {len(found & every)} of {len(every)} rows,"
        f" invents {len(found - every)}; kinds not found: {', '.join(missed) or 'none'}"
    )
    if not found:
        print("    " + ran.output[-500:].replace("\n", "\n    "))


def _temporary(moved: History) -> float:
    """MB so far; a session's share is counted when it has ended (PostgreSQL manual, 27.2.1)."""
    with moved.connect() as connection:
        ((size,),) = connection.execute("SELECT sum(temp_bytes)::float8 FROM pg_stat_database").fetchall()
    return float(size) / 1e6


def _injected(moved: History) -> dict[str, set[str]]:
    with moved.connect() as connection:
        found = {
            kind.name: {key for _, key, _ in findings}
            for kind, findings in inject(connection, KINDS, _EACH)
            if not kind.exact
        }
        connection.execute("VACUUM ANALYZE runs")
        connection.execute("VACUUM ANALYZE executions")
    return found


def _make_table(moved: History) -> None:
    with moved.connect() as connection:
        mapping = load(EXECUTIONS)
        binding = find_tables(connection, mapping, source_schema=None, target_schema=None).binding
        connection.execute("DROP SCHEMA IF EXISTS as_runs CASCADE")
        connection.execute("CREATE SCHEMA as_runs")
        connection.execute("CREATE TABLE as_runs.runs (LIKE public.runs)")
        values = forward(binding, "s")
        execute(
            connection,
            sql.SQL("INSERT INTO as_runs.runs ({}) SELECT {} FROM {} AS s").format(
                sql.SQL(", ").join(map(sql.Identifier, values)),
                sql.SQL(", ").join(values.values()),
                binding.source.identifier,
            ),
        )
        connection.execute("ALTER TABLE as_runs.runs ADD PRIMARY KEY (run_id)")
        connection.execute("VACUUM ANALYZE as_runs.runs")


def _columns(moved: History) -> list[str]:
    with moved.connect() as connection:
        binding = find_tables(connection, load(EXECUTIONS), source_schema=None, target_schema=None).binding
        return [name for name in forward(binding, "s") if name != "run_id"]


def _run(command: list[str]) -> Ran:
    """One process, measured as the kernel accounts for it, of whatever children it has had as well."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        return Ran(output.read(), usage.ru_maxrss / 1024, process.returncode)


def _ours(moved: History, folder: Path) -> Iterator[Tool]:
    for method in ("join", "buckets"):
        report = folder / f"{method}.json"
        command = [sys.executable, "-m", "spine_migrate", "compare", EXECUTIONS, "--target", moved.url]
        command += ["--method", method, "--no-events", "--max-differences", "100000", "--format", "json"]
        command += ["--output", str(report)]
        yield Tool(f"compare, {method}", command, partial(_reported, report))


def _reported(report: Path, _: str) -> set[str]:
    (comparison,) = json.loads(report.read_text(encoding="utf-8"))["comparisons"]
    return {one["target_key"] for one in comparison["differences"]}


@dataclass(frozen=True)
class Outside:
    """How programs that know no socket reach the database."""

    port: int
    database: str
    user: str
    password: str

    @property
    def url(self) -> str:
        return f"postgresql://{self.user}:{self.password}@127.0.0.1:{self.port}/{self.database}"


def _role(moved: History, port: int) -> Outside:
    outside = Outside(port, urlsplit(moved.url).path.lstrip("/"), "rival", secrets.token_hex(8))
    with moved.connect() as connection:
        connection.execute("DROP ROLE IF EXISTS rival")
        connection.execute(
            sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(
                sql.Identifier(outside.user), sql.Literal(outside.password)
            )
        )
    return outside


def _theirs(moved: History, outside: Outside, folder: Path) -> Iterator[Tool]:
    reladiff = _installed(folder, "reladiff", "reladiff", "psycopg2-binary")
    if reladiff is not None:
        picked = [word for name in _columns(moved) for word in ("-c", name)]
        command = [str(reladiff), outside.url, "as_runs.runs"]
        common = ["-k", "run_id", *picked, "-j", "2"]
        joined = [*command, "public.runs", *common, "-a", "joindiff"]
        # Without the last option, sorting None beside a text ends the run, with exit code 0.
        hashed = [*command, outside.url, "public.runs", *common, "-a", "hashdiff", "--skip-sort-results"]
        yield Tool("reladiff, joindiff", joined, _first_keys)
        yield Tool("reladiff, hashdiff", hashed, _first_keys)
    validation = _installed(folder, "data-validation", "google-pso-data-validator")
    if validation is not None:
        home = folder / "data-validation-connections"
        home.mkdir(exist_ok=True)
        os.environ["PSO_DV_CONN_HOME"] = str(home)
        add = [str(validation), "connections", "add", "-c", "rivals", "Postgres", "--host", "127.0.0.1"]
        add += ["--port", str(outside.port), "--user", outside.user, "--password", outside.password]
        subprocess.run([*add, "--database", outside.database], check=True, capture_output=True)
        command = [str(validation), "validate", "row", "-sc", "rivals", "-tc", "rivals", "-tbls"]
        command += ["as_runs.runs=public.runs", "-pk", "run_id", "--hash", "*", "--filter-status", "fail"]
        command += ["--format", "json"]
        yield Tool("data-validation", command, _first_keys)


def _first_keys(text: str) -> set[str]:
    """The first key of each line; others that follow are values of columns."""
    return {found.group() for line in text.splitlines() if (found := _KEY.search(line))}


def _installed(folder: Path, program: str, *packages: str) -> Path | None:
    """The program in an environment of its own, made unless an earlier run left it; None where that fails."""
    home = folder / f"tool-{program}"
    found = home / "bin" / program
    if not found.exists():
        venv.create(home, with_pip=True, clear=True)
        command = [str(home / "bin" / "pip"), "install", "--quiet", *packages]
        installed = subprocess.run(command, check=False, capture_output=True, text=True)
        if installed.returncode:
            print(f"  {packages[0]} does not install: {installed.stderr.strip().splitlines()[-1]}")
            return None
    listed = subprocess.run([home / "bin" / "pip", "freeze"], check=True, capture_output=True, text=True).stdout
    print("  " + next(line for line in listed.splitlines() if line.startswith(f"{packages[0]}==")))
    return found


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
