"""A legacy table with what the shipped ones have not, and its mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any, LiteralString

from spine_migrate.mapping.load import load_file
from spine_migrate.mapping.model import Mapping
from tests.composed import write

# What the shipped tables have not: a text key, limits, an enum, json, a generated column, constraints, a link by hash.
TABLES: LiteralString = """
    CREATE TYPE mood AS ENUM ('new', 'done');
    CREATE TABLE desks (desk integer PRIMARY KEY);
    INSERT INTO desks VALUES (1), (2);
    CREATE TABLE papers (
        code varchar(12) COLLATE "C" PRIMARY KEY,
        label character(3) NOT NULL,
        mood mood DEFAULT 'new',
        price numeric(8, 2) DEFAULT 1.5,
        tiny smallint CONSTRAINT tiny_is_positive CHECK (tiny > 0),
        doc json DEFAULT '{}',
        of_code varchar(12),
        doubled numeric GENERATED ALWAYS AS (price * 2) STORED,
        made timestamp(3) DEFAULT '2020-01-01',
        desk integer REFERENCES desks
    );
"""

_MAPPING: dict[str, Any] = {
    "source": {
        "table": "papers",
        "key": "code",
        "columns": {
            "code": {"type": "text", "not_null": True},
            "label": {"type": "text"},
            "mood": {"type": "text"},
            "price": {"type": "numeric"},
            "tiny": {"type": "integer"},
            "doc": {"type": "jsonb"},
            "of_code": {"type": "text"},
            "doubled": {"type": "numeric"},
            "made": {"type": "timestamp"},
            "desk": {"type": "any"},
        },
    },
    "target": {"table": "runs"},
    "fields": {
        "run_id": {"copy": "code", "uuid": "papers", "keep": "metadata.old.code"},
        "kind": {"constant": "step"},
        "name": {"constant": "paper"},
        "external_ref": {"copy": "label"},
        "status": {
            "copy": "mood",
            "default": "new",
            "values": {"new": "pending", "done": "completed"},
            "keep": "metadata.old.mood",
        },
        "params": {"copy": "doc"},
        "parent_run_id": {"copy": "of_code", "uuid": "papers", "keep": "metadata.old.of_code", "link": True},
        '"metadata"."price"': {"copy": "price"},
        '"metadata"."tiny"': {"copy": "tiny"},
        '"metadata"."doubled"': {"copy": "doubled"},
        '"metadata"."desk"': {"copy": "desk"},
        "created_at": {"copy": "made", "zone": "Europe/Berlin", "keep": "metadata.old.made"},
        '"metadata"."migrated_from"': {"origin": True},
    },
}


def papers(folder: Path) -> Mapping:
    return load_file(write(folder, "papers", _MAPPING))
