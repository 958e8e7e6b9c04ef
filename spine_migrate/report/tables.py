"""Tables for people: with boxes and colours on a terminal, plain and unwrapped elsewhere."""

from __future__ import annotations

from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

# Lines of a file or a pipe are not wrapped.
_UNWRAPPED = 100_000


def console_for(file: TextIO) -> Console:
    return Console(file=file, highlight=False, markup=False, emoji=False, width=None if file.isatty() else _UNWRAPPED)


def table(*headings: str, boxes: bool, right: tuple[str, ...] = ()) -> Table:
    """``right`` are the headings of columns of numbers."""
    made = Table(box=box.SIMPLE_HEAD if boxes else None, pad_edge=False, header_style="bold")
    for heading in headings:
        made.add_column(heading, overflow="fold", justify="right" if heading in right else "left")
    return made
