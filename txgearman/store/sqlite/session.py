"""The connection to a SQLite file."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Final

import sqlalchemy as sa

from txgearman.errors import StoreError, StoreUnavailable
from txgearman.store.session import Session

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another program that writes to the file, such as an operator's shell."""

PAGE_SIZE: Final = 8192
"""Bytes. 4096 took a third more with 1 KiB of data."""

CACHE_SIZE: Final = 32 * 1024
"""KiB of pages kept in memory."""

SETTINGS: Final = (
    f"PRAGMA page_size={PAGE_SIZE}",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA fullfsync=ON",  # macOS: its fsync alone does not reach the disk.
    "PRAGMA secure_delete=OFF",  # Debian's build overwrites what is deleted, which writes it again.
    f"PRAGMA cache_size=-{CACHE_SIZE}",
)

# Takes the lock to write at once: SQLite refuses it to whoever has read what was changed since.
BEGIN: Final = "BEGIN IMMEDIATE"


class SqliteSession(Session):
    """A connection to the file at the path of `url`.

    Args:
        url: Where the file is.
        log_settings: Gives what SQLite is to be told about its log, whenever it is opened.
    """

    def __init__(self, url: sa.URL, log_settings: Callable[[], tuple[str, ...]]) -> None:
        self._path = url.database
        self._log_settings = log_settings
        super().__init__(url)

    def _arguments(self) -> dict[str, Any]:
        return {"timeout": BUSY_TIMEOUT, "check_same_thread": False}

    def _prepare(self, connection: sa.Connection) -> None:
        try:
            for setting in (*SETTINGS, *self._log_settings()):
                connection.exec_driver_sql(setting)
        except sa.exc.DatabaseError as error:
            if error_code(error) == sqlite3.SQLITE_NOTADB:
                raise StoreError(f"{self._path} is not a SQLite database") from error
            raise

    @contextlib.contextmanager
    def writing(self, statements: int, together: bool = False) -> Iterator[sa.Connection]:
        with self.connected() as connection:
            # A single statement is a transaction of its own, with fewer waits for the interpreter's lock.
            if statements == 1:
                yield connection
            else:
                connection.exec_driver_sql(BEGIN)
                yield connection
                connection.exec_driver_sql("COMMIT")

    def _classify(self, error: sa.exc.DBAPIError) -> type[Exception] | None:
        # After an error of input or output nothing that SQLite remembers of the file can be trusted.
        return StoreUnavailable if error_code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL} else None


def error_code(error: sa.exc.DBAPIError) -> int:
    """SQLite's primary result code."""
    return getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
