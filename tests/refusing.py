"""A listener that lets nobody in."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SSL, _GSS = 80877103, 80877104


@contextmanager
def speaking(code: str, words: str, refused: list[int] | None = None) -> Iterator[str]:
    """A listener that refuses everybody as a PostgreSQL of another language does (PostgreSQL manual, 54.2.1). No server
    at hand has translations, and the locale for them would have to be installed. ``refused`` gets an entry for each.
    """
    fields = "".join(
        f"{letter}{text}\0" for letter, text in (("S", "FATAL"), ("V", "FATAL"), ("C", code), ("M", words))
    )
    body = fields.encode() + b"\0"

    def refuse() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                while True:
                    size, version = struct.unpack("!ii", client.recv(8, socket.MSG_WAITALL))
                    client.recv(size - 8, socket.MSG_WAITALL)
                    if version not in (_SSL, _GSS):
                        break
                    client.sendall(b"N")
                if refused is not None:
                    refused.append(1)
                client.sendall(b"E" + struct.pack("!i", len(body) + 4) + body)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse)
        thread.start()
        try:
            yield f"postgresql://guarded:hunter2@127.0.0.1:{listener.getsockname()[1]}/app"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
