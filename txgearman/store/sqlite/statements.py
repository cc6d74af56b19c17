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


def insertion(table: str, columns: tuple[str, ...], rows: Sequence[Row]) -> tuple[str, Row]:
    """A statement that inserts rows which are not there, and its values.

    Compiling one costs more than running it. So there are few, for powers of two; values of NULL fill up.
    """
    size = 1 << (len(rows) - 1).bit_length()
    values = (*chain.from_iterable(rows), *(None,) * ((size - len(rows)) * len(columns)))
    return _insertion_of(table, columns, size), values


@functools.cache
def _insertion_of(table: str, columns: tuple[str, ...], size: int) -> str:
    names = ", ".join(f'"{name}"' for name in columns)
    values = ", ".join(f"column{number}" for number in range(1, len(columns) + 1))
    row = f"({', '.join('?' * len(columns))})"
    return (
        f"INSERT INTO {table} ({names}) SELECT {values} FROM (VALUES {', '.join([row] * size)})"
        " WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING"
    )
