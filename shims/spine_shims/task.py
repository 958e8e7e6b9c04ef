"""The base class of old tasks that go through the dispatcher, under their old names and with their old signatures.

The message stays the old task's: its name, its id, its arguments and options, so that results, canvas, revocation,
routing, annotations, signals, rate and time limits are Celery's own business as before. What changes is who publishes
it, which is the dispatcher with the run that it has stored, and that a worker claims that run before the body and marks
it afterwards. See producing.py, executing.py and adopting.py.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from celery import Task
from celery.app.task import Context
from celery.utils import uuid

from spine_migrate.execution.errors import BackendError
from spine_migrate.execution.runs import RunRecord
from spine_migrate.execution.spec import WorkSpec
from spine_shims.beginning import begun, of_message, of_run
from spine_shims.configuration import configuration
from spine_shims.counting import caller, counted, sender
from spine_shims.executing import SHADOW_ON_REQUEST, Again, Execution, aside, entering, running
from spine_shims.message import outgoing, stored
from spine_shims.modes import Side
from spine_shims.producing import sent_after, submit
from spine_shims.route import Route

if TYPE_CHECKING:
    from spine_shims.shadowing import Shadow

_log = logging.getLogger(__name__)

#: Set on a request once the body was called for it: a body may call its own task, in the same request.
_SEEN = "spine_seen"
#: How often a run is executed again whose worker was lost, where its task has to stand that anyhow.
_RETRIES = 3


class RerouteTask(Task):  # type: ignore[misc]  # Celery has no types
    """``route`` says how calls become runs; a task without one is as Celery has it. ``run`` is the old body, and
    ``legacy`` is that body where ``run`` is asked for a dispatched call. ``adopt_again_seconds`` pass before a message
    is looked at again that could not be adopted, because the database was away or the entity busy.
    """

    abstract = True
    Request = "spine_shims.requests:ShimRequest"
    route: Route | None = None
    adopt_again_seconds = 10.0
    legacy: Callable[..., Any]
    body_signature: inspect.Signature

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        given = cls.__dict__.get("run")
        if given is None or cls.route is None:
            return
        # Celery makes a function that is not bound to its task a static method.
        function, first = (given.__func__, 0) if isinstance(given, staticmethod) else (given, 1)
        found = inspect.signature(function)
        cls.legacy = given
        cls.body_signature = found.replace(parameters=list(found.parameters.values())[first:])
        cls.run = _run_of(function, cls.body_signature)

    def apply_async(  # noqa: PLR0917 - as in Celery
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> Any:
        """As Celery's; ``connection`` may be a psycopg connection, whose transaction the call is part of then.

        Raises also InvalidSpecError for what cannot be carried, BackendError where the database is away and
        ``fallback`` is ``fail``, and ShimRemoved.
        """
        of_celery = {"producer": producer, "link": link, "link_error": link_error, "shadow": shadow, **options}
        if self.route is None or self.app.conf.task_always_eager:
            return super().apply_async(args, kwargs, task_id=task_id, **of_celery)
        task_id = task_id or uuid()
        by = running(self.app)
        if by is not None and by.task.name == self.name and by.is_retried_by(task_id, options):
            return self._retried(by, args, kwargs, task_id, of_celery)
        config = configuration()
        mode, side = config.side_of_call(self.name, self.route, task_id)
        if not options.get("retries"):
            config.called(self.name, self.route, caller(by), mode, side)
            if config.telemetry is not None and side is not Side.DISPATCH:
                of_celery["headers"] = counted(options.get("headers"))
        connection = _of_database(options)
        if connection is not None:
            del of_celery["connection"]
        if side is not Side.DISPATCH:
            return super().apply_async(args, kwargs, task_id=task_id, **of_celery)
        try:
            return self._dispatched(args, kwargs, task_id, of_celery, by, connection)
        except BackendError:
            # What comes next has nobody who could call again; the worker that gets the message makes it a run.
            comes_next = by is not None and by.ended
            if connection is not None or not (config.falls_back or comes_next):
                raise
        config.count(self.name, "fallback: no database", mode, Side.LEGACY)
        if config.telemetry is not None:
            of_celery["headers"] = counted(options.get("headers"))
        return super().apply_async(args, kwargs, task_id=task_id, **sent_after(by, of_celery))

    def apply(  # noqa: PLR0917 - as in Celery
        self,
        args: Any = None,
        kwargs: Any = None,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        retries: int | None = None,
        **options: Any,
    ) -> Any:
        task_id = task_id or uuid()
        if self.route is not None and not retries:
            config = configuration()
            mode, side = config.side_of_message(self.name, self.route, task_id)
            config.called(self.name, self.route, caller(running(self.app)), mode, side)
        return super().apply(args, kwargs, link, link_error, task_id, retries, **options)

    def replace(self, sig: Any) -> Any:
        by = running(self.app)
        if by is not None and by.task is self:
            by.replaced_by = str(sig.task)
        return super().replace(sig)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Celery's tracer calls it with the request at hand; anybody else calls directly, which makes a run too."""
        if self.route is None:
            return super().__call__(*args, **kwargs)
        request = self.request
        if request.called_directly or getattr(request, _SEEN, False):
            return self._called_directly(args, kwargs)
        setattr(request, _SEEN, True)
        return self._traced(request, args, kwargs)

    # What the parts of the shim ask of a task.

    def run_spec(self, args: tuple[Any, ...], kwargs: dict[str, Any], **fields: Any) -> WorkSpec:
        """Raises as ``Route.spec``."""
        return self.routed.spec(self.body_signature, args, kwargs, **fields)

    def bare_spec(self, *, queue: str | None, **fields: Any) -> WorkSpec:
        """Of a call whose arguments no params can be made of."""
        route = self.routed
        return Route(route.name, route.kind, dict, route.lane, route.priority).spec(
            inspect.Signature(), (), {}, queue=queue, urgency=None, **fields
        )

    def shadow_params(self, params: dict[str, Any]) -> dict[str, Any]:
        """Those with which the handler changes nothing."""
        return params if self.routed.dry_run is None else self.routed.dry_run(params)

    @property
    def spine_shim(self) -> str | None:
        """What ``inspect registered`` tells of a task that has its shim, see fleet.py."""
        return None if self.route is None else "yes"

    @property
    def lost_worker_retries(self) -> int:
        given = self.routed.lost_worker_retries
        if given is not None:
            return given
        return _RETRIES if self.acks_late else 0

    def hand_over(self, run: RunRecord) -> None:
        configuration().dispatcher(self.app).hand_over(run)

    def options_of(self, request: Context) -> dict[str, Any]:
        """With which the message of a request is published again."""
        options = {**self.signature_from_request(request).options, "eta": None, "countdown": None}
        del options["task_id"]
        return outgoing(self, (), {}, request.id, options).message.options

    def tell_revoked(self, request: Context, why: str) -> None:
        self.backend.mark_as_revoked(request.id, why, request=request)

    @cached_property
    def routed(self) -> Route:
        if self.route is None:
            raise TypeError(f"The task {self.name} has no route.")
        return self.route

    def _dispatched(  # noqa: PLR0917 - as in apply_async
        self, args: Any, kwargs: Any, task_id: str, options: dict[str, Any], by: Execution | None, connection: Any
    ) -> Any:
        args, kwargs, options = self._prepared(args, kwargs, options)
        given = tuple(args or ()), dict(kwargs or {})
        result = submit(self, *given, task_id, dict(options), by=by, connection=connection)
        result.ignored = options["ignore_result"]
        parent = self.app.current_worker_task
        if parent is not None and options.get("add_to_parent", True):
            parent.add_trail(result)
        return result

    def _prepared(self, args: Any, kwargs: Any, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """What Celery's own ``apply_async`` does before it sends."""
        if self.soft_time_limit and self.time_limit and self.soft_time_limit > self.time_limit:
            raise ValueError("soft_time_limit must be less than or equal to time_limit")
        if self.typing and (check := getattr(self, "__header__", None)) is not None:
            check(*(args or ()), **(kwargs or {}))
        shadow = options.pop("shadow", None) or self.shadow_name(args, kwargs, options)
        options = {**self._get_exec_options(), **options, "shadow": shadow}
        dump = getattr(self, "_dump_pydantic_arguments", None)
        if dump is not None and options.get("serializer") != "pickle":
            args, kwargs = dump(args, kwargs)
        if options.get("ignore_result") is None:
            options["ignore_result"] = self.ignore_result
        return args, kwargs, options

    def _retried(self, by: Execution, args: Any, kwargs: Any, task_id: str, options: dict[str, Any]) -> Any:
        args, kwargs, options = self._prepared(args, kwargs, options)
        again = outgoing(self, tuple(args or ()), dict(kwargs or {}), task_id, options)
        by.retry(Again(stored(again.message), again.due_at))
        return self.AsyncResult(task_id)

    def _called_directly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        config = configuration()
        task_id, by = uuid(), running(self.app)
        mode, side = config.side_of_message(self.name, self.routed, task_id)
        config.called(self.name, self.routed, caller(by), mode, side)
        body = super().__call__
        if side is Side.SHADOW:
            shadow = self._shadow(None, args, kwargs)
            try:
                with aside():
                    return shadow.watch(lambda: body(*args, **kwargs))
            finally:
                shadow.compare()
        if side is Side.LEGACY:
            with aside():
                return body(*args, **kwargs)
        # As Celery has it in a direct call: a request that says so.
        self.push_request(args=args, kwargs=kwargs)
        try:
            execution = begun(self, args, kwargs, by)
        except BackendError:
            if not config.falls_back:
                raise
            config.count(self.name, "fallback: no database", mode, Side.LEGACY)
            execution = None
        finally:
            self.pop_request()
        if execution is None:
            with aside():
                return body(*args, **kwargs)
        try:
            return execution.call(lambda: body(*args, **kwargs))
        finally:
            execution.mark()

    def _traced(self, request: Context, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        execution = of_run(self, request)
        if execution is None:
            config = configuration()
            mode, side = config.side_of_delivery(self.name, self.routed, request)
            if not request.is_eager and not request.retries:
                config.count(self.name, sender(request), mode, side)
            if side is Side.DISPATCH:
                execution = of_message(self, request, args, kwargs, mode)
            elif side is Side.SHADOW:
                shadow = self._shadow(request.id, args, kwargs)
                setattr(request, SHADOW_ON_REQUEST, shadow)
                with aside():
                    return shadow.watch(lambda: self._through(args, kwargs))
        if execution is None:
            with aside():
                return self._through(args, kwargs)
        return execution.call(lambda: self._through(args, kwargs))

    def _shadow(self, task_id: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Shadow:
        # Few tasks are compared, and a worker starts sooner without.
        from spine_shims.shadowing import Shadow

        return Shadow(self, task_id, args, kwargs)

    def _through(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As the tracer would: by ``__call__`` where the application's own base class has one, else ``run``."""
        kinds = type(self).__mro__
        after = kinds[kinds.index(RerouteTask) + 1 :]
        if any("__call__" in kind.__dict__ for kind in after if kind is not Task):
            return super().__call__(*args, **kwargs)
        return self.run(*args, **kwargs)


def _run_of(function: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    """What stands in for the old body: it, or the handler where the body of a dispatched call is asked for."""

    def run(self: RerouteTask, *args: Any, **kwargs: Any) -> Any:
        execution = entering(self)
        return self.legacy(*args, **kwargs) if execution is None else execution.enter(args, kwargs)

    itself = inspect.Parameter("spine_task", inspect.Parameter.POSITIONAL_ONLY)
    run.__doc__ = function.__doc__
    run.__signature__ = signature.replace(parameters=[itself, *signature.parameters.values()])  # type: ignore[attr-defined]  # Celery looks at it for arguments of a retry
    return run


def _of_database(options: dict[str, Any]) -> Any:
    """The option ``connection`` where it is psycopg's."""
    given = options.get("connection")
    return given if type(given).__module__.partition(".")[0] == "psycopg" else None
