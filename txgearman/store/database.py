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
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, ClassVar, Final, TypeVar

import sqlalchemy as sa

from txgearman.broker.dead_job import DeadCursor, DeadFilter, DeadJob, DeadPage
from txgearman.broker.kept_unique import unique_key
from txgearman.errors import StoreError, StoreUnavailable, UniqueInUse
from txgearman.store import tables
from txgearman.store.contract import (
    MAX_EXAMINED,
    MAX_EXAMINED_BYTES,
    Changes,
    Coalesced,
    DeadCount,
    Evicted,
    KeptResult,
    KeptUnique,
    QueueLength,
    ResultCounts,
    Retry,
    Setting,
    SettingChanges,
    Settings,
    StoredJob,
    Written,
)
from txgearman.store.plot_rows import PlotRows
from txgearman.store.schedules import ScheduleRows
from txgearman.store.tables import (
    DATA_INDEX,
    DEAD,
    DEAD_COLUMNS,
    FUNCTION_INDEX,
    HAS_NO_TIME,
    HAS_TIME,
    INSERTED_FIELDS,
    JOB,
    META,
    RESULT,
    RESULT_COLUMNS,
    SETTING,
    STORED,
    UNIQUE,
    UNIQUE_COLUMNS,
)

MAX_TRIES: Final = 10
"""How often a transaction is tried that conflicts with others on the same database."""

BACKOFF_STEP: Final = 0.005
"""Seconds by which the backoff grows with each attempt. Full jitter: a random part of it is waited, so that
two servers whose transactions conflicted do not conflict again."""

LARGEST_NUMBER: Final = 2**63 - 1
"""The largest number that fits into the column of a job's number."""

FORGOTTEN_AT_ONCE: Final = 1000
"""Dead jobs whose numbers one statement has at most."""

Row = tuple[Any, ...]
"""The values of `tables.INSERTED` for one job."""

_Result = TypeVar("_Result")
_WITHOUT_DATA: Final = [column for column in STORED if column is not JOB.c.data]
_DEAD_WITHOUT_DATA: Final = [column for column in DEAD_COLUMNS if column is not DEAD.c.data]
_DEAD_DATA: Final = DeadJob._fields.index("data")
_LAST_DEAD_FIRST: Final = (DEAD.c.ended.desc(), DEAD.c.number.desc())
_SEARCHED: Final = (DEAD.c.function, DEAD.c.unique, DEAD.c.handle, DEAD.c.error, DEAD.c.data)
"""What `DeadFilter.search` is looked for in."""


class TransactionConflict(Exception):
    """A transaction conflicted with others; the same may succeed now. Never leaves this room."""


class DatabaseStore(ScheduleRows, PlotRows, ABC):
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
    def _writing(
        self, statements: int, together: bool = False
    ) -> contextlib.AbstractContextManager[sa.Connection]:
        """The connection, for so many statements that write. With none it is tested whether it can write.
        `together` makes them one transaction where each of them is one otherwise."""

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
    def _keep(
        self, connection: sa.Connection, results: Sequence[KeptResult], coalesced: dict[int, float]
    ) -> int:
        """Delete own jobs, in the order of their numbers, as `_delete` does, and keep the results of those
        that are deleted; returns how many were."""

    @abstractmethod
    def _revive(self, connection: sa.Connection, number: int, position: int, submitted: float) -> bool:
        """Make a dead job an own one, unless there is none, or a job with its unique; returns whether that
        was done."""

    @abstractmethod
    def _keep_uniques(self, connection: sa.Connection, kept: Sequence[KeptUnique]) -> None:
        """Insert kept uniques, in place of those with the same function and key."""

    @abstractmethod
    def _change_settings(self, changes: SettingChanges) -> None:
        """Change settings, and count that, in one transaction."""

    @abstractmethod
    def _contains(self, column: sa.Column[Any], text: bytes) -> sa.ColumnElement[bool]:
        """The condition that a column of bytes has these bytes in it."""

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
            (*job[:INSERTED_FIELDS], owner, unique_key(job.unique, job.data))
            for job in changes.saves
            if job.number not in removals
        ]
        batches = self._batches(rows) if rows else []
        return self._with_retries(lambda: self._write(changes, list(removals), batches))

    def _write(self, changes: Changes, removals: Sequence[int], batches: Sequence[Sequence[Row]]) -> Written:
        duplicates: dict[int, bytes] = {}
        deleted = 0
        statements = len(batches) + bool(removals) + bool(changes.losses)
        statements += bool(changes.retries) + 2 * bool(changes.deaths) + 2 * bool(changes.ticks)
        statements += 2 * bool(changes.kept_uniques) + 2 * bool(changes.results)
        ticks_done: frozenset[int] = frozenset()
        # Whoever is killed between the claim of a tick and its job would leave a tick that nobody does.
        with self._writing(statements, together=bool(changes.ticks)) as connection:
            # First: each statement may be a transaction of its own. Between the two a job runs once more.
            if changes.kept_uniques:
                self._keep_latest(connection, changes)
            if changes.ticks:
                # Ahead of the jobs, and in order, as the unique keys are: servers that do the same ticks do
                # not deadlock.
                ticks_done = self._claim_ticks(connection, changes.ticks)
                batches = _without(batches, ticks_done)
            if changes.losses:
                self._set_losses(connection, dict(sorted(changes.losses.items())))
            if changes.retries:
                self._set_retries(connection, dict(sorted(changes.retries.items())))
            buried, kept = self._end_jobs(connection, changes)
            if changes.unless_kept:
                duplicates = self._find_kept(connection, batches, changes)
                batches = _without(batches, duplicates)
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
            if kept != len(changes.results):
                left += self._coalesced(connection, sorted(changes.results))
        return Written(duplicates, left, ticks_done)

    def _end_jobs(self, connection: sa.Connection, changes: Changes) -> tuple[int, int]:
        """Remove jobs of which something is kept; returns how many dead ones and how many with a result."""
        buried = kept = 0
        if changes.deaths:
            deaths = [changes.deaths[number] for number in sorted(changes.deaths)]
            buried = self._bury(connection, deaths, changes.coalesced)
        if changes.results:
            results = [changes.results[number] for number in sorted(changes.results)]
            kept = self._keep(connection, results, changes.coalesced)
        return buried, kept

    def _keep_latest(self, connection: sa.Connection, changes: Changes) -> None:
        """Keep uniques, and forget those whose time is over."""
        connection.execute(UNIQUE.delete().where(UNIQUE.c.until <= changes.now))
        # Of one key the last one counts. In order, so that two servers do not deadlock.
        latest = {(kept.function, kept.key): kept for kept in changes.kept_uniques}
        self._keep_uniques(connection, [latest[key] for key in sorted(latest)])

    def _find_kept(
        self, connection: sa.Connection, batches: Sequence[Sequence[Row]], changes: Changes
    ) -> dict[int, bytes]:
        """The handles for which uniques of new jobs are kept, by the numbers of these jobs."""
        keys = {
            row[0]: (row[FUNCTION_INDEX], row[-1])
            for rows in batches
            for row in rows
            if row[0] in changes.unless_kept and row[-1] is not None
        }
        query = sa.select(UNIQUE.c.function, UNIQUE.c.key, UNIQUE.c.handle).where(
            UNIQUE.c.key.in_({key for _, key in keys.values()}), UNIQUE.c.until > changes.now
        )
        kept = {(function, key): handle for function, key, handle in connection.execute(query)}
        return {number: kept[key] for number, key in keys.items() if key in kept}

    def _resolve_duplicates(self, connection: sa.Connection, rows: Sequence[Row]) -> dict[int, bytes]:
        """The handles of the jobs that some of `rows`, not all of which were inserted, are the same as, by
        number. A row whose duplicate has been removed since is inserted after all."""
        duplicates: dict[int, bytes] = {}
        for _ in range(MAX_TRIES):
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
            .where(self._owned(), HAS_NO_TIME)
            .group_by(JOB.c.priority, JOB.c.function)
        )
        return [QueueLength(*row) for row in self._rows(query)]

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

    # -- dead jobs ----------------------------------------------------------------------------------

    def dead(self, wanted: DeadFilter, before: DeadCursor | None, limit: int, with_data: bool) -> DeadPage:
        def read() -> DeadPage:
            with self._reading() as connection:
                return self._read_dead(connection, wanted, before, limit, with_data)

        return self._with_retries(read)

    def _read_dead(
        self,
        connection: sa.Connection,
        wanted: DeadFilter,
        before: DeadCursor | None,
        limit: int,
        with_data: bool,
    ) -> DeadPage:
        conditions = [] if wanted.function is None else [DEAD.c.function == wanted.function]
        examined, has_more = self._examined(
            connection,
            [*conditions, _dead_key() < sa.tuple_(*before)] if before else conditions,
            MAX_EXAMINED if wanted.search else limit,
            MAX_EXAMINED_BYTES if wanted.search or with_data else None,
        )
        if not examined:
            return DeadPage([], None)
        conditions += [_dead_key() <= sa.tuple_(*examined[0]), _dead_key() >= sa.tuple_(*examined[-1])]
        if wanted.search:
            conditions.append(sa.or_(*(self._contains(column, wanted.search) for column in _SEARCHED)))
        query = sa.select(*(DEAD_COLUMNS if with_data else _DEAD_WITHOUT_DATA)).where(*conditions)
        rows = connection.execute(query.order_by(*_LAST_DEAD_FIRST).limit(limit)).all()
        jobs = [_dead_job(row, with_data) for row in rows]
        last = examined[-1]
        if len(jobs) == limit:
            last = DeadCursor(jobs[-1].ended, jobs[-1].number)
        return DeadPage(jobs, last if has_more or last != examined[-1] else None)

    def _examined(
        self,
        connection: sa.Connection,
        conditions: Sequence[sa.ColumnElement[bool]],
        limit: int,
        most_bytes: int | None,
    ) -> tuple[list[DeadCursor], bool]:
        """The cursors of the dead jobs that are looked at for a page, and whether there are more. This reads
        an index alone."""
        query = sa.select(DEAD.c.ended, DEAD.c.number, DEAD.c.weight).where(*conditions)
        cursors: list[DeadCursor] = []
        size = 0
        for ended, number, weight in connection.execute(query.order_by(*_LAST_DEAD_FIRST).limit(limit + 1)):
            size += weight
            too_large = most_bytes is not None and size > most_bytes
            if len(cursors) == limit or (too_large and cursors):
                return cursors, True
            cursors.append(DeadCursor(ended, number))
        return cursors, False

    def find_dead(self, number: int) -> DeadJob | None:
        if number > LARGEST_NUMBER:
            return None
        rows = self._rows(sa.select(*DEAD_COLUMNS).where(DEAD.c.number == number))
        return DeadJob._make(rows[0]) if rows else None

    def retry_dead(self, number: int, position: int, submitted: float) -> StoredJob | None:
        if number > LARGEST_NUMBER:
            return None
        # No other job ever has this position. So it was this call, or an earlier one whose answer was lost.
        revived = sa.select(*STORED).where(JOB.c.number == number, JOB.c.position == position)
        is_dead = sa.select(DEAD.c.number).where(DEAD.c.number == number)

        def retry() -> StoredJob | None:
            with self._writing(2) as connection:
                self._revive(connection, number, position, submitted)
            with self._reading() as connection:
                row = connection.execute(revived).first()
                if row is None and connection.execute(is_dead).first() is not None:
                    raise UniqueInUse
            return None if row is None else StoredJob._make(row)

        return self._with_retries(retry)

    def forget_dead(self, numbers: Sequence[int]) -> int:
        known = [number for number in numbers if number <= LARGEST_NUMBER]
        return sum(
            self._delete_unowned(DEAD, DEAD.c.number.in_(known[start : start + FORGOTTEN_AT_ONCE]))
            for start in range(0, len(known), FORGOTTEN_AT_ONCE)
        )

    def dead_counts(self) -> list[DeadCount]:
        query = sa.select(DEAD.c.function, sa.func.count(), sa.func.sum(DEAD.c.weight))
        return [
            DeadCount(function, jobs, int(weight))
            for function, jobs, weight in self._rows(query.group_by(DEAD.c.function))
        ]

    def evict_dead(self, max_jobs: int, max_bytes: int, ended_before: float, limit: int) -> int:
        # One statement, which sees one state: another server that does the same deletes the same ones.
        oldest = sa.select(DEAD.c.number, DEAD.c.ended, DEAD.c.weight)
        oldest_first = oldest.order_by(DEAD.c.ended, DEAD.c.number).limit(limit).subquery()
        order = [oldest_first.c.ended, oldest_first.c.number]
        ranked = sa.select(
            oldest_first.c.number,
            oldest_first.c.ended,
            sa.func.row_number().over(order_by=order).label("rank"),
            sa.func.sum(oldest_first.c.weight).over(order_by=order).label("passed"),
            oldest_first.c.weight,
        ).subquery()
        total = sa.select(
            sa.func.count().label("jobs"), sa.func.coalesce(sa.func.sum(DEAD.c.weight), 0).label("bytes")
        ).subquery()
        return self._delete_unowned(
            DEAD,
            DEAD.c.number.in_(
                sa.select(ranked.c.number)
                .select_from(ranked.join(total, sa.true()))
                .where(
                    sa.or_(
                        ranked.c.ended < ended_before,
                        total.c.jobs - ranked.c.rank >= max_jobs,
                        total.c.bytes - ranked.c.passed + ranked.c.weight > max_bytes,
                    )
                )
            ),
        )

    def _delete_unowned(self, table: sa.Table, condition: sa.ColumnElement[bool]) -> int:
        """Delete dead jobs or results; returns how many. They are nobody's, so a lease that is lost meanwhile
        does no harm."""

        def delete() -> int:
            with self._reading() as connection:
                return connection.execute(table.delete().where(condition)).rowcount

        return self._with_retries(delete)

    # -- kept uniques -------------------------------------------------------------------------------

    def kept_uniques(self, now: float) -> list[KeptUnique]:
        query = sa.select(*UNIQUE_COLUMNS).where(UNIQUE.c.until > now).order_by(UNIQUE.c.until)
        return [KeptUnique._make(row) for row in self._rows(query)]

    # -- results ------------------------------------------------------------------------------------

    def find_result(self, number: int, now: float) -> KeptResult | None:
        if number > LARGEST_NUMBER:
            return None
        rows = self._rows(
            sa.select(*RESULT_COLUMNS).where(RESULT.c.number == number, RESULT.c.expires_at > now)
        )
        return KeptResult._make(rows[0]) if rows else None

    def result_counts(self) -> ResultCounts:
        ((results, weight),) = self._rows(sa.select(*[sa.func.count(), sa.func.sum(RESULT.c.weight)]))
        return ResultCounts(results, int(weight or 0))

    def evict_results(self, max_bytes: int, now: float, limit: int) -> Evicted:
        past = sa.select(RESULT.c.number).where(RESULT.c.expires_at <= now)
        expired = self._delete_unowned(
            RESULT, RESULT.c.number.in_(past.order_by(RESULT.c.expires_at).limit(limit))
        )
        # One statement, which sees one state: another server that does the same deletes the same ones.
        oldest = sa.select(RESULT.c.number, RESULT.c.ended, RESULT.c.weight)
        oldest_first = oldest.order_by(RESULT.c.ended, RESULT.c.number).limit(limit).subquery()
        ranked = sa.select(
            oldest_first.c.number,
            sa.func.sum(oldest_first.c.weight)
            .over(order_by=[oldest_first.c.ended, oldest_first.c.number])
            .label("passed"),
            oldest_first.c.weight,
        ).subquery()
        total = sa.select(sa.func.coalesce(sa.func.sum(RESULT.c.weight), 0).label("bytes")).subquery()
        evicted = self._delete_unowned(
            RESULT,
            RESULT.c.number.in_(
                sa.select(ranked.c.number)
                .select_from(ranked.join(total, sa.true()))
                .where(total.c.bytes - ranked.c.passed + ranked.c.weight > max_bytes)
            ),
        )
        return Evicted(expired, evicted)

    # -- settings -----------------------------------------------------------------------------------

    def settings(self) -> Settings:
        def read() -> Settings:
            with self._reading() as connection:
                # First: what changes in between is read again later.
                version = connection.scalar(sa.select(META.c.settings))
                rows = connection.execute(sa.select(SETTING.c.name, SETTING.c.kind, SETTING.c.value))
                return Settings(int(version or 0), [Setting._make(row) for row in rows])

        return self._with_retries(read)

    def change_settings(self, changes: SettingChanges) -> None:
        self._with_retries(lambda: self._change_settings(changes))

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
        broken, as after a restart of the database. The first try may have been committed.
        """
        for tried in range(MAX_TRIES):
            if tried:
                time.sleep(random.uniform(0, tried * BACKOFF_STEP))
            connected = self._connection is not None
            try:
                return work()
            except TransactionConflict as error:
                reason: Exception = error
            except StoreUnavailable as error:
                if not connected or self._connection is not None:
                    raise
                reason = error
        raise StoreUnavailable(f"{self._redacted_url}: {MAX_TRIES} tries conflicted with others") from reason

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


def _without(batches: Sequence[Sequence[Row]], numbers: Container[int]) -> list[Sequence[Row]]:
    """The batches without the rows of some jobs."""
    return list(filter(None, ([row for row in rows if row[0] not in numbers] for rows in batches)))


def _dead_job(row: Sequence[Any], has_data: bool) -> DeadJob:
    return DeadJob._make(row if has_data else (*row[:_DEAD_DATA], None, *row[_DEAD_DATA:]))


def _dead_key() -> sa.Tuple:
    return sa.tuple_(DEAD.c.ended, DEAD.c.number)


def _message(error: sa.exc.DBAPIError) -> str:
    """What the database says of an error, in one line."""
    return " ".join(str(error.orig).split()) or type(error.orig).__name__
