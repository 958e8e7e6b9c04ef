"""What a child of Celery's pool finds of the locks of its parent's threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

_FORKS = """
import os, sys, threading
from celery import Celery
from celery.app.base import Celery as Class
from spine_shims.forking import renew_in_children

app = Celery("forks", broker="memory://", set_as_current=False)
renew_in_children()
held, over = threading.Event(), threading.Event()

def hold():
    with Class.__dict__["amqp"].lock:
        held.set()
        over.wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    app.amqp
    os._exit(0)
over.set()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_does_not_wait_for_a_thread_that_it_does_not_have() -> None:
    """In a process group of its own, so that what hangs can be ended with it."""
    words = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORKS]
    process = subprocess.Popen(words, start_new_session=True)
    try:
        assert process.wait(30) == 0
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
