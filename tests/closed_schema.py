"""JSON Schemas that allow new keys, read as if they did not: every key of a report is to be declared."""

from __future__ import annotations

from typing import Any


def closed_schema(schema: Any) -> Any:
    """The schema with nothing allowed beside what it declares."""
    if isinstance(schema, list):
        return [closed_schema(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed_schema(value) for key, value in schema.items()}
    return {"additionalProperties": False, **made} if "properties" in schema else made
