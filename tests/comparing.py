"""Each test of a module by each method: ``pytestmark = both_methods``, and ``by_method(...)`` for the options."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

import pytest

from spine_migrate.parity.options import Finding, Options

_METHOD: ContextVar[Finding] = ContextVar("method", default=Finding.AUTO)

both_methods = pytest.mark.usefixtures("method")


@contextmanager
def using(method: Finding) -> Iterator[None]:
    token = _METHOD.set(method)
    yield
    _METHOD.reset(token)


def by_method(options: Options | None = None) -> Options:
    return replace(options or Options(), method=_METHOD.get())
