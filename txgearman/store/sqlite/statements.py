"""How rows get into a SQLite file by few statements."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import sqlalchemy as sa

STATEMENT_ROWS: Final = 2048
"""Jobs, or ticks, that one statement inserts at most. The compiled statement takes 2 MB of memory."""

FAILED_ROWS: Final = 256
"""Failed jobs that one statement changes or buries at most: their statements are made anew each time."""

Row = tuple[Any, ...]
"""The values of one row."""


def execute_for(connection: sa.Connection, sql: str, rows: Sequence[Row]) -> None:
    """Execute a statement for so many rows of values, which it has as a table in the place of ``{}``."""
    for start in range(0, len(rows), FAILED_ROWS):
        some = rows[start : start + FAILED_ROWS]
        row = f"({', '.join('?' * len(some[0]))})"
        values = f"VALUES {', '.join([row] * len(some))}"
        connection.exec_driver_sql(sql.format(values), (*chain.from_iterable(some),))


def insertion(sql: str, rows: Sequence[Row]) -> tuple[str, Row]:
    """A statement that inserts rows, which it has as a table in the place of ``{}``, and its values.

    Compiling one costs more than running it. So there are few, for powers of two. Rows of NULL fill up, which
    the statement must pass over.
    """
    width, size = len(rows[0]), 1 << (len(rows) - 1).bit_length()
    values = (*chain.from_iterable(rows), *(None,) * ((size - len(rows)) * width))
    return _insertion_of(sql, width, size), values


@functools.cache
def _insertion_of(sql: str, width: int, size: int) -> str:
    row = f"({', '.join('?' * width)})"
    return sql.format(f"VALUES {', '.join([row] * size)}")
