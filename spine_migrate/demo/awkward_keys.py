"""The awkward links and keys of executions. Fates are those under ``mappings/capture-spine/executions.toml``."""

from __future__ import annotations

import unicodedata

from spine_migrate.demo.kind import (
    LINK_BROKEN,
    LINK_WAITING,
    MOVED,
    ONE_MOVES,
    TOO_LONG,
    UNKNOWN_VALUE,
    AwkwardRow,
    Draw,
    Kind,
    one,
)

_EDGE_KEYS = ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff")


def _key(draw: Draw, label: str, n: int) -> str:
    return draw.uuid(f"awkward:{label}:{n}")


def _waiting_child(draw: Draw, n: int) -> list[AwkwardRow]:
    parent = _key(draw, "quarantined-parent", n)
    return [
        AwkwardRow({"execution_id": parent, "status": "zombie"}, fate=UNKNOWN_VALUE),
        AwkwardRow({"parent_execution_id": parent}),
    ]


def _self_parent(draw: Draw, n: int) -> list[AwkwardRow]:
    key = _key(draw, "self-parent", n)
    return one(execution_id=key, parent_execution_id=key)


def _cycle(draw: Draw, n: int) -> list[AwkwardRow]:
    first, second = _key(draw, "cycle-first", n), _key(draw, "cycle-second", n)
    return [
        AwkwardRow({"execution_id": first, "parent_execution_id": second}),
        AwkwardRow({"execution_id": second, "parent_execution_id": first}),
    ]


def _near_twins(_draw: Draw, n: int) -> list[AwkwardRow]:
    key = f"Import:Café-{n}"
    twins = (key, key.lower(), f"{key} ", f" {key}", unicodedata.normalize("NFD", key))
    return [AwkwardRow({"idempotency_key": twin}) for twin in twins]


def _same_key(_draw: Draw, n: int) -> list[AwkwardRow]:
    return [AwkwardRow({"idempotency_key": f"webhook:delivery-{n:06}"})] * (2 + n % 2)


def _two_active(draw: Draw, n: int) -> list[AwkwardRow]:
    feed = _key(draw, "two-active-feed", n)
    claims = (("queued", "running"), ("queued", "pending"), ("queued", "queued"))[n % 3]
    return [
        AwkwardRow(
            {
                "feed_id": feed,
                "status": status,
                "completed_at": None,
                "started_at": None if status != "running" else "2025-12-01 00:00:00+00",
            }
        )
        for status in claims
    ]


KEY_KINDS: tuple[Kind, ...] = (
    Kind(
        "missing_parent",
        "executions",
        LINK_BROKEN,
        "The parent was purged; no foreign key was there to object.",
        40,
        lambda d, n: one(parent_execution_id=_key(d, "purged-parent", n)),
    ),
    Kind(
        "missing_retried",
        "executions",
        LINK_BROKEN,
        "The retried execution was purged.",
        20,
        lambda d, n: one(retry_of_execution_id=_key(d, "purged-retried", n)),
    ),
    Kind(
        "quarantined_parent",
        "executions",
        LINK_WAITING,
        "The parent has an undocumented status and stays behind; the link waits for it.",
        20,
        _waiting_child,
    ),
    Kind(
        "self_parent",
        "executions",
        MOVED,
        "A re-run updated its own row and named itself as its parent.",
        10,
        _self_parent,
    ),
    Kind(
        "parent_cycle",
        "executions",
        MOVED,
        "Two executions re-ran each other and name each other as parents.",
        10,
        _cycle,
    ),
    Kind(
        "lane_too_long",
        "executions",
        TOO_LONG,
        "A queue's full AMQP address was written as the lane (over 50 characters).",
        20,
        lambda _d, n: one(lane=f"amqp://capture-rabbit.internal:5672/production/pipelines.{n}"),
    ),
    Kind(
        "trigger_source_too_long",
        "executions",
        TOO_LONG,
        "A webhook's path was written as the trigger source.",
        10,
        lambda _d, n: one(trigger_source=f"webhook:/api/v2/integrations/github/installations/{n}/events"),
    ),
    Kind(
        "backend_task_id_too_long",
        "executions",
        TOO_LONG,
        "A chord stored the ids of all its members in one column.",
        10,
        lambda d, n: one(backend_task_id=",".join(_key(d, f"member-{m}", n) for m in range(8))),
    ),
    Kind(
        "idempotency_key_too_long",
        "executions",
        TOO_LONG,
        "A client sent the request body as its key (over 255 characters).",
        20,
        lambda _d, n: one(idempotency_key=f'{{"request": {n}, "documents": [' + ", ".join(map(str, range(100))) + "]}"),
    ),
    Kind(
        "idempotency_key_near_twins",
        "executions",
        MOVED,
        "Keys that differ only in case, spaces or unicode normalisation: different keys then, different keys now.",
        10,
        _near_twins,
    ),
    Kind(
        "idempotency_key_twice",
        "executions",
        ONE_MOVES,
        "The legacy table never made the key unique, so a webhook delivered again ran again.",
        20,
        _same_key,
        at_least=2,
    ),
    Kind(
        "empty_idempotency_key",
        "executions",
        ONE_MOVES,
        "A client sent an empty header, and the empty string is a key like any other.",
        10,
        lambda _d, _n: one(idempotency_key=""),
        at_least=3,
    ),
    Kind(
        "two_active_for_one_feed",
        "executions",
        ONE_MOVES,
        "The old guard index does not know 'queued': a queued execution stands beside an active one of its feed.",
        30,
        _two_active,
        at_least=3,
    ),
    Kind(
        "edge_keys",
        "executions",
        MOVED,
        "The nil and the all-ones uuid, from a default and a test: the ends of the key range.",
        2,
        lambda _d, n: one(execution_id=_EDGE_KEYS[n]),
        at_least=2,
        at_most=2,
    ),
)
