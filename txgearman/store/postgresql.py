"""Jobs in PostgreSQL, which several servers may share.

Each server has a lease by the database's clock. Every write holds a shared lock on the row of its server,
and changes nothing once that is marked dead; whoever wants to adopt jobs marks it first, which waits for
writes under way. So a server that was thought dead cannot touch what others have taken over.

A write is one statement, which deletes and inserts and is its own transaction, where it can be: each answer
to wait for may cost 5 ms beside a busy thread. Jobs that come and go at once were a quarter faster for it.
The values go as binary arrays: with psycopg's text the same batch took two to three times as long, with a row
of values for each job five times. Batches of 1000 jobs took 11 ms with 64 bytes of data and 20 ms with 1 KiB;
where a job has a unique, ON CONFLICT adds a third.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from txgearman.errors import LeaseLost, StoreError, StoreUnavailable
from txgearman.store import tables
from txgearman.store.arrays import ARRAYS, take_arrays
from txgearman.store.contract import NO_PLACE, Changes, Joined, SavedJob, Written
from txgearman.store.database import DatabaseStore, Row, TryAgain
from txgearman.store.tables import JOB, SAVED, SERVER

CONNECT_TIMEOUT: Final = 10
"""Seconds to wait for a connection."""

SILENCE: Final = 15
"""Seconds after which a connection is broken whose other end acknowledges nothing."""

LOCK_TIMEOUT: Final = 10
"""Seconds to wait for a lock of another server's transaction."""

IDLE_TIMEOUT: Final = 10
"""Seconds that a server may stop in the middle of a transaction, a paused process for example, before the
database ends it; until then it holds its locks."""

STATEMENT_ROWS: Final = 10_000
"""Jobs that one statement inserts at most, so that none holds locks for long."""

STATEMENT_BYTES: Final = 64 * 1024 * 1024
"""Bytes of data that one statement inserts, unless a single job has more. A message may have 1 GiB."""

_OPENING: Final = 0x7478_6765_6172_6D61
"""The advisory lock of whoever opens, one at a time: "txgearma" in ASCII."""

_CLOCK: Final = sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)

_LIVING: Final = sa.select(SERVER.c.name).where(~SERVER.c.dead, SERVER.c.lease_end > _CLOCK)

_HAS_DEAD: Final = sa.select(sa.exists().where(SERVER.c.dead | (SERVER.c.lease_end < _CLOCK)))

_ALIVE: Final = (
    "WITH alive AS (SELECT number FROM txgearman_server WHERE number = %b::bigint AND NOT dead FOR SHARE)"
)
_DELETE: Final = (
    f"{_ALIVE}, gone AS (DELETE FROM txgearman_job USING alive"
    " WHERE txgearman_job.number = ANY(%b::bigint[]) AND owner = alive.number AND joined IS NULL RETURNING 1)"
    " SELECT (SELECT count(*) FROM alive), count(*) FROM gone"
)
_DELETE_JOINED: Final = (
    f"{_ALIVE}, gone AS (DELETE FROM txgearman_job"
    " USING alive, unnest(%b::bigint[], %b::double precision[]) AS known(number, joined)"
    " WHERE txgearman_job.number = known.number AND owner = alive.number"
    " AND txgearman_job.joined = known.joined RETURNING 1)"
    " SELECT (SELECT count(*) FROM alive), count(*) FROM gone"
)
# The moment, not the beginning of the transaction: what a server knew before it joined is before the join.
_JOIN: Final = (
    "UPDATE txgearman_job SET joined = extract(epoch FROM clock_timestamp())::double precision"
    " WHERE number = ANY(%b::bigint[]) AND owner <> %b::bigint"
)
_SET_ATTEMPTS: Final = (
    f"{_ALIVE}, changed AS (UPDATE txgearman_job SET attempts = new.attempts"
    " FROM alive, unnest(%b::bigint[], %b::integer[]) AS new(number, attempts)"
    " WHERE txgearman_job.number = new.number AND owner = alive.number)"
    " SELECT count(*) FROM alive"
)
_MOVE: Final = (
    "UPDATE txgearman_job SET owner = %b::bigint, place = new.place"
    " FROM unnest(%b::bigint[], %b::bigint[]) AS new(number, place) WHERE txgearman_job.number = new.number"
)


_INSERTED: Final = [column for column in tables.WRITTEN if column is not JOB.c.owner]
_TYPES: Final = [column.type.compile(postgresql.dialect()) for column in _INSERTED]  # type: ignore[no-untyped-call]


def _insertion(deleting: bool, checking: bool) -> str:
    """The statement that inserts jobs: `deleting` others first, `checking` for those that are there already.

    Looking for conflicts ahead of each row is what ON CONFLICT costs. Jobs without a unique cannot have any,
    but with themselves when they are saved again.
    """
    names = [f'"{column.name}"' for column in _INSERTED]
    arrays = [f"%b::{name}[]" for name in _TYPES]
    sources = ["alive", f"unnest({', '.join(arrays)}) AS new"]
    deletion, deleted = "", "0"
    if deleting:
        deleted = "(SELECT count(*) FROM gone)"
        deletion = (
            ", gone AS (DELETE FROM txgearman_job USING alive"
            " WHERE txgearman_job.number = ANY(%b::bigint[]) AND owner = alive.number"
            " AND joined IS NULL RETURNING 1)"
        )
        # What is counted has to be there: so the deletion is over before the first row is inserted.
        sources.insert(1, "(SELECT count(*) FROM gone) AS deleted(jobs)")
    conflict = " ON CONFLICT DO NOTHING" if checking else ""
    return (
        f"{_ALIVE}{deletion}, saved AS (INSERT INTO txgearman_job ({', '.join(names)}, owner)"
        f" SELECT new.*, alive.number FROM {', '.join(sources)}{conflict} RETURNING 1)"
        f" SELECT (SELECT count(*) FROM alive), {deleted}, count(*) FROM saved"
    )


_INSERT: Final = {
    (deleting, checking): _insertion(deleting, checking)
    for deleting in (False, True)
    for checking in (False, True)
}

_OWNER: Final = tables.WRITTEN.index(JOB.c.owner)
_DATA: Final = tables.WRITTEN.index(JOB.c.data)
_ARRAYS: Final = [ARRAYS[name] for name in _TYPES]
_NUMBERS: Final = ARRAYS["BIGINT"]

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_OTHERS_IN_THE_WAY: Final = frozenset({"40001", "40P01"})
_ALREADY_THERE: Final = "23505"
_READ_ONLY: Final = "25006"


class PostgresqlStore(DatabaseStore):
    """A database; `url` is that of libpq but for the name of SQLAlchemy's driver."""

    # A field may have 1 GiB less a little; a message too, with all that goes along, and it is copied.
    largest_data = 512 * 1024 * 1024
    shared = True
    deletes_with_insert = True

    def __init__(self, url: sa.URL) -> None:
        super().__init__(url)
        self._lease = 0.0
        self._saved_before = False
        """Whether the write under way met a job that is there already."""
        self._unsure: list[int] = []
        """What the last adoption took, as long as nobody knows whether it was committed."""

    def write(self, changes: Changes) -> Written:
        self._saved_before = False
        return super().write(changes)

    # -- several servers ----------------------------------------------------------------------------

    def _mine(self) -> sa.ColumnElement[bool]:
        mine = super()._mine()
        return sa.and_(mine, JOB.c.number.not_in(self._unsure)) if self._unsure else mine

    def _read(self, query: sa.Select[Any]) -> list[SavedJob]:
        return [self._as_told(job) for job in super()._read(query)]

    def _find(self, query: sa.Select[Any]) -> SavedJob | None:
        job = super()._find(query)
        return job and self._as_told(job)

    def _as_told(self, job: SavedJob) -> SavedJob:
        """A job without a place here as long as nobody was told of one."""
        return job._replace(place=NO_PLACE) if job.number in self._unsure else job

    def renew(self) -> bool:
        change = SERVER.update().where(SERVER.c.number == self._owner, ~SERVER.c.dead)
        return self._retried(lambda: self._renew(change.values(lease_end=_CLOCK + self._lease)))

    def _renew(self, change: sa.Update) -> bool:
        with self._connected() as connection:
            if not connection.execute(change).rowcount:
                raise self._dead()
            return bool(connection.scalar(_HAS_DEAD)) or bool(self._unsure)

    def servers(self) -> list[str]:
        return [name for (name,) in self._rows(_LIVING.order_by(SERVER.c.name))]

    def adopt(self, limit: int, place: int) -> list[SavedJob]:
        return self._retried(lambda: self._adopt(limit, place))

    def _adopt(self, limit: int, place: int) -> list[SavedJob]:
        with self._transaction() as connection:
            jobs = self._taken_before(connection)
            if not jobs:
                self._mark_dead(connection)
                for server in self._dead_servers(connection):
                    found = self._take(connection, server, limit - len(jobs))
                    jobs += found
                    if len(jobs) == limit:
                        break
                    if not found:
                        self._forget(connection, server)
                jobs = [job._replace(place=new) for new, job in enumerate(jobs, place)]
                self._unsure = [job.number for job in jobs]
                if jobs:
                    new_places = [job.place for job in jobs]
                    connection.exec_driver_sql(_MOVE, (self._owner, self._unsure, new_places))
        self._unsure = []
        return jobs

    def _taken_before(self, connection: sa.Connection) -> list[SavedJob]:
        """What the last adoption took if it was committed and its answer got lost."""
        if not self._unsure:
            return []
        # The database may still be about to commit it. Then its rows are locked until that is decided, and
        # only behind that lock it is known whose they are.
        query = sa.select(JOB.c.owner, *SAVED).where(JOB.c.number.in_(self._unsure)).with_for_update()
        jobs = [SavedJob._make(job) for owner, *job in connection.execute(query) if owner == self._owner]
        return sorted(jobs, key=attrgetter("place"))

    def _mark_dead(self, connection: sa.Connection) -> None:
        """Mark the servers whose lease has ended. One that just writes is left for the next time."""
        ended = (
            sa.select(SERVER.c.number)
            .where(~SERVER.c.dead, SERVER.c.lease_end < _CLOCK, SERVER.c.number != self._owner)
            .with_for_update(skip_locked=True)
        )
        numbers = list(connection.scalars(ended))
        if numbers:
            connection.execute(SERVER.update().where(SERVER.c.number.in_(numbers)).values(dead=True))

    def _dead_servers(self, connection: sa.Connection) -> list[int]:
        return list(
            connection.scalars(sa.select(SERVER.c.number).where(SERVER.c.dead).order_by(SERVER.c.number))
        )

    def _take(self, connection: sa.Connection, server: int, limit: int) -> list[SavedJob]:
        """Lock up to `limit` jobs of a dead server that nobody else has, in the order of its queues."""
        jobs: list[SavedJob] = []
        query = sa.select(*SAVED).where(JOB.c.owner == server).with_for_update(skip_locked=True)
        for some in (
            query.where(JOB.c.run_at.is_(None)).order_by(JOB.c.priority, JOB.c.function, JOB.c.place),
            query.where(JOB.c.run_at.is_not(None)).order_by(JOB.c.place),
        ):
            jobs += [SavedJob._make(row) for row in connection.execute(some.limit(limit - len(jobs)))]
            if len(jobs) == limit:
                break
        return jobs

    def _forget(self, connection: sa.Connection, server: int) -> None:
        """Delete the row of a dead server without jobs."""
        without_jobs = ~sa.exists().where(JOB.c.owner == server)
        connection.execute(SERVER.delete().where(SERVER.c.number == server, without_jobs))

    def _dead(self) -> LeaseLost:
        return LeaseLost(f"the lease of {self._name} has ended, and others may have taken over its jobs")

    # -- connecting ---------------------------------------------------------------------------------

    def close(self) -> None:
        if self._connection is not None and self._owner:
            give_up = SERVER.update().where(SERVER.c.number == self._owner).values(dead=True)
            # Without it the others wait for the end of the lease.
            with contextlib.suppress(Exception), self._connected() as connection:
                connection.execute(give_up)
        self._owner = 0
        super().close()

    def _arguments(self) -> dict[str, Any]:
        settings = {
            "application_name": "txgearman",
            "connect_timeout": CONNECT_TIMEOUT,
            "keepalives_idle": SILENCE // 3,
            "keepalives_interval": SILENCE // 3,
            "keepalives_count": 2,
            "tcp_user_timeout": SILENCE * 1000,
        }
        return {name: value for name, value in settings.items() if name not in self._url.query}

    def _prepare(self, connection: sa.Connection) -> None:
        driver = connection.connection.driver_connection
        assert driver is not None
        take_arrays(driver)
        connection.exec_driver_sql(
            # What others commit meanwhile must be seen, to find the twins of jobs.
            "SET default_transaction_isolation = 'read committed';"
            # There is an index for each query. What is known of tables that fill and empty within minutes is
            # out of date, and has led to a walk through all jobs for each thousand that were adopted.
            "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off;"
            "SET jit = off;"
            f"SET lock_timeout = '{LOCK_TIMEOUT}s';"
            f"SET idle_in_transaction_session_timeout = '{IDLE_TIMEOUT}s'"
        )
        # A database may have been told to answer before a commit is safe; here that would break a promise.
        if connection.scalar(sa.text("SHOW synchronous_commit")) == "off":
            connection.exec_driver_sql("SET synchronous_commit = on")

    def _begin(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")
        alive = sa.select(SERVER.c.number).where(SERVER.c.number == self._owner, ~SERVER.c.dead)
        if connection.scalar(alive.with_for_update(read=True)) is None:
            raise self._dead()

    def _begin_opening(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_OPENING)))

    def _before_upgrade(self, connection: sa.Connection, version: int) -> None:
        names = connection.scalars(_LIVING).all()
        if names:
            raise StoreError(
                f"the tables of {self._shown_url} have version {version} and must be upgraded to "
                f"{tables.newest_version()}: first stop the servers that use them: {', '.join(names)}"
            )

    def _register(self, connection: sa.Connection, start: int, name: str, lease: float) -> None:
        connection.execute(SERVER.update().where(SERVER.c.number == self._owner).values(dead=True))
        connection.execute(
            SERVER.insert().values(number=start, name=name, lease_end=_CLOCK + lease, dead=False)
        )
        self._owner, self._name, self._lease, self._unsure = start, name, lease, []

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._connected() as connection:
            alive = sa.select(SERVER.c.number).where(SERVER.c.number == self._owner, ~SERVER.c.dead)
            if connection.scalar(alive) is None:
                raise self._dead()
            yield connection

    # -- the statements that must be fast -----------------------------------------------------------

    def _pieces(self, rows: Sequence[Row]) -> list[Sequence[Row]]:
        # In the order of their keys, so that two servers that save the same jobs do not wait for each other.
        # Of two equal ones the first stays first.
        rows = sorted(rows, key=lambda row: row[-1] or b"")
        pieces: list[Sequence[Row]] = []
        start = size = 0
        for end, row in enumerate(rows):
            size += len(row[_DATA])
            if end > start and (size > STATEMENT_BYTES or end - start == STATEMENT_ROWS):
                pieces.append(rows[start:end])
                start, size = end, len(row[_DATA])
        return [*pieces, rows[start:]]

    def _insert(self, connection: sa.Connection, rows: Sequence[Row]) -> int:
        return self._delete_and_insert(connection, (), rows)[1]

    def _delete_and_insert(
        self, connection: sa.Connection, numbers: Sequence[int], rows: Sequence[Row]
    ) -> tuple[int, int]:
        columns = list(zip(*rows, strict=True))
        del columns[_OWNER]
        arrays = [array(column) for array, column in zip(_ARRAYS, columns, strict=True)]
        unique = any(columns[-1])
        sql = _INSERT[bool(numbers), unique or self._saved_before]
        removals = (_NUMBERS(numbers),) if numbers else ()
        alive, deleted, inserted = connection.exec_driver_sql(sql, (self._owner, *removals, *arrays)).one()
        self._check(alive)
        return deleted, inserted

    def _delete(self, connection: sa.Connection, numbers: Sequence[int]) -> int:
        alive, deleted = connection.exec_driver_sql(_DELETE, (self._owner, _NUMBERS(numbers))).one()
        self._check(alive)
        return int(deleted)

    def _delete_joined(self, connection: sa.Connection, joins: dict[int, float]) -> int:
        values = (self._owner, list(joins), list(joins.values()))
        alive, deleted = connection.exec_driver_sql(_DELETE_JOINED, values).one()
        self._check(alive)
        return int(deleted)

    def _left(self, connection: sa.Connection, numbers: Sequence[int]) -> list[Joined]:
        query = sa.select(JOB.c.joined, _CLOCK - JOB.c.joined, *SAVED).where(
            JOB.c.number.in_(numbers), JOB.c.owner == self._owner, JOB.c.joined.is_not(None)
        )
        return [Joined(SavedJob._make(job), at, ago) for at, ago, *job in connection.execute(query)]

    def _join(self, connection: sa.Connection, numbers: Sequence[int]) -> int:
        return connection.exec_driver_sql(_JOIN, (list(numbers), self._owner)).rowcount

    def _set_attempts(self, connection: sa.Connection, attempts: dict[int, int]) -> None:
        values = (self._owner, list(attempts), list(attempts.values()))
        self._check(connection.exec_driver_sql(_SET_ATTEMPTS, values).scalar())

    def _check(self, alive: int | None) -> None:
        if not alive:
            raise self._dead()

    def _judge(self, error: sa.exc.DBAPIError) -> type[Exception] | None:
        state = getattr(error.orig, "sqlstate", None)
        if state in _OTHERS_IN_THE_WAY:
            return TryAgain
        if state == _ALREADY_THERE and not self._saved_before:
            self._saved_before = True
            return TryAgain
        # A database that is read only may be a standby that another has replaced.
        return None if state is None or state == _READ_ONLY else StoreUnavailable
