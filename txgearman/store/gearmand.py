"""The queue that gearmand's modules ``libsqlite3`` and ``Postgres`` keep, for taking it over."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from txgearman.errors import StoreError, StoreUnavailable
from txgearman.store.urls import parse_url

READ_BATCH: Final = 500
"""Jobs that are read in one batch, and are in memory at the same time."""

_PRIORITIES: Final = frozenset({0, 1, 2})
_NORMAL: Final = 1


class _Kind(NamedTuple):
    """How a kind of database keeps the queue. `name` and `data` give columns as the bytes they are: a name
    need not be text in any encoding, and SQLite's columns may hold anything."""

    table: str
    name: str
    data: str
    order: str
    lock: str


_KINDS: Final = {
    # As gearmand names the tables unless it is told otherwise, and in the order in which it reads them.
    "sqlite": _Kind("gearman_queue", "CAST({} AS BLOB)", "CAST(data AS BLOB)", "rowid", "BEGIN IMMEDIATE"),
    "postgresql": _Kind(
        "queue",
        "convert_to({}, getdatabaseencoding())",
        "data",
        "ctid",
        "BEGIN; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
    ),
}


class QueuedJob(NamedTuple):
    """A job in gearmand's table. `priority` is as in a `StoredJob`, `run_at` is seconds since the epoch."""

    function: bytes
    unique: bytes
    data: bytes
    priority: int
    run_at: float | None


class GearmandQueue:
    """The table `table`, None for gearmand's default, in the database that `url` names, locked.

    To be used in a ``with`` statement. What happens within it happens whole or not at all.
    Raises `StoreError` where there is no such table, and `StoreUnavailable` for what the database says.
    """

    def __init__(self, url: str, table: str | None = None) -> None:
        self._url = parse_url(url)
        backend = self._url.get_backend_name()
        self._kind = _KINDS[backend]
        self.table = table or self._kind.table
        self._redacted_url = self._url.set(drivername=backend, query={}).render_as_string()

    def __enter__(self) -> GearmandQueue:
        path = self._url.database
        if self._url.get_backend_name() == "sqlite" and not (path and os.path.isfile(path)):
            # SQLite would make an empty one.
            raise StoreError(f"there is no file {path}")
        with self._errors():
            engine = sa.create_engine(self._url, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT")
            self._connection = engine.connect()
        try:
            with self._errors():
                if not self._has(self.table):
                    before = " It was migrated before." if self._has(self._new_name(1)) else ""
                    raise StoreError(f"{self._redacted_url} has no table {self.table}.{before}")
                self._connection.exec_driver_sql(self._kind.lock.format(self._quoted(self.table)))
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        try:
            with self._errors():
                self._connection.exec_driver_sql("ROLLBACK" if kind else "COMMIT")
        finally:
            self._connection.close()

    def jobs(self) -> Iterator[list[QueuedJob]]:
        """All jobs, in gearmand's order, in batches."""
        function, unique = (self._kind.name.format(name) for name in ("function_name", "unique_key"))
        query = sa.text(
            f"SELECT {function}, {unique}, {self._kind.data}, priority, when_to_run"
            f" FROM {self._quoted(self.table)} ORDER BY {self._kind.order}"
        )
        with self._errors():
            result = self._connection.execute(query.execution_options(yield_per=READ_BATCH))
            for rows in result.partitions(READ_BATCH):
                yield [_job(row) for row in rows]

    def rename_table(self) -> str:
        """Rename the table, so that nobody runs its jobs again; returns the new name."""
        with self._errors():
            name = next(name for number in count(1) if not self._has(name := self._new_name(number)))
            self._connection.exec_driver_sql(
                f"ALTER TABLE {self._quoted(self.table)} RENAME TO {self._quoted(name)}"
            )
        return name

    def _new_name(self, number: int) -> str:
        return f"{self.table}_migrated" + (f"_{number}" if number > 1 else "")

    def _has(self, table: str) -> bool:
        return sa.inspect(self._connection).has_table(table)

    def _quoted(self, table: str) -> str:
        return self._connection.dialect.identifier_preparer.quote(table)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as error:
            raise StoreUnavailable(f"{self._redacted_url}: {' '.join(str(error.orig).split())}") from error


def _job(row: Sequence[Any]) -> QueuedJob:
    function, unique, data, priority, run_at = row
    return QueuedJob(
        function or b"",
        unique or b"",
        # gearmand keeps no data as NULL, and then cannot read it itself.
        data or b"",
        priority if priority in _PRIORITIES else _NORMAL,
        float(run_at) if run_at else None,
    )
