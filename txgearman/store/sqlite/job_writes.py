"""What becomes of jobs, written into a SQLite file.

A commit is one fsync of the write-ahead log (``synchronous=FULL``). Each write is one statement for each
kind of change, whatever the number of jobs: a batch of 1000 jobs of 64 bytes took 7 ms, of 1 KiB 11 ms,
and beside a thread that keeps the interpreter busy 13 and 24 ms. The index of the queues cost a tenth of
that. Pages of 8 KiB instead of 4 saved a quarter with 1 KiB of data. Random uniques double it, as
each changes another page of their index.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import sqlalchemy as sa

from txgearman.broker.dead_job import DeadJob
from txgearman.broker.kept_result import KeptResult
from txgearman.broker.kept_unique import KeptUnique
from txgearman.errors import StoreUnavailable
from txgearman.store import tables
from txgearman.store.contract.changes import Changes, Retry, Written
from txgearman.store.job_writes import JobWrites, Row
from txgearman.store.schedules import ScheduleRows
from txgearman.store.session import Session
from txgearman.store.sqlite.disk import DiskSpace, is_disk_full
from txgearman.store.sqlite.statements import STATEMENT_ROWS, execute_for, insertion
from txgearman.store.tables import DEAD_WEIGHT, KEPT, KEPT_OF_DONE, names_of

# The numbers come as one JSON text, so that the statement is the same, and compiled, for any number of them.
_DELETE: Final = "DELETE FROM txgearman_job WHERE number IN (SELECT value FROM json_each(?))"
_SET_LOSSES: Final = (
    "UPDATE txgearman_job SET losses = json_extract(new.value, '$[1]') FROM json_each(?) AS new"
    " WHERE number = json_extract(new.value, '$[0]')"
)
# JSON has no bytes, and a statement for each row would wait for the interpreter's lock each time.
_SET_RETRIES: Final = (
    "UPDATE txgearman_job SET attempts = column2, retry_at = column3, outcome = column4, error = column5,"
    " snoozes = column6"
    " FROM ({}) WHERE number = column1"
)
_BURY: Final = (
    f"INSERT INTO txgearman_dead (number, {KEPT}, submitted, run_at, size, weight, ended, attempts, losses,"
    f" outcome, error, worker) SELECT number, {KEPT}, submitted, run_at, length(data),"
    f" {DEAD_WEIGHT} + length(column6), column2, column3, column4, column5, column6, column7"
    " FROM ({}) CROSS JOIN txgearman_job ON number = column1"
)
_KEEP: Final = (
    f"INSERT INTO txgearman_result (number, {KEPT_OF_DONE}, ended, expires_at, weight, data)"
    f" SELECT number, {KEPT_OF_DONE}, column2, column3, column4, column5"
    " FROM ({}) CROSS JOIN txgearman_job ON number = column1"
)
_KEEP_UNIQUES: Final = (
    'INSERT INTO txgearman_unique (function, "key", handle, until) SELECT * FROM ({}) WHERE true'
    ' ON CONFLICT (function, "key") DO UPDATE SET handle = excluded.handle, until = excluded.until'
)
_KEEP_ENDS: Final = {
    table: f"INSERT INTO {table.name} ({names_of(table.columns)}) SELECT * FROM ({{}})"
    " WHERE NOT EXISTS (SELECT 1 FROM txgearman_job WHERE number = column1) ON CONFLICT DO NOTHING"
    for table in (tables.DEAD, tables.RESULT)
}
_VALUES: Final = ", ".join(f"column{number}" for number in range(1, len(tables.INSERTED) + 1))
_INSERT: Final = (
    f"INSERT INTO txgearman_job ({names_of(tables.INSERTED)}) SELECT {_VALUES} FROM ({{}})"
    " WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING"
)


class SqliteJobWrites(JobWrites):
    """Writes what changes of jobs. On a full disk jobs are not saved any more, but still removed.

    Args:
        session: The connection.
        schedules: What claims ticks, in the transaction of their jobs.
        space: The room on the disk.
    """

    def __init__(self, session: Session, schedules: ScheduleRows, space: DiskSpace) -> None:
        super().__init__(session, schedules)
        self._space = space

    def write(self, changes: Changes) -> Written:
        if changes.kept_uniques and not (changes.saves or changes.unsaved_ends):
            try:
                self._space.require((), changes.deaths.values())
                return super().write(changes)
            except StoreUnavailable as error:
                if _no_room(error):
                    self._keep_by_reserve(changes)
                # What has ended makes room for the next attempt.
                self.write(replace(changes, kept_uniques=[]))
                raise
        frees = bool(changes.removals or changes.losses or changes.retries)
        ends: list[DeadJob | KeptResult] = [*changes.deaths.values(), *changes.results.values()]
        if changes.saves or changes.unsaved_ends or not (ends or frees):
            ends += changes.unsaved_ends.values()
            self._space.require(changes.saves, ends)
            return super().write(changes)
        if frees:
            self._remove(replace(changes, deaths={}, results={}))
        if ends:
            self._end_all(ends)
        # Success would mean that jobs can be saved again.
        self._space.require(())
        return Written({}, [])

    def _keep_by_reserve(self, changes: Changes) -> None:
        """Keep uniques in the room that is reserved, in the transaction that removes their jobs. Else a kill
        before there is more room would lose them."""
        kept = Changes(removals=changes.removals, kept_uniques=changes.kept_uniques)
        with contextlib.suppress(StoreUnavailable):
            self._space.with_reserve(lambda: super(SqliteJobWrites, self).write(kept))

    def _end_all(self, ends: Sequence[DeadJob | KeptResult]) -> None:
        """Write deaths and results, in parts where there is no room for all at once: a dead job, or a result,
        takes room before the job that it was is gone."""
        deaths = {end.number: end for end in ends if isinstance(end, DeadJob)}
        results = {end.number: end for end in ends if isinstance(end, KeptResult)}
        try:
            self._space.require((), ends)
            super().write(Changes(deaths=deaths, results=results))
        except StoreUnavailable as error:
            if len(ends) == 1 or not _no_room(error):
                raise
            half = len(ends) // 2
            for some in (ends[:half], ends[half:]):
                self._end_all(some)

    def _remove(self, changes: Changes) -> None:
        """Write changes that save nothing, in parts where the log has no room for all at once: they change
        each page that has such a job."""
        try:
            self._space.with_reserve(lambda: super(SqliteJobWrites, self).write(changes))
        except StoreUnavailable as error:
            if not is_disk_full(error) or _count(changes) < 2:
                raise
            for part in _halves(changes):
                self._remove(part)

    def _batches(self, rows: Sequence[Row]) -> list[Sequence[Row]]:
        return [rows[start : start + STATEMENT_ROWS] for start in range(0, len(rows), STATEMENT_ROWS)]

    def _insert(self, connection: sa.Connection, rows: Sequence[Row], changes: Changes) -> int:
        sql, values = insertion(_INSERT, rows)
        return connection.exec_driver_sql(sql, values).rowcount

    def _delete(self, connection: sa.Connection, numbers: Sequence[int], coalesced: dict[int, float]) -> int:
        return connection.exec_driver_sql(_DELETE, (json.dumps(numbers),)).rowcount

    def _set_losses(self, connection: sa.Connection, losses: dict[int, int]) -> None:
        connection.exec_driver_sql(_SET_LOSSES, (json.dumps(list(losses.items())),))

    def _set_retries(self, connection: sa.Connection, retries: dict[int, Retry]) -> None:
        rows = [(number, *retry) for number, retry in retries.items()]
        execute_for(connection, _SET_RETRIES, rows)

    def _bury(self, connection: sa.Connection, deaths: Sequence[DeadJob], coalesced: dict[int, float]) -> int:
        rows = [
            (dead.number, dead.ended, dead.attempts, dead.losses, dead.outcome, dead.error, dead.worker)
            for dead in deaths
        ]
        execute_for(connection, _BURY, rows)
        return self._delete(connection, [dead.number for dead in deaths], coalesced)

    def _keep(
        self, connection: sa.Connection, results: Sequence[KeptResult], coalesced: dict[int, float]
    ) -> int:
        rows = [(kept.number, kept.ended, kept.expires_at, kept.weight, kept.data) for kept in results]
        execute_for(connection, _KEEP, rows)
        return self._delete(connection, [kept.number for kept in results], coalesced)

    def _keep_ends(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
        execute_for(connection, _KEEP_ENDS[table], rows)

    def _keep_uniques(self, connection: sa.Connection, kept: Sequence[KeptUnique]) -> None:
        execute_for(connection, _KEEP_UNIQUES, kept)


def _no_room(error: StoreUnavailable) -> bool:
    """Whether the disk is full, or too full by what was reckoned beforehand."""
    return error.__cause__ is None or is_disk_full(error)


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
