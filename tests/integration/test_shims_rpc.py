"""The result backend ``rpc://``, whose results are messages to a queue of the caller's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from spine_shims import configure
from spine_shims.configuration import reset
from tests.celery_worker import CeleryWorker, Place, until
from tests.database import Role
from tests.shims_place import Site, producing, relay_of, shims_place
from tests.shims_tasks import MODES, QUIET

pytestmark = pytest.mark.filterwarnings(QUIET)


@pytest.fixture(scope="module")
def worker(server_url: str, owner: Role, redis_server_url: str) -> Iterator[tuple[Place, CeleryWorker]]:
    with shims_place(server_url, owner, redis_server_url) as with_redis:
        place = replace(with_redis, results="rpc://")
        with place.worker() as worker, relay_of(place):
            yield place, worker


@pytest.fixture(params=MODES)
def site(request: pytest.FixtureRequest, worker: tuple[Place, CeleryWorker]) -> Iterator[Site]:
    """A producer of its own, which has called nothing yet."""
    with producing(*worker) as producer:
        configure(producer.dispatcher)
        producer.app.set_current()
        yield producer.site(request.param)
        reset()


def test_a_result_that_comes_before_it_is_asked_for(site: Site) -> None:
    result = site.tasks.add.delay(2, 3)
    until(lambda: site.noted("add", result.id), "It is not executed", site.worker)
    # A second one, whose result comes after that of the first.
    assert site.get(site.tasks.echo.delay()) == [[], {}]
    assert site.get(result) == 5
    site.run(result)
