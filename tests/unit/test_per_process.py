"""What each process makes for itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from spine_migrate.execution.per_process import PerProcess

_FORKS = """
import os, sys
from spine_migrate.execution.per_process import PerProcess

made = PerProcess(object)
with made._lock:  # as another thread may hold it at that moment
    child = os.fork()
    if child == 0:
        made.get()
        os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_does_not_wait_for_a_thread_that_it_does_not_have() -> None:
    """In a process group of its own, so that what hangs can be ended with it."""
    process = subprocess.Popen([sys.executable, "-c", _FORKS], start_new_session=True)
    try:
        assert process.wait(30) == 0
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_it_is_made_once_until_it_is_forgotten() -> None:
    made = PerProcess(object)
    first = made.get()
    assert made.get() is first
    assert made.forget() is first
    assert made.forget() is None
    assert made.get() is not first
