"""The mapping language: a lens from a legacy row to a target row, and its compiler.

An application that writes to both tables while it moves uses ``to_run_record`` (seed 001, phase 1) and
``from_run_record``; they are compiled from the same file as the SQL of the migration.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spine_migrate.mapping.emit.python import PythonForm

EXECUTIONS = "capture-spine/executions"


def to_run_record(row: Mapping[str, Any], mapping: str = EXECUTIONS) -> dict[str, Any]:
    """The target row that a legacy row becomes: target column to value, as psycopg would load it.

    ``row`` has the legacy columns as psycopg loads them; optional columns may be missing. ``mapping`` is a shipped
    mapping's name or the path of a file. Raises RowRejected where the migration would put the row into quarantine,
    MappingError for a mapping that cannot be used and for a row with missing or unknown columns.
    """
    return _form(mapping).to_run_record(row)


def from_run_record(record: Mapping[str, Any], mapping: str = EXECUTIONS) -> dict[str, Any]:
    """The legacy row that a target row came from; the inverse of ``to_run_record``. Raises MappingError as it does.

    A dropped column, and one that a rule gives up as lossy beyond inversion, is None.
    """
    return _form(mapping).from_run_record(record)


@cache
def _form(mapping: str) -> PythonForm:
    from spine_migrate.mapping.emit.python import compile_python
    from spine_migrate.mapping.load import load

    return compile_python(load(mapping))
