"""A process that calls old tasks, for tests that fork, end and kill one: ``python -m tests.shim_caller WHAT``.

SPINE_DATABASE_URL says where the telemetry is stored. A line on standard output says that something is done; the
process goes on when it is given one.
"""

from __future__ import annotations

import os
import sys

from spine_shims.modes import LEGACY, Side
from spine_shims.tables import Tables
from spine_shims.telemetry import Telemetry
from tests.database import patient

#: Longer than any test lasts: what is stored was stored by what the test is about.
NEVER = 1e6


def main(what: str) -> None:
    tables = Tables.at(patient(os.environ["SPINE_DATABASE_URL"]))
    telemetry = Telemetry(tables, host="here", version="1", interval_seconds=0.05 if what == "killed" else NEVER)

    def call(caller: str, times: int) -> None:
        for _ in range(times):
            telemetry.note("shop.bill", caller, LEGACY, Side.LEGACY)

    if what == "ends":
        call("before the end", 3)
    elif what == "forks":
        # As an application that has stored something already, so that there is a session to be inherited.
        call("parent", 1)
        assert telemetry.flush()
        call("parent", 4)
        child = os.fork()
        if child == 0:
            call("child", 2)
            telemetry.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        call("parent", 5)
    elif what == "killed":
        call("first", 10)
        sys.stdin.readline()
        # At once, so that no interval ends in the middle of it.
        telemetry.note("shop.bill", "second", LEGACY, Side.LEGACY, count=5)
        print("counted", flush=True)  # noqa: T201 - what the test waits for
        sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1])
