"""The shims in a worker whose pool is threads or greenlets: executions at the same time in one process keep apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from celery import chord, group

from spine_shims import configure
from spine_shims.configuration import reset
from tests.celery_worker import until
from tests.database import Role
from tests.shims_place import Site, producing, relay_of, shims_place
from tests.shims_tasks import QUIET

pytestmark = pytest.mark.filterwarnings(QUIET)


@pytest.fixture(scope="module", params=["threads", "gevent"])
def threaded(request: pytest.FixtureRequest, server_url: str, owner: Role, redis_server_url: str) -> Iterator[Site]:
    with shims_place(server_url, owner, redis_server_url) as prefork:
        place = replace(prefork, pool=request.param)
        with place.worker(4) as worker, relay_of(place), producing(place, worker) as producer:
            configure(producer.dispatcher)
            producer.app.set_current()
            yield producer.site("dispatch")
            reset()


def test_executions_at_the_same_time(threaded: Site) -> None:
    """Each has its own run, parent and retries."""
    tasks = threaded.tasks
    results = [tasks.nested.delay(n) for n in range(12)]
    again = [tasks.again.delay(2) for _ in range(4)]
    body = chord(group(tasks.add.s(n, 1) for n in range(6)))(tasks.echo.s())
    assert [threaded.get(result) for result in results] == [n + 2 for n in range(12)]
    assert [threaded.get(result) for result in again] == [[2, True]] * 4
    assert threaded.get(body) == [[[n + 1 for n in range(6)]], {}]
    for result in (*results, *again):
        threaded.run(result)
    until(lambda: {run.status for run in threaded.runs_of("add")} == {"completed"}, "No end", threaded.worker)
    parents = [run.spec.parent_run_id for run in threaded.runs_of("add")]
    assert sorted(filter(None, parents)) == sorted(result.id for result in results)
    assert [run.attempt for run in threaded.runs_of("again")] == [3] * 4


def test_a_soft_time_limit_is_not_for_threads(threaded: Site) -> None:
    """As in Celery, which needs processes for it: the body goes on to its end."""
    result = threaded.tasks.limited.delay(4.4)
    assert threaded.get(result) == "slept"
    threaded.run(result)
