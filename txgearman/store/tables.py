"""The tables, which are the same in every database, their version, and creating or upgrading them.

The statements that write rows fast are in each database's own module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import sqlalchemy as sa

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

TABLES: Final = sa.MetaData()

META: Final = sa.Table(
    "txgearman_meta",
    TABLES,
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("starts", _NUMBER, nullable=False),
)
"""One row: the version of the tables, and the number of the last start of a server."""

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
    sa.Column("place", _NUMBER, nullable=False),
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
    # Last, because SQLite has to read through long data to get at the columns after it.
    sa.Column("data", Bytes, nullable=False),
)
"""The jobs. `owner` is the number of a server's start, 0 where a store is not shared. `unique_key` says which
jobs are the same, see `unique_key`. `coalesced_at` is when another server last answered a submit with this
job, in seconds since the epoch by the database's clock."""

_keyed = JOB.c.unique_key.is_not(None)
_scheduled = JOB.c.run_at.is_not(None)
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
    JOB.c.place,
    sqlite_where=~_scheduled,
    postgresql_where=~_scheduled,
)
sa.Index(
    "txgearman_job_scheduled", JOB.c.owner, JOB.c.place, sqlite_where=_scheduled, postgresql_where=_scheduled
)

STORED: Final = [JOB.c[name] for name in StoredJob._fields]
"""The columns that a `StoredJob` is made of, in its order."""

INSERTED: Final = [*STORED, JOB.c.owner, JOB.c.unique_key]
"""The columns of a new row: those of a `StoredJob`, and what is known only where it is written."""

FUNCTION_INDEX: Final = StoredJob._fields.index("function")
DATA_INDEX: Final = StoredJob._fields.index("data")
"""Where these are, in a `StoredJob` and in a new row."""

# PostgreSQL would try to compress longer data, which costs more time than writing it.
sa.event.listen(
    JOB,
    "after_create",
    sa.DDL(  # type: ignore[no-untyped-call]
        f"ALTER TABLE {JOB.name} ALTER COLUMN data SET STORAGE EXTERNAL"
    ).execute_if(dialect="postgresql"),
)

Upgrade = Callable[[sa.Connection], Any]


def _add_coalesced_at(connection: sa.Connection) -> None:
    kind = JOB.c.coalesced_at.type.compile(connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {JOB.name} ADD COLUMN joined {kind}")


UPGRADES: Final[Sequence[Upgrade]] = (_add_coalesced_at,)
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
