"""The tables, which are the same in every database, their version, and creating or upgrading them.

The statements that write rows fast are in each database's own module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import sqlalchemy as sa

from txgearman.broker.dead_job import OVERHEAD, DeadJob
from txgearman.broker.kept_result import KeptResult
from txgearman.broker.kept_unique import KeptUnique
from txgearman.errors import StoreError
from txgearman.store.contract import StoredJob


class Bytes(sa.LargeBinary):
    """Bytes without SQLAlchemy's conversion of each value: every driver here takes and gives them as they
    are."""

    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> None:
        return None

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> None:
        return None


# SQLite takes a column for the number of its rows only if its type is INTEGER.
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_SECONDS: sa.Double[float] = sa.Double()

# Small rows in the order of their key: in SQLite the key is then no index beside the table.
_BY_KEY: Final[dict[str, Any]] = {"sqlite_with_rowid": False}

TABLES: Final = sa.MetaData()

META: Final = sa.Table(
    "txgearman_meta",
    TABLES,
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("starts", _NUMBER, nullable=False),
    sa.Column("settings", _NUMBER, nullable=False, server_default=sa.text("0")),
    sa.Column("schedule_changes", _NUMBER, nullable=False, server_default=sa.text("0")),
)
"""One row: the version of the tables, the number of the last start of a server, and how often settings and
schedules were changed, by which servers see that they have to read them again."""

SERVER: Final = sa.Table(
    "txgearman_server",
    TABLES,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("lease_end", _SECONDS, nullable=False),
    sa.Column("dead", sa.Boolean, nullable=False),
)
"""The starts that own jobs. `lease_end` is when the lease expires, in seconds since the epoch by the
database's clock. Once `dead` is set others may take over the jobs, so it never goes back. Without a row where
a store is not shared."""

JOB: Final = sa.Table(
    "txgearman_job",
    TABLES,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("place", _NUMBER, key="position", nullable=False),
    sa.Column("handle", Bytes, nullable=False),
    sa.Column("function", Bytes, nullable=False),
    sa.Column("unique", Bytes, nullable=False),
    sa.Column("priority", sa.SmallInteger, nullable=False),
    sa.Column("run_at", _SECONDS),
    sa.Column("losses", sa.Integer, nullable=False),
    sa.Column("submitted", _SECONDS, nullable=False),
    sa.Column("reducer", Bytes),
    sa.Column("owner", _NUMBER, nullable=False),
    sa.Column("unique_key", Bytes),
    sa.Column("joined", _SECONDS, key="coalesced_at"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("retry_at", _SECONDS),
    sa.Column("outcome", sa.SmallInteger),
    sa.Column("error", Bytes),
    sa.Column("attributes", Bytes),
    sa.Column("snoozes", sa.Integer, nullable=False, server_default=sa.text("0")),
    # Last, because SQLite has to read through long data to get at the columns after it.
    sa.Column("data", Bytes, nullable=False),
)
"""The jobs. `owner` is the number of a server's start, 0 where a store is not shared. `unique_key` says which
jobs are the same, see `unique_key`. `coalesced_at` is when another server last answered a submit with this
job, in seconds since the epoch by the database's clock. `attempts` counts its failed runs and `snoozes` those
that did not count, `outcome` and `error` are those of the last, and `retry_at` is when it was to run again
after that. `attributes` are what its submit says of it alone. In a database that was upgraded the newer
columns come after `data`."""

_keyed = JOB.c.unique_key.is_not(None)
HAS_TIME: Final = sa.or_(JOB.c.run_at.is_not(None), JOB.c.retry_at.is_not(None))
"""The condition for jobs that wait for a time, or have waited for one. A server has all of them in memory."""

HAS_NO_TIME: Final = sa.and_(JOB.c.run_at.is_(None), JOB.c.retry_at.is_(None))
"""The condition for all others, of which it has the first of each queue in memory."""

# Jobs without a unique, which are most, cost the first nothing; the others serve jobs in their order,
# and the jobs of a dead server those of high priority first.
sa.Index(
    "txgearman_job_unique",
    JOB.c.unique_key,
    JOB.c.function,
    unique=True,
    sqlite_where=_keyed,
    postgresql_where=_keyed,
)
sa.Index(
    "txgearman_job_queue",
    JOB.c.owner,
    JOB.c.priority,
    JOB.c.function,
    JOB.c.position,
    sqlite_where=HAS_NO_TIME,
    postgresql_where=HAS_NO_TIME,
)
sa.Index(
    "txgearman_job_scheduled", JOB.c.owner, JOB.c.position, sqlite_where=HAS_TIME, postgresql_where=HAS_TIME
)

DEAD: Final = sa.Table(
    "txgearman_dead",
    TABLES,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("handle", Bytes, nullable=False),
    sa.Column("function", Bytes, nullable=False),
    sa.Column("unique", Bytes, nullable=False),
    sa.Column("unique_key", Bytes),
    sa.Column("priority", sa.SmallInteger, nullable=False),
    sa.Column("reducer", Bytes),
    sa.Column("submitted", _SECONDS, nullable=False),
    sa.Column("run_at", _SECONDS),
    sa.Column("ended", _SECONDS, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("losses", sa.Integer, nullable=False),
    sa.Column("outcome", sa.SmallInteger, nullable=False),
    sa.Column("error", Bytes, nullable=False),
    sa.Column("worker", Bytes, nullable=False),
    sa.Column("size", _NUMBER, nullable=False),
    sa.Column("weight", _NUMBER, nullable=False),
    sa.Column("attributes", Bytes),
    sa.Column("data", Bytes, nullable=False),
)
"""The dead jobs. They belong to no server. `ended` is in seconds since the epoch, by the clock of the server
that had the job; `size` is the bytes of `data`, and `weight` what the job counts in a limit of bytes, see
`DEAD_WEIGHT`."""

DEAD_WEIGHT: Final = f'length(data) + length("unique") + {OVERHEAD}'
"""The SQL for `DeadJob.weight` without its error, in terms of the columns of `JOB`."""

KEPT: Final = 'handle, function, "unique", unique_key, priority, reducer, attributes, data'
"""The SQL for the columns that a job keeps when it dies and when it is retried, beside its number."""

KEPT_OF_DONE: Final = 'handle, function, "unique", priority, submitted, attempts, losses'
"""The SQL for the columns that a job keeps beside its result, and its number."""

# Both have all that counting and forgetting the oldest need, so that these never read the jobs themselves.
sa.Index("txgearman_dead_ended", DEAD.c.ended, DEAD.c.number, DEAD.c.weight)
sa.Index("txgearman_dead_function", DEAD.c.function, DEAD.c.ended, DEAD.c.number, DEAD.c.weight)

RESULT: Final = sa.Table(
    "txgearman_result",
    TABLES,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("handle", Bytes, nullable=False),
    sa.Column("function", Bytes, nullable=False),
    sa.Column("ended", _SECONDS, nullable=False),
    sa.Column("expires_at", _SECONDS, nullable=False),
    sa.Column("outcome", sa.SmallInteger),
    sa.Column("weight", _NUMBER, nullable=False),
    sa.Column("error", Bytes),
    sa.Column("unique", Bytes, nullable=False),
    sa.Column("priority", sa.SmallInteger, nullable=False),
    sa.Column("submitted", _SECONDS, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("losses", sa.Integer, nullable=False),
    sa.Column("data", Bytes),
)
"""What is kept of background jobs that have ended, until `expires_at`: the result as `data`, NULL where it
was too large. They belong to no server. `outcome` is NULL for a job that was completed, as all are whose
results are kept; `weight` is what the result counts in a limit of bytes, see `KeptResult`."""

sa.Index("txgearman_result_expires", RESULT.c.expires_at)
# All that counting and forgetting the oldest need, so that these never read the results themselves.
sa.Index("txgearman_result_ended", RESULT.c.ended, RESULT.c.number, RESULT.c.weight)

UNIQUE: Final = sa.Table(
    "txgearman_unique",
    TABLES,
    sa.Column("function", Bytes, primary_key=True),
    sa.Column("key", Bytes, primary_key=True),
    sa.Column("handle", Bytes, nullable=False),
    sa.Column("until", _SECONDS, nullable=False),
    # The rows stand in the index of the primary key, not beside it.
    sqlite_with_rowid=False,
)
"""The uniques of completed jobs that are kept, see `KeptUnique`. They belong to no server, and are apart from
the results, which may be forgotten earlier where all together are too large."""

sa.Index("txgearman_unique_until", UNIQUE.c.until)

SCHEDULE: Final = sa.Table(
    "txgearman_schedule",
    TABLES,
    sa.Column("name", Bytes, primary_key=True),
    sa.Column("since", _SECONDS, nullable=False),
    sa.Column("paused", sa.Boolean, nullable=False),
    sa.Column("definition", sa.Text),
    sa.Column("data", Bytes),
    sa.Column("version", _NUMBER, nullable=False, server_default=sa.text("0")),
)
"""Recurring jobs. `since` is when one was first added, in seconds since the epoch: ticks before that were not
missed. `definition` has in JSON when it runs and how; it is NULL where the configuration file says so.
`version` is what `META` counted when it was changed last."""

TICK: Final = sa.Table(
    "txgearman_tick",
    TABLES,
    sa.Column("schedule", Bytes, primary_key=True),
    sa.Column("tick", _SECONDS, primary_key=True),
    sa.Column("job", _NUMBER),
    **_BY_KEY,
)
"""The ticks of schedules that are done with, with the number of the job that came of it, if one did. The
primary key lets one of several servers do a tick: the row is inserted in the transaction of the job."""

sa.Index("txgearman_tick_time", TICK.c.tick)

SLOT: Final = sa.Table(
    "txgearman_slot",
    TABLES,
    sa.Column("function", Bytes, primary_key=True),
    sa.Column("key", Bytes, primary_key=True),
    sa.Column("slot", sa.Integer, primary_key=True),
    sa.Column("owner", _NUMBER, nullable=False),
    sa.Column("confirmed", sa.Boolean, nullable=False),
    **_BY_KEY,
)
"""The slots of functions that may run so many jobs on all servers together: `key` is empty for the function's
own limit. `owner` is the start that has the slot, and `confirmed` says that it knows. A slot that nobody has
is no row."""

_not_confirmed = sa.not_(SLOT.c.confirmed)
sa.Index("txgearman_slot_owner", SLOT.c.owner)
sa.Index("txgearman_slot_new", SLOT.c.owner, sqlite_where=_not_confirmed, postgresql_where=_not_confirmed)

SLOT_WANT: Final = sa.Table(
    "txgearman_slot_want",
    TABLES,
    sa.Column("function", Bytes, primary_key=True),
    sa.Column("key", Bytes, primary_key=True),
    sa.Column("server", _NUMBER, primary_key=True),
    sa.Column("turn", _NUMBER, nullable=False),
    sa.Column("most", sa.Integer, nullable=False),
    **_BY_KEY,
)
"""The starts that have jobs waiting for a slot. Of one limit the least `turn` is served first; `most` is how
many slots there may be, as that server knows it."""

sa.Index("txgearman_slot_want_server", SLOT_WANT.c.server)

SETTING: Final = sa.Table(
    "txgearman_setting",
    TABLES,
    sa.Column("name", Bytes, primary_key=True),
    sa.Column("kind", sa.String(32), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    **_BY_KEY,
)
"""What administrators have set while a server ran: the pause and the limits of the function called `name`.
`META` counts the changes."""

PLOT: Final = sa.Table(
    "txgearman_plot",
    TABLES,
    sa.Column("server", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("began", _SECONDS, primary_key=True),
    sa.Column("points", Bytes, nullable=False),
)
"""Pieces of the dashboard's plots, by when they begin in seconds since the epoch."""

NEW_TABLES: Final = [DEAD, RESULT, UNIQUE, SCHEDULE, TICK, SLOT, SLOT_WANT, SETTING, PLOT]
"""Those that came with version 3."""

CLOCK: Final = sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)
"""The time by the clock of PostgreSQL, in seconds since the epoch."""

STORED: Final = [JOB.c[name] for name in StoredJob._fields]
"""The columns that a `StoredJob` is made of, in its order."""

INSERTED_FIELDS: Final = StoredJob._fields.index("attempts")
"""How many of its first fields are inserted: no run of a new job has failed, so the others have their
defaults."""

INSERTED: Final = [*STORED[:INSERTED_FIELDS], JOB.c.owner, JOB.c.unique_key]
"""The columns of a new row: those of a `StoredJob` that are inserted, and what is known only where it is
written."""

DEAD_COLUMNS: Final = [DEAD.c[name] for name in DeadJob._fields]
"""The columns that a `DeadJob` is made of, in its order."""

UNIQUE_COLUMNS: Final = [UNIQUE.c[name] for name in KeptUnique._fields]
"""The columns that a `KeptUnique` is made of, in its order."""

RESULT_COLUMNS: Final = [RESULT.c[name] for name in KeptResult._fields]
"""The columns that a `KeptResult` is made of, in its order."""


def names_of(columns: Iterable[sa.Column[Any]]) -> str:
    """The SQL for a list of columns."""
    return ", ".join(f'"{column.name}"' for column in columns)


LARGEST_NUMBER: Final = 2**63 - 1
"""The largest number that fits into the column of a job's number. A peer may send a handle with any number,
and drivers fail on a long one."""

FUNCTION_INDEX: Final = StoredJob._fields.index("function")
DATA_INDEX: Final = StoredJob._fields.index("data")
"""Where these are, in a `StoredJob` and in a new row."""

# PostgreSQL would try to compress longer data, which costs more time than writing it.
for _table in (JOB, DEAD, RESULT):
    sa.event.listen(
        _table,
        "after_create",
        sa.DDL(  # type: ignore[no-untyped-call]
            f"ALTER TABLE {_table.name} ALTER COLUMN data SET STORAGE EXTERNAL"
        ).execute_if(dialect="postgresql"),
    )

Upgrade = Callable[[sa.Connection], Any]


def _add_coalesced_at(connection: sa.Connection) -> None:
    kind = JOB.c.coalesced_at.type.compile(connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {JOB.name} ADD COLUMN joined {kind}")


def _add_failures(connection: sa.Connection) -> None:
    """Rename what is not an attempt any more, tell jobs that are retried from those that are queued, count
    the changes of schedules, and make the tables that are new."""
    connection.exec_driver_sql(f"ALTER TABLE {JOB.name} RENAME COLUMN attempts TO losses")
    for name in ("attempts", "retry_at", "outcome", "error", "attributes", "snoozes"):
        kind = JOB.c[name].type.compile(connection.dialect)
        default = " NOT NULL DEFAULT 0" if name in {"attempts", "snoozes"} else ""
        connection.exec_driver_sql(f"ALTER TABLE {JOB.name} ADD COLUMN {name} {kind}{default}")
    kind = META.c.schedule_changes.type.compile(connection.dialect)
    connection.exec_driver_sql(
        f"ALTER TABLE {META.name} ADD COLUMN schedule_changes {kind} NOT NULL DEFAULT 0"
    )
    for index in JOB.indexes:
        if index.name in {"txgearman_job_queue", "txgearman_job_scheduled"}:
            index.drop(connection)
            index.create(connection)
    kind = META.c.settings.type.compile(connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {META.name} ADD COLUMN settings {kind} NOT NULL DEFAULT 0")
    TABLES.create_all(connection, NEW_TABLES, checkfirst=False)


UPGRADES: Final[Sequence[Upgrade]] = (_add_coalesced_at, _add_failures)
"""The upgrade to each version of the tables from the one before; the first leads from version 1 to 2.
Each runs in the transaction that changes the version."""

_FIRST_VERSION: Final = 1


def newest_version() -> int:
    """The version of the tables that this program works with."""
    return _FIRST_VERSION + len(UPGRADES)


def found_version(connection: sa.Connection) -> int | None:
    """The version of the tables in the database; None if it has none of ours.

    Raises `StoreError` for tables of ours that say no version.
    """
    if not sa.inspect(connection).has_table(META.name):
        return None
    version = connection.scalar(sa.select(META.c.version))
    if version is None:
        raise StoreError(f"the table {META.name} is empty: this is no database of a job server")
    return int(version)


def create(connection: sa.Connection) -> None:
    """Make the tables in a database without."""
    TABLES.create_all(connection, checkfirst=False)
    connection.execute(META.insert().values(version=newest_version(), starts=0))


def upgrade(connection: sa.Connection, version: int) -> None:
    """Make the newest tables out of those of `version`."""
    for step in UPGRADES[version - _FIRST_VERSION :]:
        step(connection)
    connection.execute(META.update().values(version=newest_version()))


def next_start(connection: sa.Connection) -> int:
    """The number of a new start; another transaction that asks waits for the end of this one."""
    connection.execute(META.update().values(starts=META.c.starts + 1))
    return int(connection.scalar(sa.select(META.c.starts)) or 0)
