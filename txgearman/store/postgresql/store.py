"""Jobs in PostgreSQL, which several servers may share.

Each server has a lease by the database's clock. Every write holds a shared lock on the row of its server, and
changes nothing once that is marked dead. A take-over marks it first, and skips a server that is just writing.
So a server that was thought dead cannot touch what others have taken over.
"""

from __future__ import annotations

import contextlib
from operator import attrgetter
from typing import Any, Final

import sqlalchemy as sa

from txgearman.broker.stored_job import StoredJob
from txgearman.errors import StoreError
from txgearman.store import tables
from txgearman.store.contract import NO_POSITION, Renewal
from txgearman.store.contract.slots import Slot, SlotChanges
from txgearman.store.database import DatabaseStore
from txgearman.store.postgresql import slots
from txgearman.store.postgresql.arrays import NUMBERS
from txgearman.store.postgresql.job_writes import PostgresqlJobWrites
from txgearman.store.postgresql.rows import (
    PostgresqlDeadJobRows,
    PostgresqlScheduleRows,
    PostgresqlSettingRows,
)
from txgearman.store.postgresql.session import ALIVE, PostgresqlSession
from txgearman.store.results import ResultRows
from txgearman.store.session import TransactionConflict
from txgearman.store.tables import CLOCK, HAS_NO_TIME, HAS_TIME, JOB, META, SERVER, SLOT, SLOT_WANT, STORED

_OPENING: Final = 0x7478_6765_6172_6D61
"""The advisory lock of whoever opens, one at a time: "txgearma" in ASCII."""

_LIVING: Final = sa.select(SERVER.c.name).where(~SERVER.c.dead, SERVER.c.lease_end > CLOCK)

_NEWS: Final = sa.select(
    sa.exists().where(SERVER.c.dead | (SERVER.c.lease_end < CLOCK)),
    sa.select(META.c.settings).scalar_subquery(),
)
"""What a server learns when it renews its lease."""

_MOVE: Final = (
    f"{ALIVE.format(' AND lease_end = %b::double precision')}, moved AS ("
    "UPDATE txgearman_job SET owner = alive.number, place = new.place"
    " FROM alive, unnest(%b::bigint[], %b::bigint[], %b::bigint[]) AS new(number, owner, place)"
    " WHERE txgearman_job.number = new.number AND txgearman_job.owner = new.owner"
    " RETURNING txgearman_job.number)"
    " SELECT (SELECT count(*) FROM alive), ARRAY(SELECT number FROM moved)"
)


class PostgresqlStore(DatabaseStore):
    """A database; `url` is that of libpq but for the name of SQLAlchemy's driver."""

    # A field may have 1 GiB less a little; a message too, with all that goes along, and it is copied.
    largest_data = 512 * 1024 * 1024
    shared = True

    def __init__(self, url: sa.URL) -> None:
        session = PostgresqlSession(url)
        schedules = PostgresqlScheduleRows(session)
        super().__init__(
            session,
            PostgresqlJobWrites(session, schedules),
            schedules,
            PostgresqlDeadJobRows(session),
            ResultRows(session),
            PostgresqlSettingRows(session),
        )
        self._session: PostgresqlSession = session
        self._lease = 0.0
        self._unconfirmed: list[int] = []
        """The jobs that the last take-over may have moved here: its answer is still to come, or was lost."""

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
        return self._session.with_retries(self._renew)

    def _renew(self) -> Renewal:
        with self._session.connected() as connection:
            self._prolong(connection)
            has_new_slots = sa.exists().where(SLOT.c.owner == self._session.owner, ~SLOT.c.confirmed)
            has_dead, settings, has_new = connection.execute(_NEWS.add_columns(has_new_slots)).one()
            wanted = slots.wanted_slots(connection, self._session.owner)
            return Renewal(has_dead or bool(self._unconfirmed), settings, wanted, has_new)

    def _prolong(self, connection: sa.Connection) -> float:
        """Extend the lease to its full length; returns when it expires."""
        change = SERVER.update().where(SERVER.c.number == self._session.owner, ~SERVER.c.dead)
        end = connection.scalar(change.values(lease_end=CLOCK + self._lease).returning(SERVER.c.lease_end))
        if end is None:
            raise self._session.lease_lost()
        return float(end)

    def servers(self) -> list[str]:
        return [name for (name,) in self._session.rows(_LIVING.order_by(SERVER.c.name))]

    def take_over(self, limit: int, position: int) -> list[StoredJob]:
        return self._session.with_retries(lambda: self._take_over(limit, position))

    def _take_over(self, limit: int, position: int) -> list[StoredJob]:
        with self._session.connected() as connection:
            # This waits for an earlier take-over that still runs though its connection was lost. One that
            # has not begun will find another lease than its own, and do nothing.
            lease_end = self._prolong(connection)
            jobs = self._taken_before(connection)
            if not jobs:
                self._mark_dead(connection)
                slots.free_slots_of_dead(connection, self._session.owner)
                jobs = self._take(connection, lease_end, limit, position)
        self._unconfirmed = []
        return jobs

    def _taken_before(self, connection: sa.Connection) -> list[StoredJob]:
        """What the last call of `take_over` moved if it was committed and its answer got lost."""
        if not self._unconfirmed:
            return []
        query = sa.select(*STORED).where(
            JOB.c.number.in_(self._unconfirmed), JOB.c.owner == self._session.owner
        )
        return sorted(map(StoredJob._make, connection.execute(query)), key=attrgetter("position"))

    def _mark_dead(self, connection: sa.Connection) -> None:
        """Mark the servers whose lease has expired. One that is just writing is left for the next time."""
        ended = (
            sa.select(SERVER.c.number)
            .where(~SERVER.c.dead, SERVER.c.lease_end < CLOCK, SERVER.c.number != self._session.owner)
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
            NUMBERS(numbers),
            NUMBERS([owners[number] for number in numbers]),
            NUMBERS([positions[number] for number in numbers]),
        )
        alive, moved = connection.exec_driver_sql(_MOVE, (self._session.owner, lease_end, *values)).one()
        if not alive:
            self._session.check_lease(connection)
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
        return self._session.with_retries(lambda: self._exchange_slots(changes))

    def _exchange_slots(self, changes: SlotChanges) -> list[Slot]:
        if not changes:
            with self._session.reading() as connection:
                return slots.new_slots(connection, self._session.owner)
        with self._session.connected() as connection:
            is_alive, new = slots.exchange(connection, self._session.owner, changes)
            self._session.check(is_alive)
        return new

    # -- connecting ---------------------------------------------------------------------------------

    def close(self) -> None:
        if self._session.is_connected and self._session.owner:
            give_up = SERVER.update().where(SERVER.c.number == self._session.owner).values(dead=True)
            # Otherwise the others wait for the lease to expire.
            with contextlib.suppress(Exception), self._session.connected() as connection:
                connection.execute(give_up)
        self._session.owner = 0
        super().close()

    def _begin_opening(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_OPENING)))

    def _before_upgrade(self, connection: sa.Connection, version: int) -> None:
        names = connection.scalars(_LIVING).all()
        if names:
            raise StoreError(
                f"the tables of {self._session.redacted_url} have version {version} and must be upgraded to "
                f"{tables.newest_version()}: first stop the servers that use them: {', '.join(names)}"
            )

    def _register(self, connection: sa.Connection, start: int, name: str, lease: float) -> None:
        connection.execute(SERVER.update().where(SERVER.c.number == self._session.owner).values(dead=True))
        connection.execute(
            SERVER.insert().values(number=start, name=name, lease_end=CLOCK + lease, dead=False)
        )
        self._session.owner, self._session.name = start, name
        self._lease, self._unconfirmed = lease, []
