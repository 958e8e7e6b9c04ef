"""What is read from the answers of workers that were asked which tasks they have."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from celery import Celery

from spine_shims import fleet
from spine_shims.fleet import Fleet, Look
from spine_shims.tables import Tables

TASKS = {"app.add", "app.slow"}
NEW = ["app.add [spine_shim=yes]", "app.plain", "app.slow [spine_shim=yes]", "spine.execute_run"]
OLD = ["app.add", "app.plain", "app.slow"]


def test_who_has_a_task_without_its_shim() -> None:
    seen = Look.of([{"new@a": NEW}, {"old@b": OLD}, {"other@c": ["app.plain"]}], TASKS)
    assert seen.nodes == {"new@a"}
    assert seen.without == (("app.add", "old@b"), ("app.slow", "old@b"))


def test_one_task_has_its_shim_and_another_has_not_yet() -> None:
    seen = Look.of([{"a": ["app.add [spine_shim=yes]", "app.slow"]}], TASKS)
    assert seen == Look(frozenset({"a"}), (("app.slow", "a"),))


def test_two_nodes_of_one_name_are_two() -> None:
    """As containers are that have one hostname; what one answers does not hide the other."""
    for answers in ([{"a": NEW}, {"a": OLD}], [{"a": OLD}, {"a": NEW}]):
        seen = Look.of(answers, TASKS)
        assert seen == Look(frozenset({"a"}), (("app.add", "a"), ("app.slow", "a")))


def test_an_answer_that_is_an_error_says_nothing() -> None:
    assert Look.of([{"a": {"error": "no such command"}}, {"b": [{"error": "x"}]}], TASKS) == Look(frozenset(), ())


def test_whoever_looks_goes_on_whatever_looking_raises(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody else would look again, and the worker would not be announced."""
    raised, waited = [AttributeError("secret"), TypeError("secret")], []

    def look(app: Celery, tasks: Collection[str], patience: float) -> Look:
        waited.append(patience)
        if raised:
            raise raised.pop()
        return Look.of([{"new@a": NEW}], tasks)

    monkeypatch.setattr(fleet, "look", look)
    monkeypatch.setattr(fleet, "_PATIENCE", 0.01)

    class Announced(Exception):
        pass

    def announce() -> None:
        raise Announced

    with Celery("looks", broker="memory://", set_as_current=False) as app, pytest.raises(Announced):
        Fleet(Tables.at(""))._watch(app, "new@a", TASKS, announce)  # noqa: SLF001 - its thread would never end
    # Longer than later on: one that answers late is not known before.
    assert waited == [3.0] * 3
    assert "looking raised TypeError" in caplog.text
    assert "secret" not in caplog.text
