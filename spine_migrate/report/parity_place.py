"""Where a mapping's file lies, as the tools that annotate code name files."""

from __future__ import annotations

from pathlib import Path

# What an installation holds is no part of the repository around it, even where it lies inside.
_INSTALLED = {"site-packages", "dist-packages"}


def in_repository(file: str | None) -> str | None:
    """The path from the root of the git repository that the file lies in, with slashes; None outside of one."""
    if file is None:
        return None
    path = Path(file)
    if not path.is_absolute() or _INSTALLED & set(path.parts):
        return None
    root = next((folder for folder in path.parents if (folder / ".git").exists()), None)
    return path.relative_to(root).as_posix() if root else None


def uri(file: str) -> str:
    """A file: URI, for what lies in no repository. Raises ValueError where ``file`` is no absolute path."""
    return Path(file).as_uri()
