"""The longest that the application waits while a cutover or a rollback goes on, from when its statement was due.

The command lines of the runbooks, gates included, under the mix at a fixed rate, over and over in one database, with
``sync run`` going. Beside it the longest wait in some seconds without either, which is what the machine does by itself.
A switch may cost one lock_timeout, for the queue behind an attempt, and 200 ms.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.application import Application, Measured, application
from benchmarks.history import History, copy_of, history
from benchmarks.rounds import Spread
from benchmarks.server import load
from benchmarks.setup import Setup
from benchmarks.tool import applied, beside, call

# Of the command, in milliseconds; and what a switch may take beside it.
_LOCK_TIMEOUT, _ALLOWANCE = 200, 200
# Seconds before anything is measured, and the most that are measured with neither.
_WARM, _NEITHER = 2.0, 3.0


@dataclass
class Waited:
    """In milliseconds, one of each switch. ``locked``: from the first lock to the commit, by the tool's own account."""

    longest: list[float] = field(default_factory=list)
    locked: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, measured: Measured) -> None:
        self.longest.append(max(one.seconds for one in measured.samples) * 1000)
        self.seconds.append(measured.seconds)


def switch(setup: Setup) -> None:
    with setup.server() as server:
        original = history(server, executions=setup.rows)
        original.empty_target()
        over = copy_of(server, original, "switched")
        call(over, "executions-to-runs")
        call(over, "sync", "start")
        found = {name: Waited() for name in ("neither", "cutover", "rollback")}
        options = ("--yes", "--lock-timeout", str(_LOCK_TIMEOUT))
        with application(over) as one, beside(over, "sync", "run"):
            rate = one.calm_rate(_WARM)
            print(f"  {rate:.0f} statements/s", flush=True)
            for number in range(setup.rounds):
                for name in ("cutover", "rollback"):
                    applied(over)
                    seconds = _switch(one, rate, found[name], over, name, *options)
                    found["neither"].add(one.at_rate(min(seconds, _NEITHER), rate))
                print(
                    f"  round {number + 1}: "
                    + ", ".join(f"{name} {waited.longest[-1]:,.0f} ms" for name, waited in found.items())
                    + f"; {load()}",
                    flush=True,
                )
        _tell(found)


def _switch(one: Application, rate: float, waited: Waited, database: History, *words: str) -> float:
    """Seconds that the command took."""
    with one.meanwhile(rate) as measured:
        done = call(database, *words)
    waited.locked.append(done["switched"]["seconds"] * 1000)
    waited.add(measured)
    return measured.seconds


def _tell(found: dict[str, Waited]) -> None:
    bound = _ALLOWANCE + _LOCK_TIMEOUT
    print(f"  {'':10} longest wait of a statement, ms; tables locked, ms; the command, s")
    for name, waited in found.items():
        print(f"  {name:10} {_all(waited.longest)}; {_all(waited.locked)}; {Spread.of(waited.seconds)}")
        if waited.locked:
            over = sum(one > bound for one in waited.longest)
            print(f"  {'':10} {over} of {len(waited.longest)} beyond {bound} ms", flush=True)


def _all(values: list[float]) -> str:
    return " ".join(f"{one:.0f}" for one in sorted(values)) or "-"
