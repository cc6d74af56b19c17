"""Jobs in a SQLite file: one server's own, with nothing to install."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from itertools import count
from typing import Final

import sqlalchemy as sa

from txgearman.broker.stored_job import StoredJob
from txgearman.errors import StoreError
from txgearman.store import tables
from txgearman.store.contract import Renewal
from txgearman.store.contract.slots import Slot, SlotChanges
from txgearman.store.database import DatabaseStore
from txgearman.store.sqlite.disk import DiskSpace, Reserve
from txgearman.store.sqlite.job_writes import SqliteJobWrites
from txgearman.store.sqlite.rows import (
    SqliteDeadJobRows,
    SqliteResultRows,
    SqliteScheduleRows,
    SqliteSettingRows,
)
from txgearman.store.sqlite.session import BEGIN, SqliteSession

_OWNER_LOCK_SUFFIX: Final = "-owner"
_UNFINISHED_SUFFIX: Final = ".unfinished"
_SQLITE_LENGTH_LIMIT: Final = 1_000_000_000
"""Bytes of a row at most: SQLite's default for SQLITE_MAX_LENGTH."""


class SqliteStore(DatabaseStore):
    """A file at `url`'s path. While it is open a file beside it, with ``-owner`` at the end of its name, is
    locked, which keeps other servers away; the lock ends with the process, however that ends.

    On a full disk jobs are not saved any more, but still removed: see `Reserve`.
    """

    largest_data = _SQLITE_LENGTH_LIMIT - 1_000_000
    shared = False

    def __init__(self, url: sa.URL) -> None:
        path = url.database
        if url.host or not path or path == ":memory:" or path.startswith("file:") or url.query:
            raise StoreError(
                f"{url.render_as_string()} names no file: say sqlite:///PATH, "
                "or sqlite:////PATH for a path that begins at the root"
            )
        # A relative path would change its meaning when the process changes its folder, as daemons do.
        self._path = os.path.realpath(path)
        self._ownership: sqlite3.Connection | None = None
        self._name = ""
        reserve = Reserve(self._path)
        session = SqliteSession(url.set(database=self._path), lambda: reserve.settings)
        self._space = space = DiskSpace(session, reserve)
        schedules = SqliteScheduleRows(session)
        super().__init__(
            session,
            SqliteJobWrites(session, schedules, space),
            schedules,
            SqliteDeadJobRows(session, space),
            SqliteResultRows(session, space),
            SqliteSettingRows(session, space),
        )

    def open(self, name: str, lease: float) -> int:
        self._lock_file()
        try:
            start = self._space.with_reserve(lambda: super(SqliteStore, self).open(name, lease))
            if not self._space.reserve.take():
                self._space.checkpoint()
            return start
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

    def renew(self) -> Renewal:
        return Renewal(False, 0, [], False)

    def take_over(self, limit: int, position: int) -> list[StoredJob]:
        return []

    def exchange_slots(self, changes: SlotChanges) -> list[Slot]:
        return []

    def _lock_file(self) -> None:
        """Lock the file against other servers, or raise `StoreError`."""
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
        try:
            with (
                contextlib.closing(sqlite3.connect(self._path)) as source,
                contextlib.closing(sqlite3.connect(unfinished)) as target,
            ):
                source.backup(target)
            os.replace(unfinished, copy)
        except (sqlite3.Error, OSError) as error:
            # On a full disk SQLite may leave its journal behind.
            for left in (unfinished, unfinished + "-journal"):
                with contextlib.suppress(OSError):
                    os.unlink(left)
            raise StoreError(
                f"{self._path} cannot be copied to {copy} ahead of its upgrade: {error}"
            ) from error

    def _begin_opening(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(BEGIN)

    def _register(self, connection: sa.Connection, start: int, name: str, lease: float) -> None:
        self._name = name


def _copy_names(path: str, version: int) -> Iterator[str]:
    """Names for a copy of the database with tables of `version`; an older copy keeps its name."""
    name = f"{path}.version-{version}"
    yield name
    yield from (f"{name}.{number}" for number in count(2))
