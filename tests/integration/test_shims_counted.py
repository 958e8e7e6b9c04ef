"""Which of the lines of the report a call comes to, by way of a worker that counts too."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator

import pytest
from celery import chain

from spine_shims import configure
from spine_shims.configuration import reset
from spine_shims.tables import Tables
from spine_shims.telemetry import Telemetry
from tests.celery_worker import until
from tests.database import Role, patient
from tests.shims_place import Producer, Site, producing, relay_of, shims_place
from tests.shims_tasks import MODES, QUIET

pytestmark = pytest.mark.filterwarnings(QUIET)

HOST = socket.gethostname()


@pytest.fixture(scope="module")
def producer(server_url: str, owner: Role, redis_server_url: str) -> Iterator[Producer]:
    """One process executes, so that what it has counted is stored in the order in which it was executed."""
    with (
        shims_place(server_url, owner, redis_server_url) as place,
        place.worker(1) as worker,
        relay_of(place),
        producing(place, worker) as made,
    ):
        yield made


@pytest.fixture(params=MODES)
def counting(request: pytest.FixtureRequest, producer: Producer) -> Iterator[tuple[Site, Telemetry]]:
    telemetry = Telemetry(Tables.at(patient(producer.place.url)), host="producer")
    configure(producer.dispatcher, telemetry=telemetry)
    producer.app.set_current()
    yield producer.site(request.param), telemetry
    reset()
    telemetry.close()


def test_each_call_is_one_of_its_line(counting: tuple[Site, Telemetry]) -> None:
    """And, where it went the old way, one of its sender, that says so. A retry is no call."""
    site, telemetry = counting
    for _ in range(3):
        site.get(site.tasks.add.delay(1))
    assert site.get(site.tasks.again.delay(2)) == [2, True]
    assert site.get(site.tasks.add.apply_async((1,), headers={"trace": "7"})) == 2
    assert site.get(chain(site.tasks.add.s(1), site.tasks.add.s(2))()) == 4
    for _ in range(2):
        site.get(site.app.send_task(f"{site.mode}.add", (1,)))
    assert telemetry.flush()
    sent = (f"{site.mode}.add", f"message from {HOST}")
    until(lambda: _counted(site)[sent] == 2, "The worker has stored nothing", site.worker)
    counts = _counted(site)
    here = "test_each_call_is_one_of_its_line"
    expected = Counter({(f"{site.mode}.add", here): 5, (f"{site.mode}.again", here): 1, sent: 2})
    if site.dispatches:
        expected[f"{site.mode}.add", f"after {site.mode}.add"] = 1
    else:
        # Of the chain's second task; nobody knows what it comes after.
        expected[f"{site.mode}.add", "unknown"] = 1
        expected[f"{site.mode}.add", f"message from {HOST}, counted there"] = 6
        expected[f"{site.mode}.again", f"message from {HOST}, counted there"] = 1
    assert counts == expected


def test_headers_of_the_caller_stay_as_they_are(counting: tuple[Site, Telemetry]) -> None:
    site, _ = counting
    given = {"trace": "7"}
    said = site.get(site.tasks.request.apply_async(headers=given))
    assert (said["headers"], given) == ({"trace": "7"}, {"trace": "7"})


def _counted(site: Site) -> Counter[tuple[str, str]]:
    """Of the two tasks in this mode, by task and caller; of a line only its function."""
    counts: Counter[tuple[str, str]] = Counter()
    told = "SELECT task, caller, count::int FROM shim_call WHERE task IN (%s, %s)"
    for task, where, count in site.place.rows(told, f"{site.mode}.add", f"{site.mode}.again"):
        counts[task, where.rpartition(" ")[2] if ".py:" in where else where] += count
    return counts
