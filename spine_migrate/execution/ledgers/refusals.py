"""What every ledger says when it refuses, in the same words."""

from __future__ import annotations

from spine_migrate.execution.errors import ConcurrencyError, InvalidSpecError
from spine_migrate.execution.storable import as_text

NO_STEP = "the state machine has no such step"
CLAIM_LOST = "the claim of this worker is lost"
EXPIRED = "it has expired"
NOT_DUE = "it is not due yet"
OTHER_ATTEMPT = "it is in another attempt"
TO_BE_CANCELLED = "it is to be cancelled"
ONLY_DEAD_LETTERS = "only a dead letter is reprocessed"
NO_DEAD_LETTERS = "a dead letter is reprocessed, not tried again"

#: ``error`` and ``error_type`` of a run whose worker was not heard of again.
LEASE_EXPIRED = ("The lease of its worker ran out.", "LeaseExpired")

#: ``error_type`` of ``runs`` holds that many characters.
_ERROR_TYPE_LENGTH = 100


def storable_error(error: str, error_type: str | None) -> tuple[str, str | None]:
    """A failure is recorded, whatever its text is made of."""
    return as_text(error), None if error_type is None else as_text(error_type)[:_ERROR_TYPE_LENGTH]


def no_such_run(field: str, run_id: object) -> InvalidSpecError:
    return InvalidSpecError(field, f"{field} names the run {run_id}, which does not exist.")


def run_exists(run_id: str) -> InvalidSpecError:
    return InvalidSpecError("run_id", f"There is a run {run_id} already.")


def entity_is_busy(about: tuple[str, str], run_id: str | None) -> ConcurrencyError:
    """``run_id`` is None where the other run has ended meanwhile, or cannot be seen."""
    other = "" if run_id is None else f", {run_id}"
    return ConcurrencyError(f"The {about[0]} {about[1]} has an active run already{other}.", run_id=run_id)


def unseen(idempotency_key: str | None) -> ConcurrencyError:
    """In a REPEATABLE READ transaction that began before the other run was committed."""
    return ConcurrencyError(
        "The idempotency key or the entity of the run is taken by a run that this transaction cannot see"
        f" (key {idempotency_key!r}); try again in a new one, or in READ COMMITTED."
    )
