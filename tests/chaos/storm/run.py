"""The storm: a migration from its beginning to its end, struck all the time, with proof at every step.

That it can fail: it found what ``seeds.toml`` names, and where, in a scratch copy, the DELETE trigger of the view left
some rows alone, the first rename after the cutover told. Three slices did not notice that deletions were not applied
again after the batches in flight: the window is some milliseconds, and ``tests/protocol`` searches it exhaustively.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from spine_migrate.db.embedded import EmbeddedServer
from tests.chaos.storm import figures, proof
from tests.chaos.storm.record import Told
from tests.chaos.storm.stage import Stage, Writers, prepare, writing
from tests.chaos.storm.tool import LONGEST, Command, Tool

LOCK_TIMEOUT = "200"
MAPPING = ("--mapping", "capture-spine/executions")
PATIENT = ("--retry-for", "120")
FOLLOW = ("sync", "run", "--quiet", *PATIENT)
_MOVE = ("--live", "--wait", "--quiet", "--workers", "2", *PATIENT)
# Many short batches, or some so long that rows come and go meanwhile.
_BATCHES = ("100", "500", "3000")
# How often a cutover or rollback that finds a gate closed or no lock is given again.
ATTEMPTS = 12
# By how many standard deviations capture may seem to make transactions fail more often.
_MOST_DEVIATIONS = 4.0


@dataclass(frozen=True)
class Size:
    """``rate`` of transactions per second and writer; ``seconds`` of a phase; ``rounds`` of cutover and rollback."""

    executions: int
    writers: int
    rate: float
    seconds: float
    rounds: int
    checks: int


SLICE = Size(executions=1500, writers=3, rate=40.0, seconds=2.5, rounds=1, checks=0)


def size(minutes: float) -> Size:
    """Of a storm that takes about so long on a quiet machine of two cores."""
    rounds = max(1, round(minutes / 4))
    # Alone, the move, after it, and three phases in each round; a third of the time goes to the switches and proofs.
    seconds = minutes * 60 * 0.6 / (4 + 2 * rounds + 1)
    return Size(executions=10_000, writers=4, rate=30.0, seconds=seconds, rounds=rounds, checks=1)


@dataclass
class Storm:
    server: EmbeddedServer
    stage: Stage
    size: Size
    chance: random.Random
    writers: Writers
    tool: Tool
    say: Callable[[str], None]
    attempts: Counter[str] = field(default_factory=Counter)
    restarts: Counter[str] = field(default_factory=Counter)
    checks: int = 0
    begun: float = field(default_factory=time.monotonic)

    def play(self) -> None:
        # Until all of them are connected.
        self.writers.halt()
        self.phase("alone")
        self.writers.signals.go.set()
        self.pass_time(self.size.seconds)
        self.move()
        self.phase("followed")
        self.writers.signals.odd.set()
        self.tool.keep(FOLLOW)
        self.strike_for(self.size.seconds)
        self.prove()
        self.index()
        for _ in range(self.size.rounds):
            self.over_and_under("view")
            self.prove()
            self.switch("rollback")
            self.phase("followed again")
            self.tool.keep(FOLLOW)
            self.strike_for(self.size.seconds)
            self.prove(compared=self.size.checks > 0)
        self.over_and_under("view again")
        self.end()

    def over_and_under(self, name: str) -> None:
        self.writers.signals.odd.clear()
        self.switch("cutover")
        self.phase(name)
        self.tool.keep(FOLLOW)
        self.strike_for(self.size.seconds)

    def index(self) -> None:
        """The indexes for look-ups through the view that the dry run names, as it says: before the cutover."""
        given = self.tool.run("cutover", *MAPPING, "--dry-run", "--json", codes=(0, 3))
        with psycopg.connect(self.stage.url, autocommit=True) as connection:
            for one in json.loads(given.output)["dependents"]:
                if one["kind"] == "index" and one["statement"] is not None:
                    connection.execute(one["statement"])

    def move(self) -> None:
        self.phase("moved")
        rows = self.value("SELECT (SELECT count(*) FROM executions) + (SELECT count(*) FROM execution_events)")
        speed = str(max(100, int(rows / self.size.seconds)))
        pace = ("--max-rows-per-second", speed, "--batch-size", self.chance.choice(_BATCHES))
        executions, jobs = ("executions-to-runs", *_MOVE, *pace), ("jobs-to-runs", *_MOVE, *pace)
        self.tool.keep(executions, jobs)
        for _ in range(1 + self.size.checks):
            self.strike_for(self.size.seconds / (1 + self.size.checks))
            self.prove_halfway()
            self.tool.keep(executions, jobs)
        self.until(
            lambda: self.value("SELECT count(*) = 3 AND bool_and(step = 'done') FROM spine_migrate.migration"),
            "the history is not moved",
        )

    def end(self) -> None:
        """Nobody writes any more: the legacy side is archived and dropped, struck once on the way; nothing is lost."""
        self.writers.halt()
        told = self.writers.told()
        self.tool.keep()
        self.drain()
        self.check(told)
        with self.connect() as connection:
            proof.keep(connection)
        archive = str(self.writers.folder / "archive")
        words = ("retire", *MAPPING, "--after-days", "0", "--archive", archive, "--yes", "--wait", *PATIENT)
        first = self.tool.start(*words)
        self.interrupt(first)
        first.wait()
        self.tool.run(*words)
        self.tool.run("archive", "verify", archive)
        with self.connect() as connection:
            connection.execute("CREATE SCHEMA archived")
        self.tool.run("archive", "restore", archive, "--schema", "archived")
        with self.connect() as connection:
            proof.retired(connection)
            proof.carried(connection, told)
        self.say(f"{time.monotonic() - self.begun:4.0f} s: retired")

    def phase(self, name: str) -> None:
        self.say(f"{time.monotonic() - self.begun:4.0f} s: {name}")
        self.writers.phase(name)

    def strike_for(self, seconds: float) -> None:
        """The tool is killed and the server goes, each at least once."""
        number = max(2, int(seconds / 8))
        blows: list[str] = ["kill", self.chance.choice(("fast", "immediate"))]
        blows += self.chance.choices(("kill", "fast", "immediate"), (4, 1, 1), k=number - 2)
        self.chance.shuffle(blows)
        moments = sorted(self.chance.uniform(0.0, seconds) for _ in blows)
        begun = time.monotonic()
        for moment, blow in zip(moments, blows, strict=True):
            self.pass_time(begun + moment - time.monotonic())
            match blow:
                case "kill":
                    words = self.chance.choice(list(self.tool.kept))
                    self.tool.strike(words)
                    self.tool.keep(*self.tool.kept, words)
                case "fast" | "immediate":
                    self.restart(blow)
        self.pass_time(begun + seconds - time.monotonic())

    def restart(self, mode: str) -> None:
        self.tool.restarts += 1
        self.restarts[mode] += 1
        self.server.stop("fast" if mode == "fast" else "immediate")
        self.server.start()

    def switch(self, command: str) -> None:
        """Struck once, somewhere, and given until it is done."""
        self.phase(command)
        wanted = "v" if command == "cutover" else "r"
        words = (command, *MAPPING, "--yes", "--lock-timeout", LOCK_TIMEOUT, "--wait", *PATIENT)
        told = ""
        for attempt in range(ATTEMPTS):
            given = self.tool.start(*words)
            if attempt == 0:
                self.interrupt(given)
            given.wait()
            self.tend()
            if self.done(given, command):
                assert self.value("SELECT relkind FROM pg_class WHERE oid = 'public.executions'::regclass") == wanted
                return
            told = given.told
        raise AssertionError(told)

    def interrupt(self, given: Command) -> None:
        blow = self.chance.choice(("kill", "kill", "immediate", "fast", "nothing"))
        self.pass_time(self.chance.uniform(0.5, 5.0))
        if blow == "kill":
            self.tool.kills += given.kill()
        elif blow != "nothing":
            self.restart(blow)

    def done(self, given: Command, command: str) -> bool:
        already = "cut over already" if command == "cutover" else "Nothing has been cut over"
        told = given.output + given.errors
        code = given.process.returncode
        if code == 0 or (code == 3 and already in told):
            given.ended(code)
            return True
        self.attempts[f"{command}: {code}"] += 1
        if code == -9:
            return False
        given.ended(3, 4, *([5] if self.tool.restarts > given.restarts else []))
        self.say(given.told)
        return False

    def prove_halfway(self) -> None:
        with self.writers.halted():
            self.tool.keep()
            if self.value("SELECT EXISTS (SELECT FROM spine_migrate.capture)"):
                self.drain()
            with self.connect() as connection:
                proof.halfway(connection)
        self.checks += 1

    def prove(self, *, compared: bool = False) -> None:
        """``compared``: the tool is to say the same as the SQL here."""
        with self.writers.halted() as told:
            kept = list(self.tool.kept)
            self.tool.keep()
            self.drain()
            self.check(told)
            if compared:
                self.tool.run("compare")
        self.tool.keep(*kept)

    def drain(self) -> None:
        """All that was captured is applied."""
        self.tool.run("sync", "run", "--once", "--quiet", *PATIENT)

    def check(self, told: Told) -> None:
        with self.connect() as connection:
            cut_over = self.value("SELECT relkind = 'v' FROM pg_class WHERE oid = 'public.executions'::regclass")
            proof.recorded(connection, told)
            proof.one_active(connection)
            proof.carried(connection, told)
            proof.agree(connection, cut_over=bool(cut_over))
        assert not (with_us := figures.deadlocks_with_others(told)), with_us
        found = figures.phases(told, self.writers.phases, self.writers.spent)
        assert not (refused := figures.refused_by_a_table(found)), refused
        restarts = self.restarts.total()
        lost = self.writers.signals.lost[:]
        assert all(one <= restarts for one in lost), f"{lost} connections lost by {restarts} restarts"
        self.checks += 1
        self.say(f"{time.monotonic() - self.begun:4.0f} s: all is right")

    def pass_time(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            self.tend()
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(0.1, left))

    def tend(self) -> None:
        self.writers.well()
        self.tool.tend()

    def until(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + LONGEST
        while not condition():
            assert time.monotonic() < end, what
            self.pass_time(0.2)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.stage.url)

    def value(self, statement: Any) -> Any:
        with self.connect() as connection:
            return connection.execute(statement).fetchall()[0][0]


def storm(server: EmbeddedServer, seed: int, extent: Size, folder: Path, say: Callable[[str], None]) -> str:
    """The figures, as text. What the writers and the tool have said is in ``folder``."""
    chance = random.Random(seed)
    stage = prepare(server, executions=extent.executions, writers=extent.writers, seed=seed % 1000)
    with writing(stage, folder, chance, rate=extent.rate) as writers:
        tool = Tool(stage.url, folder, chance)
        one = Storm(server, stage, extent, chance, writers, tool, say)
        try:
            one.play()
        finally:
            for command in tool.kept.values():
                command.kill()
    told = writers.told()
    found = figures.phases(told, writers.phases, writers.spent)
    rates = figures.Rates(found)
    # The short one has too few transactions for that: what comes first in it has the processors to itself.
    assert extent is SLICE or rates.beyond_chance < _MOST_DEVIATIONS, rates.told
    summary = (
        f"{sum(phase.commits for phase in found.values()):,} commits, {tool.kills} kills of the tool, restarts of the"
        f" server: {dict(one.restarts)}, {one.checks} proofs; switches given again: {dict(one.attempts)}"
    )
    return f"{summary}\n{rates.told}\n\n{figures.table(found)}"
