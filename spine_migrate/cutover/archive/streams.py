"""Rows on their way into gzip files and back, with what proves that they are the same: in constant memory."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from spine_migrate.cutover.archive.manifest import Damaged
from spine_migrate.cutover.archive.model import File

# Rows are compressed in chunks of about this many bytes.
_CHUNK = 1 << 18
_LEVEL = 6
_MODULUS = 1 << 256


class Rows:
    """How many rows there were and a digest of them that does not depend on their order: the sum of the SHA-256 of each
    row's line in COPY's text format, as numbers, modulo 2^256. A row that stands twice counts twice.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0

    def add(self, line: Any) -> None:
        """``line`` ends with its line feed."""
        self.count += 1
        self._sum += int.from_bytes(sha256(line).digest(), "big")

    @property
    def digest(self) -> str:
        return f"{self._sum % _MODULUS:064x}"


class _Hashed:
    """A file that is written, counted and hashed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.bytes = 0
        self.sha256 = sha256()

    def write(self, content: bytes) -> int:
        self.bytes += len(content)
        self.sha256.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()


class Writer:
    """One data file. Raises OSError as the file system does. ``close`` gives what the manifest says of it."""

    def __init__(self, file: Path) -> None:
        self._name = file.name
        self._raw = file.open("xb")
        self._hashed = _Hashed(self._raw)
        # Without a name and a time the same rows give the same file.
        self._gzip = gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=self._hashed, mtime=0)
        self._chunk: list[Any] = []
        self._waiting = 0
        self._stream = sha256()
        self.stream_bytes = 0
        self.rows = 0

    def add(self, line: Any) -> None:
        self._chunk.append(line)
        self._waiting += len(line)
        self.stream_bytes += len(line)
        self.rows += 1
        if self._waiting >= _CHUNK:
            self._compress()

    def _compress(self) -> None:
        content = b"".join(self._chunk)
        self._chunk, self._waiting = [], 0
        self._stream.update(content)
        self._gzip.write(content)

    def close(self) -> File:
        """On the disk, not only on its way there."""
        self._compress()
        self._gzip.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        self._raw.close()
        hashed = self._hashed
        return File(
            name=self._name,
            bytes=hashed.bytes,
            sha256=hashed.sha256.hexdigest(),
            rows=self.rows,
            stream_bytes=self.stream_bytes,
            stream_sha256=self._stream.hexdigest(),
        )

    def abandon(self) -> None:
        """Let go of the file, whatever state it is in."""
        for part in (self._gzip, self._raw):
            with suppress(OSError, ValueError):
                part.close()


def lines(directory: Path, file: File) -> Iterator[bytes]:
    """The rows of one data file. Raises Damaged, at the latest behind the last row, where they are not those that were
    written; OSError where it cannot be read.
    """
    rows, size, stream = 0, 0, sha256()
    try:
        with gzip.open(directory / file.name, "rb") as opened:
            for line in opened:
                rows += 1
                size += len(line)
                stream.update(line)
                yield line
    except FileNotFoundError:
        raise Damaged(file.name, "is missing") from None
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise Damaged(file.name, "cannot be decompressed") from None
    if rows != file.rows:
        raise Damaged(file.name, f"holds {rows} rows, the manifest says {file.rows}")
    if (size, stream.hexdigest()) != (file.stream_bytes, file.stream_sha256):
        raise Damaged(file.name, "does not hold the rows that were written: their SHA-256 is another")


def hashed(file: Path) -> tuple[int, str]:
    """Bytes and SHA-256 of a file as it is on the disk."""
    size, found = 0, sha256()
    with file.open("rb") as opened:
        while content := opened.read(1 << 20):
            size += len(content)
            found.update(content)
    return size, found.hexdigest()
