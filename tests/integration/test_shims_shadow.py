"""The mode ``shadow``, in a real worker and in this process: the old result counts, the new one is compared."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from spine_migrate.db.connect import connect
from spine_migrate.db.shadows import shadowed
from spine_migrate.errors import ConfigurationError
from spine_migrate.execution.runs import FINAL
from spine_shims import Route
from spine_shims.shadowing import differences
from tests.celery_worker import until
from tests.shims_place import Site
from tests.shims_tasks import QUIET

pytestmark = pytest.mark.filterwarnings(QUIET)


# The task has a mode of its own.
dispatch = pytest.mark.parametrize("site", ["dispatch"], indirect=True)


def compared(site: Site, task_id: str | None = None) -> tuple[Any, Any]:
    """The run of the comparison, and what its event says."""
    until(lambda: [run for run in site.runs_of("judged") if run.status in FINAL], "No comparison", site.worker)
    (run,) = site.runs_of("judged")
    assert run.spec.metadata["shadow_of"] == task_id
    (event,) = [event for event in site.dispatcher.get_events(run.run_id) if event.event_type == "shadow_compared"]
    return run, event.data


def ended(site: Site) -> int:
    return sum(run.status in FINAL for run in site.runs_of("judged"))


@dispatch
@pytest.mark.parametrize(
    ("n", "status", "data"),
    [
        (1, "completed", {"equal": True, "paths": []}),
        (10, "completed", {"equal": False, "paths": ["$.parts[1]", "$.parts[2]"]}),
        (20, "failed", {"equal": False, "old_error": None, "error": "Flaky"}),
    ],
    ids=["equal", "different", "the handler fails"],
)
def test_a_message(site: Site, n: int, status: str, data: dict[str, Any]) -> None:
    """Whoever waits has the old result; the new one is beside it, with no value of either."""
    result = site.tasks.judged.delay(n)
    assert site.get(result) == {"n": n, "parts": [1, 2]}
    run, said = compared(site, result.id)
    assert said == data
    assert run.status == status
    assert sorted(body for body, _ in site.noted("judged")) == ["handler", "legacy"]
    assert (run.spec.trigger_source, run.spec.max_retries, "entity_id" in run.spec.metadata) == ("shadow", 0, False)


@dispatch
def test_what_was_compared_is_summed_up(site: Site) -> None:
    for number, n in enumerate((1, 10, 20), start=1):
        site.get(site.tasks.judged.delay(n))
        until(lambda: ended(site) == number, "No comparison", site.worker)  # noqa: B023 - called at once
    with connect(site.place.url) as connection:
        (summed,) = shadowed(connection, "public")
    assert (summed.task, summed.matches, summed.mismatches, summed.unknown) == (site.tasks.judged.name, 1, 2, 0)
    assert [(place.path, place.count) for place in summed.places] == [("$.parts[*]", 1), ("error: Flaky, was none", 1)]


@dispatch
def test_an_old_body_that_fails(site: Site) -> None:
    result = site.tasks.judged.delay(30)
    with pytest.raises(ValueError, match="old"):
        site.get(result)
    assert compared(site, result.id)[1] == {"equal": False, "old_error": "ValueError", "error": "Flaky"}


@dispatch
def test_a_direct_call(site: Site) -> None:
    assert site.tasks.judged(1) == {"n": 1, "parts": (1, 2)}
    assert compared(site)[1] == {"equal": True, "paths": []}


@dispatch
def test_what_cannot_be_compared_costs_the_task_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An application's own function of a route raises; its message may hold a value, so that the log has its type."""

    def raises(params: object) -> None:
        raise KeyError("a value of the call")

    monkeypatch.setattr(site.tasks.judged, "shadow_params", raises)
    with caplog.at_level(logging.WARNING, "spine_shims"):
        assert site.tasks.judged(1) == {"n": 1, "parts": (1, 2)}
    assert f"The shadow of {site.tasks.judged.name} was not compared: KeyError" in caplog.text
    assert "a value of the call" not in caplog.text
    assert site.runs_of("judged") == []


def test_only_handlers_that_change_nothing() -> None:
    with pytest.raises(ConfigurationError, match="pure=True"):
        Route("work", mode="shadow")
    assert Route("work", mode="shadow", dry_run=lambda params: {**params, "dry": True}).comparable


@pytest.mark.parametrize(
    ("old", "new", "paths"),
    [
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}, []),
        ({"a": 1}, {"b": 1}, ["$.a", "$.b"]),
        ([1, 2], [1], ["$[1]"]),
        ({"a": None}, {}, ["$.a"]),
        (True, 1, ["$"]),
        (1, 1.0, []),
        ("", None, ["$"]),
    ],
    ids=["equal", "keys", "length", "null and none", "true and one", "one and one", "empty and null"],
)
def test_differences(old: Any, new: Any, paths: list[str]) -> None:
    assert list(differences(old, new)) == paths
