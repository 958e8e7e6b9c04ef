"""Results of old tasks, and their revocation, through a real worker: the same in both modes.

The first two lines of each test's docstring are its row in shims/BEHAVIOUR.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import celery
import pytest
from celery.exceptions import TaskRevokedError

from tests.celery_worker import until
from tests.shims_place import Site
from tests.shims_tasks import QUIET
from tests.waiting import LONGEST

pytestmark = pytest.mark.filterwarnings(QUIET)


@dataclass
class Held:
    """A queue from which the worker takes nothing before it is let go."""

    queue: str
    let_go: Callable[[], None]


@pytest.fixture
def held(site: Site) -> Iterator[Held]:
    queue, control = f"{site.place.prefix}held", site.app.control
    with site.app.connection_for_write() as connection, connection.channel() as channel:
        # RabbitMQ drops what is sent to a queue that nobody has declared yet.
        site.app.amqp.queues[queue](channel).declare()
        yield Held(queue, lambda: site.told(control.add_consumer, queue))
        site.told(control.cancel_consumer, queue)
        channel.queue_delete(queue)


def test_get(site: Site) -> None:
    """Behaviour: `AsyncResult.get` waits for the result, by the result's object or the id alone.
    Kept by: the task's id is the one that Celery stores the result under.
    """
    result = site.tasks.add.delay(1, 2)
    assert site.get(result) == 3
    again = site.app.AsyncResult(result.id)
    assert (again.get(timeout=LONGEST), again.state, again.successful()) == (3, "SUCCESS", True)
    site.run(result)


def test_get_of_a_failure(site: Site) -> None:
    """Behaviour: `AsyncResult.get` raises what the body raised, and the traceback is stored.
    Kept by: a handler's exception is Celery's failure at once; only the task's own retries try it again.
    """
    result = site.tasks.fail.delay("the reason")
    with pytest.raises(ValueError, match="the reason"):
        site.get(result)
    assert (result.state, "the reason" in result.traceback) == ("FAILURE", True)
    run = site.run(result, "failed")
    if run is not None:
        assert (run.error, run.error_type, run.attempt) == ("the reason", "ValueError", 1)


def test_forget(site: Site) -> None:
    """Behaviour: `forget` deletes the result.
    Kept by: Celery's own; the run stays.
    """
    result = site.tasks.add.delay(1)
    site.get(result)
    result.forget()
    assert result.state == "PENDING"
    site.run(result)


def test_collect(site: Site) -> None:
    """Behaviour: `collect` and `parent` walk the results of what came before and next.
    Kept by: the ids in the messages are those of the canvas.
    """
    result = (site.tasks.add.s(1) | site.tasks.add.s(10)).delay()
    assert site.get(result) == 12
    assert [value for _, value in result.collect()] == [12]
    assert site.get(result.parent) == 2


def test_revoke_before_it_starts(site: Site, held: Held) -> None:
    """Behaviour: a task that is revoked before it starts is not executed, and its result says so.
    Kept by: workers remember the id and refuse the message; the run is cancelled.
    """
    result = site.tasks.add.apply_async((1,), queue=held.queue)
    site.told(site.app.control.revoke, result.id)
    held.let_go()
    with pytest.raises(TaskRevokedError):
        site.get(result)
    run = site.run(result, "cancelled")
    if run is not None:
        assert site.dispatcher.get_events(run.run_id)[-1].data == {"reason": "revoked"}
    assert site.noted("add") == []


def test_revoke_and_terminate(site: Site) -> None:
    """Behaviour: a task that is revoked with `terminate` is killed while it is executed.
    Kept by: Celery's own; the run is cancelled once its lease is over, and not tried again.
    """
    result = site.tasks.sleep.delay(60)
    until(lambda: site.noted("sleep"), "It does not start", site.worker)
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        site.get(result)
    if site.dispatches:
        asked = "SELECT FROM run_handoff WHERE run_id = %s AND cancel_requested"
        until(lambda: site.place.rows(asked, result.id), "The run is not to be cancelled", site.worker)
        site.lease_is_over(result)
    site.run(result, "cancelled")
    assert len(site.noted("sleep")) == 1


def test_a_run_that_is_cancelled(site: Site, held: Held) -> None:
    """Behaviour: whoever waits for a task learns that it was revoked.
    Kept by: so they do where its run was cancelled in the dispatcher, as soon as its message comes to a worker.
    """
    result = site.tasks.add.apply_async((1,), queue=held.queue)
    if site.dispatches:
        (run,) = site.runs(result.id)
        assert site.dispatcher.ledger.cancel(run.run_id, "not wanted").status == "cancelled"
        site.dispatcher.executor.submit(run)
    else:
        site.told(site.app.control.revoke, result.id)
    held.let_go()
    with pytest.raises(TaskRevokedError):
        site.get(result)
    assert site.noted("add") == []


def test_a_dead_letter_that_is_brought_back(site: Site) -> None:
    """Behaviour: a message that was given up is sent again by hand.
    Kept by: `reprocess` publishes the run's own message, links and all, under the task's id.
    """
    tasks = site.tasks
    links = {"link": tasks.plain.s("linked"), "link_error": tasks.errback.s()}
    result = tasks.rejected.apply_async(**links)
    until(lambda: site.noted("rejected"), "It is not executed", site.worker)
    # Celery's main process stores that, from 5.7 on; later it could overwrite what comes of the message sent again.
    until(
        lambda: celery.VERSION < (5, 7) or site.app.AsyncResult(result.id).state == "FAILURE",
        "It does not fail",
        site.worker,
    )
    run = site.run(result, "dead_lettered")
    if run is None:
        tasks.add.apply_async((5,), task_id=result.id, **links)
    else:
        # To see that it is the stored message, it is another one now.
        site.place.rows("UPDATE run_handoff SET message = replace(message::text, 'rejected', 'add')::jsonb RETURNING 1")
        site.place.rows(
            "UPDATE run_handoff SET message = jsonb_set(message, '{content}', to_jsonb(replace(message ->> 'content',"
            " '[[], {}', '[[5], {}'))) RETURNING 1"
        )
        site.dispatcher.reprocess(run.run_id)
    until(lambda: site.noted("plain"), "The link is not called", site.worker)
    assert site.noted("plain") == [("plain", [6, "linked"])]
    # The link is sent before the result is stored, and until then it is that of the first message.
    until(lambda: site.app.AsyncResult(result.id).state == "SUCCESS", "Its result is not stored", site.worker)
    assert site.get(result) == 6


def test_a_run_that_is_published_twice(site: Site) -> None:
    """Behaviour: a message that is delivered again, for want of an acknowledgement, is executed again.
    Kept by: a run is claimed once: a second delivery is ignored, and links are called once.
    """
    result = site.tasks.add.apply_async((1,), link=site.tasks.plain.s())
    assert site.get(result) == 2
    run = site.run(result)
    if run is not None:
        for _ in range(3):
            site.dispatcher.executor.submit(run)
        site.deliveries(result, 3)
    until(lambda: site.noted("plain"), "The link is not called", site.worker)
    assert len(site.noted("plain")) == 1
    assert len(site.noted("add")) == 1
