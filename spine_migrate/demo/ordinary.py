"""The ordinary rows: made on the server, one statement per table, each value a function of seed and row number."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any, LiteralString

import psycopg

from spine_migrate.demo.kind import Draw

#: The statuses and event types that capture-spine documents, and the only ones that ordinary rows have.
EXECUTION_STATUSES = ("pending", "queued", "running", "completed", "failed", "cancelled")
EVENT_TYPES = ("created", "queued", "started", "progress", "heartbeat", "completed", "failed", "cancelled")
JOB_STATUSES = ("queued", "processing", "done", "error", "cancelled", "retrying")

_BEGINNING = datetime(2016, 1, 4, tzinfo=UTC)
_TEN_YEARS_US = 3650 * 86_400 * 1_000_000

PIPELINES = (
    "feed_processing", "content_capture", "backfill", "parse_rss", "parse_html", "parse_pdf", "enrich_entities",
    "enrich_language", "enrich_summary", "search_index", "search_reindex", "capture_screenshot", "capture_archive",
    "dedupe_articles", "link_expansion", "image_thumbnails", "feed_discovery", "feed_health", "newsletter_import",
    "podcast_transcripts", "batch_import", "copilot_sync", "backup", "recommendations", "sync_environments",
    "export_markdown", "webhook_delivery", "retention_sweep", "usage_report", "quota_recount",
)  # fmt: skip
JOB_TYPES = (
    "batch_import_documents", "sync_copilot_chats", "schedule_pending_backups", "run_backup_for_user",
    "sync_environments", "update_recommendations", "export_collection", "render_pdf", "send_digest", "rebuild_index",
    "purge_trash", "import_opml",
)  # fmt: skip
FAILURES = (
    "TimeoutError", "ConnectionError", "BackendError", "ValueError", "httpx.ReadTimeout",
    "sqlalchemy.exc.OperationalError", "app.pipelines.errors.FeedGone", "app.pipelines.errors.ParseFailed",
)  # fmt: skip
# Executions among which a parent is looked for: what a workflow starts in a few hours.
_NEAR = 2_000


@dataclass(frozen=True)
class Shape:
    """How many rows of which sort. Feeds are numbered from 0: active executions have the first half, active jobs the
    rest.
    """

    executions: int
    jobs: int

    @property
    def feeds(self) -> int:
        return max(2, min(5_000, (self.executions + self.jobs) // 20))

    @property
    def active_executions(self) -> int:
        return min(self.executions // 50, self.feeds // 2)

    @property
    def active_jobs(self) -> int:
        return min(self.jobs // 50, self.feeds - self.feeds // 2)

    @property
    def execution_step_us(self) -> int:
        return _TEN_YEARS_US // max(1, self.executions)

    @property
    def job_step_us(self) -> int:
        return _TEN_YEARS_US // max(1, self.jobs)

    def ended_execution(self, draw: Draw, n: int) -> tuple[str, datetime]:
        """Key of an execution that has ended, and a time soon after its creation. Needs at least one execution."""
        i = draw.number(f"host:{n}", max(1, self.executions - self.active_executions))
        return draw.uuid(f"execution:{i}"), _BEGINNING + timedelta(microseconds=(i + 1) * self.execution_step_us)


def statement(name: str) -> LiteralString:
    """The text of ``<name>.sql`` beside this module."""
    return (files("spine_migrate.demo") / f"{name}.sql").read_text(encoding="utf-8")


def insert_ordinary_rows(
    connection: psycopg.Connection[Any], draw: Draw, shape: Shape, events_per_execution: float
) -> None:
    """Fill the three empty tables that the search path names."""
    common = {"seed": str(draw.seed), "feeds": shape.feeds, "failures": list(FAILURES), "failure_count": len(FAILURES)}
    if shape.executions:
        parameters = {
            **common,
            "salt": _salt(draw, "executions"),
            "rows": shape.executions,
            "active": shape.active_executions,
            "step": shape.execution_step_us,
            "pipelines": list(PIPELINES),
            "pipeline_count": len(PIPELINES),
            "near": _NEAR,
        }
        connection.execute(statement("ordinary_executions"), parameters)
        parameters = {"seed": str(draw.seed), "salt": _salt(draw, "events"), "mean": round(events_per_execution * 1000)}
        connection.execute(statement("ordinary_events"), parameters)
    if shape.jobs:
        parameters = {
            **common,
            "salt": _salt(draw, "jobs"),
            "rows": shape.jobs,
            "active": shape.active_jobs,
            "first_active_feed": shape.feeds // 2,
            "step": shape.job_step_us,
            "job_types": list(JOB_TYPES),
            "job_type_count": len(JOB_TYPES),
        }
        connection.execute(statement("ordinary_jobs"), parameters)


def _salt(draw: Draw, table: str) -> int:
    return draw.number(f"salt:{table}", 2**62)
