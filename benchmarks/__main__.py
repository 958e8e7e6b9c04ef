"""Run benchmarks and print both sides of every ratio; RESULTS.md holds what was found."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import (
    capture,
    certificate,
    compare,
    corpus,
    events,
    histories,
    listing,
    live,
    move,
    order,
    pgloader,
    rivals,
    scale,
    shims,
    spent,
    startup,
    submit,
    switch,
    throughput,
    view,
)
from benchmarks.server import PROFILES
from benchmarks.setup import Setup

_BENCHMARKS = {
    "move": move.online,
    "awkward": move.awkward,
    "offline": move.offline,
    "scale": scale.scale,
    "events": events.events,
    "compare": compare.compare,
    "histories": histories.histories,
    "certificate": certificate.certificate,
    "capture": capture.capture,
    "live": live.live,
    "view": view.view,
    "switch": switch.switch,
    "corpus": corpus.corpus,
    "rivals": rivals.rivals,
    "pgloader": pgloader.pgloader,
    "startup": startup.startup,
    "order": order.order,
    "spent": spent.spent,
    "listing": listing.listing,
    "submit": submit.submit,
    "throughput": throughput.throughput,
    "shims": shims.shims,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(_BENCHMARKS)}; default all")
    parser.add_argument("--rows", type=int, default=1_000_000, help="executions to move, or runs to list")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", choices=PROFILES, default="production", help="settings of the server")
    parser.add_argument("--keep", type=Path, help="a folder for servers and generated rows, to be used again")
    given = parser.parse_args()
    if unknown := set(given.names) - set(_BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(_BENCHMARKS)}")
    with tempfile.TemporaryDirectory(prefix="spine-benchmarks-") as fresh:
        Path(fresh).chmod(0o755)
        setup = Setup(given.keep or Path(fresh), given.profile, given.rows, given.rounds)
        for name in given.names or _BENCHMARKS:
            print(f"\n{name}", flush=True)
            _BENCHMARKS[name](setup)


if __name__ == "__main__":
    main()
