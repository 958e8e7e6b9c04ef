"""Metrics for Prometheus, in a registry of their own; names and units by its conventions.

Counters are of this process and begin at 0, as Prometheus expects; what stands in the ledger is in gauges.
"""

from __future__ import annotations

import threading
from functools import singledispatchmethod

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram

from spine_migrate import __version__
from spine_migrate.notices import (
    STEPS,
    Batch,
    Before,
    Lag,
    Notice,
    Progress,
    Quarantined,
    Retry,
    Subject,
    Throttle,
    Transition,
    Verdict,
    Waits,
)

_ABOUT = ("migration_id", "mapping")
# A batch is meant to take about a second.
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_VERDICTS = ("equal", "different", "could not tell")


class Metrics:
    """An observer. ``registry`` is what is served or written."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._changing = threading.Lock()

        def counter(name: str, what: str, *more: str) -> Counter:
            return Counter(f"spine_migrate_{name}", what, (*_ABOUT, *more), registry=registry)

        def gauge(name: str, what: str, *more: str) -> Gauge:
            return Gauge(f"spine_migrate_{name}", what, (*_ABOUT, *more), registry=registry)

        info = Gauge("spine_migrate_build_info", "Always 1, with the version.", ("version",), registry=registry)
        info.labels(__version__).set(1)
        self._moved = counter("rows_moved", "Rows moved to the target.")
        self._adopted = counter("rows_adopted", "Rows that were on the target before.")
        self._quarantined = counter("rows_quarantined", "Rows that came into quarantine.", "reason")
        self._batches = Histogram(
            "spine_migrate_batch_duration_seconds",
            "How long batches took, from their first statement to their commit.",
            _ABOUT,
            buckets=_BUCKETS,
            registry=registry,
        )
        self._last = gauge("last_batch_timestamp_seconds", "When the last batch was committed.")
        self._accounted = gauge("rows_accounted", "Rows moved, adopted or quarantined by all runs so far.")
        self._blocks = gauge("source_blocks", "Blocks of 8 kB of the source that are to be read.")
        self._blocks_done = gauge("source_blocks_done", "Of these, blocks that are done.")
        self._step = Enum(
            "spine_migrate_step", "The step of the migration in the ledger.", _ABOUT, states=STEPS, registry=registry
        )
        self._retries = counter("retries", "Statements tried again after a fault, by its cause.", "cause")
        self._held = counter("throttle_held_seconds", "Time that a signal has held the run back, once over.", "signal")
        self._throttled = gauge("throttled", "1 while the signal holds the run back.", "signal")
        self._applied = counter("changes_applied", "Changes that the applier has taken out of the log.", "direction")
        self._lag_rows = gauge("lag_rows", "Changes that are not applied yet.", "direction")
        self._lag_seconds = gauge("lag_seconds", "Age of the oldest change that is not applied.", "direction")
        self._waits = gauge("lock_waits", "Sessions that wait for a lock, and have or want one on either table.")
        self._longest = gauge("lock_wait_seconds", "The longest of these waits.")
        self._verdict = Enum(
            "spine_migrate_parity_verdict", "The last comparison's.", _ABOUT, states=_VERDICTS, registry=registry
        )
        self._differences = gauge("parity_differences", "Differences that the last comparison found.")

    def notice(self, notice: Notice, /) -> None:
        self._take(notice)

    @singledispatchmethod
    def _take(self, notice: Notice) -> None:
        """What has no metric."""

    @_take.register
    def _(self, notice: Before) -> None:
        if notice.step is not None:
            self._step.labels(*_labels(notice.subject)).state(notice.step)

    @_take.register
    def _(self, notice: Transition) -> None:
        self._step.labels(*_labels(notice.subject)).state(notice.to_step)

    @_take.register
    def _(self, notice: Progress) -> None:
        labels = _labels(notice.subject)
        self._accounted.labels(*labels).set(notice.accounted)
        self._blocks.labels(*labels).set(notice.total_blocks)
        self._blocks_done.labels(*labels).set(notice.blocks)

    @_take.register
    def _(self, notice: Batch) -> None:
        labels = _labels(notice.subject)
        self._moved.labels(*labels).inc(notice.moved)
        self._adopted.labels(*labels).inc(notice.adopted)
        self._last.labels(*labels).set_to_current_time()
        if notice.seconds is not None:
            self._batches.labels(*labels).observe(notice.seconds)

    @_take.register
    def _(self, notice: Quarantined) -> None:
        for reason, rows in notice.reasons.items():
            self._quarantined.labels(*_labels(notice.subject), reason).inc(rows)

    @_take.register
    def _(self, notice: Throttle) -> None:
        labels = _labels(notice.subject)
        with self._changing:
            if notice.before is not None:
                self._held.labels(*labels, notice.before).inc(notice.seconds)
                self._throttled.labels(*labels, notice.before).set(0)
            if notice.signal is not None:
                self._throttled.labels(*labels, notice.signal).set(1)

    @_take.register
    def _(self, notice: Lag) -> None:
        labels = (*_labels(notice.subject), notice.direction)
        self._lag_rows.labels(*labels).set(notice.rows)
        self._lag_seconds.labels(*labels).set(notice.seconds)
        self._applied.labels(*labels).inc(notice.applied)

    @_take.register
    def _(self, notice: Waits) -> None:
        self._waits.labels(*_labels(notice.subject)).set(notice.sessions)
        self._longest.labels(*_labels(notice.subject)).set(notice.seconds)

    @_take.register
    def _(self, notice: Retry) -> None:
        self._retries.labels(*_labels(notice.subject), notice.cause).inc()

    @_take.register
    def _(self, notice: Verdict) -> None:
        for one in notice.migrations:
            self._verdict.labels(*_labels(one.subject)).state(one.verdict)
            self._differences.labels(*_labels(one.subject)).set(one.differences)


def _labels(subject: Subject) -> tuple[str, str]:
    return ("" if subject.migration_id is None else str(subject.migration_id), subject.mapping)
