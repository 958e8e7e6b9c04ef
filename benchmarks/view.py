"""What the application's statements take through the compatibility view after a cutover, by kind of statement.

Two databases with the same history on one server: one as it was, the other cut over, with what is written carried back
to the legacy table meanwhile. The same mix goes to both in turns.
"""

from __future__ import annotations

import statistics

from benchmarks.application import KINDS, Application, Measured, application
from benchmarks.history import copy_of, history
from benchmarks.rounds import Spread
from benchmarks.server import load
from benchmarks.setup import Setup
from benchmarks.tool import applied, beside, call

_AT_RATE, _FULL, _WARM = 6.0, 2.0, 2.0


def view(setup: Setup) -> None:
    with setup.server() as server:
        original = history(server, executions=setup.rows)
        original.empty_target()
        alone, over = copy_of(server, original, "alone"), copy_of(server, original, "cut_over")
        call(over, "executions-to-runs")
        call(over, "sync", "start")
        call(over, "cutover", "--yes")
        with (
            application(alone) as by_table,
            application(over) as through_view,
            beside(over, "sync", "run"),
        ):
            sides = {"table": by_table, "view": through_view}
            rate = min(side.calm_rate(_WARM) for side in sides.values())
            print(f"  {rate:.0f} statements/s", flush=True)
            found: list[dict[str, tuple[Measured, Measured]]] = []
            for number in range(setup.rounds):
                names = list(sides) if number % 2 else list(reversed(sides))
                taken = {}
                for name in names:
                    # What was written through the view before is carried back by then.
                    applied(over)
                    taken[name] = _both(sides[name], rate)
                found.append(taken)
                print(f"  round {number + 1}: {load()}", flush=True)
        _tell(found)


def _both(one: Application, rate: float) -> tuple[Measured, Measured]:
    return one.at_rate(_AT_RATE, rate), one.at_full_speed(_FULL)


def _tell(found: list[dict[str, tuple[Measured, Measured]]]) -> None:
    print(f"  {'':8} {'p50 ms, table':>14} {'view':>7}  {'times':22} {'p99 ms, table':>14} {'view':>7}  times")
    for kinds in ((), *((kind,) for kind in KINDS)):
        line = f"  {kinds[0] if kinds else 'all':8}"
        for percent in (50, 99):
            table, view = ([one[side][0].percentile(percent, *kinds) for one in found] for side in ("table", "view"))
            times = Spread.of([its / alone for its, alone in zip(view, table, strict=True)])
            line += f" {_ms(table):14.2f} {_ms(view):7.2f}  {times!s:22}"
        print(line)
    throughput = Spread.of([one["view"][1].throughput / one["table"][1].throughput for one in found])
    again = sum(part.again for one in found for part in one["view"])
    total = sum(len(part.samples) for one in found for part in one["view"])
    print(
        f"  throughput {throughput} of the table's; {again} of {total:,} statements were told to try again", flush=True
    )


def _ms(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1000
