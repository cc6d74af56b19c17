"""The connection to PostgreSQL, which serves a server as long as it has its lease."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import sqlalchemy as sa

from txgearman.errors import LeaseLost, StoreUnavailable
from txgearman.store.postgresql.arrays import register_arrays
from txgearman.store.session import Session, TransactionConflict
from txgearman.store.tables import SERVER

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

ALIVE: Final = (
    "WITH alive AS (SELECT number FROM txgearman_server WHERE number = %b::bigint AND NOT dead{} FOR SHARE)"
)
"""The row of this server, locked against whoever would mark it dead. Nothing, if that was done."""

_HAS_LEASE: Final = f"{ALIVE.format('')} SELECT count(*) FROM alive"

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_CONFLICTS: Final = frozenset({"40001", "40P01"})
_UNIQUE_VIOLATION: Final = "23505"
_READ_ONLY: Final = "25006"


class PostgresqlSession(Session):
    """A connection to the database of `url`. `name` is what other servers know this one by.

    `may_conflict` says whether the write in flight met a job that is there already. One that meets such a job
    for the first time is tried again.
    """

    def __init__(self, url: sa.URL) -> None:
        self.name = ""
        self.may_conflict = False
        super().__init__(url)

    def lease_lost(self) -> LeaseLost:
        """What to raise when this server is marked dead."""
        return LeaseLost(f"the lease of {self.name} has expired, and others may have taken over its jobs")

    def check(self, alive: int | None) -> None:
        """Raise `LeaseLost` unless a statement found this server's row in `ALIVE`."""
        if not alive:
            raise self.lease_lost()

    def check_lease(self, connection: sa.Connection) -> None:
        """Make sure that this server may write."""
        self.check(connection.exec_driver_sql(_HAS_LEASE, (self.owner,)).scalar())

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        with self.connected() as connection:
            alive = sa.select(SERVER.c.number).where(SERVER.c.number == self.owner, ~SERVER.c.dead)
            if connection.scalar(alive) is None:
                raise self.lease_lost()
            yield connection

    @contextlib.contextmanager
    def writing(self, statements: int, together: bool = False) -> Iterator[sa.Connection]:
        with self.connected() as connection:
            if not statements:
                self.check_lease(connection)
            if together:
                connection.exec_driver_sql("BEGIN")
            yield connection
            if together:
                connection.exec_driver_sql("COMMIT")

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

    def _classify(self, error: sa.exc.DBAPIError) -> type[Exception] | None:
        state = getattr(error.orig, "sqlstate", None)
        if state in _CONFLICTS:
            return TransactionConflict
        if state == _UNIQUE_VIOLATION and not self.may_conflict:
            self.may_conflict = True
            return TransactionConflict
        # A read-only database may be a standby that another has replaced: connect anew.
        return None if state is None or state == _READ_ONLY else StoreUnavailable
