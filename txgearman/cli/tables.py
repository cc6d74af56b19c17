"""Prints rows: as a table without a frame, the same in a terminal and in a pipe, or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from txgearman.cli.exit_codes import printable

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
    console = Console() if console is None else console
    rows = [list(row) for row in rows]
    if console.is_terminal:
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
        print("  ".join(padded).rstrip(), file=console.file)


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Table:
    """Make a table that `rich` draws."""
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
    objects = [dict(zip(columns, row, strict=True)) for row in rows]
    json.dump(objects, sys.stdout, indent=2)
    print()


def _is_number(cells: Iterable[Cell]) -> bool:
    return all(
        cell is None or (isinstance(cell, int | float) and not isinstance(cell, bool)) for cell in cells
    )
