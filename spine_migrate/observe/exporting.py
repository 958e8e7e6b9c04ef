"""Metrics on a port, and in a file for node_exporter's textfile collector."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile

from spine_migrate.errors import ConfigurationError
from spine_migrate.observe.saying import Say

#: Prometheus commonly looks every 15 seconds.
SECONDS_BETWEEN = 5.0


@contextmanager
def served(registry: CollectorRegistry, host: str, port: int, say: Say) -> Iterator[None]:
    """While the block runs, at ``/metrics``; port 0 takes a free one, which is said.

    Raises ConfigurationError where the address cannot be had.
    """
    try:
        server, thread = start_http_server(port, host, registry)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"Metrics cannot be served on {host} port {port} ({why}); give another one."
        ) from error
    try:
        shown = f"[{host}]" if ":" in host else host
        say(f"Metrics are at http://{shown}:{server.server_port}/metrics.", event="metrics")
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def written(registry: CollectorRegistry, file: Path, say: Say, *, seconds: float = SECONDS_BETWEEN) -> Iterator[None]:
    """While the block runs, every ``seconds``, and once more at its end; each time whole or not at all.

    Raises ConfigurationError where the file cannot be written at the start; later that is said, and tried again.
    """
    try:
        write_to_textfile(str(file), registry)
    except OSError as error:
        raise ConfigurationError(f"Metrics cannot be written to {file}: {error.strerror or error}.") from error
    over = threading.Event()

    def write() -> None:
        well = True
        while True:
            ended = over.wait(seconds)
            try:
                write_to_textfile(str(file), registry)
                well = True
            except OSError as error:
                if well:
                    why = error.strerror or error
                    say(f"Metrics cannot be written to {file}: {why}.", event="metrics", level="warning")
                well = False
            if ended:
                return

    writer = threading.Thread(target=write, name="spine-metrics", daemon=True)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()
