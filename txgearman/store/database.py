"""What all databases share: one connection, transactions, errors, opening, and everything that reads.

SQLAlchemy makes the connections, knows the dialects and compiles what is not hot. The hot statements,
in each database's own file, are plain SQL: inserting through SQLAlchemy's constructs was measured to cost
three times as much, and row by row a hundred times as much beside a busy thread, since the driver gives up
the interpreter's lock for every row and waits up to 5 ms to have it back.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

import sqlalchemy as sa

from txgearman.errors import StoreError, StoreUnavailable
from txgearman.store import tables
from txgearman.store.contract import Backlog, Changes, SavedJob
from txgearman.store.tables import JOB, SAVED
from txgearman.store.uniques import unique_key

ATTEMPTS_TO_SAVE: Final = 3
"""How often jobs are inserted whose twins, found by the database, were gone when they were looked for."""

_DATA: Final = SavedJob._fields.index("data")
_WITHOUT_DATA: Final = [column for column in SAVED if column is not JOB.c.data]


def new_row(job: SavedJob, owner: int) -> tuple[Any, ...]:
    """The values of `tables.WRITTEN` for a job."""
    return (*job, owner, unique_key(job.unique, job.data))


class DatabaseStore(ABC):
    """A `Store` on what SQLAlchemy speaks to; `url` says where it is.

    A subclass knows one kind of database: how to connect, and the statements that must be fast.
    """

    largest_data: ClassVar[int]
    shared: ClassVar[bool]
    rows_at_once: ClassVar[int] = 0
    """How many rows `_insert` writes in a statement that may be a transaction of its own."""

    def __init__(self, url: sa.URL) -> None:
        self._url = url
        self._connection: sa.Connection | None = None
        self._name = ""
        self._owner = 0
        self._engine = sa.create_engine(
            url, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT", connect_args=self._arguments()
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._url.render_as_string()}>"

    # -- what a subclass knows ----------------------------------------------------------------------

    @abstractmethod
    def _arguments(self) -> dict[str, Any]:
        """What the driver is given beside the URL."""

    @abstractmethod
    def _prepare(self, connection: sa.Connection) -> None:
        """Set up a new connection."""

    @abstractmethod
    def _begin(self, connection: sa.Connection) -> None:
        """Begin a transaction that writes."""

    @abstractmethod
    def _insert(self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """Insert rows of `tables.WRITTEN`, leaving out those whose number or unique key is there already;
        returns how many were inserted."""

    @abstractmethod
    def _delete(self, connection: sa.Connection, numbers: Sequence[int]) -> None:
        """Delete own jobs."""

    @abstractmethod
    def _set_attempts(self, connection: sa.Connection, attempts: dict[int, int]) -> None:
        """Change own jobs' attempts, by number."""

    @abstractmethod
    def _lost(self, error: sa.exc.DBAPIError) -> bool:
        """Whether the connection is of no use after `error`."""

    # -- writing ------------------------------------------------------------------------------------

    def write(self, changes: Changes) -> dict[int, bytes]:
        removals = set(changes.removals)
        rows = [new_row(job, self._owner) for job in changes.saves if job.number not in removals]
        alone = not removals and not changes.attempts and len(rows) <= self.rows_at_once
        with self._transaction(alone) as connection:
            if changes.attempts:
                self._set_attempts(connection, changes.attempts)
            # First the removals: a job may have the unique of one that has just ended.
            if removals:
                self._delete(connection, changes.removals)
            return self._save(connection, rows) if rows else {}

    def _save(self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]]) -> dict[int, bytes]:
        """Insert `rows`; returns what `write` does."""
        kept: dict[int, bytes] = {}
        for _ in range(ATTEMPTS_TO_SAVE):
            if self._insert(connection, rows) == len(rows):
                break
            rows = self._find_twins(connection, rows, kept)
            if not rows:
                break
        else:
            raise StoreUnavailable("jobs with the uniques of new ones come and go too fast")
        return kept

    def _find_twins(
        self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]], kept: dict[int, bytes]
    ) -> list[tuple[Any, ...]]:
        """Put the handles of the jobs that `rows` are the same as into `kept`, by number.

        Returns the rows that are neither in the database nor the same as one that is: another server
        removed the twin in between. A row whose own number is there was saved, if not now then by an
        earlier call whose answer got lost.
        """
        missing = []
        handle = sa.select(JOB.c.handle)
        for row in rows:
            job, key = SavedJob._make(row[: len(SAVED)]), row[-1]
            if connection.scalar(handle.where(JOB.c.number == job.number)) is not None:
                continue
            twin = connection.scalar(handle.where(JOB.c.unique_key == key, JOB.c.function == job.function))
            if twin is None:
                missing.append(row)
            else:
                kept[job.number] = twin
        return missing

    # -- reading ------------------------------------------------------------------------------------

    def backlogs(self) -> list[Backlog]:
        query = (
            sa.select(JOB.c.function, JOB.c.priority, sa.func.count())
            .where(JOB.c.owner == self._owner, JOB.c.run_at.is_(None))
            .group_by(JOB.c.priority, JOB.c.function)
        )
        with self._reading() as connection:
            return [Backlog(*row) for row in connection.execute(query)]

    def fetch(self, function: bytes, priority: int, after: int, limit: int) -> list[SavedJob]:
        query = (
            sa.select(*SAVED)
            .where(
                JOB.c.owner == self._owner,
                JOB.c.priority == priority,
                JOB.c.function == function,
                JOB.c.place > after,
                JOB.c.run_at.is_(None),
            )
            .order_by(JOB.c.place)
            .limit(limit)
        )
        return self._read(query)

    def scheduled(self, after: int, limit: int) -> list[SavedJob]:
        query = (
            sa.select(*SAVED)
            .where(JOB.c.owner == self._owner, JOB.c.place > after, JOB.c.run_at.is_not(None))
            .order_by(JOB.c.place)
            .limit(limit)
        )
        return self._read(query)

    def find(self, number: int) -> SavedJob | None:
        return self._find(sa.select(*_WITHOUT_DATA).where(JOB.c.number == number))

    def find_unique(self, unique: bytes) -> SavedJob | None:
        key = unique_key(unique, b"")
        if key is None:
            return None
        query = sa.select(*_WITHOUT_DATA).where(JOB.c.unique_key == key)
        return self._find(query.order_by(JOB.c.submitted.desc(), JOB.c.number.desc()).limit(1))

    def find_twin(self, function: bytes, unique: bytes, data: bytes) -> SavedJob | None:
        key = unique_key(unique, data)
        if key is None:
            return None
        found = self._read(sa.select(*SAVED).where(JOB.c.unique_key == key, JOB.c.function == function))
        return found[0] if found else None

    def _read(self, query: sa.Select[Any]) -> list[SavedJob]:
        with self._reading() as connection:
            return [SavedJob._make(row) for row in connection.execute(query)]

    def _find(self, query: sa.Select[Any]) -> SavedJob | None:
        with self._reading() as connection:
            row: Sequence[Any] | None = connection.execute(query).first()
        return None if row is None else SavedJob._make((*row[:_DATA], b"", *row[_DATA:]))

    # -- connecting ---------------------------------------------------------------------------------

    def open(self, name: str, lease: float) -> int:
        self._name = name
        with self._transaction() as connection:
            self._bring_up_to_date(connection)
            return tables.next_start(connection)

    def _bring_up_to_date(self, connection: sa.Connection) -> None:
        """Make or upgrade the tables, within a transaction."""
        version = tables.found_version(connection)
        newest = tables.newest_version()
        if version is None:
            tables.create(connection)
        elif version > newest:
            raise StoreError(
                f"{self._url.render_as_string()} was written by a newer txgearman: its tables have version "
                f"{version}, this one knows up to {newest}"
            )
        elif version < newest:
            self._before_upgrade(connection, version)
            tables.upgrade(connection, version)

    @abstractmethod
    def _before_upgrade(self, connection: sa.Connection, version: int) -> None:
        """Make sure that tables of `version` may be changed."""

    def close(self) -> None:
        self._disconnect()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """The connection, to read what the last commits left."""
        with self._errors():
            yield self._connect()

    @contextlib.contextmanager
    def _transaction(self, alone: bool = False) -> Iterator[sa.Connection]:
        """The connection within a transaction; `alone` says that a single statement will write."""
        with self._errors():
            connection = self._connect()
            self._begin(connection)
            yield connection
            connection.exec_driver_sql("COMMIT")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Undo an unfinished transaction, and tell of the driver's errors in words of ours."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated or self._lost(error):
                self._disconnect()
            else:
                self._roll_back()
            raise StoreUnavailable(f"{self._url.render_as_string()}: {_words(error)}") from error
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
        """End the transaction without its changes, if there is one."""
        if self._connection is not None:
            try:
                driver = self._connection.connection.driver_connection
                assert driver is not None
                driver.rollback()
            except Exception:
                # Then there is none: the driver's own words do not matter, the connection is given up.
                self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()


def _words(error: sa.exc.DBAPIError) -> str:
    """What the database says of an error, in one line."""
    return " ".join(str(error.orig).split()) or type(error.orig).__name__
