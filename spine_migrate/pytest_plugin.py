"""The fixture ``spine_parity`` for an application's own tests: fail where legacy and target tables do not agree.

pytest loads this module in every run of an environment that has spine-migrate installed (entry point ``pytest11``), so
it imports nothing but pytest; ``-p no:spine_migrate`` leaves it out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from spine_migrate.parity.model import Report

_OPTION = "--spine-database-url"


class NotEqual(AssertionError):
    """The comparison found differences; ``report`` has all that it found."""

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report


class CouldNotTell(Exception):
    """Nothing was proved, one way or the other; no AssertionError, which a test might expect. ``report`` says why."""

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class SpineParity:
    """``url`` is the database of the target tables and the ledger; None leaves it to the PG* environment.

    A URL may hold a password, and pytest prints the arguments of a failed test: it is in no repr and no traceback.
    """

    url: str | None = field(repr=False)

    def assert_equal(
        self,
        names: str | Sequence[str] = (),
        *,
        url: str | None = None,
        method: str = "auto",
        exact: bool = False,
        max_differences: int = 20,
    ) -> Report:
        """Compare, and fail the test unless all is equal; arguments as in ``compare``.

        Raises NotEqual, an AssertionError that lists the differences, CouldNotTell where there is no verdict, and what
        ``compare`` raises.
        """
        __tracebackhide__ = True
        from spine_migrate.parity.model import Verdict
        from spine_migrate.report.assertion import message

        report = self.compare(names, url=url, method=method, exact=exact, max_differences=max_differences)
        if report.verdict is Verdict.EQUAL:
            return report
        failure = NotEqual if report.verdict is Verdict.DIFFERENT else CouldNotTell
        raise failure(message(report), report)

    __call__ = assert_equal

    def compare(
        self,
        names: str | Sequence[str] = (),
        *,
        url: str | None = None,
        method: str = "auto",
        exact: bool = False,
        max_differences: int = 20,
    ) -> Report:
        """What ``spine-migrate compare`` finds, without a verdict on the test.

        ``names`` are shipped mappings or paths of mapping files, one or several; without any, all migrations of the
        ledger are compared. ``url`` is another database than the configured one. ``method`` is auto, join or buckets,
        ``exact`` asks for binary images, and ``max_differences`` limits what is listed per mapping. Only what was
        committed is seen: the connection is one of its own, and reads only.

        Raises the errors of ``spine_migrate.errors``, ValueError for another method, and psycopg.Error where the
        server fails.
        """
        __tracebackhide__ = True
        from spine_migrate.db.connect import connect
        from spine_migrate.errors import SpineMigrateError
        from spine_migrate.parity.compare import compare
        from spine_migrate.parity.evidence import Equality
        from spine_migrate.parity.options import Finding, Options

        equality = Equality.EXACT if exact else Equality.VALUE
        options = Options(method=Finding(method), equality=equality, max_differences=max_differences)
        given = (names,) if isinstance(names, str) else tuple(names)
        try:
            with connect(url or self.url) as connection:
                return compare(connection, given, options)
        except SpineMigrateError as error:
            # Its frames have the URL among their arguments; the sentence says all that there is to say.
            raise error.with_traceback(None) from None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("spine-migrate").addoption(
        _OPTION,
        metavar="URL",
        help="The database that the fixture spine_parity compares in; else SPINE_TARGET_URL, SPINE_DATABASE_URL or the "
        "PG* variables name it.",
    )


@pytest.fixture(scope="session")
def spine_parity(pytestconfig: pytest.Config) -> SpineParity:
    """Compare migrated tables with their legacy tables, and fail where they differ."""
    named = (os.environ.get(name) for name in ("SPINE_TARGET_URL", "SPINE_DATABASE_URL"))
    return SpineParity(pytestconfig.getoption(_OPTION) or next(filter(None, named), None))
