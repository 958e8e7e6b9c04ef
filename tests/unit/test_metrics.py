"""Metrics: names, values by migration, the port and the file."""

from __future__ import annotations

import http.client
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from spine_migrate import __version__
from spine_migrate.cli import main
from spine_migrate.errors import ConfigurationError
from spine_migrate.notices import (
    Batch,
    Before,
    Compared,
    Lag,
    Notice,
    Progress,
    Quarantined,
    Retry,
    Subject,
    Throttle,
    Transition,
    Verdict,
)
from spine_migrate.observe.exporting import served, written
from spine_migrate.observe.metrics import Metrics
from tests.observers import Heard
from tests.waiting import until

ONE, TWO = Subject("app/rows", 1), Subject("app/events", 2)


def value(registry: CollectorRegistry, name: str, subject: Subject, **labels: str) -> float | None:
    about = {"migration_id": str(subject.migration_id), "mapping": subject.mapping}
    return registry.get_sample_value(f"spine_migrate_{name}", {**about, **labels})


def after(*notices: Notice) -> CollectorRegistry:
    metrics = Metrics()
    for notice in notices:
        metrics.notice(notice)
    return metrics.registry


def test_each_migration_has_its_own_figures() -> None:
    registry = after(
        Batch(ONE, 100, 3, 0.7),
        Batch(ONE, 50, 0, None),
        Batch(TWO, 7, 0, 0.2),
        Quarantined(ONE, {"orphan": 2}),
        Quarantined(ONE, {"orphan": 1, "too_long": 1}),
        Progress(ONE, "backfill", 150, 1000, 20, 80, 10.0, 6.0),
    )
    assert value(registry, "rows_moved_total", ONE) == 150
    assert value(registry, "rows_moved_total", TWO) == 7
    assert value(registry, "rows_adopted_total", ONE) == 3
    assert value(registry, "rows_quarantined_total", ONE, reason="orphan") == 3
    assert value(registry, "rows_quarantined_total", ONE, reason="too_long") == 1
    assert value(registry, "batch_duration_seconds_count", ONE) == 1
    assert value(registry, "batch_duration_seconds_sum", ONE) == 0.7
    assert value(registry, "batch_duration_seconds_bucket", ONE, le="0.75") == 1
    assert value(registry, "batch_duration_seconds_bucket", ONE, le="0.5") == 0
    assert value(registry, "rows_accounted", ONE) == 1000
    assert value(registry, "source_blocks", ONE) == 80
    assert value(registry, "source_blocks_done", ONE) == 20
    assert (value(registry, "last_batch_timestamp_seconds", ONE) or 0) > 1.7e9


def test_the_step_is_one_of_all() -> None:
    registry = after(
        Before(ONE, "backfill", "backfill"), Transition(ONE, "backfill", "done"), Before(TWO, "backfill", None)
    )
    steps = {step: value(registry, "step", ONE, spine_migrate_step=step) for step in ("backfill", "done", "undone")}
    assert steps == {"backfill": 0, "done": 1, "undone": 0}
    assert value(registry, "step", TWO, spine_migrate_step="backfill") is None, "a migration that is not begun"


def test_a_throttle_is_counted_by_its_signal() -> None:
    registry = after(
        Throttle(ONE, "replica_lag"),
        Throttle(ONE, "paused", before="replica_lag", seconds=4.0),
        Throttle(ONE, None, before="paused", seconds=2.0),
        Throttle(ONE, "replica_lag"),
        Throttle(ONE, None, before="replica_lag", seconds=1.0),
        Throttle(ONE, "lock_waits"),
    )
    held = {
        name: value(registry, "throttle_held_seconds_total", ONE, signal=name) for name in ("replica_lag", "paused")
    }
    assert held == {"replica_lag": 5.0, "paused": 2.0}
    now = {name: value(registry, "throttled", ONE, signal=name) for name in ("replica_lag", "paused", "lock_waits")}
    assert now == {"replica_lag": 0, "paused": 0, "lock_waits": 1}


def test_lag_retries_and_verdict() -> None:
    registry = after(
        Lag(ONE, "forward", 13, 9.5, applied=40),
        Lag(ONE, "forward", 12, 3.5, applied=2),
        Retry(ONE, "lock_timeout", 1, 0.2),
        Retry(ONE, "lock_timeout", 2, 0.4),
        Verdict("different", (Compared(ONE, "different", 9), Compared(TWO, "could not tell", 0))),
    )
    assert value(registry, "lag_rows", ONE, direction="forward") == 12
    assert value(registry, "lag_seconds", ONE, direction="forward") == 3.5
    assert value(registry, "changes_applied_total", ONE, direction="forward") == 42
    assert value(registry, "retries_total", ONE, cause="lock_timeout") == 2
    assert value(registry, "parity_verdict", ONE, spine_migrate_parity_verdict="different") == 1
    assert value(registry, "parity_verdict", TWO, spine_migrate_parity_verdict="could not tell") == 1
    assert value(registry, "parity_differences", ONE) == 9
    assert registry.get_sample_value("spine_migrate_build_info", {"version": __version__}) == 1


def test_names_keep_the_conventions_of_prometheus() -> None:
    """A counter ends in _total and nothing else does; units are base units (its manual, "Metric and label naming")."""
    for family in Metrics().registry.collect():
        assert family.name.startswith("spine_migrate_")
        assert family.documentation.endswith(".")
        assert not family.name.endswith(("_total", "_ms", "_count", "_sum", "_bucket"))


def test_they_are_served_until_the_end() -> None:
    heard = Heard()
    with served(after(Batch(ONE, 5, 0, 0.1)), "127.0.0.1", 0, heard):
        ((sentence, event, _),) = heard.said
        url = sentence.removeprefix("Metrics are at ").removesuffix(".")
        assert event == "metrics"
        asked = http.client.HTTPConnection("127.0.0.1", urlsplit(url).port or 0, timeout=20)
        asked.request("GET", urlsplit(url).path)
        families = {
            family.name: family for family in text_string_to_metric_families(asked.getresponse().read().decode())
        }
        asked.close()
        assert families["spine_migrate_rows_moved"].samples[0].value == 5
        port = urlsplit(url).port or 0
        with (
            pytest.raises(ConfigurationError, match=f"on 127.0.0.1 port {port}"),
            served(CollectorRegistry(), "127.0.0.1", port, heard),
        ):
            pass
    with socket.socket() as free:
        assert free.connect_ex(("127.0.0.1", port)) != 0, "nobody listens any more"


def test_a_host_that_is_none_is_refused() -> None:
    with (
        pytest.raises(ConfigurationError, match=r"cannot be served on 203\.0\.113\.1 "),
        served(CollectorRegistry(), "203.0.113.1", 0, Heard()),
    ):
        pass


def test_the_file_is_there_from_the_start_and_right_at_the_end(tmp_path: Path) -> None:
    """And between, whole at any moment; nothing else is left beside it."""
    file, metrics = tmp_path / "runs.prom", Metrics()
    with written(metrics.registry, file, Heard(), seconds=0.01):
        assert "spine_migrate_build_info" in file.read_text()
        metrics.notice(Batch(ONE, 5, 0, 0.1))
        end = time.monotonic() + 30
        while "spine_migrate_rows_moved_total{" not in file.read_text():
            assert time.monotonic() < end
        metrics.notice(Batch(ONE, 6, 0, 0.1))
    assert 'spine_migrate_rows_moved_total{mapping="app/rows",migration_id="1"} 11.0' in file.read_text()
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_goes_away_is_said_once_and_harms_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "textfile"
    folder.mkdir()
    heard = Heard()
    with written(CollectorRegistry(), folder / "runs.prom", heard, seconds=0.01):
        folder.rename(tmp_path / "elsewhere")
        until(lambda: heard.said, "It is not said.")
    ((sentence, event, level),) = heard.said
    assert (event, level) == ("metrics", "warning")
    assert "runs.prom: No such file or directory" in sentence


def test_a_file_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match="No such file or directory"),
        written(CollectorRegistry(), tmp_path / "none" / "runs.prom", Heard()),
    ):
        pass


def test_without_the_package_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    for name in ("exporting", "metrics"):
        monkeypatch.delitem(sys.modules, f"spine_migrate.observe.{name}", raising=False)
    done = CliRunner().invoke(main, ["jobs-to-runs", "--metrics-port", "0"])
    assert done.exit_code == 2
    assert "pip install 'spine-migrate[metrics]'" in done.stderr
