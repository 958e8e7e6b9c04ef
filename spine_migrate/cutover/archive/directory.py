"""The directory of an archive: made under another name, on the disk before it takes its own, or not there at all."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spine_migrate.errors import ConfigurationError, Refused


@contextmanager
def building(directory: Path) -> Iterator[Path]:
    """A folder beside ``directory``, renamed to it when the block ends well, and removed when it does not.

    A lock on the folder tells one that is being filled from what a killed run has left, which is removed first. Only
    its owner may read it: it holds rows.

    Raises ConfigurationError where the place is taken or cannot be written, at the end too, and Refused
    (``archive-busy``) where another process is filling the same archive.
    """
    directory = directory.absolute()
    if os.path.lexists(directory):
        raise ConfigurationError(f"{directory} is there already; name a directory that is not there yet.")
    folder = directory.with_name(f".{directory.name}.partial")
    try:
        with _locked(folder, directory):
            try:
                yield folder
                _sync(folder)
                folder.rename(directory)
            except BaseException:
                # The first failure is the one to tell; a next run removes what is left here.
                with suppress(OSError):
                    _empty(folder)
                    folder.rmdir()
                raise
        _sync(directory.parent)
    except OSError as error:
        raise ConfigurationError(
            f"The archive {directory} cannot be written: {error.strerror or error}; nothing of it is there."
        ) from None


@contextmanager
def _locked(folder: Path, directory: Path) -> Iterator[None]:
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between the two calls it may have become somebody else's archive.
            same = os.path.samestat(os.fstat(descriptor), folder.lstat())
        except (BlockingIOError, FileNotFoundError):
            same = False
        if not same:
            raise Refused("archive-busy", f"Another process is writing the archive {directory}; wait for it.")
        _empty(folder)
        yield
    finally:
        os.close(descriptor)


def _empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put(file: Path, content: str) -> None:
    """A small text file, on the disk when this returns."""
    with file.open("x", encoding="utf-8") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
