"""From what was found out to what it means: what blocks and how to lift it, and what to know beforehand. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from spine_migrate.plan.model import Finding, Plan, Table

# What stops a reader of the source, and a writer of the target (PostgreSQL manual, 13.3.1).
_STOPS_READING = ("AccessExclusiveLock",)
_STOPS_WRITING = ("ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")


def blocking(plan: Plan) -> Iterator[Finding]:
    """What must be lifted before the first row moves."""
    for table in (plan.source, plan.target):
        if table is None:
            continue
        if table.row_security:
            yield Finding(
                "row-security",
                f"Row security on {table.name} hides rows from the role {plan.role}.",
                f"Run as the owner of {table.name}, or as a role with BYPASSRLS.",
            )
        if table.persistence == "temporary":
            yield Finding(
                "temporary-table",
                f"{table.name} is temporary: no other session of this tool can see it.",
                "Name the schema of a permanent table.",
            )
    if plan.missing_grants:
        yield Finding(
            "privilege-missing",
            f"The role {plan.role} lacks {len(plan.missing_grants)} grants.",
            "\n".join(plan.missing_grants),
        )


def warnings(plan: Plan) -> Iterator[Finding]:
    """What the migration will meet, deals with, and leaves for somebody to look at."""
    yield from _about_rows(plan)
    if plan.missing_columns:
        yield Finding(
            "missing-columns",
            f"Optional columns that the source lacks, read as NULL: {', '.join(plan.missing_columns)}.",
        )
    if plan.source is not None:
        yield from _about_source(plan.source)
    if plan.target is not None:
        yield from _about_target(plan.target)
    yield from _about_sessions(plan)


def _about_rows(plan: Plan) -> Iterator[Finding]:
    if plan.rows is not None and plan.rows.rejected:
        yield Finding(
            "quarantine",
            f"{_rows(plan.rows.rejected)} will go to quarantine.",
            "Mend the rows or the mapping first, or afterwards with spine-migrate quarantine retry.",
        )
    for conflict in plan.conflicts or ():
        if conflict.losers or conflict.taken:
            yield Finding(
                "unique-conflict",
                f"{conflict.index}: {_rows(conflict.losers)} of the source collide with an earlier one, "
                f"{_rows(conflict.taken)} with the target; they will go to quarantine.",
                "Decide which of them shall keep the place before they move.",
            )
    if plan.keys is not None and plan.keys.taken:
        yield Finding(
            "key-taken",
            f"{_rows(plan.keys.taken)} have a key that a row of somebody else has on the target; "
            f"they will go to quarantine.",
            "Move that row away, or leave them in quarantine.",
        )
    for link in plan.links or ():
        if link.rows:
            yield Finding("broken-link", f"{link.field}: {_rows(link.rows)} name a row that does not exist.")


def _about_source(table: Table) -> Iterator[Finding]:
    if table.inbound_keys:
        yield Finding(
            "inbound-keys",
            f"Foreign keys point to {table.name}: {', '.join(table.inbound_keys)}. They stay as they are.",
        )
    if table.triggers:
        yield Finding("source-triggers", f"{table.name} has triggers: {', '.join(table.triggers)}. Reading fires none.")
    if table.json_columns:
        yield Finding(
            "json-columns",
            f"{table.name} has json columns ({', '.join(table.json_columns)}); as jsonb they lose key order, "
            f"repeated keys and white space.",
        )
    if len(table.parts) > 1 or table.kind != "table":
        yield Finding("partitioned", f"{table.name} has {len(table.parts)} parts, each read by itself.")
    if table.persistence == "unlogged":
        yield Finding("unlogged", f"{table.name} is unlogged: a crash of the server empties it.")


def _about_target(table: Table) -> Iterator[Finding]:
    enabled = [trigger for trigger in table.triggers if not trigger.endswith("(disabled)")]
    if enabled:
        yield Finding(
            "target-triggers",
            f"{table.name} has triggers, which fire for every row that is moved: {', '.join(enabled)}.",
            "Disable them for the migration if they shall not.",
        )
    if table.has_rules:
        yield Finding(
            "target-rules",
            f"{table.name} has rules, which may turn an INSERT into something else.",
            "Drop them for the migration.",
        )
    if table.invalid_indexes:
        yield Finding(
            "invalid-index",
            f"{table.name} has invalid indexes: {', '.join(table.invalid_indexes)}. They guard nothing but cost time.",
            "REINDEX INDEX CONCURRENTLY, or drop them.",
        )
    if table.persistence == "unlogged":
        yield Finding(
            "unlogged",
            f"{table.name} is unlogged: a crash of the server empties it.",
            f"ALTER TABLE {table.name} SET LOGGED;",
        )
    if table.publications:
        yield Finding(
            "published",
            f"{table.name} is published ({', '.join(table.publications)}): moved rows go to the subscribers too.",
        )
        if table.replica_identity == "nothing":
            yield Finding(
                "replica-identity",
                f"{table.name} is published but has no replica identity: an UPDATE, which completes links, fails.",
                f"ALTER TABLE {table.name} REPLICA IDENTITY DEFAULT;",
            )


def _about_sessions(plan: Plan) -> Iterator[Finding]:
    source = plan.source.name if plan.source else None
    for lock in plan.locks or ():
        stops = _STOPS_READING if lock.table == source else _STOPS_WRITING
        if lock.mode in stops:
            state = "hold" if lock.granted else "wait for"
            yield Finding(
                "locked",
                f"{lock.sessions} other sessions {state} {lock.mode} on {lock.table}; batches would wait for them.",
                "Let them end first.",
            )
    for found in plan.long_transactions or ():
        yield Finding(
            "long-transaction",
            f"A transaction of {found.role} (pid {found.pid}, {found.what}) has been open for {found.seconds} s; "
            f"it keeps vacuum from cleaning up behind the migration.",
        )


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
