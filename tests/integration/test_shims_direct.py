"""Calls that the caller publishes: there is no relay here, but where a test starts one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from celery import chain

from spine_shims import configure
from spine_shims.configuration import configuration, reset
from tests.celery_worker import until
from tests.database import Role
from tests.patience import have_patience
from tests.shims_place import Producer, Site, producing, relay_of, shims_place
from tests.shims_tasks import QUIET

pytestmark = pytest.mark.filterwarnings(QUIET)


@pytest.fixture(scope="module")
def direct(server_url: str, owner: Role, redis_server_url: str) -> Iterator[Site]:
    with shims_place(server_url, owner, redis_server_url) as relayed:
        place = replace(relayed, variables={"SPINE_TEST_PUBLISH": "direct"})
        with place.worker() as worker, producing(place, worker) as producer:
            yield from _configured(producer)


def _configured(producer: Producer) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch:
        have_patience(patch)
        configure(producer.place.url, publish="direct", wait_for_disk=False, workers_first=False)
        producer.app.set_current()
        yield producer.site("dispatch")
        telemetry = configuration().telemetry
        reset()
    assert telemetry is not None
    telemetry.close()


def test_published_by_the_caller(direct: Site) -> None:
    result = direct.tasks.add.delay(1)
    assert direct.get(result) == 2
    run = direct.run(result)
    assert run is not None
    _noted(direct, run.run_id)


def test_a_retry_that_is_due_is_published_by_the_worker(direct: Site) -> None:
    result = direct.tasks.again.delay(2)
    assert direct.get(result) == [2, True]
    run = direct.run(result)
    assert run is not None
    assert run.attempt == 3


def test_what_comes_next_and_what_a_body_calls(direct: Site) -> None:
    assert direct.get(chain(direct.tasks.add.s(1), direct.tasks.add.s(10))()) == 12
    called = direct.get(direct.tasks.parent.delay(3))
    for task_id in called:
        run = direct.run(task_id)
        assert run is not None
        _noted(direct, run.run_id)


def test_what_is_due_later_is_left_to_the_relay(direct: Site) -> None:
    later = direct.tasks.add.apply_async((1,), countdown=0.2)
    # When it is due was said before it is marked, which may take a while.
    again = direct.tasks.again.delay(1, 10)
    until(lambda: direct.noted("again"), "It is not executed.", direct.worker)
    until(lambda: "retry_scheduled" in direct.events(again), "It is not retried.", direct.worker)
    assert direct.get(direct.tasks.add.delay(2)) == 3
    assert [run.status for task in (later, again) for run in direct.runs(task.id)] == ["pending", "pending"]
    with relay_of(direct.place):
        assert direct.get(later) == 2
        assert direct.get(again) == [1, True]


def _noted(site: Site, run_id: str) -> None:
    """By whom it was carried, by the caller's process or by the worker's, which nobody waits for."""
    until(
        lambda: site.dispatcher.get_runs([run_id])[0].executor_name == "celery",
        f"Nobody has noted who carried the run {run_id}.",
        site.worker,
    )
