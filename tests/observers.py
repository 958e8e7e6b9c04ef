"""Observers that tests look at, and hooks that leave behind what they were told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from spine_migrate.notices import Notice

Kind = TypeVar("Kind")


@dataclass
class Remembering:
    """Keeps every notice."""

    notices: list[Notice] = field(default_factory=list)

    def notice(self, notice: Notice, /) -> None:
        self.notices.append(notice)

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [notice for notice in self.notices if isinstance(notice, kind)]


@dataclass
class Heard:
    """What was said: sentence, event, level."""

    said: list[tuple[str, str, str]] = field(default_factory=list)

    def __call__(self, sentence: str, /, *, event: str = "message", level: str = "info") -> None:
        self.said.append((sentence, event, level))


def executable(folder: Path, event: str, script: str) -> Path:
    """A shell script that is called on an event."""
    folder.mkdir(exist_ok=True)
    file = folder / event
    file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    file.chmod(0o755)
    return file


@dataclass
class Listener:
    """A web service: what was posted to it, by path; ``status`` is its answer. ``hold`` keeps it from answering."""

    url: str
    posted: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    status: int = 204
    hold: threading.Event = field(default_factory=threading.Event)


@contextmanager
def listening() -> Iterator[Listener]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            listener.posted.append((self.path, json.loads(body)))
            listener.hold.wait(30)
            self.send_response(listener.status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener = Listener(f"http://127.0.0.1:{server.server_port}")
    listener.hold.set()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield listener
    finally:
        listener.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
