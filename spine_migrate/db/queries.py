"""The named queries of this package."""

from __future__ import annotations

from typing import LiteralString

from spine_migrate.named_queries import load


def query(module: str, name: str) -> LiteralString:
    """One query, for example ``query("catalog", "columns")``."""
    return load("spine_migrate.db", module)[name]
