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
import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import chain, count
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from txgearman.broker.dead_job import DeadJob
from txgearman.errors import StoreError, StoreUnavailable
from txgearman.store import tables
from txgearman.store.contract import (
    Changes,
    Evicted,
    KeptResult,
    KeptUnique,
    Renewal,
    Retry,
    SettingChanges,
    Slot,
    SlotChanges,
    StoredJob,
    Written,
)
from txgearman.store.database import DatabaseStore, Row
from txgearman.store.schedules import TickRow

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another program that writes to the file, such as an operator's shell."""

PAGE_SIZE: Final = 8192
"""Bytes. See the measurements above."""

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

CACHE_SIZE: Final = 32 * 1024
"""KiB of pages kept in memory."""

STATEMENT_ROWS: Final = 2048
"""Jobs, or ticks, that one statement inserts at most. The compiled statement takes 2 MB of memory."""

FAILED_ROWS: Final = 256
"""Failed jobs that one statement changes or buries at most: their statements are made anew each time."""

DISK_CHECK_INTERVAL: Final = 0.1
"""Seconds between two checks of a disk with that much space, which no writer fills in that time."""

JOB_SIZE: Final = 2048
"""Bytes of a job in the database beside its data, its entries in all indexes included: a function's name has
512 at most, and is there three times."""

CHANGED_PAGES: Final = 8
"""Pages that every transaction changes at most, beside those that it fills with jobs."""

_OWNER_LOCK_SUFFIX: Final = "-owner"
_RESERVE_SUFFIX: Final = "-reserve"
_UNFINISHED_SUFFIX: Final = ".unfinished"
_SQLITE_LENGTH_LIMIT: Final = 1_000_000_000
"""Bytes of a row at most: SQLite's default for SQLITE_MAX_LENGTH."""

_Result = TypeVar("_Result")

SETTINGS: Final = (
    f"PRAGMA page_size={PAGE_SIZE}",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA fullfsync=ON",  # macOS: its fsync alone does not reach the disk.
    "PRAGMA secure_delete=OFF",  # Debian's build overwrites what is deleted, which writes it again.
    f"PRAGMA cache_size=-{CACHE_SIZE}",
)

# Takes the lock to write at once: SQLite refuses it to whoever has read what was changed since.
_BEGIN: Final = "BEGIN IMMEDIATE"

# The numbers come as one JSON text, so that the statement is the same, and compiled, for any number of them.
_DELETE: Final = "DELETE FROM txgearman_job WHERE number IN (SELECT value FROM json_each(?))"
_SET_LOSSES: Final = (
    "UPDATE txgearman_job SET losses = json_extract(new.value, '$[1]') FROM json_each(?) AS new"
    " WHERE number = json_extract(new.value, '$[0]')"
)
# JSON has no bytes, and a statement for each row would wait for the interpreter's lock each time.
_SET_RETRIES: Final = (
    "UPDATE txgearman_job SET attempts = column2, retry_at = column3, outcome = column4, error = column5"
    " FROM ({}) WHERE number = column1"
)
_KEPT: Final = 'handle, function, "unique", unique_key, priority, reducer, attributes, data'
"""The columns that a job keeps when it dies and when it is retried, beside its number."""

_BURY: Final = (
    f"INSERT INTO txgearman_dead (number, {_KEPT}, submitted, run_at, size, weight, ended, attempts, losses,"
    f" outcome, error, worker) SELECT number, {_KEPT}, submitted, run_at, length(data),"
    f" {tables.DEAD_WEIGHT} + length(column6), column2, column3, column4, column5, column6, column7"
    " FROM ({}) CROSS JOIN txgearman_job ON number = column1"
)
_KEEP: Final = (
    "INSERT INTO txgearman_result (number, handle, function, ended, expires_at, weight, data)"
    " SELECT number, handle, function, column2, column3, column4, column5"
    " FROM ({}) CROSS JOIN txgearman_job ON number = column1"
)
_REVIVE: Final = (
    f"INSERT INTO txgearman_job (number, place, submitted, losses, owner, {_KEPT})"
    f" SELECT number, ?, ?, 0, ?, {_KEPT} FROM txgearman_dead WHERE number = ? ON CONFLICT DO NOTHING"
)
_KEEP_UNIQUES: Final = (
    'INSERT INTO txgearman_unique (function, "key", handle, until) SELECT * FROM ({}) WHERE true'
    ' ON CONFLICT (function, "key") DO UPDATE SET handle = excluded.handle, until = excluded.until'
)
_FORGET: Final = "DELETE FROM txgearman_dead WHERE number = ?"

_JOB_COLUMNS: Final = tuple(column.name for column in tables.INSERTED)
_TICK_COLUMNS: Final = ("schedule", "tick", "job")

_DROP_SETTINGS: Final = "DELETE FROM txgearman_setting WHERE name IN ({})"
_REMOVE_SETTINGS: Final = "DELETE FROM txgearman_setting WHERE (name, kind) IN ({})"
_SAVE_SETTINGS: Final = "INSERT OR REPLACE INTO txgearman_setting (name, kind, value) SELECT * FROM ({})"


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
        self._reserve = Reserve(self._path)
        self._ample_until = 0.0
        super().__init__(url.set(database=self._path))

    def open(self, name: str, lease: float) -> int:
        self._lock_file()
        try:
            start = self._with_reserve(lambda: super(SqliteStore, self).open(name, lease))
            if not self._reserve.take():
                self._checkpoint()
            return start
        except BaseException:
            self.close()
            raise

    def write(self, changes: Changes) -> Written:
        if changes.kept_uniques and not changes.saves:
            try:
                self._require_space((), changes.deaths.values())
                return super().write(changes)
            except StoreUnavailable:
                # What has ended makes room for the next attempt.
                self.write(replace(changes, kept_uniques=[]))
                raise
        frees = bool(changes.removals or changes.losses or changes.retries)
        ends: list[DeadJob | KeptResult] = [*changes.deaths.values(), *changes.results.values()]
        if changes.saves or not (ends or frees):
            self._require_space(changes.saves, ends)
            return super().write(changes)
        if frees:
            self._remove(replace(changes, deaths={}, results={}))
        if ends:
            self._end_all(ends)
        # Success would mean that jobs can be saved again.
        self._require_space(())
        return Written({}, [])

    def _end_all(self, ends: Sequence[DeadJob | KeptResult]) -> None:
        """Write deaths and results, in parts where there is no room for all at once: a dead job, or a result,
        takes room before the job that it was is gone."""
        deaths = {end.number: end for end in ends if isinstance(end, DeadJob)}
        results = {end.number: end for end in ends if isinstance(end, KeptResult)}
        try:
            self._require_space((), ends)
            super().write(Changes(deaths=deaths, results=results))
        except StoreUnavailable as error:
            if len(ends) == 1 or not (error.__cause__ is None or _is_disk_full(error)):
                raise
            half = len(ends) // 2
            for some in (ends[:half], ends[half:]):
                self._end_all(some)

    def retry_dead(self, number: int, position: int, submitted: float) -> StoredJob | None:
        dead = self.find_dead(number)
        if dead is not None:
            self._require_space((), [dead])
        return super().retry_dead(number, position, submitted)

    def forget_dead(self, numbers: Sequence[int]) -> int:
        return self._with_reserve(lambda: super(SqliteStore, self).forget_dead(numbers))

    def evict_dead(self, max_jobs: int, max_bytes: int, ended_before: float, limit: int) -> int:
        return self._with_reserve(
            lambda: super(SqliteStore, self).evict_dead(max_jobs, max_bytes, ended_before, limit)
        )

    def evict_results(self, max_bytes: int, now: float, limit: int) -> Evicted:
        return self._with_reserve(lambda: super(SqliteStore, self).evict_results(max_bytes, now, limit))

    def close(self) -> None:
        super().close()
        ownership, self._ownership = self._ownership, None
        if ownership is not None:
            ownership.close()

    def servers(self) -> list[str]:
        return [self._name]

    def change_settings(self, changes: SettingChanges) -> None:
        self._with_reserve(lambda: super(SqliteStore, self).change_settings(changes))

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

    # -- room on the disk ---------------------------------------------------------------------------

    def _require_space(
        self, saves: Sequence[StoredJob], moves: Collection[DeadJob | KeptResult] = ()
    ) -> None:
        """Raise `StoreUnavailable` unless there is room for saving these jobs and for moving those from one
        table to the other, in the log and then, when that is emptied, in the database. Without jobs it is
        asked for room for the smallest."""
        now = time.monotonic()
        if now < self._ample_until:
            return
        reserve = self._reserve
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
            f"{self._redacted_url}: the disk is full: {reserve.free} bytes are left beside the reserve"
        )

    def _has_space(self, in_wal: int, in_database: int) -> bool:
        """Whether there is room for so many bytes, with the log emptied before."""
        # What the log holds must still be moved, if somebody reads what it replaces.
        owed = 0 if self._checkpoint() else self._reserve.wal_size
        grown = max(0, in_database - self._pages("freelist_count") * PAGE_SIZE)
        if grown:
            # The database keeps its size. What uses the same pages again, later, still needs a log.
            in_wal = max(in_wal, self._reserve.wal_limit)
        return self._reserve.is_held and self._reserve.free >= owed + in_wal + grown + SPACE_MARGIN

    def _vacuum(self) -> bool:
        """Give back to the disk what the database does not use, if that is most of it and there is room for
        writing the rest anew. Returns whether that was done."""
        unused = self._pages("freelist_count")
        used = self._pages("page_count") - unused
        # It is written twice: in a file of its own, and then into the log.
        if unused < used or self._reserve.free < 2 * used * PAGE_SIZE + SPACE_MARGIN:
            return False
        try:
            with self._connected() as connection:
                connection.exec_driver_sql("VACUUM")
        except StoreUnavailable:
            return False
        return True

    def _pages(self, which: str) -> int:
        """A number of pages that SQLite counts."""
        with self._connected() as connection:
            (number,) = connection.exec_driver_sql(f"PRAGMA {which}").one()
        return int(number)

    def _remove(self, changes: Changes) -> None:
        """Write changes that save nothing, in parts where the log has no room for all at once: they change
        each page that has such a job."""
        try:
            self._with_reserve(lambda: super(SqliteStore, self).write(changes))
        except StoreUnavailable as error:
            if not _is_disk_full(error) or _count(changes) < 2:
                raise
            for part in _halves(changes):
                self._remove(part)

    def _with_reserve(self, work: Callable[[], _Result]) -> _Result:
        """Do what makes room, or must not fail for want of it, with the reserve where that is needed."""
        try:
            return work()
        except StoreUnavailable as error:
            if not (_is_disk_full(error) and self._reserve.release()):
                raise
        try:
            return work()
        finally:
            self._checkpoint()

    def _checkpoint(self) -> bool:
        """Move the log into the database, with the reserve if need be, and give the log's room back. Returns
        False where that cannot be done now, as somebody reads or there is no room at all."""
        try:
            emptied = self._truncate_wal()
        except StoreUnavailable as error:
            if not (_is_disk_full(error) and self._reserve.release()):
                return False
            try:
                emptied = self._truncate_wal()
            except StoreUnavailable:
                emptied = False
        self._reserve.take()
        return emptied

    def _truncate_wal(self) -> bool:
        with self._connected() as connection:
            # Not to wait for a reader, a backup for example.
            connection.exec_driver_sql("PRAGMA busy_timeout=0")
            try:
                busy, _, _ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
            finally:
                connection.exec_driver_sql(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT * 1000)}")
        return not busy

    def _arguments(self) -> dict[str, Any]:
        return {"timeout": BUSY_TIMEOUT, "check_same_thread": False}

    def _prepare(self, connection: sa.Connection) -> None:
        try:
            for setting in (*SETTINGS, *self._reserve.settings):
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

    @contextlib.contextmanager
    def _writing(self, statements: int, together: bool = False) -> Iterator[sa.Connection]:
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

    def _batches(self, rows: Sequence[Row]) -> list[Sequence[Row]]:
        return [rows[start : start + STATEMENT_ROWS] for start in range(0, len(rows), STATEMENT_ROWS)]

    def _insert(self, connection: sa.Connection, rows: Sequence[Row]) -> int:
        sql, values = _insertion("txgearman_job", _JOB_COLUMNS, rows)
        return connection.exec_driver_sql(sql, values).rowcount

    def _delete(self, connection: sa.Connection, numbers: Sequence[int], coalesced: dict[int, float]) -> int:
        return connection.exec_driver_sql(_DELETE, (json.dumps(numbers),)).rowcount

    def _set_losses(self, connection: sa.Connection, losses: dict[int, int]) -> None:
        connection.exec_driver_sql(_SET_LOSSES, (json.dumps(list(losses.items())),))

    def _set_retries(self, connection: sa.Connection, retries: dict[int, Retry]) -> None:
        rows = [(number, *retry) for number, retry in retries.items()]
        _execute_for(connection, _SET_RETRIES, rows)

    def _bury(self, connection: sa.Connection, deaths: Sequence[DeadJob], coalesced: dict[int, float]) -> int:
        rows = [
            (dead.number, dead.ended, dead.attempts, dead.losses, dead.outcome, dead.error, dead.worker)
            for dead in deaths
        ]
        _execute_for(connection, _BURY, rows)
        return self._delete(connection, [dead.number for dead in deaths], coalesced)

    def _keep(
        self, connection: sa.Connection, results: Sequence[KeptResult], coalesced: dict[int, float]
    ) -> int:
        rows = [(kept.number, kept.ended, kept.expires_at, kept.weight, kept.data) for kept in results]
        _execute_for(connection, _KEEP, rows)
        return self._delete(connection, [kept.number for kept in results], coalesced)

    def _revive(self, connection: sa.Connection, number: int, position: int, submitted: float) -> bool:
        values = (position, submitted, self._owner, number)
        revived = connection.exec_driver_sql(_REVIVE, values).rowcount == 1
        if revived:
            connection.exec_driver_sql(_FORGET, (number,))
        return revived

    def _keep_uniques(self, connection: sa.Connection, kept: Sequence[KeptUnique]) -> None:
        _execute_for(connection, _KEEP_UNIQUES, kept)

    def _insert_ticks(self, connection: sa.Connection, rows: Sequence[TickRow]) -> int:
        inserted = 0
        for start in range(0, len(rows), STATEMENT_ROWS):
            some = rows[start : start + STATEMENT_ROWS]
            sql, values = _insertion("txgearman_tick", _TICK_COLUMNS, some)
            inserted += connection.exec_driver_sql(sql, values).rowcount
        return inserted

    def _change_settings(self, changes: SettingChanges) -> None:
        with self._writing(2) as connection:
            removed = [key for key, value in changes.values.items() if value is None]
            saved = [(*key, value) for key, value in changes.values.items() if value is not None]
            _execute_for(connection, _DROP_SETTINGS, [(name,) for name in changes.dropped])
            _execute_for(connection, _REMOVE_SETTINGS, removed)
            _execute_for(connection, _SAVE_SETTINGS, saved)
            connection.exec_driver_sql("UPDATE txgearman_meta SET settings = settings + 1")

    def _contains(self, column: sa.Column[Any], text: bytes) -> sa.ColumnElement[bool]:
        return sa.func.instr(column, sa.literal(text, tables.Bytes)) > 0

    def _classify(self, error: sa.exc.DBAPIError) -> type[Exception] | None:
        # After an error of input or output nothing that SQLite remembers of the file can be trusted.
        return StoreUnavailable if _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL} else None


def _copy_names(path: str, version: int) -> Iterator[str]:
    """Names for a copy of the database with tables of `version`; an older copy keeps its name."""
    name = f"{path}.version-{version}"
    yield name
    yield from (f"{name}.{number}" for number in count(2))


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


def _halves(changes: Changes) -> tuple[Changes, Changes]:
    """Changes that save nothing, in two parts, neither of which is empty. Neighbours, which share pages, stay
    together."""
    kinds = [
        Changes(removals=sorted(changes.removals)),
        Changes(losses=dict(sorted(changes.losses.items()))),
        Changes(retries=dict(sorted(changes.retries.items()))),
    ]
    first, *others = [kind for kind in kinds if _count(kind)]
    if others:
        # Removals, which make room, come first.
        return first, Changes(losses=changes.losses if first.removals else {}, retries=changes.retries)
    half = _count(first) // 2
    losses, retries = list(first.losses.items()), list(first.retries.items())
    return (
        Changes(removals=first.removals[:half], losses=dict(losses[:half]), retries=dict(retries[:half])),
        Changes(removals=first.removals[half:], losses=dict(losses[half:]), retries=dict(retries[half:])),
    )


def _count(changes: Changes) -> int:
    """How many jobs are removed or changed."""
    return len(changes.removals) + len(changes.losses) + len(changes.retries)


def _is_disk_full(error: StoreUnavailable) -> bool:
    """Whether more room on the disk may help. SQLite calls it an error of input or output where it has no
    room for the file that leads to its log."""
    cause = error.__cause__
    codes = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
    return isinstance(cause, sa.exc.DBAPIError) and _code(cause) in codes


def _code(error: sa.exc.DBAPIError) -> int:
    """SQLite's primary result code."""
    return getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _execute_for(connection: sa.Connection, sql: str, rows: Sequence[Row]) -> None:
    """Execute a statement for so many rows of values, which it has as a table in the place of ``{}``."""
    for start in range(0, len(rows), FAILED_ROWS):
        some = rows[start : start + FAILED_ROWS]
        row = f"({', '.join('?' * len(some[0]))})"
        values = f"VALUES {', '.join([row] * len(some))}"
        connection.exec_driver_sql(sql.format(values), (*chain.from_iterable(some),))


def _insertion(table: str, columns: tuple[str, ...], rows: Sequence[Row]) -> tuple[str, Row]:
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
