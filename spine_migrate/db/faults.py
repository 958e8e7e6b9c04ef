"""What a server error means for us: try again, blame the row, or stop with a sentence. Decided by SQLSTATE alone.

Codes: PostgreSQL manual, appendix A.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import TypeVar

import psycopg
import tenacity

from spine_migrate.errors import Interrupted, Refused, ServerFault, SpineMigrateError

Opened = TypeVar("Opened")

TRANSIENT = frozenset({
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "55P03",  # lock_not_available: lock_timeout ran out
    "57P01",  # admin_shutdown
    "57P02",  # crash_shutdown
    "57P03",  # cannot_connect_now
    "53300",  # too_many_connections
})  # fmt: skip
# The server is there and lets nobody in for now: it starts up, or has no slot free.
CLOSED = frozenset({"57P03", "53300"})
# Somebody else wrote, or holds, the same rows: a fault of nobody's, which no waiting ends where they go on.
HOT = frozenset({"40001", "40P01"})
CONTENDED = HOT | {"55P03"}
_CAUSES = {
    "40001": "serialization",
    "40P01": "deadlock",
    "55P03": "lock_timeout",
    "53300": "too_many_connections",
}
# data exceptions, integrity violations, values too large for an index entry or a field, and raise_exception: a trigger
# of the target that says no without a code of its own
ROW_CLASSES = ("22", "23", "54", "P0001")
# States of the server or of an object that somebody can change.
_STATES = {
    "25006": ("read-only", "The server takes no writes ({}); connect to the primary."),
    "55000": ("not-in-this-state", "The server refuses ({})."),
}
# The server's own function behind an error (PQresultErrorField, PG_DIAG_SOURCE_FUNCTION); its words may be translated.
_ROW_SECURITY = "check_enable_rls"


def is_lost(error: BaseException) -> bool:
    """The connection is gone; nothing of the transaction was committed, unless it broke during COMMIT."""
    return isinstance(error, psycopg.OperationalError) and (
        error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))
    )


def is_transient(error: BaseException) -> bool:
    """Worth trying again, on a new connection where the old one is lost."""
    if isinstance(error, psycopg.Error):
        return is_lost(error) or error.sqlstate in TRANSIENT
    return isinstance(error, ServerFault) and (error.sqlstate is None or error.sqlstate in CLOSED)


def is_among(error: BaseException, states: Collection[str]) -> bool:
    return isinstance(error, psycopg.Error) and error.sqlstate in states


def cause(error: BaseException) -> str:
    """What a transient error came of, in a word that does not change."""
    if is_lost(error) or (isinstance(error, ServerFault) and error.sqlstate in (None, "57P03")):
        return "connection_lost"
    return _CAUSES.get(getattr(error, "sqlstate", None) or "", "server")


def blames_row(error: psycopg.Error) -> bool:
    """The server refused a value, not the statement: some row of the batch is at fault."""
    return error.sqlstate is not None and error.sqlstate.startswith(ROW_CLASSES)


def explained(error: psycopg.Error) -> SpineMigrateError:
    """The error as one of ours: a precondition where the user can lift it, a fault otherwise."""
    words = " ".join((error.diag.message_primary or str(error)).split())
    match error.sqlstate:
        case "42501":
            return _not_allowed(error, words)
        case "25006" | "55000":
            precondition, sentence = _STATES[error.sqlstate]
            return Refused(precondition, sentence.format(words))
        case "42P01" | "42883" | "42704" if error.diag.context and "function" in error.diag.context:
            return Refused(
                "function-search-path",
                f"A function on the tables, of a trigger perhaps, does not find what it names ({words}); the tool's "
                f"sessions have no schema of yours in their search_path, so give the function one of its own "
                f"(ALTER FUNCTION ... SET search_path).",
            )
        case "42P01" | "3F000" | "42703":
            return Refused("object-missing", f"The database lacks an object ({words}); run spine-migrate db upgrade.")
        case "53100":
            return ServerFault(
                f"The server's disk is full ({words}); free space, then run the same command.", sqlstate="53100"
            )
        case state:
            return ServerFault(
                f"The server failed ({words}); what was committed stays, run the same command.", sqlstate=state
            )


def _not_allowed(error: psycopg.Error, words: str) -> Refused:
    if error.diag.source_function == _ROW_SECURITY:
        return Refused(
            "row-security",
            f"Row security would hide rows from the role ({words}); run as the table's owner, without FORCE ROW LEVEL "
            f"SECURITY, or as a role with BYPASSRLS.",
        )
    return Refused("privilege-missing", f"The role lacks a privilege ({words}); spine-migrate grants lists them.")


def retrying(
    *,
    seconds: float,
    stop: threading.Event,
    told: Callable[[BaseException, int, float], None] | None = None,
    but: Collection[str] = (),
    when: Callable[[BaseException], bool] = is_transient,
) -> tenacity.Retrying:
    """Retries of transient errors with exponential backoff and jitter, for at most ``seconds`` after the first or until
    ``stop`` is set; then it re-raises. How long the work itself went well before does not count.

    ``told(error, attempt, wait)`` is called before each wait, in seconds. SQLSTATEs in ``but`` are raised at once: the
    caller has something better to do than the same again.
    """

    def tell(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if told is not None and error is not None:
            told(error, state.attempt_number, state.upcoming_sleep)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: when(error) and not is_among(error, but)),
        wait=tenacity.wait_exponential(multiplier=0.1, max=10) + tenacity.wait_random(0, 0.5),
        stop=tenacity.stop_any(_AfterFirstFailure(seconds), tenacity.stop_when_event_set(stop)),
        sleep=tenacity.sleep_using_event(stop),
        before_sleep=tell,
        reraise=True,
    )


def is_closed(error: BaseException) -> bool:
    """A connection was refused by a server that may let it in a moment later."""
    return isinstance(error, ServerFault) and error.sqlstate in CLOSED


def let_in(
    opening: Callable[[], Opened],
    *,
    seconds: float,
    stop: threading.Event,
    told: Callable[[BaseException, int, float], None] | None = None,
) -> Opened:
    """The first connection of a run, tried again where the server is there and lets nobody in for now. A host where
    nobody answers, a wrong password or database is told at once: more likely than not the URL is to blame.

    Raises as ``opening`` does, Interrupted.
    """
    try:
        return retrying(seconds=seconds, stop=stop, told=told, when=is_closed)(opening)
    except ServerFault as error:
        if stop.is_set() and is_closed(error):
            raise Interrupted("Stopped before the server let anybody in; nothing was changed.") from error
        raise


class _AfterFirstFailure(tenacity.stop.stop_base):
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._first = 0.0

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        failed_at = retry_state.outcome_timestamp or 0.0
        if retry_state.attempt_number == 1:
            self._first = failed_at
        return failed_at - self._first >= self._seconds
