"""Room on the disk of a SQLite file, so that a full one does not stay full."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeVar

import sqlalchemy as sa

from txgearman.broker.dead_job import DeadJob
from txgearman.broker.kept_result import KeptResult
from txgearman.broker.stored_job import StoredJob
from txgearman.errors import StoreUnavailable
from txgearman.store.session import Session
from txgearman.store.sqlite.session import BUSY_TIMEOUT, PAGE_SIZE, error_code

WAL_PAGES: Final = 5000
"""Pages in the write-ahead log before they are moved into the database: 40 MB, on a large enough disk. With
SQLite's 1000 the moving, which needs two more fsyncs, would come ten times a second under load."""

WAL_SHARE: Final = 16
"""The part of a disk that the log may have before that: a sixteenth, where that is less."""

SPACE_MARGIN: Final = 32 * PAGE_SIZE
"""Bytes of the disk that saves leave free: so removals, which free space, need not use the reserve at
once."""

AMPLE_SPACE: Final = 4 * 1024**3
"""Free bytes from which on no closer check is needed: more than four jobs of the largest size."""

DISK_CHECK_INTERVAL: Final = 0.1
"""Seconds between two checks of a disk with that much space, which no writer fills in that time."""

JOB_SIZE: Final = 2048
"""Bytes of a job in the database beside its data, its entries in all indexes included: a function's name has
512 at most, and is there three times."""

CHANGED_PAGES: Final = 8
"""Pages that every transaction changes at most, beside those that it fills with jobs."""

_RESERVE_SUFFIX: Final = "-reserve"

_Result = TypeVar("_Result")


class Reserve:
    """Room on the disk of the database at `path`, kept by a file beside it that holds nothing.

    The write-ahead log cannot be emptied without room for what it adds to the database, nor a job removed
    without room in the log. So a disk that is full would stay full. CockroachDB keeps such a file too, and
    calls it ballast.
    """

    def __init__(self, path: str) -> None:
        self._path = path + _RESERVE_SUFFIX
        self._wal_path = path + "-wal"
        self._folder = os.path.dirname(path)
        self.is_held = False

    @property
    def wal_limit(self) -> int:
        """Bytes of the log from which on it is emptied."""
        size, _, _ = self._disk()
        return max(1, min(WAL_PAGES, size // WAL_SHARE // PAGE_SIZE)) * PAGE_SIZE

    @property
    def _size(self) -> int:
        """Bytes to keep: those of a log somewhat larger than it is meant to be, as the last transaction comes
        whole, and of the file beside it that SQLite needs to open it."""
        return self.wal_limit * 5 // 4 + SPACE_MARGIN

    @property
    def settings(self) -> tuple[str, ...]:
        """What SQLite is to be told about the log on this disk."""
        return (
            f"PRAGMA wal_autocheckpoint={self.wal_limit // PAGE_SIZE}",
            f"PRAGMA journal_size_limit={2 * self.wal_limit}",
        )

    @property
    def free(self) -> int:
        """Bytes that are left on the disk."""
        _, _, free = self._disk()
        return free

    def _disk(self) -> tuple[int, int, int]:
        """Bytes that the disk has, that are used, and that are free."""
        try:
            return shutil.disk_usage(self._folder)
        except OSError as error:
            raise StoreUnavailable(f"{self._folder}: {error.strerror}") from error

    @property
    def wal_size(self) -> int:
        """Bytes of the log's file, which it may not use all."""
        try:
            return os.stat(self._wal_path).st_size
        except FileNotFoundError:
            return 0

    def take(self) -> bool:
        """Keep the room, if it is there; returns whether it is kept."""
        if not self.is_held:
            try:
                with open(self._path, "ab") as file:
                    _allocate(file.fileno(), self._size)
                self.is_held = True
            except OSError:
                # What was allocated before it failed is needed by others.
                self.release()
        return self.is_held

    def release(self) -> bool:
        """Give the room to whoever needs it; returns whether there was any."""
        self.is_held = False
        with contextlib.suppress(OSError):
            if os.stat(self._path).st_size:
                os.truncate(self._path, 0)
                return True
        return False


def _allocate(file: int, size: int) -> None:
    """Let a file have so many bytes that are really there. Raises `OSError`."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    # Not on macOS; a file made longer would have holes.
    os.ftruncate(file, 0)
    left = size
    while left:
        left -= os.write(file, bytes(min(left, 1024 * 1024)))


class DiskSpace:
    """Whether there is room for what is to be written, by a look at the disk ahead of it.

    Args:
        session: The connection.
        reserve: The room that is kept beside the file.
    """

    def __init__(self, session: Session, reserve: Reserve) -> None:
        self._session = session
        self.reserve = reserve
        self._ample_until = 0.0

    def require(self, saves: Sequence[StoredJob], moves: Collection[DeadJob | KeptResult] = ()) -> None:
        """Raise `StoreUnavailable` unless there is room for saving these jobs and for moving those from one
        table to the other, in the log and then, when that is emptied, in the database. Without jobs it is
        asked for room for the smallest."""
        now = time.monotonic()
        if now < self._ample_until:
            return
        reserve = self.reserve
        left = reserve.free - reserve.wal_size
        if reserve.is_held and left > AMPLE_SPACE:
            self._ample_until = now + DISK_CHECK_INTERVAL
            return
        in_wal, in_database = _space_for(saves, moves)
        if reserve.is_held and left > reserve.wal_limit + in_wal + in_database + SPACE_MARGIN:
            return
        if self._has_space(in_wal, in_database) or (self._vacuum() and self._has_space(in_wal, in_database)):
            return
        raise StoreUnavailable(
            f"{self._session.redacted_url}: the disk is full: "
            f"{reserve.free} bytes are left beside the reserve"
        )

    def _has_space(self, in_wal: int, in_database: int) -> bool:
        """Whether there is room for so many bytes, with the log emptied before."""
        # What the log holds must still be moved, if somebody reads what it replaces.
        owed = 0 if self.checkpoint() else self.reserve.wal_size
        grown = max(0, in_database - self._pages("freelist_count") * PAGE_SIZE)
        if grown:
            # The database keeps its size. What uses the same pages again, later, still needs a log.
            in_wal = max(in_wal, self.reserve.wal_limit)
        return self.reserve.is_held and self.reserve.free >= owed + in_wal + grown + SPACE_MARGIN

    def _vacuum(self) -> bool:
        """Give back to the disk what the database does not use, if that is most of it and there is room for
        writing the rest anew. Returns whether that was done."""
        unused = self._pages("freelist_count")
        used = self._pages("page_count") - unused
        # It is written twice: in a file of its own, and then into the log.
        if unused < used or self.reserve.free < 2 * used * PAGE_SIZE + SPACE_MARGIN:
            return False
        try:
            with self._session.connected() as connection:
                connection.exec_driver_sql("VACUUM")
        except StoreUnavailable:
            return False
        return True

    def _pages(self, which: str) -> int:
        """A number of pages that SQLite counts."""
        with self._session.connected() as connection:
            (number,) = connection.exec_driver_sql(f"PRAGMA {which}").one()
        return int(number)

    def with_reserve(self, work: Callable[[], _Result]) -> _Result:
        """Do what makes room, or must not fail for want of it, with the reserve where that is needed."""
        try:
            return work()
        except StoreUnavailable as error:
            if not (is_disk_full(error) and self.reserve.release()):
                raise
        try:
            return work()
        finally:
            self.checkpoint()

    def checkpoint(self) -> bool:
        """Move the log into the database, with the reserve if need be, and give the log's room back. Returns
        False where that cannot be done now, as somebody reads or there is no room at all."""
        try:
            emptied = self._truncate_wal()
        except StoreUnavailable as error:
            if not (is_disk_full(error) and self.reserve.release()):
                return False
            try:
                emptied = self._truncate_wal()
            except StoreUnavailable:
                emptied = False
        self.reserve.take()
        return emptied

    def _truncate_wal(self) -> bool:
        with self._session.connected() as connection:
            # Not to wait for a reader, a backup for example.
            connection.exec_driver_sql("PRAGMA busy_timeout=0")
            try:
                busy, _, _ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
            finally:
                connection.exec_driver_sql(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT * 1000)}")
        return not busy


def _space_for(saves: Sequence[StoredJob], moves: Collection[DeadJob | KeptResult]) -> tuple[int, int]:
    """Bytes that saving and moving these jobs takes in the log at most, and then in the database. None count
    as one."""
    size = sum(len(job.data) for job in saves) + max(1, len(saves)) * JOB_SIZE
    size += sum(job.weight + JOB_SIZE for job in moves)
    # What SQLite needs beside, and pages that are not quite full.
    size += size // 8
    # Jobs stand one behind the other, in the queue of their function too. But each unique has its own page.
    uniques = max(1, sum(1 for job in saves if job.unique))
    functions = max(1, len({job.function for job in saves}))
    # A row that moves changes its page and one of its function's queue; each unique has its own page again.
    size_of_moves = 3 * len(moves) * PAGE_SIZE
    return size + (
        uniques + 2 * functions + CHANGED_PAGES
    ) * PAGE_SIZE + size_of_moves, size + CHANGED_PAGES * PAGE_SIZE


def is_disk_full(error: StoreUnavailable) -> bool:
    """Whether more room on the disk may help. SQLite calls it an error of input or output where it has no
    room for the file that leads to its log."""
    cause = error.__cause__
    codes = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
    return isinstance(cause, sa.exc.DBAPIError) and error_code(cause) in codes
