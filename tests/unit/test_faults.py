"""What a server error means: try again, blame the row, or stop."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest
from psycopg import errors

from spine_migrate.db.faults import blames_row, is_lost, is_transient, retrying
from spine_migrate.errors import ConfigurationError, Refused, ServerFault


@pytest.mark.parametrize(
    ("error", "transient", "row", "lost"),
    [
        (errors.SerializationFailure(), True, False, False),
        (errors.DeadlockDetected(), True, False, False),
        (errors.LockNotAvailable(), True, False, False),
        (errors.AdminShutdown(), True, False, True),
        (errors.CrashShutdown(), True, False, True),
        (errors.CannotConnectNow(), True, False, True),
        (errors.TooManyConnections(), True, False, False),
        (errors.ConnectionFailure(), True, False, True),
        (psycopg.OperationalError("server closed the connection unexpectedly"), True, False, True),
        (errors.UniqueViolation(), False, True, False),
        (errors.ForeignKeyViolation(), False, True, False),
        (errors.CheckViolation(), False, True, False),
        (errors.NumericValueOutOfRange(), False, True, False),
        (errors.ProgramLimitExceeded(), False, True, False),
        (errors.RaiseException(), False, True, False),
        (errors.QueryCanceled(), False, False, False),
        (errors.DiskFull(), False, False, False),
        (errors.OutOfMemory(), False, False, False),
        (errors.InsufficientPrivilege(), False, False, False),
        (errors.UndefinedTable(), False, False, False),
        (errors.ReadOnlySqlTransaction(), False, False, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_kinds(error: psycopg.Error, transient: bool, row: bool, lost: bool) -> None:  # noqa: FBT001
    assert (is_transient(error), blames_row(error), is_lost(error)) == (transient, row, lost)


def test_our_own_errors() -> None:
    assert is_transient(ServerFault("No server answers."))
    assert not is_transient(ServerFault("The disk is full.", sqlstate="53100"))
    assert not is_transient(Refused("x", "No."))
    assert not is_transient(ConfigurationError("Wrong password."))


def test_a_transient_error_is_tried_again_and_another_is_not() -> None:
    stop = threading.Event()
    tries: list[int] = []

    def work() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise errors.DeadlockDetected
        if len(tries) == 2:
            return "done"
        raise errors.UniqueViolation

    again = retrying(seconds=60, stop=stop)
    assert again(work) == "done"
    with pytest.raises(errors.UniqueViolation):
        again(work)
    assert len(tries) == 3


def test_no_more_tries_once_the_run_is_to_stop() -> None:
    stop = threading.Event()
    tries: list[int] = []

    def work() -> None:
        tries.append(1)
        stop.set()
        raise errors.AdminShutdown

    with pytest.raises(errors.AdminShutdown):
        retrying(seconds=3600, stop=stop)(work)
    assert len(tries) == 1


def test_how_long_it_went_well_before_does_not_count() -> None:
    tries: list[int] = []

    def work() -> str:
        tries.append(1)
        if len(tries) == 1:
            time.sleep(0.3)
            raise errors.AdminShutdown
        return "done"

    assert retrying(seconds=0.2, stop=threading.Event())(work) == "done"


def test_no_second_try_without_any_seconds() -> None:
    tries: list[int] = []

    def work() -> None:
        tries.append(1)
        raise errors.LockNotAvailable

    with pytest.raises(errors.LockNotAvailable):
        retrying(seconds=0, stop=threading.Event())(work)
    assert len(tries) == 1
