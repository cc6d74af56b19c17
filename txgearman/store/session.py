"""One connection to a database: transactions, errors, and what is tried again."""

from __future__ import annotations

import contextlib
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from txgearman.errors import StoreUnavailable

MAX_TRIES: Final = 10
"""How often a transaction is tried that conflicts with others on the same database."""

BACKOFF_STEP: Final = 0.005
"""Seconds by which the backoff grows with each attempt. Full jitter: a random part of it is waited, so that
two servers whose transactions conflicted do not conflict again."""

_Result = TypeVar("_Result")


class TransactionConflict(Exception):
    """A transaction conflicted with others; the same may succeed now. Never leaves this room."""


class Session(ABC):
    """A connection that is made when it is needed, and anew when it turns out to be broken.

    A subclass knows one kind of database. `owner` is the number of this start, 0 where a store is not shared,
    and `redacted_url` what the operator may see of the URL.
    """

    def __init__(self, url: sa.URL) -> None:
        self._url = url
        # Without libpq's parameters after the question mark, which may have a password.
        self.redacted_url = url.set(drivername=url.get_backend_name(), query={}).render_as_string()
        self.owner = 0
        self._connection: sa.Connection | None = None
        self._engine = sa.create_engine(
            url, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT", connect_args=self._arguments()
        )

    # -- what a subclass knows ----------------------------------------------------------------------

    @abstractmethod
    def _arguments(self) -> dict[str, Any]:
        """What the driver is given beside the URL."""

    @abstractmethod
    def _prepare(self, connection: sa.Connection) -> None:
        """Configure a new connection."""

    @abstractmethod
    def writing(
        self, statements: int, together: bool = False
    ) -> contextlib.AbstractContextManager[sa.Connection]:
        """The connection, for so many statements that write. With none it is tested whether it can write.
        `together` makes them one transaction where each of them is one otherwise."""

    @abstractmethod
    def _classify(self, error: sa.exc.DBAPIError) -> type[Exception] | None:
        """Classify `error`: `TransactionConflict`, `StoreUnavailable` with a connection that is still good,
        or None for one that is not."""

    # -- what all databases share -------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, which may be broken."""
        return self._connection is not None

    def reading(self) -> contextlib.AbstractContextManager[sa.Connection]:
        """The connection, to read what this server may."""
        return self.connected()

    @contextlib.contextmanager
    def connected(self) -> Iterator[sa.Connection]:
        """The connection, where each statement is a transaction of its own."""
        with self._errors():
            yield self._connect()

    def rows(self, query: sa.Select[Any]) -> Sequence[Sequence[Any]]:
        """What a query finds."""

        def read() -> Sequence[Sequence[Any]]:
            with self.reading() as connection:
                return connection.execute(query).all()

        return self.with_retries(read)

    def delete_unowned(self, table: sa.Table, condition: sa.ColumnElement[bool]) -> int:
        """Delete rows that belong to no server, so that a lease which is lost meanwhile does no harm; returns
        how many there were."""

        def delete() -> int:
            with self.reading() as connection:
                return connection.execute(table.delete().where(condition)).rowcount

        return self.with_retries(delete)

    def with_retries(self, work: Callable[[], _Result]) -> _Result:
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
        raise StoreUnavailable(f"{self.redacted_url}: {MAX_TRIES} tries conflicted with others") from reason

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Roll back an unfinished transaction, and turn the driver's errors into ours."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            meaning = None if error.connection_invalidated else self._classify(error)
            if meaning is None:
                self.disconnect()
            else:
                self._roll_back()
            if meaning is TransactionConflict:
                raise TransactionConflict from error
            raise StoreUnavailable(f"{self.redacted_url}: {_message(error)}") from error
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
                self.disconnect()

    def disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()


def _message(error: sa.exc.DBAPIError) -> str:
    """What the database says of an error, in one line."""
    return " ".join(str(error.orig).split()) or type(error.orig).__name__
