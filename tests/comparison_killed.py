"""A comparison by digests in a process of its own, killed when half of the blocks are read: URL, checkpoint, signal."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from spine_migrate.db.connect import connect
from spine_migrate.parity import digest
from spine_migrate.parity.compare import compare
from spine_migrate.parity.options import Finding, Options


def main() -> None:
    url, checkpoint, number = sys.argv[1:]
    digest.SMALLEST = 1  # so that there are many portions

    told = 0

    def kill(done: int, of: int) -> None:
        nonlocal told
        told += 1
        # Not at the first call, before anything of its own was read.
        if told > 1 and 2 * done >= of:
            os.kill(os.getpid(), int(number))
            threading.Event().wait(60)

    with connect(url) as connection:
        # By one worker: what is read first is read before it is killed.
        options = Options(method=Finding.BUCKETS, workers=1, checkpoint=Path(checkpoint))
        compare(connection, options=options, progress=kill)


if __name__ == "__main__":
    main()
