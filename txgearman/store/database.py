"""What all databases share: one connection, transactions, errors, opening, and everything that reads.

SQLAlchemy makes the connections, knows the dialects and compiles what is not hot. The hot statements,
in each database's own file, are plain SQL. Inserting through SQLAlchemy's constructs was measured to cost
three times as much, and row by row a hundred times as much beside a busy thread: the driver releases the
interpreter's lock for every row and waits up to 5 ms to get it back.
"""

from __future__ import annotations

import contextlib
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final, TypeVar

import sqlalchemy as sa

from txgearman.errors import StoreError, StoreUnavailable, UniqueInUse
from txgearman.store import tables
from txgearman.store.contract import (
    MAX_EXAMINED,
    Changes,
    Coalesced,
    DeadCount,
    DeadCursor,
    DeadFilter,
    DeadJob,
    DeadPage,
    QueueLength,
    Retry,
    StoredJob,
    Written,
)
from txgearman.store.tables import (
    DATA_INDEX,
    DEAD,
    DEAD_COLUMNS,
    FRESH,
    FUNCTION_INDEX,
    JOB,
    QUEUED,
    STORED,
    WAITS,
)
from txgearman.store.uniques import unique_key

MAX_ATTEMPTS: Final = 10
"""Attempts at a transaction that conflicts with others on the same database."""

BACKOFF_STEP: Final = 0.005
"""Seconds by which the backoff grows with each attempt. Full jitter: a random part of it is waited, so that
two servers whose transactions conflicted do not conflict again."""

SEARCHED_ROWS: Final = 2000
"""Dead jobs that one statement reads at most."""

SEARCHED_BYTES: Final = 64 * 1024 * 1024
"""Bytes of dead jobs' data from which on a page ends."""

LARGEST_NUMBER: Final = 2**63 - 1
"""The largest number that fits into the column of a job's number."""

Row = tuple[Any, ...]
"""The values of `tables.INSERTED` for one job."""

_Result = TypeVar("_Result")
_WITHOUT_DATA: Final = [column for column in STORED if column is not JOB.c.data]
_DEAD_WITHOUT_DATA: Final = [column for column in DEAD_COLUMNS if column is not DEAD.c.data]
_DEAD_DATA: Final = DeadJob._fields.index("data")


class TransactionConflict(Exception):
    """A transaction conflicted with others; the same may succeed now. Never leaves this room."""


class DatabaseStore(ABC):
    """A `Store` on what SQLAlchemy speaks to; `url` says where it is.

    A subclass knows one kind of database: how to connect, and the statements that must be fast.
    """

    largest_data: ClassVar[int]
    shared: ClassVar[bool]

    def __init__(self, url: sa.URL) -> None:
        self._url = url
        # Without libpq's parameters after the question mark, which may have a password.
        self._redacted_url = url.set(drivername=url.get_backend_name(), query={}).render_as_string()
        self._connection: sa.Connection | None = None
        self._name = ""
        self._owner = 0
        self._engine = sa.create_engine(
            url, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT", connect_args=self._arguments()
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._redacted_url}>"

    # -- what a subclass knows ----------------------------------------------------------------------

    @abstractmethod
    def _arguments(self) -> dict[str, Any]:
        """What the driver is given beside the URL."""

    @abstractmethod
    def _prepare(self, connection: sa.Connection) -> None:
        """Configure a new connection."""

    @abstractmethod
    def _writing(self, statements: int) -> contextlib.AbstractContextManager[sa.Connection]:
        """The connection, for so many statements that write. With none it is tested whether it can write."""

    @abstractmethod
    def _begin_opening(self, connection: sa.Connection) -> None:
        """Begin a transaction that excludes others from opening the database."""

    @abstractmethod
    def _before_upgrade(self, connection: sa.Connection, version: int) -> None:
        """Make sure that the tables of `version` may be upgraded."""

    @abstractmethod
    def _batches(self, rows: Sequence[Row]) -> list[Sequence[Row]]:
        """`rows` cut into batches that one statement takes."""

    @abstractmethod
    def _insert(self, connection: sa.Connection, rows: Sequence[Row]) -> int:
        """Insert a batch, without rows whose number or unique key is there already; returns how many
        were inserted."""

    @abstractmethod
    def _delete(self, connection: sa.Connection, numbers: Sequence[int], coalesced: dict[int, float]) -> int:
        """Delete own jobs with which no submit elsewhere was coalesced, or the last one at the time in
        `coalesced`; returns how many were deleted."""

    def _delete_and_insert(
        self,
        connection: sa.Connection,
        numbers: Sequence[int],
        coalesced: dict[int, float],
        rows: Sequence[Row],
    ) -> tuple[int, int]:
        """Do both; returns how many were deleted and what `_insert` does, which may leave out rows that are
        the same as jobs that are deleted."""
        return self._delete(connection, numbers, coalesced), self._insert(connection, rows)

    @abstractmethod
    def _set_losses(self, connection: sa.Connection, losses: dict[int, int]) -> None:
        """Change own jobs' losses, by number."""

    @abstractmethod
    def _set_retries(self, connection: sa.Connection, retries: dict[int, Retry]) -> None:
        """Change what is known of own jobs' failed runs, by number."""

    @abstractmethod
    def _bury(self, connection: sa.Connection, deaths: Sequence[DeadJob], coalesced: dict[int, float]) -> int:
        """Make own jobs dead, in the order of their numbers, but for those that `_delete` would not delete;
        returns how many were deleted."""

    @abstractmethod
    def _revive(self, connection: sa.Connection, number: int, position: int) -> bool:
        """Make a dead job an own one, unless there is none, or a job with its unique; returns whether that
        was done."""

    @abstractmethod
    def _deleting(self) -> contextlib.AbstractContextManager[sa.Connection]:
        """The connection, for one statement that deletes what belongs to no server."""

    @abstractmethod
    def _classify(self, error: sa.exc.DBAPIError) -> type[Exception] | None:
        """Classify `error`: `TransactionConflict`, `StoreUnavailable` with a connection that is still good,
        or None for one that is not."""

    # -- what a subclass knows that several servers share -------------------------------------------

    def _owned(self) -> sa.ColumnElement[bool]:
        """The condition for jobs of this server, without those whose take-over is unconfirmed."""
        return JOB.c.owner == self._owner

    def _coalesced(self, connection: sa.Connection, numbers: Sequence[int]) -> list[Coalesced]:
        """Those of own jobs with which a submit to another server was coalesced."""
        return []

    def _coalesce(self, connection: sa.Connection, numbers: Sequence[int]) -> set[int]:
        """Note that submits were coalesced with others' jobs; returns the jobs that are still there."""
        return set()

    # -- writing ------------------------------------------------------------------------------------

    def write(self, changes: Changes) -> Written:
        # In the order of their index: servers which delete and coalesce with the same jobs do not deadlock.
        removals = dict.fromkeys(sorted(changes.removals))
        owner = self._owner
        rows = [
            (*job[:FRESH], owner, unique_key(job.unique, job.data))
            for job in changes.saves
            if job.number not in removals and job.number not in changes.deaths
        ]
        batches = self._batches(rows) if rows else []
        return self._with_retries(lambda: self._write(changes, list(removals), batches))

    def _write(self, changes: Changes, removals: Sequence[int], batches: list[Sequence[Row]]) -> Written:
        duplicates: dict[int, bytes] = {}
        deleted = buried = 0
        statements = len(batches) + bool(removals) + bool(changes.losses)
        statements += bool(changes.retries) + 2 * bool(changes.deaths)
        with self._writing(statements) as connection:
            if changes.losses:
                self._set_losses(connection, dict(sorted(changes.losses.items())))
            if changes.retries:
                self._set_retries(connection, dict(sorted(changes.retries.items())))
            if changes.deaths:
                deaths = [changes.deaths[number] for number in sorted(changes.deaths)]
                buried = self._bury(connection, deaths, changes.coalesced)
            if removals and not batches:
                deleted = self._delete(connection, removals, changes.coalesced)
            for index, rows in enumerate(batches):
                if index == 0 and removals:
                    deleted, inserted = self._delete_and_insert(connection, removals, changes.coalesced, rows)
                else:
                    inserted = self._insert(connection, rows)
                if inserted != len(rows):
                    duplicates |= self._resolve_duplicates(connection, rows)
            # Nobody else removes them: what is still there was coalesced with, now or at the first of two
            # attempts.
            left = self._coalesced(connection, removals) if deleted != len(removals) else []
            if buried != len(changes.deaths):
                left += self._coalesced(connection, sorted(changes.deaths))
        return Written(duplicates, left)

    def _resolve_duplicates(self, connection: sa.Connection, rows: Sequence[Row]) -> dict[int, bytes]:
        """The handles of the jobs that some of `rows`, not all of which were inserted, are the same as, by
        number. A row whose duplicate has been removed since is inserted after all."""
        duplicates: dict[int, bytes] = {}
        for _ in range(MAX_ATTEMPTS):
            found, rows = self._find_duplicates(connection, rows)
            duplicates |= found
            if not rows or self._insert(connection, rows) == len(rows):
                return duplicates
        raise TransactionConflict

    def _find_duplicates(
        self, connection: sa.Connection, rows: Sequence[Row]
    ) -> tuple[dict[int, bytes], Sequence[Row]]:
        """The handles of the jobs that some of `rows` are the same as, by number, and the rows that are not
        there, nor a duplicate. Duplicates of other servers are marked as coalesced with.

        A row whose own number is there was saved, if not now then by an earlier call whose answer got
        lost; unless it has become another server's, which is a duplicate as any other.
        """
        numbers = [row[0] for row in rows]
        duplicate = JOB.c.number, JOB.c.owner, JOB.c.handle
        there = connection.execute(sa.select(*duplicate).where(JOB.c.number.in_(numbers))).all()
        duplicates = {number: (number, owner, handle) for number, owner, handle in there}
        keyed = [row for row in rows if row[0] not in duplicates and row[-1] is not None]
        query = sa.select(JOB.c.unique_key, JOB.c.function, *duplicate).where(
            JOB.c.unique_key.in_({row[-1] for row in keyed})
        )
        same = {(key, function): (*its,) for key, function, *its in connection.execute(query)}
        duplicates |= {row[0]: same[key] for row in keyed if (key := (row[-1], row[FUNCTION_INDEX])) in same}
        foreign = {number for number, owner, _ in duplicates.values() if owner != self._owner}
        gone = foreign - self._coalesce(connection, sorted(foreign)) if foreign else foreign
        duplicates = {number: its for number, its in duplicates.items() if its[0] not in gone}
        handles = {
            number: handle
            for number, (its, owner, handle) in duplicates.items()
            if its != number or owner != self._owner
        }
        return handles, [row for row in rows if row[0] not in duplicates]

    # -- reading ------------------------------------------------------------------------------------

    def queue_lengths(self) -> list[QueueLength]:
        query = (
            sa.select(JOB.c.function, JOB.c.priority, sa.func.count())
            .where(self._owned(), QUEUED)
            .group_by(JOB.c.priority, JOB.c.function)
        )
        return [QueueLength(*row) for row in self._rows(query)]

    def fetch(self, function: bytes, priority: int, after: int, limit: int) -> list[StoredJob]:
        query = (
            sa.select(*STORED)
            .where(
                self._owned(),
                JOB.c.priority == priority,
                JOB.c.function == function,
                JOB.c.place > after,
                QUEUED,
            )
            .order_by(JOB.c.place)
            .limit(limit)
        )
        return self._read(query)

    def scheduled(self, after: int, limit: int) -> list[StoredJob]:
        query = (
            sa.select(*STORED)
            .where(self._owned(), JOB.c.place > after, WAITS)
            .order_by(JOB.c.place)
            .limit(limit)
        )
        return self._read(query)

    def find(self, number: int) -> StoredJob | None:
        if number > LARGEST_NUMBER:
            # A peer may send a handle with any number, and drivers fail on a long one.
            return None
        return self._find(sa.select(*_WITHOUT_DATA).where(JOB.c.number == number))

    def find_unique(self, unique: bytes) -> StoredJob | None:
        key = unique_key(unique, b"")
        if key is None:
            return None
        query = sa.select(*_WITHOUT_DATA).where(JOB.c.unique_key == key)
        return self._find(query.order_by(JOB.c.submitted.desc(), JOB.c.number.desc()).limit(1))

    def find_duplicate(self, function: bytes, unique: bytes, data: bytes) -> StoredJob | None:
        key = unique_key(unique, data)
        if key is None:
            return None
        found = self._read(sa.select(*STORED).where(JOB.c.unique_key == key, JOB.c.function == function))
        return found[0] if found else None

    # -- dead jobs ----------------------------------------------------------------------------------

    def dead(self, wanted: DeadFilter, before: DeadCursor | None, limit: int, with_data: bool) -> DeadPage:
        needs_data = with_data or bool(wanted.search)
        columns = DEAD_COLUMNS if needs_data else _DEAD_WITHOUT_DATA
        query = sa.select(*columns).order_by(DEAD.c.ended.desc(), DEAD.c.number.desc())
        if wanted.function is not None:
            query = query.where(DEAD.c.function == wanted.function)
        if before is not None:
            query = query.where(sa.tuple_(DEAD.c.ended, DEAD.c.number) < sa.tuple_(*before))
        jobs: list[DeadJob] = []
        cursor: DeadCursor | None = None
        # One more says whether there is another page.
        some = MAX_EXAMINED if wanted.search else limit
        size = 0
        for row in self._rows(query.limit(min(some, SEARCHED_ROWS) + 1)):
            if len(jobs) == limit or size > SEARCHED_BYTES or (cursor and some == 0):
                return DeadPage(jobs, cursor)
            some -= 1
            job = _dead_job(row, needs_data)
            size += len(job.data or b"")
            cursor = DeadCursor(job.ended, job.number)
            if wanted.matches(job):
                jobs.append(job if with_data else job._replace(data=None))
        return DeadPage(jobs, None)

    def find_dead(self, number: int) -> DeadJob | None:
        if number > LARGEST_NUMBER:
            return None
        rows = self._rows(sa.select(*DEAD_COLUMNS).where(DEAD.c.number == number))
        return DeadJob._make(rows[0]) if rows else None

    def retry_dead(self, number: int, position: int) -> StoredJob | None:
        if number > LARGEST_NUMBER:
            return None
        query = sa.select(*STORED).where(JOB.c.number == number, JOB.c.place == position)

        def retry() -> StoredJob | None:
            with self._writing(2) as connection:
                self._revive(connection, number, position)
            # Also if an earlier call did it whose answer was lost: no other job ever has this position.
            with self._reading() as connection:
                row = connection.execute(query).first()
                if row is not None:
                    return StoredJob._make(row)
                is_dead = sa.select(DEAD.c.number).where(DEAD.c.number == number)
                if connection.execute(is_dead).first() is not None:
                    raise UniqueInUse
                return None

        return self._with_retries(retry)

    def forget_dead(self, numbers: Sequence[int]) -> int:
        known = [number for number in numbers if number <= LARGEST_NUMBER]

        def forget() -> int:
            with self._deleting() as connection:
                return connection.execute(DEAD.delete().where(DEAD.c.number.in_(known))).rowcount

        return self._with_retries(forget)

    def dead_counts(self) -> list[DeadCount]:
        query = sa.select(DEAD.c.function, sa.func.count(), sa.func.sum(DEAD.c.size)).group_by(
            DEAD.c.function
        )
        return [DeadCount(function, jobs, int(size)) for function, jobs, size in self._rows(query)]

    def evict_dead(self, max_jobs: int, max_size: int, ended_before: float, limit: int) -> int:
        counts = self.dead_counts()
        too_many = sum(count.jobs for count in counts) - max_jobs
        too_large = sum(count.size for count in counts) - max_size
        query = sa.select(DEAD.c.number, DEAD.c.ended, DEAD.c.size).order_by(DEAD.c.ended, DEAD.c.number)
        numbers = []
        for number, ended, size in self._rows(query.limit(limit)):
            if too_many <= 0 and too_large <= 0 and ended >= ended_before:
                break
            numbers.append(number)
            too_many -= 1
            too_large -= size
        return self.forget_dead(numbers) if numbers else 0

    def _read(self, query: sa.Select[Any]) -> list[StoredJob]:
        return [StoredJob._make(row) for row in self._rows(query)]

    def _find(self, query: sa.Select[Any]) -> StoredJob | None:
        found = self._rows(query)
        return StoredJob._make((*found[0][:DATA_INDEX], b"", *found[0][DATA_INDEX:])) if found else None

    def _rows(self, query: sa.Select[Any]) -> Sequence[Sequence[Any]]:
        def read() -> Sequence[Sequence[Any]]:
            with self._reading() as connection:
                return connection.execute(query).all()

        return self._with_retries(read)

    # -- connecting ---------------------------------------------------------------------------------

    def open(self, name: str, lease: float) -> int:
        return self._with_retries(lambda: self._open(name, lease))

    def _open(self, name: str, lease: float) -> int:
        with self._connected() as connection:
            self._begin_opening(connection)
            self._bring_up_to_date(connection)
            start = tables.next_start(connection)
            self._register(connection, start, name, lease)
            connection.exec_driver_sql("COMMIT")
        return start

    @abstractmethod
    def _register(self, connection: sa.Connection, start: int, name: str, lease: float) -> None:
        """Note who has opened the store, at its start with this number."""

    def _bring_up_to_date(self, connection: sa.Connection) -> None:
        """Make or upgrade the tables, within a transaction."""
        version = tables.found_version(connection)
        newest = tables.newest_version()
        if version is None:
            tables.create(connection)
        elif version > newest:
            raise StoreError(
                f"{self._redacted_url} was written by a newer txgearman: its tables have version "
                f"{version}, this one knows up to {newest}"
            )
        elif version < newest:
            self._before_upgrade(connection, version)
            tables.upgrade(connection, version)

    def close(self) -> None:
        self._disconnect()

    def _reading(self) -> contextlib.AbstractContextManager[sa.Connection]:
        """The connection, to read what this server may."""
        return self._connected()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        """The connection, where each statement is a transaction of its own."""
        with self._errors():
            yield self._connect()

    def _with_retries(self, work: Callable[[], _Result]) -> _Result:
        """Do idempotent work, with retries.

        It is retried after a conflict, and once with a new connection where the old one turned out to be
        broken, as after a restart of the database. The first attempt may have been committed.
        """
        for attempt in range(MAX_ATTEMPTS):
            if attempt:
                time.sleep(random.uniform(0, attempt * BACKOFF_STEP))
            connected = self._connection is not None
            try:
                return work()
            except TransactionConflict as error:
                reason: Exception = error
            except StoreUnavailable as error:
                if not connected or self._connection is not None:
                    raise
                reason = error
        raise StoreUnavailable(
            f"{self._redacted_url}: {MAX_ATTEMPTS} attempts conflicted with others"
        ) from reason

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Roll back an unfinished transaction, and turn the driver's errors into ours."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            meaning = None if error.connection_invalidated else self._classify(error)
            if meaning is None:
                self._disconnect()
            else:
                self._roll_back()
            if meaning is TransactionConflict:
                raise TransactionConflict from error
            raise StoreUnavailable(f"{self._redacted_url}: {_message(error)}") from error
        except BaseException:
            self._roll_back()
            raise

    def _connect(self) -> sa.Connection:
        if self._connection is None:
            connection = self._engine.connect()
            try:
                self._prepare(connection)
            except BaseException:
                connection.invalidate()
                raise
            self._connection = connection
        return self._connection

    def _roll_back(self) -> None:
        """Roll back the transaction, if there is one."""
        if self._connection is not None:
            try:
                driver = self._connection.connection.driver_connection
                assert driver is not None
                driver.rollback()
            except Exception:
                # The connection is broken, and gone with its transaction.
                self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()


def _dead_job(row: Sequence[Any], has_data: bool) -> DeadJob:
    return DeadJob._make(row if has_data else (*row[:_DEAD_DATA], None, *row[_DEAD_DATA:]))


def _message(error: sa.exc.DBAPIError) -> str:
    """What the database says of an error, in one line."""
    return " ".join(str(error.orig).split()) or type(error.orig).__name__
