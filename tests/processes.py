"""Processes that a test has left to somebody else."""

from __future__ import annotations

import psutil


def lives(process: psutil.Process) -> bool:
    """A container's first process may leave the dead of others unburied."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
