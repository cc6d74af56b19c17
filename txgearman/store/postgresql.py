"""Jobs in PostgreSQL, which several servers may share.

Each server has a lease by the database's clock. Every write holds a shared lock on the row of its server, and
changes nothing once that is marked dead. A take-over marks it first, and skips a server that is just writing.
So a server that was thought dead cannot touch what others have taken over.

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

import contextlib
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from txgearman.broker.dead_job import DeadJob
from txgearman.errors import LeaseLost, StoreError, StoreUnavailable
from txgearman.store import slots, tables
from txgearman.store.arrays import ARRAYS, Array, register_arrays
from txgearman.store.contract import (
    NO_POSITION,
    Changes,
    Coalesced,
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
from txgearman.store.database import DatabaseStore, Row, TransactionConflict
from txgearman.store.schedules import TickRow
from txgearman.store.tables import (
    DATA_INDEX,
    FUNCTION_INDEX,
    HAS_NO_TIME,
    HAS_TIME,
    JOB,
    META,
    SERVER,
    SLOT,
    SLOT_WANT,
    STORED,
)

CONNECT_TIMEOUT: Final = 10
"""Seconds until an attempt to connect fails."""

DEAD_PEER_TIMEOUT: Final = 15
"""Seconds until a connection is broken whose other end acknowledges nothing: TCP_USER_TIMEOUT and
keepalive."""

LOCK_TIMEOUT: Final = 10
"""Seconds until a statement that waits for another server's lock fails."""

IDLE_TIMEOUT: Final = 10
"""Seconds until the database ends the transaction of a server that is paused in the middle of opening. No
other can open meanwhile."""

STATEMENT_ROWS: Final = 10_000
"""Jobs that one statement inserts at most, so that none holds its locks for long."""

STATEMENT_BYTES: Final = 64 * 1024 * 1024
"""Bytes of data that one statement inserts, unless a single job has more. A message may have 1 GiB."""

_OPENING: Final = 0x7478_6765_6172_6D61
"""The advisory lock of whoever opens, one at a time: "txgearma" in ASCII."""

_CLOCK: Final = sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)

_LIVING: Final = sa.select(SERVER.c.name).where(~SERVER.c.dead, SERVER.c.lease_end > _CLOCK)

_NEWS: Final = sa.select(
    sa.exists().where(SERVER.c.dead | (SERVER.c.lease_end < _CLOCK)),
    sa.select(META.c.settings).scalar_subquery(),
)
"""What a server learns when it renews its lease."""

_ALIVE: Final = (
    "WITH alive AS (SELECT number FROM txgearman_server WHERE number = %b::bigint AND NOT dead{} FOR SHARE)"
)
_HAS_LEASE: Final = f"{_ALIVE.format('')} SELECT count(*) FROM alive"
_REMOVED: Final = {
    False: "txgearman_job.number = ANY(%b::bigint[]) AND owner = alive.number AND joined IS NULL",
    True: "txgearman_job.number = ANY(%b::bigint[]) AND owner = alive.number AND (joined IS NULL OR"
    " (txgearman_job.number, joined) IN (SELECT * FROM unnest(%b::bigint[], %b::double precision[])))",
}
"""What may be removed, by whether the time of a coalesced submit is known for some."""
_DELETE: Final = {
    known: f"{_ALIVE.format('')}, gone AS ("
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
    f"{_ALIVE.format('')}, changed AS (UPDATE txgearman_job SET losses = new.losses"
    " FROM alive, unnest(%b::bigint[], %b::integer[]) AS new(number, losses)"
    " WHERE txgearman_job.number = new.number AND owner = alive.number)"
    " SELECT count(*) FROM alive"
)
_SET_RETRIES: Final = (
    f"{_ALIVE.format('')}, changed AS (UPDATE txgearman_job SET attempts = new.attempts,"
    " retry_at = new.retry_at, outcome = new.outcome, error = new.error"
    " FROM alive, unnest(%b::bigint[], %b::integer[], %b::double precision[], %b::smallint[], %b::bytea[])"
    " AS new(number, attempts, retry_at, outcome, error)"
    " WHERE txgearman_job.number = new.number AND owner = alive.number)"
    " SELECT count(*) FROM alive"
)
_KEPT: Final = 'handle, function, "unique", unique_key, priority, reducer, attributes, data'
"""The columns that a job keeps when it dies and when it is retried, beside its number."""

_BURY: Final = {
    known: f"{_ALIVE.format('')}, gone AS ("
    f"DELETE FROM txgearman_job USING alive WHERE {removed} RETURNING txgearman_job.*), buried AS ("
    f"INSERT INTO txgearman_dead (number, {_KEPT}, submitted, run_at, size, weight, ended, attempts, losses,"
    f" outcome, error, worker) SELECT number, {_KEPT}, submitted, run_at, length(data),"
    f" {tables.DEAD_WEIGHT} + length(death.error),"
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
_INSERT_TICKS: Final = (
    "INSERT INTO txgearman_tick (schedule, tick, job)"
    " SELECT * FROM unnest(%b::bytea[], %b::double precision[], %b::bigint[]) ON CONFLICT DO NOTHING"
)
_KEEP: Final = {
    known: f"{_ALIVE.format('')}, gone AS ("
    f"DELETE FROM txgearman_job USING alive WHERE {removed} RETURNING txgearman_job.*), kept AS ("
    "INSERT INTO txgearman_result (number, handle, function, ended, expires_at, weight, data)"
    " SELECT number, handle, function, result.ended, result.expires_at, result.weight, result.data"
    " FROM gone JOIN unnest(%b::bigint[], %b::double precision[], %b::double precision[], %b::bigint[],"
    " %b::bytea[]) AS result(job, ended, expires_at, weight, data) ON gone.number = result.job)"
    " SELECT (SELECT count(*) FROM alive), count(*) FROM gone"
    for known, removed in _REMOVED.items()
}
_REVIVE: Final = (
    f"{_ALIVE.format('')}, gone AS (DELETE FROM txgearman_dead USING alive"
    " WHERE txgearman_dead.number = %b::bigint AND NOT EXISTS (SELECT 1 FROM txgearman_job"
    " WHERE txgearman_job.unique_key = txgearman_dead.unique_key"
    " AND txgearman_job.function = txgearman_dead.function) RETURNING txgearman_dead.*),"
    f" revived AS (INSERT INTO txgearman_job (number, place, submitted, losses, owner, {_KEPT})"
    f" SELECT gone.number, %b::bigint, %b::double precision, 0, alive.number, {_KEPT} FROM gone, alive"
    " RETURNING 1)"
    " SELECT (SELECT count(*) FROM alive), count(*) FROM revived"
)
# The row that counts the changes is locked first, so that two servers which change the same do not deadlock.
# A row that is both deleted and inserted would be an error.
_CHANGE_SETTINGS: Final = (
    f"{_ALIVE.format('')}, counted AS ("
    "UPDATE txgearman_meta SET settings = settings + 1 FROM alive RETURNING 1),"
    " new AS (SELECT * FROM unnest(%b::bytea[], %b::text[], %b::text[]) AS new(name, kind, value)),"
    " gone AS (DELETE FROM txgearman_setting AS old USING counted"
    " WHERE (old.name = ANY(%b::bytea[]) OR (old.name, old.kind) IN (SELECT name, kind FROM new))"
    " AND NOT EXISTS (SELECT 1 FROM new"
    " WHERE new.name = old.name AND new.kind = old.kind AND new.value IS NOT NULL)),"
    " saved AS (INSERT INTO txgearman_setting (name, kind, value)"
    " SELECT new.* FROM new, counted WHERE value IS NOT NULL ORDER BY name, kind"
    " ON CONFLICT (name, kind) DO UPDATE SET value = excluded.value)"
    " SELECT count(*) FROM alive"
)
_MOVE: Final = (
    f"{_ALIVE.format(' AND lease_end = %b::double precision')}, moved AS ("
    "UPDATE txgearman_job SET owner = alive.number, place = new.place"
    " FROM alive, unnest(%b::bigint[], %b::bigint[], %b::bigint[]) AS new(number, owner, place)"
    " WHERE txgearman_job.number = new.number AND txgearman_job.owner = new.owner"
    " RETURNING txgearman_job.number)"
    " SELECT (SELECT count(*) FROM alive), ARRAY(SELECT number FROM moved)"
)


_INSERTED_COLUMNS: Final = [column for column in tables.INSERTED if column is not JOB.c.owner]
_TYPES: Final = [column.type.compile(postgresql.dialect()) for column in _INSERTED_COLUMNS]  # type: ignore[no-untyped-call]


def _insertion(checking: bool, removed: str | None = None) -> str:
    """The statement that inserts jobs, `checking` for those that are there already, and then deletes what is
    to be `removed`.

    Looking for conflicts ahead of each row is what ON CONFLICT costs. Jobs without a unique cannot have any,
    but with themselves when they are saved again.
    """
    names = [f'"{column.name}"' for column in _INSERTED_COLUMNS]
    arrays = [f"%b::{name}[]" for name in _TYPES]
    conflict = " ON CONFLICT DO NOTHING" if checking else ""
    deletion, deleted = "", "0"
    if removed is not None:
        deleted = "(SELECT count(*) FROM gone)"
        # What is counted has to be there: so the last row is inserted before the first is deleted.
        deletion = (
            ", gone AS (DELETE FROM txgearman_job USING alive, (SELECT count(*) FROM saved) AS inserted(jobs)"
            f" WHERE {removed} RETURNING 1)"
        )
    return (
        f"{_ALIVE.format('')}, saved AS (INSERT INTO txgearman_job ({', '.join(names)}, owner)"
        f" SELECT new.*, alive.number FROM alive, unnest({', '.join(arrays)}) AS new{conflict} RETURNING 1)"
        f"{deletion} SELECT (SELECT count(*) FROM alive), {deleted}, count(*) FROM saved"
    )


_INSERT: Final = {checking: _insertion(checking) for checking in (False, True)}
_INSERT_AND_DELETE: Final = {
    (checking, known): _insertion(checking, removed)
    for checking in (False, True)
    for known, removed in _REMOVED.items()
}

_OWNER: Final = tables.INSERTED.index(JOB.c.owner)
_ARRAYS: Final = [ARRAYS[name] for name in _TYPES]
_NUMBERS: Final = ARRAYS["BIGINT"]
_TIMES: Final = ARRAYS["DOUBLE PRECISION"]

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_CONFLICTS: Final = frozenset({"40001", "40P01"})
_UNIQUE_VIOLATION: Final = "23505"
_READ_ONLY: Final = "25006"


class PostgresqlStore(DatabaseStore):
    """A database; `url` is that of libpq but for the name of SQLAlchemy's driver."""

    # A field may have 1 GiB less a little; a message too, with all that goes along, and it is copied.
    largest_data = 512 * 1024 * 1024
    shared = True

    def __init__(self, url: sa.URL) -> None:
        super().__init__(url)
        self._lease = 0.0
        self._may_conflict = False
        """Whether the write in flight met a job that is there already."""
        self._unconfirmed: list[int] = []
        """The jobs that the last take-over may have moved here: its answer is still to come, or was lost."""

    def write(self, changes: Changes) -> Written:
        self._may_conflict = False
        return super().write(changes)

    # -- several servers ----------------------------------------------------------------------------

    def _owned(self) -> sa.ColumnElement[bool]:
        owned = super()._owned()
        return sa.and_(owned, JOB.c.number.not_in(self._unconfirmed)) if self._unconfirmed else owned

    def _read(self, query: sa.Select[Any]) -> list[StoredJob]:
        return [self._as_confirmed(job) for job in super()._read(query)]

    def _find(self, query: sa.Select[Any]) -> StoredJob | None:
        job = super()._find(query)
        return job and self._as_confirmed(job)

    def _as_confirmed(self, job: StoredJob) -> StoredJob:
        """The job, without a position as long as its take-over is unconfirmed."""
        return job._replace(position=NO_POSITION) if job.number in self._unconfirmed else job

    def renew(self) -> Renewal:
        return self._with_retries(self._renew)

    def _renew(self) -> Renewal:
        with self._connected() as connection:
            self._prolong(connection)
            has_new_slots = sa.exists().where(SLOT.c.owner == self._owner, ~SLOT.c.confirmed)
            has_dead, settings, has_new = connection.execute(_NEWS.add_columns(has_new_slots)).one()
            wanted = slots.wanted_slots(connection, self._owner)
            return Renewal(has_dead or bool(self._unconfirmed), settings, wanted, has_new)

    def _prolong(self, connection: sa.Connection) -> float:
        """Extend the lease to its full length; returns when it expires."""
        change = SERVER.update().where(SERVER.c.number == self._owner, ~SERVER.c.dead)
        end = connection.scalar(change.values(lease_end=_CLOCK + self._lease).returning(SERVER.c.lease_end))
        if end is None:
            raise self._lease_lost()
        return float(end)

    def servers(self) -> list[str]:
        return [name for (name,) in self._rows(_LIVING.order_by(SERVER.c.name))]

    def take_over(self, limit: int, position: int) -> list[StoredJob]:
        return self._with_retries(lambda: self._take_over(limit, position))

    def _take_over(self, limit: int, position: int) -> list[StoredJob]:
        with self._connected() as connection:
            # This waits for an earlier take-over that still runs though its connection was lost. One that
            # has not begun will find another lease than its own, and do nothing.
            lease_end = self._prolong(connection)
            jobs = self._taken_before(connection)
            if not jobs:
                self._mark_dead(connection)
                slots.free_slots_of_dead(connection, self._owner)
                jobs = self._take(connection, lease_end, limit, position)
        self._unconfirmed = []
        return jobs

    def _taken_before(self, connection: sa.Connection) -> list[StoredJob]:
        """What the last call of `take_over` moved if it was committed and its answer got lost."""
        if not self._unconfirmed:
            return []
        query = sa.select(*STORED).where(JOB.c.number.in_(self._unconfirmed), JOB.c.owner == self._owner)
        return sorted(map(StoredJob._make, connection.execute(query)), key=attrgetter("position"))

    def _mark_dead(self, connection: sa.Connection) -> None:
        """Mark the servers whose lease has expired. One that is just writing is left for the next time."""
        ended = (
            sa.select(SERVER.c.number)
            .where(~SERVER.c.dead, SERVER.c.lease_end < _CLOCK, SERVER.c.number != self._owner)
            .with_for_update(skip_locked=True)
        )
        connection.execute(SERVER.update().where(SERVER.c.number.in_(ended)).values(dead=True))

    def _dead_servers(self, connection: sa.Connection) -> list[int]:
        return list(
            connection.scalars(sa.select(SERVER.c.number).where(SERVER.c.dead).order_by(SERVER.c.number))
        )

    def _take(
        self, connection: sa.Connection, lease_end: float, limit: int, position: int
    ) -> list[StoredJob]:
        """Own up to `limit` jobs of dead servers, with positions from `position` on."""
        while True:
            owners: dict[int, int] = {}
            jobs: list[StoredJob] = []
            for server in self._dead_servers(connection):
                found = self._jobs_of(connection, server, limit - len(jobs))
                owners |= dict.fromkeys((job.number for job in found), server)
                jobs += found
                if len(jobs) == limit:
                    break
                if not found:
                    self._forget(connection, server)
            jobs = [job._replace(position=new) for new, job in enumerate(jobs, position)]
            taken = self._move(connection, lease_end, jobs, owners) if jobs else set()
            # None of them if another server has just taken the same.
            if taken or not jobs:
                return [job for job in jobs if job.number in taken]

    def _jobs_of(self, connection: sa.Connection, server: int, limit: int) -> list[StoredJob]:
        """Up to `limit` jobs of a dead server, in the order of its queues."""
        jobs: list[StoredJob] = []
        query = sa.select(*STORED).where(JOB.c.owner == server)
        for some in (
            query.where(HAS_NO_TIME).order_by(JOB.c.priority, JOB.c.function, JOB.c.position),
            query.where(HAS_TIME).order_by(JOB.c.position),
        ):
            jobs += [StoredJob._make(row) for row in connection.execute(some.limit(limit - len(jobs)))]
            if len(jobs) == limit:
                break
        return jobs

    def _move(
        self, connection: sa.Connection, lease_end: float, jobs: list[StoredJob], owners: dict[int, int]
    ) -> set[int]:
        """Own those of `jobs` that still belong to `owners`, with their new positions; returns their
        numbers."""
        positions = {job.number: job.position for job in jobs}
        self._unconfirmed = numbers = sorted(positions)
        values = (
            _NUMBERS(numbers),
            _NUMBERS([owners[number] for number in numbers]),
            _NUMBERS([positions[number] for number in numbers]),
        )
        alive, moved = connection.exec_driver_sql(_MOVE, (self._owner, lease_end, *values)).one()
        if not alive:
            self._check_lease(connection)
            # Meanwhile a renewal whose answer had been lost took effect.
            raise TransactionConflict
        return set(moved)

    def _forget(self, connection: sa.Connection, server: int) -> None:
        """Delete the row of a dead server without jobs and slots."""
        without_jobs = ~sa.exists().where(JOB.c.owner == server)
        without_slots = ~sa.exists().where(SLOT.c.owner == server)
        without_wants = ~sa.exists().where(SLOT_WANT.c.server == server)
        connection.execute(
            SERVER.delete().where(SERVER.c.number == server, without_jobs, without_slots, without_wants)
        )

    def exchange_slots(self, changes: SlotChanges) -> list[Slot]:
        return self._with_retries(lambda: self._exchange_slots(changes))

    def _exchange_slots(self, changes: SlotChanges) -> list[Slot]:
        if not changes:
            with self._reading() as connection:
                return slots.new_slots(connection, self._owner)
        with self._connected() as connection:
            is_alive, new = slots.exchange(connection, self._owner, changes)
            self._check(is_alive)
        return new

    def _lease_lost(self) -> LeaseLost:
        return LeaseLost(f"the lease of {self._name} has expired, and others may have taken over its jobs")

    # -- connecting ---------------------------------------------------------------------------------

    def close(self) -> None:
        if self._connection is not None and self._owner:
            give_up = SERVER.update().where(SERVER.c.number == self._owner).values(dead=True)
            # Otherwise the others wait for the lease to expire.
            with contextlib.suppress(Exception), self._connected() as connection:
                connection.execute(give_up)
        self._owner = 0
        super().close()

    def _arguments(self) -> dict[str, Any]:
        settings = {
            "application_name": "txgearman",
            "connect_timeout": CONNECT_TIMEOUT,
            "keepalives_idle": DEAD_PEER_TIMEOUT // 3,
            "keepalives_interval": DEAD_PEER_TIMEOUT // 3,
            "keepalives_count": 2,
            "tcp_user_timeout": DEAD_PEER_TIMEOUT * 1000,
        }
        return {name: value for name, value in settings.items() if name not in self._url.query}

    def _prepare(self, connection: sa.Connection) -> None:
        driver = connection.connection.driver_connection
        assert driver is not None
        register_arrays(driver)
        connection.exec_driver_sql(
            # Duplicates that others commit meanwhile must be seen.
            "SET default_transaction_isolation = 'read committed';"
            # There is an index for each query. Statistics of tables that fill and empty within minutes are
            # out of date, and have led to a scan of all jobs for each thousand that were taken over.
            "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off;"
            "SET jit = off;"
            f"SET lock_timeout = '{LOCK_TIMEOUT}s';"
            f"SET idle_in_transaction_session_timeout = '{IDLE_TIMEOUT}s'"
        )
        # A database may be configured to answer before a commit is safe; here that would break a promise.
        if connection.scalar(sa.text("SHOW synchronous_commit")) == "off":
            connection.exec_driver_sql("SET synchronous_commit = on")

    @contextlib.contextmanager
    def _writing(self, statements: int, together: bool = False) -> Iterator[sa.Connection]:
        with self._connected() as connection:
            if not statements:
                self._check_lease(connection)
            if together:
                connection.exec_driver_sql("BEGIN")
            yield connection
            if together:
                connection.exec_driver_sql("COMMIT")

    def _check_lease(self, connection: sa.Connection) -> None:
        """Make sure that this server may write."""
        self._check(connection.exec_driver_sql(_HAS_LEASE, (self._owner,)).scalar())

    def _begin_opening(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_OPENING)))

    def _before_upgrade(self, connection: sa.Connection, version: int) -> None:
        names = connection.scalars(_LIVING).all()
        if names:
            raise StoreError(
                f"the tables of {self._redacted_url} have version {version} and must be upgraded to "
                f"{tables.newest_version()}: first stop the servers that use them: {', '.join(names)}"
            )

    def _register(self, connection: sa.Connection, start: int, name: str, lease: float) -> None:
        connection.execute(SERVER.update().where(SERVER.c.number == self._owner).values(dead=True))
        connection.execute(
            SERVER.insert().values(number=start, name=name, lease_end=_CLOCK + lease, dead=False)
        )
        self._owner, self._name, self._lease, self._unconfirmed = start, name, lease, []

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._connected() as connection:
            alive = sa.select(SERVER.c.number).where(SERVER.c.number == self._owner, ~SERVER.c.dead)
            if connection.scalar(alive) is None:
                raise self._lease_lost()
            yield connection

    # -- the statements that must be fast -----------------------------------------------------------

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

    def _insert(self, connection: sa.Connection, rows: Sequence[Row]) -> int:
        arrays, checking = self._arrays(rows)
        values = (self._owner, *arrays)
        alive, _, inserted = connection.exec_driver_sql(_INSERT[checking], values).one()
        self._check(alive)
        return int(inserted)

    def _delete_and_insert(
        self,
        connection: sa.Connection,
        numbers: Sequence[int],
        coalesced: dict[int, float],
        rows: Sequence[Row],
    ) -> tuple[int, int]:
        arrays, checking = self._arrays(rows)
        values = (self._owner, *arrays, *_removal_values(numbers, coalesced))
        sql = _INSERT_AND_DELETE[checking, bool(coalesced)]
        alive, deleted, inserted = connection.exec_driver_sql(sql, values).one()
        self._check(alive)
        return deleted, inserted

    def _arrays(self, rows: Sequence[Row]) -> tuple[list[Array], bool]:
        """The values to be inserted, and whether some may be there already."""
        columns = list(zip(*rows, strict=True))
        del columns[_OWNER]
        arrays = [array(column) for array, column in zip(_ARRAYS, columns, strict=True)]
        return arrays, any(columns[-1]) or self._may_conflict

    def _delete(self, connection: sa.Connection, numbers: Sequence[int], coalesced: dict[int, float]) -> int:
        values = (self._owner, *_removal_values(numbers, coalesced))
        alive, deleted = connection.exec_driver_sql(_DELETE[bool(coalesced)], values).one()
        self._check(alive)
        return int(deleted)

    def _coalesced(self, connection: sa.Connection, numbers: Sequence[int]) -> list[Coalesced]:
        query = sa.select(JOB.c.coalesced_at, _CLOCK - JOB.c.coalesced_at, *STORED).where(
            JOB.c.number.in_(numbers), JOB.c.owner == self._owner, JOB.c.coalesced_at.is_not(None)
        )
        return [Coalesced(StoredJob._make(job), at, ago) for at, ago, *job in connection.execute(query)]

    def _coalesce(self, connection: sa.Connection, numbers: Sequence[int]) -> set[int]:
        return set(connection.exec_driver_sql(_COALESCE, (_NUMBERS(numbers), self._owner)).scalars())

    def _set_losses(self, connection: sa.Connection, losses: dict[int, int]) -> None:
        values = (self._owner, list(losses), list(losses.values()))
        self._check(connection.exec_driver_sql(_SET_LOSSES, values).scalar())

    def _set_retries(self, connection: sa.Connection, retries: dict[int, Retry]) -> None:
        attempts, times, outcomes, errors = zip(*retries.values(), strict=True)
        values = (
            self._owner,
            _NUMBERS(list(retries)),
            ARRAYS["INTEGER"](attempts),
            _TIMES(times),
            ARRAYS["SMALLINT"](outcomes),
            ARRAYS["BYTEA"](errors),
        )
        self._check(connection.exec_driver_sql(_SET_RETRIES, values).scalar())

    def _bury(self, connection: sa.Connection, deaths: Sequence[DeadJob], coalesced: dict[int, float]) -> int:
        numbers = [dead.number for dead in deaths]
        values = (
            self._owner,
            *_removal_values(numbers, coalesced),
            _NUMBERS(numbers),
            _TIMES([dead.ended for dead in deaths]),
            ARRAYS["INTEGER"]([dead.attempts for dead in deaths]),
            ARRAYS["INTEGER"]([dead.losses for dead in deaths]),
            ARRAYS["SMALLINT"]([dead.outcome for dead in deaths]),
            ARRAYS["BYTEA"]([dead.error for dead in deaths]),
            ARRAYS["BYTEA"]([dead.worker for dead in deaths]),
        )
        alive, deleted = connection.exec_driver_sql(_BURY[bool(coalesced)], values).one()
        self._check(alive)
        return int(deleted)

    def _keep(
        self, connection: sa.Connection, results: Sequence[KeptResult], coalesced: dict[int, float]
    ) -> int:
        numbers = [kept.number for kept in results]
        values = (
            self._owner,
            *_removal_values(numbers, coalesced),
            _NUMBERS(numbers),
            _TIMES([kept.ended for kept in results]),
            _TIMES([kept.expires_at for kept in results]),
            _NUMBERS([kept.weight for kept in results]),
            ARRAYS["BYTEA"]([kept.data for kept in results]),
        )
        alive, deleted = connection.exec_driver_sql(_KEEP[bool(coalesced)], values).one()
        self._check(alive)
        return int(deleted)

    def _keep_uniques(self, connection: sa.Connection, kept: Sequence[KeptUnique]) -> None:
        functions, keys, handles, untils = zip(*kept, strict=True)
        as_bytes = ARRAYS["BYTEA"]
        values = as_bytes(functions), as_bytes(keys), as_bytes(handles), _TIMES(untils)
        connection.exec_driver_sql(_KEEP_UNIQUES, values)

    def _revive(self, connection: sa.Connection, number: int, position: int, submitted: float) -> bool:
        # If another job gets its unique at this moment that is a conflict, and the next attempt sees it.
        self._may_conflict = False
        values = (self._owner, number, position, submitted)
        alive, revived = connection.exec_driver_sql(_REVIVE, values).one()
        self._check(alive)
        return bool(revived)

    def _insert_ticks(self, connection: sa.Connection, rows: Sequence[TickRow]) -> int:
        schedules, ticks, jobs = zip(*rows, strict=True)
        values = ARRAYS["BYTEA"](schedules), _TIMES(ticks), _NUMBERS(jobs)
        return connection.exec_driver_sql(_INSERT_TICKS, values).rowcount

    def _change_settings(self, changes: SettingChanges) -> None:
        with self._connected() as connection:
            names = [name for name, _ in changes.values]
            kinds = [kind for _, kind in changes.values]
            values = (self._owner, names, kinds, list(changes.values.values()), list(changes.dropped))
            self._check(connection.exec_driver_sql(_CHANGE_SETTINGS, values).scalar())

    def _contains(self, column: sa.Column[Any], text: bytes) -> sa.ColumnElement[bool]:
        return sa.func.pg_catalog.position(column, sa.literal(text, tables.Bytes)) > 0

    def _check(self, alive: int | None) -> None:
        if not alive:
            raise self._lease_lost()

    def _classify(self, error: sa.exc.DBAPIError) -> type[Exception] | None:
        state = getattr(error.orig, "sqlstate", None)
        if state in _CONFLICTS:
            return TransactionConflict
        if state == _UNIQUE_VIOLATION and not self._may_conflict:
            self._may_conflict = True
            return TransactionConflict
        # A read-only database may be a standby that another has replaced: connect anew.
        return None if state is None or state == _READ_ONLY else StoreUnavailable


def _removal_values(numbers: Sequence[int], coalesced: dict[int, float]) -> list[Array]:
    """The values of `_REMOVED`."""
    known = [_NUMBERS(list(coalesced)), _TIMES(list(coalesced.values()))] if coalesced else []
    return [_NUMBERS(numbers), *known]
