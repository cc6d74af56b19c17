"""What becomes of jobs, written into PostgreSQL.

Each statement that changes jobs is a transaction of its own, so a server that is paused in the middle of its
work holds no lock. Deadlocks are ruled out by the order of locks: a statement first locks unique keys in
ascending order, by inserting, and then rows in the order of their numbers. So a job is deleted after the
insertions of its statement.

One statement deletes and inserts, as each answer to wait for may cost 5 ms beside a busy thread: jobs that
come and go at once were a quarter faster for it. The values go as binary arrays: with psycopg's text the same
batch took two to three times as long, with a row of values for each job five times. Batches of 1000 jobs took
11 ms with 64 bytes of data and 20 ms with 1 KiB; where a job has a unique, ON CONFLICT adds a third.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from txgearman.broker.dead_job import DeadJob
from txgearman.broker.kept_result import KeptResult
from txgearman.broker.kept_unique import KeptUnique
from txgearman.broker.stored_job import StoredJob
from txgearman.store import tables
from txgearman.store.contract.changes import Changes, Coalesced, Retry, Written
from txgearman.store.job_writes import JobWrites, Row
from txgearman.store.postgresql.arrays import ARRAYS, NUMBERS, TIMES, Array
from txgearman.store.postgresql.session import ALIVE, PostgresqlSession
from txgearman.store.schedules import ScheduleRows
from txgearman.store.tables import (
    CLOCK,
    DATA_INDEX,
    DEAD_WEIGHT,
    FUNCTION_INDEX,
    JOB,
    KEPT,
    KEPT_OF_DONE,
    STORED,
    names_of,
)

STATEMENT_ROWS: Final = 10_000
"""Jobs that one statement inserts at most, so that none holds its locks for long."""

STATEMENT_BYTES: Final = 64 * 1024 * 1024
"""Bytes of data that one statement inserts, unless a single job has more. A message may have 1 GiB."""


def _type_of(column: sa.Column[Any]) -> str:
    return column.type.compile(postgresql.dialect())  # type: ignore[no-untyped-call]


def _arrays_of(columns: Iterable[sa.Column[Any]]) -> str:
    return ", ".join(f"%b::{_type_of(column)}[]" for column in columns)


_REMOVED: Final = {
    False: "txgearman_job.number = ANY(%b::bigint[]) AND owner = alive.number AND joined IS NULL",
    True: "txgearman_job.number = ANY(%b::bigint[]) AND owner = alive.number AND (joined IS NULL OR"
    " (txgearman_job.number, joined) IN (SELECT * FROM unnest(%b::bigint[], %b::double precision[])))",
}
"""What may be removed, by whether the time of a coalesced submit is known for some."""
_DELETE: Final = {
    known: f"{ALIVE.format('')}, gone AS ("
    f"DELETE FROM txgearman_job USING alive WHERE {removed} RETURNING 1)"
    " SELECT (SELECT count(*) FROM alive), count(*) FROM gone"
    for known, removed in _REMOVED.items()
}
# The moment, not the beginning of the transaction: what a server knew ahead of coalescing is ahead of this
# time.
_COALESCE: Final = (
    "UPDATE txgearman_job SET joined = extract(epoch FROM clock_timestamp())::double precision"
    " WHERE number = ANY(%b::bigint[]) AND owner <> %b::bigint RETURNING number"
)
_SET_LOSSES: Final = (
    f"{ALIVE.format('')}, changed AS (UPDATE txgearman_job SET losses = new.losses"
    " FROM alive, unnest(%b::bigint[], %b::integer[]) AS new(number, losses)"
    " WHERE txgearman_job.number = new.number AND owner = alive.number)"
    " SELECT count(*) FROM alive"
)
_SET_RETRIES: Final = (
    f"{ALIVE.format('')}, changed AS (UPDATE txgearman_job SET attempts = new.attempts,"
    " retry_at = new.retry_at, outcome = new.outcome, error = new.error, snoozes = new.snoozes"
    " FROM alive, unnest(%b::bigint[], %b::integer[], %b::double precision[], %b::smallint[], %b::bytea[],"
    " %b::integer[]) AS new(number, attempts, retry_at, outcome, error, snoozes)"
    " WHERE txgearman_job.number = new.number AND owner = alive.number)"
    " SELECT count(*) FROM alive"
)
_BURY: Final = {
    known: f"{ALIVE.format('')}, gone AS ("
    f"DELETE FROM txgearman_job USING alive WHERE {removed} RETURNING txgearman_job.*), buried AS ("
    f"INSERT INTO txgearman_dead (number, {KEPT}, submitted, run_at, size, weight, ended, attempts, losses,"
    f" outcome, error, worker) SELECT number, {KEPT}, submitted, run_at, length(data),"
    f" {DEAD_WEIGHT} + length(death.error),"
    " death.ended, death.attempts, death.losses, death.outcome, death.error, death.worker"
    " FROM gone JOIN unnest(%b::bigint[], %b::double precision[], %b::integer[], %b::integer[],"
    " %b::smallint[], %b::bytea[], %b::bytea[])"
    " AS death(dead, ended, attempts, losses, outcome, error, worker) ON gone.number = death.dead)"
    " SELECT (SELECT count(*) FROM alive), count(*) FROM gone"
    for known, removed in _REMOVED.items()
}
_KEEP_UNIQUES: Final = (
    'INSERT INTO txgearman_unique (function, "key", handle, until)'
    " SELECT * FROM unnest(%b::bytea[], %b::bytea[], %b::bytea[], %b::double precision[])"
    ' ON CONFLICT (function, "key") DO UPDATE SET handle = excluded.handle, until = excluded.until'
)
# One that is paused here and loses its lease keeps nothing of jobs whose submits it refuses then.
_KEEP_ENDS: Final = {
    table: f"{ALIVE.format('')}, kept AS (INSERT INTO {table.name} ({names_of(table.columns)})"
    f" SELECT new.* FROM alive, unnest({_arrays_of(table.columns)}) AS new({names_of(table.columns)})"
    " WHERE NOT EXISTS (SELECT 1 FROM txgearman_job WHERE txgearman_job.number = new.number)"
    " ON CONFLICT DO NOTHING) SELECT count(*) FROM alive"
    for table in (tables.DEAD, tables.RESULT)
}
_KEEP: Final = {
    known: f"{ALIVE.format('')}, gone AS ("
    f"DELETE FROM txgearman_job USING alive WHERE {removed} RETURNING txgearman_job.*), kept AS ("
    f"INSERT INTO txgearman_result (number, {KEPT_OF_DONE}, ended, expires_at, weight, data)"
    f" SELECT number, {KEPT_OF_DONE}, result.ended, result.expires_at, result.weight, result.data"
    " FROM gone JOIN unnest(%b::bigint[], %b::double precision[], %b::double precision[], %b::bigint[],"
    " %b::bytea[]) AS result(job, ended, expires_at, weight, data) ON gone.number = result.job)"
    " SELECT (SELECT count(*) FROM alive), count(*) FROM gone"
    for known, removed in _REMOVED.items()
}

_INSERTED_COLUMNS: Final = [column for column in tables.INSERTED if column is not JOB.c.owner]
_TYPES: Final = [_type_of(column) for column in _INSERTED_COLUMNS]


# Neither is a condition that could become a join: the statistics of these tables are out of date.
_NOT_KEPT: Final = (
    " WHERE (SELECT 1 FROM txgearman_job AS before"
    ' WHERE before.unique_key = new.asked AND before."function" = new."function") IS NULL'
    " AND (SELECT 1 FROM txgearman_unique AS kept"
    ' WHERE kept."key" = new.asked AND kept."function" = new."function"'
    " AND kept.until > %b::double precision) IS NULL"
)


class _Check(Enum):
    """What is looked for before each row is inserted."""

    NOTHING = auto()
    DUPLICATES = auto()
    KEPT = auto()
    """Duplicates, and uniques that are kept."""


def _insertion(check: _Check, removed: str | None = None) -> str:
    """The statement that inserts jobs and then deletes what is to be `removed`.

    Looking for conflicts ahead of each row is what ON CONFLICT costs. Jobs without a unique cannot have any,
    but with themselves when they are saved again.

    A job whose unique may be kept is not inserted where the statement's snapshot has the unique, be it kept
    or that of a job. ON CONFLICT alone looks past the snapshot: it takes a job for gone that another server
    has completed meanwhile, whose unique, which is kept since then, the snapshot does not have yet.
    """
    conflict = "" if check is _Check.NOTHING else " ON CONFLICT DO NOTHING"
    names, arrays, condition = names_of(_INSERTED_COLUMNS), _arrays_of(_INSERTED_COLUMNS), ""
    columns, alias = "new.*", "new"
    if check is _Check.KEPT:
        columns = ", ".join(f'new."{column.name}"' for column in _INSERTED_COLUMNS)
        arrays, alias, condition = f"{arrays}, %b::bytea[]", f"new({names}, asked)", _NOT_KEPT
    deletion, deleted = "", "0"
    if removed is not None:
        deleted = "(SELECT count(*) FROM gone)"
        # What is counted has to be there: so the last row is inserted before the first is deleted.
        deletion = (
            ", gone AS (DELETE FROM txgearman_job USING alive, (SELECT count(*) FROM saved) AS inserted(jobs)"
            f" WHERE {removed} RETURNING 1)"
        )
    return (
        f"{ALIVE.format('')}, saved AS (INSERT INTO txgearman_job ({names}, owner)"
        f" SELECT {columns}, alive.number FROM alive, unnest({arrays}) AS {alias}{condition}{conflict}"
        f" RETURNING 1){deletion} SELECT (SELECT count(*) FROM alive), {deleted}, count(*) FROM saved"
    )


_INSERT: Final = {check: _insertion(check) for check in _Check}
_INSERT_AND_DELETE: Final = {
    (check, known): _insertion(check, removed) for check in _Check for known, removed in _REMOVED.items()
}

_OWNER: Final = tables.INSERTED.index(JOB.c.owner)
_ARRAYS: Final = [ARRAYS[name] for name in _TYPES]


class PostgresqlJobWrites(JobWrites):
    """Writes what changes of jobs, as long as this server has its lease."""

    def __init__(self, session: PostgresqlSession, schedules: ScheduleRows) -> None:
        super().__init__(session, schedules)
        self._session: PostgresqlSession = session

    def write(self, changes: Changes) -> Written:
        self._session.may_conflict = False
        return super().write(changes)

    def _batches(self, rows: Sequence[Row]) -> list[Sequence[Row]]:
        # In the order of their keys, so that two servers that save the same jobs do not deadlock. The sort is
        # stable: of two duplicates the first is saved.
        rows = sorted(rows, key=lambda row: (row[-1] or b"", row[FUNCTION_INDEX]))
        batches: list[Sequence[Row]] = []
        start = size = 0
        for end, row in enumerate(rows):
            size += len(row[DATA_INDEX])
            if end > start and (size > STATEMENT_BYTES or end - start == STATEMENT_ROWS):
                batches.append(rows[start:end])
                start, size = end, len(row[DATA_INDEX])
        return [*batches, rows[start:]]

    def _insert(self, connection: sa.Connection, rows: Sequence[Row], changes: Changes) -> int:
        check, arrays = self._values(rows, changes)
        values = (self._session.owner, *arrays)
        alive, _, inserted = connection.exec_driver_sql(_INSERT[check], values).one()
        self._session.check(alive)
        return int(inserted)

    def _delete_and_insert(
        self,
        connection: sa.Connection,
        numbers: Sequence[int],
        rows: Sequence[Row],
        changes: Changes,
    ) -> tuple[int, int]:
        check, arrays = self._values(rows, changes)
        values = (self._session.owner, *arrays, *_removal_values(numbers, changes.coalesced))
        sql = _INSERT_AND_DELETE[check, bool(changes.coalesced)]
        alive, deleted, inserted = connection.exec_driver_sql(sql, values).one()
        self._session.check(alive)
        return deleted, inserted

    def _values(self, rows: Sequence[Row], changes: Changes) -> tuple[_Check, list[Array | float]]:
        """What to look for before these rows are inserted, and the values of the statement for that."""
        columns = list(zip(*rows, strict=True))
        del columns[_OWNER]
        values: list[Array | float] = [array(column) for array, column in zip(_ARRAYS, columns, strict=True)]
        numbers, keys = columns[0], columns[-1]
        if changes.unless_kept and not changes.unless_kept.isdisjoint(numbers):
            asked = [
                key if number in changes.unless_kept else None
                for number, key in zip(numbers, keys, strict=True)
            ]
            return _Check.KEPT, [*values, ARRAYS["BYTEA"](asked), changes.now]
        may_conflict = any(keys) or self._session.may_conflict
        return _Check.DUPLICATES if may_conflict else _Check.NOTHING, values

    def _delete(self, connection: sa.Connection, numbers: Sequence[int], coalesced: dict[int, float]) -> int:
        values = (self._session.owner, *_removal_values(numbers, coalesced))
        alive, deleted = connection.exec_driver_sql(_DELETE[bool(coalesced)], values).one()
        self._session.check(alive)
        return int(deleted)

    def _coalesced(self, connection: sa.Connection, numbers: Sequence[int]) -> list[Coalesced]:
        query = sa.select(JOB.c.coalesced_at, CLOCK - JOB.c.coalesced_at, *STORED).where(
            JOB.c.number.in_(numbers), JOB.c.owner == self._session.owner, JOB.c.coalesced_at.is_not(None)
        )
        return [Coalesced(StoredJob._make(job), at, ago) for at, ago, *job in connection.execute(query)]

    def _coalesce(self, connection: sa.Connection, numbers: Sequence[int]) -> set[int]:
        return set(connection.exec_driver_sql(_COALESCE, (NUMBERS(numbers), self._session.owner)).scalars())

    def _set_losses(self, connection: sa.Connection, losses: dict[int, int]) -> None:
        values = (self._session.owner, list(losses), list(losses.values()))
        self._session.check(connection.exec_driver_sql(_SET_LOSSES, values).scalar())

    def _set_retries(self, connection: sa.Connection, retries: dict[int, Retry]) -> None:
        attempts, times, outcomes, errors, snoozes = zip(*retries.values(), strict=True)
        values = (
            self._session.owner,
            NUMBERS(list(retries)),
            ARRAYS["INTEGER"](attempts),
            TIMES(times),
            ARRAYS["SMALLINT"](outcomes),
            ARRAYS["BYTEA"](errors),
            ARRAYS["INTEGER"](snoozes),
        )
        self._session.check(connection.exec_driver_sql(_SET_RETRIES, values).scalar())

    def _bury(self, connection: sa.Connection, deaths: Sequence[DeadJob], coalesced: dict[int, float]) -> int:
        numbers = [dead.number for dead in deaths]
        values = (
            self._session.owner,
            *_removal_values(numbers, coalesced),
            NUMBERS(numbers),
            TIMES([dead.ended for dead in deaths]),
            ARRAYS["INTEGER"]([dead.attempts for dead in deaths]),
            ARRAYS["INTEGER"]([dead.losses for dead in deaths]),
            ARRAYS["SMALLINT"]([dead.outcome for dead in deaths]),
            ARRAYS["BYTEA"]([dead.error for dead in deaths]),
            ARRAYS["BYTEA"]([dead.worker for dead in deaths]),
        )
        alive, deleted = connection.exec_driver_sql(_BURY[bool(coalesced)], values).one()
        self._session.check(alive)
        return int(deleted)

    def _keep(
        self, connection: sa.Connection, results: Sequence[KeptResult], coalesced: dict[int, float]
    ) -> int:
        numbers = [kept.number for kept in results]
        values = (
            self._session.owner,
            *_removal_values(numbers, coalesced),
            NUMBERS(numbers),
            TIMES([kept.ended for kept in results]),
            TIMES([kept.expires_at for kept in results]),
            NUMBERS([kept.weight for kept in results]),
            ARRAYS["BYTEA"]([kept.data for kept in results]),
        )
        alive, deleted = connection.exec_driver_sql(_KEEP[bool(coalesced)], values).one()
        self._session.check(alive)
        return int(deleted)

    def _keep_ends(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
        columns = zip(table.columns, zip(*rows, strict=True), strict=True)
        values = (self._session.owner, *(ARRAYS[_type_of(column)](each) for column, each in columns))
        self._session.check(connection.exec_driver_sql(_KEEP_ENDS[table], values).scalar())

    def _keep_uniques(self, connection: sa.Connection, kept: Sequence[KeptUnique]) -> None:
        functions, keys, handles, untils = zip(*kept, strict=True)
        as_bytes = ARRAYS["BYTEA"]
        values = as_bytes(functions), as_bytes(keys), as_bytes(handles), TIMES(untils)
        connection.exec_driver_sql(_KEEP_UNIQUES, values)


def _removal_values(numbers: Sequence[int], coalesced: dict[int, float]) -> list[Array]:
    """The values of `_REMOVED`."""
    known = [NUMBERS(list(coalesced)), TIMES(list(coalesced.values()))] if coalesced else []
    return [NUMBERS(numbers), *known]
