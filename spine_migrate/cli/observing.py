"""Who watches a long command: the options for hooks, metrics and the log, and the observers made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spine_migrate.cli import SAY, known
from spine_migrate.cli.signals import aloud
from spine_migrate.errors import ConfigurationError, Interrupted, Refused

if TYPE_CHECKING:
    from spine_migrate.notices import Observer
    from spine_migrate.observe.saying import Say


@dataclass(frozen=True)
class Observing:
    """The values of the options."""

    hooks: Path | None
    hook: tuple[str, ...]
    hook_timeout: float
    metrics_port: int | None
    metrics_host: str
    metrics_file: Path | None
    log_format: str

    @property
    def as_json(self) -> bool:
        return self.log_format == "json"


@dataclass(frozen=True)
class Observed:
    """``observer`` is for the stages. ``say`` says sentences on stderr, as text or in the log."""

    observer: Observer
    say: Say


_OPTIONS = (
    click.option(
        "--hooks",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Call the executables of this folder that are named by an event, such as before-cutover or on-throttle; "
        "one of before- that fails vetoes.",
    ),
    click.option(
        "--hook",
        multiple=True,
        metavar="EVENT=URL",
        help="Post the facts of an event to a URL, as JSON; for before- any status but 2xx vetoes. Repeatable.",
    ),
    click.option(
        "--hook-timeout",
        type=click.FloatRange(0, 3600, min_open=True),
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        help="How long a hook may take before it is killed and has failed.",
    ),
    click.option(
        "--metrics-port",
        type=click.IntRange(0, 65535),
        metavar="PORT",
        help="Serve metrics for Prometheus as long as the command runs; 0 takes a free port.",
    ),
    click.option(
        "--metrics-host", default="127.0.0.1", show_default=True, metavar="HOST", help="The address they are served on."
    ),
    click.option(
        "--metrics-file",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write metrics to this file, such as runs.prom of node_exporter's textfile collector.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Of the messages on stderr; json is an object in each line, without bars.",
    ),
)


def observing_options(command: Callable[..., None]) -> Callable[..., None]:
    """``observing: Observing``."""

    @wraps(command)
    def collected(**given: Any) -> None:
        observing = Observing(**{name: given.pop(name) for name in Observing.__dataclass_fields__})
        command(observing=observing, **given)

    for option in reversed(_OPTIONS):
        collected = option(collected)
    return collected


@contextmanager
def observed(observing: Observing, command: str, url: str | None) -> Iterator[Observed]:
    """While the block runs its notices go where the options say; its end is one more. All that was to be told has been
    when it is left. ``url`` leads to the ledger, whose migrations' waits for locks are among the metrics.

    Raises ConfigurationError where a hook or a place for metrics cannot be used.
    """
    from spine_migrate.notices import Observers
    from spine_migrate.observe.hooks import Hooks
    from spine_migrate.observe.log import JsonLog

    observers: list[Observer] = []
    say: Say = aloud
    if observing.as_json:
        log = JsonLog()
        say = click.get_current_context().meta[SAY] = log
        observers.append(log)
    with ExitStack() as stack:
        if observing.metrics_port is not None or observing.metrics_file is not None:
            observers.append(_metrics(observing, url, say, stack))
        if hooks := _hooks(observing):
            observers.append(stack.enter_context(Hooks(hooks, seconds=observing.hook_timeout, say=say)))
        found = Observed(Observers(tuple(observers)), say)
        with _ending(found, command):
            yield found


def _metrics(observing: Observing, url: str | None, say: Say, stack: ExitStack) -> Observer:
    try:
        from spine_migrate.observe.exporting import served, written
        from spine_migrate.observe.metrics import Metrics
    except ImportError as error:
        if error.name != "prometheus_client":
            raise
        raise ConfigurationError(
            "Metrics need prometheus-client; install it with: pip install 'spine-migrate[metrics]'."
        ) from error
    from spine_migrate.observe.waits import watched

    metrics = Metrics()
    if observing.metrics_port is not None:
        stack.enter_context(served(metrics.registry, observing.metrics_host, observing.metrics_port, say))
    if observing.metrics_file is not None:
        stack.enter_context(written(metrics.registry, observing.metrics_file, say))
    stack.enter_context(watched(url, metrics, say))
    return metrics


def _hooks(observing: Observing) -> list[tuple[str, Any]]:
    if observing.hooks is None and not observing.hook:
        return []
    from spine_migrate.observe.executable import in_folder
    from spine_migrate.observe.webhook import named

    found: list[tuple[str, Any]] = []
    if observing.hooks is not None:
        found += in_folder(observing.hooks).items()
    return [*found, *map(named, observing.hook)]


@contextmanager
def _ending(found: Observed, command: str) -> Iterator[None]:
    """Tells with which exit code the command ends."""
    from spine_migrate.notices import End

    code, name = 0, None
    try:
        yield
    except click.exceptions.Exit as ended:
        code = ended.exit_code
        raise
    except click.ClickException as wrong:
        code = wrong.exit_code
        raise
    except (KeyboardInterrupt, click.Abort):
        code = Interrupted.exit_code
        raise
    except Exception as error:
        failure = known(error)
        code = failure.exit_code
        name = failure.precondition if isinstance(failure, Refused) else None
        raise
    finally:
        found.observer.notice(End(command, code, name))
