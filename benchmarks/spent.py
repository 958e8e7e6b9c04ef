"""Where the time goes: a plain INSERT ... SELECT taken apart, then the statements of a run as the server times them."""

from __future__ import annotations

import re
from pathlib import Path

from psycopg import sql

from benchmarks.history import EXECUTIONS, History, history
from benchmarks.rounds import Side, compare
from benchmarks.setup import Setup
from spine_migrate.carry.tables import find_tables
from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.sql import forward
from spine_migrate.mapping.load import load

# How a statement of a run begins, and what it is for.
_STAGES = {
    "SELECT count(*), max(b.handle)": "judge",
    "WITH pair AS": "find and remember waiting links",
    'INSERT INTO "public"."runs"': "insert",
    "INSERT INTO spine_migrate.quarantine": "quarantine",
    "WITH part AS": "complete links",
    "SELECT count(*), count(*) FILTER": "count the source",
    "COMMIT": "commit",
}
_OTHERS = "all others"
_LOGGED = re.compile(r"duration: ([0-9.]+) ms  (?:(?:parse|bind|execute) [^:]*|statement): (.*)")


def spent(setup: Setup) -> None:
    with setup.server() as server:
        clean = history(server, executions=setup.rows)
        print("the plain statement, taken apart")
        compare(setup.alternate(_ablation(clean)), "all indexes, foreign keys", rows=setup.rows)
        print("the statements of a whole run, as the server times them")
        log = setup.folder / setup.profile / "server.log"
        for _ in range(setup.rounds):
            for stage, milliseconds in _stages(clean, log):
                print(f"  {stage:34} {milliseconds / 1000:7.2f} s")
            print()


def _ablation(clean: History) -> dict[str, Side]:
    """The same rows into copies of the target that lack more and more of what costs time."""
    like = "CREATE TABLE public.ablation (LIKE public.runs INCLUDING DEFAULTS)"
    key = "ALTER TABLE public.ablation ADD PRIMARY KEY (run_id)"
    indexes = "CREATE TABLE public.ablation (LIKE public.runs INCLUDING DEFAULTS INCLUDING INDEXES)"
    links = [
        "ALTER TABLE public.ablation ADD FOREIGN KEY (parent_run_id) REFERENCES public.ablation",
        "ALTER TABLE public.ablation ADD FOREIGN KEY (retry_of_run_id) REFERENCES public.ablation",
    ]
    return {
        "expressions alone": _into(clean, [], evaluate=True),
        "no index, no WAL": _into(clean, [like.replace("TABLE", "UNLOGGED TABLE", 1)]),
        "no index": _into(clean, [like]),
        "primary key": _into(clean, [like, key]),
        "all indexes": _into(clean, [indexes]),
        "all indexes, foreign keys": _into(clean, [indexes, *links]),
        "the same, ON CONFLICT": _into(clean, [indexes, *links], conflict=True),
    }


def _into(clean: History, create: list[str], *, evaluate: bool = False, conflict: bool = False) -> Side:
    def prepare() -> None:
        with clean.connect() as connection:
            for statement in ("DROP TABLE IF EXISTS public.ablation", *create, "CHECKPOINT"):
                connection.execute(statement.encode())

    def work() -> None:
        with clean.connect() as connection:
            binding = find_tables(connection, load(EXECUTIONS), source_schema=None, target_schema=None).binding
            values = forward(binding, "s")
            query = sql.SQL("SELECT {} FROM {} AS s").format(
                sql.SQL(", ").join(values.values()), binding.source.identifier
            )
            if evaluate:
                execute(connection, sql.SQL("EXPLAIN (ANALYZE, TIMING OFF, BUFFERS OFF) {}").format(query))
                return
            names = sql.SQL(", ").join(map(sql.Identifier, values))
            tail = sql.SQL("ON CONFLICT (run_id) DO NOTHING" if conflict else "")
            execute(connection, sql.SQL("INSERT INTO public.ablation ({}) {} {}").format(names, query, tail))

    return Side(prepare, work)


def _stages(clean: History, log: Path) -> list[tuple[str, float]]:
    """Milliseconds by stage of one run, from the server's log of every statement's duration."""
    clean.empty_target()
    name = sql.Identifier(clean.url.rpartition("?")[0].rpartition("/")[2])
    with clean.connect() as connection:
        for setting in ("log_min_duration_statement = 0", "log_parameter_max_length = 0"):
            execute(connection, sql.SQL("ALTER DATABASE {} SET {}").format(name, sql.SQL(setting)))
        start = log.stat().st_size
        clean.move(EXECUTIONS)
        execute(connection, sql.SQL("ALTER DATABASE {} RESET ALL").format(name))
    times: dict[str, float] = dict.fromkeys([*_STAGES.values(), _OTHERS], 0.0)
    with log.open(encoding="utf-8", errors="replace") as lines:
        lines.seek(start)
        for line in lines:
            if found := _LOGGED.search(line):
                stage = next((use for begin, use in _STAGES.items() if found[2].startswith(begin)), _OTHERS)
                times[stage] += float(found[1])
    return sorted(times.items(), key=lambda item: -item[1])
