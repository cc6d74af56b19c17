"""What all databases share of a store: opening it, and reading jobs. All else has a file of its own.

SQLAlchemy makes the connections, knows the dialects and compiles what is not hot.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final

import sqlalchemy as sa

from txgearman.broker.kept_unique import KeptUnique, unique_key
from txgearman.broker.stored_job import StoredJob
from txgearman.errors import StoreError
from txgearman.store import tables
from txgearman.store.contract import QueueLength
from txgearman.store.contract.changes import Changes, Written
from txgearman.store.dead_jobs import DeadJobRows
from txgearman.store.job_writes import JobWrites
from txgearman.store.plots import PlotRows
from txgearman.store.results import ResultRows
from txgearman.store.schedules import ScheduleRows
from txgearman.store.session import Session
from txgearman.store.settings import SettingRows
from txgearman.store.tables import (
    DATA_INDEX,
    HAS_NO_TIME,
    HAS_TIME,
    JOB,
    LARGEST_NUMBER,
    STORED,
    UNIQUE,
    UNIQUE_COLUMNS,
)

_WITHOUT_DATA: Final = [column for column in STORED if column is not JOB.c.data]


class DatabaseStore(ABC):
    """A `Store` on what SQLAlchemy speaks to.

    A subclass knows one kind of database: it makes the parts for that, and says how
    the database is opened.

    Args:
        session: The connection.
        writes: Writes what changes of jobs.
        schedules: The schedules.
        dead_jobs: The dead jobs.
        results: The results.
        settings: The settings.
    """

    largest_data: ClassVar[int]
    shared: ClassVar[bool]

    def __init__(
        self,
        session: Session,
        writes: JobWrites,
        schedules: ScheduleRows,
        dead_jobs: DeadJobRows,
        results: ResultRows,
        settings: SettingRows,
    ) -> None:
        self._session = session
        self._writes = writes
        self.schedules = schedules
        self.dead_jobs = dead_jobs
        self.results = results
        self.settings = settings
        self.plots = PlotRows(session)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._session.redacted_url}>"

    # -- what a subclass knows ----------------------------------------------------------------------

    @abstractmethod
    def _begin_opening(self, connection: sa.Connection) -> None:
        """Begin a transaction that excludes others from opening the database."""

    @abstractmethod
    def _before_upgrade(self, connection: sa.Connection, version: int) -> None:
        """Make sure that the tables of `version` may be upgraded."""

    @abstractmethod
    def _register(self, connection: sa.Connection, start: int, name: str, lease: float) -> None:
        """Note who has opened the store, at its start with this number."""

    def _owned(self) -> sa.ColumnElement[bool]:
        """The condition for jobs of this server, without those whose take-over is unconfirmed."""
        return JOB.c.owner == self._session.owner

    # -- writing ------------------------------------------------------------------------------------

    def write(self, changes: Changes) -> Written:
        return self._writes.write(changes)

    # -- reading ------------------------------------------------------------------------------------

    def queue_lengths(self) -> list[QueueLength]:
        query = (
            sa.select(JOB.c.function, JOB.c.priority, sa.func.count())
            .where(self._owned(), HAS_NO_TIME)
            .group_by(JOB.c.priority, JOB.c.function)
        )
        return [QueueLength(*row) for row in self._session.rows(query)]

    def fetch(self, function: bytes, priority: int, cursor: int, limit: int) -> list[StoredJob]:
        query = (
            sa.select(*STORED)
            .where(
                self._owned(),
                JOB.c.priority == priority,
                JOB.c.function == function,
                JOB.c.position > cursor,
                HAS_NO_TIME,
            )
            .order_by(JOB.c.position)
            .limit(limit)
        )
        return self._read(query)

    def scheduled(self, cursor: int, limit: int) -> list[StoredJob]:
        query = (
            sa.select(*STORED)
            .where(self._owned(), JOB.c.position > cursor, HAS_TIME)
            .order_by(JOB.c.position)
            .limit(limit)
        )
        return self._read(query)

    def find(self, number: int) -> StoredJob | None:
        if number > LARGEST_NUMBER:
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

    def _read(self, query: sa.Select[Any]) -> list[StoredJob]:
        return [StoredJob._make(row) for row in self._session.rows(query)]

    def _find(self, query: sa.Select[Any]) -> StoredJob | None:
        found = self._session.rows(query)
        return StoredJob._make((*found[0][:DATA_INDEX], b"", *found[0][DATA_INDEX:])) if found else None

    # -- kept uniques -------------------------------------------------------------------------------

    def kept_uniques(self, now: float) -> list[KeptUnique]:
        query = sa.select(*UNIQUE_COLUMNS).where(UNIQUE.c.until > now).order_by(UNIQUE.c.until)
        return [KeptUnique._make(row) for row in self._session.rows(query)]

    # -- connecting ---------------------------------------------------------------------------------

    def open(self, name: str, lease: float) -> int:
        return self._session.with_retries(lambda: self._open(name, lease))

    def _open(self, name: str, lease: float) -> int:
        with self._session.connected() as connection:
            self._begin_opening(connection)
            self._bring_up_to_date(connection)
            start = tables.next_start(connection)
            self._register(connection, start, name, lease)
            connection.exec_driver_sql("COMMIT")
        return start

    def _bring_up_to_date(self, connection: sa.Connection) -> None:
        """Make or upgrade the tables, within a transaction."""
        version = tables.found_version(connection)
        newest = tables.newest_version()
        if version is None:
            tables.create(connection)
        elif version > newest:
            raise StoreError(
                f"{self._session.redacted_url} was written by a newer txgearman: its tables have version "
                f"{version}, this one knows up to {newest}"
            )
        elif version < newest:
            self._before_upgrade(connection, version)
            tables.upgrade(connection, version)

    def close(self) -> None:
        self._session.disconnect()
