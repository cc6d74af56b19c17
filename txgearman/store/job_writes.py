"""What becomes of jobs, written into a database: all changes of one `Store.write`.

The statements are plain SQL, in the folder of each kind of database. Inserting through SQLAlchemy's
constructs was measured to cost three times as much, and row by row a hundred times as much beside a busy
thread: the driver releases the interpreter's lock for every row and waits up to 5 ms to get it back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Sequence, Set
from typing import Any

import sqlalchemy as sa

from txgearman.broker.dead_job import DeadJob
from txgearman.broker.kept_result import KeptResult
from txgearman.broker.kept_unique import KeptUnique, unique_key
from txgearman.store.contract.changes import Changes, Coalesced, Retry, Written
from txgearman.store.schedules import ScheduleRows
from txgearman.store.session import MAX_TRIES, Session, TransactionConflict
from txgearman.store.tables import DEAD, FUNCTION_INDEX, INSERTED_FIELDS, JOB, RESULT, UNIQUE

Row = tuple[Any, ...]
"""The values of `tables.INSERTED` for one job."""


class JobWrites(ABC):
    """Writes what changes of jobs.

    A subclass knows the statements of one kind of database.

    Args:
        session: The connection.
        schedules: What claims ticks, in the transaction of their jobs.
    """

    def __init__(self, session: Session, schedules: ScheduleRows) -> None:
        self._session = session
        self._schedules = schedules

    # -- what a subclass knows ----------------------------------------------------------------------

    @abstractmethod
    def _batches(self, rows: Sequence[Row]) -> list[Sequence[Row]]:
        """`rows` cut into batches that one statement takes."""

    @abstractmethod
    def _insert(self, connection: sa.Connection, rows: Sequence[Row], changes: Changes) -> int:
        """Insert a batch, without rows whose number or unique key is there already; returns how many
        were inserted. Where several servers share the database, those in `Changes.unless_kept` are left out
        too if their unique is kept: it may have come to be since `_refuse_kept` looked."""

    @abstractmethod
    def _delete(self, connection: sa.Connection, numbers: Sequence[int], coalesced: dict[int, float]) -> int:
        """Delete own jobs with which no submit elsewhere was coalesced, or the last one at the time in
        `coalesced`; returns how many were deleted."""

    def _delete_and_insert(
        self,
        connection: sa.Connection,
        numbers: Sequence[int],
        rows: Sequence[Row],
        changes: Changes,
    ) -> tuple[int, int]:
        """Do both; returns how many were deleted and what `_insert` does, which may leave out rows that are
        the same as jobs that are deleted."""
        deleted = self._delete(connection, numbers, changes.coalesced)
        return deleted, self._insert(connection, rows, changes)

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
    def _keep_uniques(self, connection: sa.Connection, kept: Sequence[KeptUnique]) -> None:
        """Insert kept uniques, in place of those with the same function and key."""

    @abstractmethod
    def _keep_ends(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
        """Insert rows of `DEAD` or `RESULT`, in the order of their numbers, but for those whose number is
        there already or is that of a job."""

    def _coalesced(self, connection: sa.Connection, numbers: Sequence[int]) -> list[Coalesced]:
        """Those of own jobs with which a submit to another server was coalesced."""
        return []

    def _coalesce(self, connection: sa.Connection, numbers: Sequence[int]) -> set[int]:
        """Note that submits were coalesced with others' jobs; returns the jobs that are still there."""
        return set()

    # -- what all databases share -------------------------------------------------------------------

    def write(self, changes: Changes) -> Written:
        # In the order of their index: servers which delete and coalesce with the same jobs do not deadlock.
        removals = dict.fromkeys(sorted(changes.removals))
        owner = self._session.owner
        rows = [
            (*job[:INSERTED_FIELDS], owner, unique_key(job.unique, job.data))
            for job in changes.saves
            if job.number not in removals
        ]
        batches = self._batches(rows) if rows else []
        return self._session.with_retries(lambda: self._write(changes, list(removals), batches))

    def _write(self, changes: Changes, removals: Sequence[int], batches: Sequence[Sequence[Row]]) -> Written:
        duplicates: dict[int, bytes] = {}
        statements = len(batches) + bool(removals) + bool(changes.losses)
        statements += bool(changes.retries) + 2 * bool(changes.deaths) + 2 * bool(changes.ticks)
        statements += 2 * bool(changes.kept_uniques) + 2 * bool(changes.results)
        statements += 2 * bool(changes.unsaved_ends)
        ticks_done: Set[int] = frozenset()
        ticks_refused: Set[int] = frozenset()
        # Whoever is killed between the claim of a tick and its job would leave a tick that nobody does.
        with self._session.writing(statements, together=bool(changes.ticks)) as connection:
            # First: each statement may be a transaction of its own. Between the two a job runs once more.
            if changes.kept_uniques:
                self._keep_latest(connection, changes)
            if changes.ticks:
                # Ahead of the jobs, and in order, as the unique keys are: servers that do the same ticks do
                # not deadlock.
                ticks_done, ticks_refused = self._schedules.claim(connection, changes.ticks)
                batches = _without(batches, ticks_done | ticks_refused)
            if changes.losses:
                self._set_losses(connection, dict(sorted(changes.losses.items())))
            if changes.retries:
                self._set_retries(connection, dict(sorted(changes.retries.items())))
            buried, kept = self._end_jobs(connection, changes)
            if changes.unless_kept:
                duplicates = self._refuse_kept(connection, batches, changes)
                batches = _without(batches, duplicates)
            deleted, same = self._insert_all(connection, batches, removals, changes)
            duplicates |= same
            if changes.unsaved_ends:
                self._keep_unsaved(connection, changes, ticks_done | ticks_refused)
            # Nobody else removes them: what is still there was coalesced with, now or at the first of two
            # attempts.
            left = self._coalesced(connection, removals) if deleted != len(removals) else []
            if buried != len(changes.deaths):
                left += self._coalesced(connection, sorted(changes.deaths))
            if kept != len(changes.results):
                left += self._coalesced(connection, sorted(changes.results))
        return Written(duplicates, left, ticks_done, ticks_refused)

    def _insert_all(
        self,
        connection: sa.Connection,
        batches: Sequence[Sequence[Row]],
        removals: Sequence[int],
        changes: Changes,
    ) -> tuple[int, dict[int, bytes]]:
        """Insert jobs and remove others; returns how many were removed, and the handles of jobs that new ones
        are the same as, by the numbers of these."""
        duplicates: dict[int, bytes] = {}
        deleted = 0
        if removals and not batches:
            deleted = self._delete(connection, removals, changes.coalesced)
        for index, rows in enumerate(batches):
            if index == 0 and removals:
                deleted, inserted = self._delete_and_insert(connection, removals, rows, changes)
            else:
                inserted = self._insert(connection, rows, changes)
            if inserted != len(rows):
                duplicates |= self._resolve_duplicates(connection, rows, changes)
        return deleted, duplicates

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

    def _keep_unsaved(self, connection: sa.Connection, changes: Changes, without: Set[int]) -> None:
        """Keep what is to be kept of jobs that ended before they were saved, but for some by number."""
        ends = [end for number, end in sorted(changes.unsaved_ends.items()) if number not in without]
        dead = [_dead_row(end) for end in ends if isinstance(end, DeadJob)]
        results = [_result_row(end) for end in ends if isinstance(end, KeptResult)]
        for table, rows in ((DEAD, dead), (RESULT, results)):
            if rows:
                self._keep_ends(connection, table, rows)

    def _keep_latest(self, connection: sa.Connection, changes: Changes) -> None:
        """Keep uniques, and forget those whose time is over."""
        connection.execute(UNIQUE.delete().where(UNIQUE.c.until <= changes.now))
        # Of one key the last one counts. In order, so that two servers do not deadlock.
        latest = {(kept.function, kept.key): kept for kept in changes.kept_uniques}
        self._keep_uniques(connection, [latest[key] for key in sorted(latest)])

    def _refuse_kept(
        self, connection: sa.Connection, batches: Sequence[Sequence[Row]], changes: Changes
    ) -> dict[int, bytes]:
        """The handles for which uniques of new jobs are kept, by the numbers of these jobs. Such a job is not
        in the store then, unless another server has coalesced a submit with it: that one is not found."""
        kept = self._find_kept(connection, batches, changes)
        if kept:
            own = JOB.c.number.in_(sorted(kept)) & (JOB.c.owner == self._session.owner)
            connection.execute(JOB.delete().where(own, JOB.c.coalesced_at.is_(None)))
            for number in connection.scalars(sa.select(JOB.c.number).where(own)):
                del kept[number]
        return kept

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

    def _resolve_duplicates(
        self, connection: sa.Connection, rows: Sequence[Row], changes: Changes
    ) -> dict[int, bytes]:
        """The handles of the jobs that some of `rows`, not all of which were inserted, are the same as, by
        number. A row whose duplicate has been removed since, and whose unique is not kept, is inserted after
        all."""
        duplicates: dict[int, bytes] = {}
        for _ in range(MAX_TRIES):
            if changes.unless_kept:
                # Before the duplicates: a job that is marked as coalesced with would run again.
                duplicates |= self._refuse_kept(connection, [rows], changes)
                rows = [row for row in rows if row[0] not in duplicates]
            found, rows = self._find_duplicates(connection, rows)
            duplicates |= found
            if not rows or self._insert(connection, rows, changes) == len(rows):
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
        foreign = {number for number, owner, _ in duplicates.values() if owner != self._session.owner}
        gone = foreign - self._coalesce(connection, sorted(foreign)) if foreign else foreign
        duplicates = {number: its for number, its in duplicates.items() if its[0] not in gone}
        handles = {
            number: handle
            for number, (its, owner, handle) in duplicates.items()
            if its != number or owner != self._session.owner
        }
        return handles, [row for row in rows if row[0] not in duplicates]


def _dead_row(dead: DeadJob) -> Row:
    """The values of all columns of `DEAD`."""
    key = unique_key(dead.unique, dead.data or b"")
    values = {**dead._asdict(), "unique_key": key, "weight": dead.weight}
    return tuple(values[column.key] for column in DEAD.columns)


def _result_row(result: KeptResult) -> Row:
    """The values of all columns of `RESULT`."""
    values = {**result._asdict(), "weight": result.weight}
    return tuple(values.get(column.key) for column in RESULT.columns)


def _without(batches: Sequence[Sequence[Row]], numbers: Container[int]) -> list[Sequence[Row]]:
    """The batches without the rows of some jobs."""
    return list(filter(None, ([row for row in rows if row[0] not in numbers] for rows in batches)))
