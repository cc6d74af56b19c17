"""Prints rows: as a table without a frame, the same in a terminal and in a pipe, or as JSON. Forms of values
that several commands show, too.

`rich` is imported for terminals alone: it takes as long to load as the rest of the command.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from txgearman.cli.exit_codes import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Cell = str | int | float | bool | None


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Cell]], console: Console | None = None
) -> None:
    """Print a table. Numbers are aligned to the right.

    Args:
        columns: The titles of the columns.
        rows: The rows.
        console: Where to print; standard output by default.
    """
    rows = [list(row) for row in rows]
    if console is None and sys.stdout.isatty():
        from rich.console import Console

        console = Console()
    if console is not None and console.is_terminal:
        console.print(table(columns, rows))
        return
    # In a pipe nothing may be cut off: a program may read it.
    cells = [list(columns), *[[cell_text(cell) for cell in row] for row in rows]]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    right = [_is_number(row) for row in zip(*rows, strict=True)] or [False] * len(columns)
    for row in cells:
        padded = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        ]
        print("  ".join(padded).rstrip(), file=None if console is None else console.file)


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Table:
    """Make a table that `rich` draws."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    numbers = [_is_number(cells) for cells in zip(*rows, strict=True)] or [False] * len(columns)
    for column, number in zip(columns, numbers, strict=True):
        shown.add_column(column, justify="right" if number else "left", no_wrap=number)
    for row in rows:
        # As Text: a name is not markup.
        shown.add_row(*[Text(cell_text(cell)) for cell in row])
    return shown


def cell_text(cell: Cell) -> str:
    """The text of a cell."""
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return printable(cell) if isinstance(cell, str) else f"{cell}"


def print_json(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print `rows` as a JSON array of objects, whose keys are the columns."""
    array = JsonArray()
    for row in rows:
        array.write(dict(zip(columns, row, strict=True)))
    array.close()


class JsonArray:
    """Writes a JSON array of objects to standard output, each as soon as it is there.

    Attributes:
        is_empty: Whether nothing was written yet.
    """

    def __init__(self) -> None:
        self.is_empty = True

    def write(self, value: Mapping[str, object]) -> None:
        """Write the next object."""
        # No text in JSON has a line feed, so each one begins a line of its own.
        text = json.dumps(value, indent=2).replace("\n", "\n  ")
        sys.stdout.write(("[\n  " if self.is_empty else ",\n  ") + text)
        self.is_empty = False

    def close(self) -> None:
        """End the array."""
        sys.stdout.write("[]\n" if self.is_empty else "\n]\n")


def text_or_base64(name: str, data: bytes) -> dict[str, str]:
    """The member of a JSON object that has `data`: as text, or in Base64 under another name if it is none."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def local_time(seconds: float | None) -> str | None:
    """A number of seconds since 1970 as date and time of this machine's zone; None for None."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):
        # A server may say any number, and dates end with the year 9999.
        return f"{seconds}"


_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def duration_text(seconds: float) -> str:
    """A duration in its two largest units: ``12s``, ``3m 20s``, ``2d 5h``."""
    left = int(seconds)
    for index, (size, unit) in enumerate(_UNITS):
        if left >= size:
            whole, rest = divmod(left, size)
            if index + 1 == len(_UNITS):
                return f"{whole}{unit}"
            smaller, name = _UNITS[index + 1]
            return f"{whole}{unit} {rest // smaller}{name}" if rest // smaller else f"{whole}{unit}"
    return "0s"


def size_text(size: float) -> str:
    """A number of bytes in the largest unit that it reaches: ``64 MiB``, ``1.5 KiB``, ``12 bytes``."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size >= 1024**power:
            return f"{round(size / 1024**power, 1):g} {unit}"
    return f"{size:g} bytes"


def _is_number(cells: Iterable[Cell]) -> bool:
    return all(
        cell is None or (isinstance(cell, int | float) and not isinstance(cell, bool)) for cell in cells
    )
