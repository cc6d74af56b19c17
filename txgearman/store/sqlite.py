"""Jobs in a SQLite file: one server's own, with nothing to install.

A commit is one fsync of the write-ahead log (``synchronous=FULL``). Each write is one statement for each
kind of change, whatever the number of jobs: a batch of 1000 jobs of 64 bytes took 7 ms, of 1 KiB 11 ms,
and beside a thread that keeps the interpreter busy 13 and 24 ms. The index of the queues cost a tenth of
that. Pages of 8 KiB instead of 4 saved a quarter with 1 KiB of data. Random uniques double it, as
each changes another page of their index.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain, count
from typing import Any, Final

import sqlalchemy as sa

from txgearman.errors import StoreError, StoreUnavailable
from txgearman.store import tables
from txgearman.store.contract import SavedJob
from txgearman.store.database import DatabaseStore, Row

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another program that writes to the file, an operator's shell for example."""

PAGE_SIZE: Final = 8192
"""Bytes. See the measurements above."""

LOG_PAGES: Final = 5000
"""Pages in the write-ahead log before they are moved into the database: 40 MB. With SQLite's 1000 the
moving, which needs two more fsyncs, would come ten times a second under load."""

CACHE_SIZE: Final = 32 * 1024
"""KiB of pages kept in memory."""

STATEMENT_ROWS: Final = 2048
"""Jobs that one statement inserts at most. The compiled statement takes 2 MB of memory."""

_OWNER_LOCK_SUFFIX: Final = "-owner"
_UNFINISHED_SUFFIX: Final = ".unfinished"
_SQLITE_LENGTH_LIMIT: Final = 1_000_000_000
"""Bytes of a row at most: SQLite's default for SQLITE_MAX_LENGTH."""

SETTINGS: Final = (
    f"PRAGMA page_size={PAGE_SIZE}",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA fullfsync=ON",  # macOS: its fsync alone does not reach the disk.
    "PRAGMA secure_delete=OFF",  # Debian's build overwrites what is deleted, which writes it again.
    f"PRAGMA wal_autocheckpoint={LOG_PAGES}",
    f"PRAGMA journal_size_limit={2 * LOG_PAGES * PAGE_SIZE}",
    f"PRAGMA cache_size=-{CACHE_SIZE}",
)

# Takes the lock to write at once: SQLite refuses it to whoever has read what was changed since.
_BEGIN: Final = "BEGIN IMMEDIATE"

# The numbers come as one JSON text, so that the statement is the same, and compiled, for any number of them.
_DELETE: Final = "DELETE FROM txgearman_job WHERE number IN (SELECT value FROM json_each(?))"
_SET_ATTEMPTS: Final = (
    "UPDATE txgearman_job SET attempts = json_extract(new.value, '$[1]') FROM json_each(?) AS new"
    " WHERE number = json_extract(new.value, '$[0]')"
)


class SqliteStore(DatabaseStore):
    """A file at `url`'s path. While it is open a file beside it, with ``-owner`` at the end of its name, is
    locked, which keeps other servers away; the lock ends with the process, however that ends."""

    largest_data = _SQLITE_LENGTH_LIMIT - 1_000_000
    shared = False

    def __init__(self, url: sa.URL) -> None:
        path = url.database
        if url.host or not path or path == ":memory:" or path.startswith("file:") or url.query:
            raise StoreError(
                f"{url.render_as_string()} names no file: say sqlite:///PATH, "
                "or sqlite:////PATH for a path that begins at the root"
            )
        # Of a relative path another name is made once the process changes its folder, as daemons do.
        self._path = os.path.realpath(path)
        self._ownership: sqlite3.Connection | None = None
        super().__init__(url.set(database=self._path))

    def open(self, name: str, lease: float) -> int:
        self._own()
        try:
            return super().open(name, lease)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        super().close()
        ownership, self._ownership = self._ownership, None
        if ownership is not None:
            ownership.close()

    def servers(self) -> list[str]:
        return [self._name]

    def renew(self) -> bool:
        return False

    def adopt(self, limit: int, place: int) -> list[SavedJob]:
        return []

    def _own(self) -> None:
        """Keep other servers away from the file, or raise `StoreError`."""
        if self._ownership is not None:
            return
        if os.path.isdir(self._path):
            raise StoreError(f"cannot keep jobs in {self._path}: it is a folder")
        try:
            lock = sqlite3.connect(
                self._path + _OWNER_LOCK_SUFFIX, timeout=0, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise StoreError(f"cannot keep jobs in {self._path}: {error}") from error
        try:
            # Nothing is ever written to it, so it needs no journal, which would be a third file.
            lock.execute("PRAGMA journal_mode=OFF")
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            lock.close()
            busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
            why = "another server uses it" if busy else str(error)
            raise StoreError(f"cannot keep jobs in {self._path}: {why}") from error
        self._ownership = lock

    def _arguments(self) -> dict[str, Any]:
        return {"timeout": BUSY_TIMEOUT, "check_same_thread": False}

    def _prepare(self, connection: sa.Connection) -> None:
        try:
            for setting in SETTINGS:
                connection.exec_driver_sql(setting)
        except sa.exc.DatabaseError as error:
            if _code(error) == sqlite3.SQLITE_NOTADB:
                raise StoreError(f"{self._path} is not a SQLite database") from error
            raise

    def _bring_up_to_date(self, connection: sa.Connection) -> None:
        names = sa.inspect(connection).get_table_names()
        if names and tables.META.name not in names:
            raise StoreError(
                f"{self._path} is a database of something else: it holds {', '.join(names)} "
                f"and no {tables.META.name}"
            )
        super()._bring_up_to_date(connection)

    def _before_upgrade(self, connection: sa.Connection, version: int) -> None:
        """Keep a copy of the whole database beside it."""
        copy = next(path for path in _copy_names(self._path, version) if not os.path.exists(path))
        unfinished = copy + _UNFINISHED_SUFFIX
        with (
            contextlib.closing(sqlite3.connect(self._path)) as source,
            contextlib.closing(sqlite3.connect(unfinished)) as target,
        ):
            source.backup(target)
        os.replace(unfinished, copy)

    @contextlib.contextmanager
    def _writing(self, statements: int) -> Iterator[sa.Connection]:
        with self._connected() as connection:
            # A single statement is a transaction of its own, with fewer waits for the interpreter's lock.
            if statements == 1:
                yield connection
            else:
                connection.exec_driver_sql(_BEGIN)
                yield connection
                connection.exec_driver_sql("COMMIT")

    def _begin_opening(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(_BEGIN)

    def _register(self, connection: sa.Connection, start: int, name: str, lease: float) -> None:
        self._name = name

    def _pieces(self, rows: Sequence[Row]) -> list[Sequence[Row]]:
        return [rows[start : start + STATEMENT_ROWS] for start in range(0, len(rows), STATEMENT_ROWS)]

    def _insert(self, connection: sa.Connection, rows: Sequence[Row]) -> int:
        sql, size = _insertion(len(rows))
        values = (*chain.from_iterable(rows), *(None,) * ((size - len(rows)) * len(tables.WRITTEN)))
        return connection.exec_driver_sql(sql, values).rowcount

    def _delete(self, connection: sa.Connection, numbers: Sequence[int], joins: dict[int, float]) -> int:
        return connection.exec_driver_sql(_DELETE, (json.dumps(numbers),)).rowcount

    def _set_attempts(self, connection: sa.Connection, attempts: dict[int, int]) -> None:
        connection.exec_driver_sql(_SET_ATTEMPTS, (json.dumps(list(attempts.items())),))

    def _judge(self, error: sa.exc.DBAPIError) -> type[Exception] | None:
        # After an error of input or output nothing that SQLite remembers of the file can be trusted.
        return StoreUnavailable if _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL} else None


def _copy_names(path: str, version: int) -> Iterator[str]:
    """Names for a copy of the database with tables of `version`; an older copy keeps its name."""
    name = f"{path}.version-{version}"
    yield name
    yield from (f"{name}.{number}" for number in count(2))


def _code(error: sa.exc.DBAPIError) -> int:
    """SQLite's primary result code."""
    return getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


@functools.cache
def _insertion(rows: int) -> tuple[str, int]:
    """A statement that inserts `rows` jobs, and how many rows of values it must be given.

    Compiling one costs more than running it. So there are few, for powers of two; values of NULL fill up.
    """
    size = 1 << (rows - 1).bit_length()
    names = ", ".join(f'"{column.name}"' for column in tables.WRITTEN)
    values = ", ".join(f"column{number}" for number in range(1, len(tables.WRITTEN) + 1))
    row = f"({', '.join('?' * len(tables.WRITTEN))})"
    return (
        f"INSERT INTO txgearman_job ({names}) SELECT {values} FROM (VALUES {', '.join([row] * size)})"
        " WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING",
        size,
    )
