"""The queue that gearmand's modules ``libsqlite3`` and ``Postgres`` keep: taking its jobs, and giving back.

gearmand's database and the store are two, so no transaction holds for both. What is on its way between them
is in a table of its own, beside gearmand's, of which gearmand knows nothing: jobs that were taken out of its
table, until the store has them; and the numbers of jobs that were put into it, until the store has forgotten
them. So whoever comes after an interruption finds out what was done.
"""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from txgearman.errors import StoreError, StoreUnavailable
from txgearman.store.urls import parse_url

READ_BATCH: Final = 500
"""Jobs that are read in one batch, and are in memory at the same time."""

LONGEST_UNIQUE: Final = 63
"""Bytes of a unique that gearmand finds again in its table: it keeps one byte of 64 for itself."""

_PRIORITIES: Final = frozenset({0, 1, 2})
_NORMAL: Final = 1


class _Kind(NamedTuple):
    """How a kind of database keeps the queue. `name` and `data` give columns as the bytes they are, and
    `as_name` makes a name of bytes: a name need not be text in any encoding, and SQLite's columns may hold
    anything. `order` is in which gearmand reads its table. `longest_function` and `largest_time` are what its
    columns hold; None is no bound. Of two programs that `begin` the second waits for the end of the first
    one's transaction; `lock` keeps gearmand out too."""

    table: str
    name: str
    data: str
    as_name: str
    order: str
    begin: tuple[str, ...]
    lock: str
    create: str
    create_taken: str
    longest_function: int | None
    largest_time: int | None


_LOCK: Final = 0x7478676561726D
"""The number of the lock that lets one program at a time change these tables in PostgreSQL. It can be any
that nobody else takes."""

_GEARMANDS: Final = {
    "select": "SELECT unique_key,function_name,priority,data,when_to_run FROM ",
    "delete": "DELETE FROM ",
    "insert": "INSERT INTO ",
}
"""How the statements of gearmand's module ``Postgres`` begin, up to the name of the table."""

_SESSIONS: Final = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND (query = :select OR starts_with(query, :delete || ' WHERE unique_key=')"
    " OR starts_with(query, :insert || ' (priority,'))"
)

_KINDS: Final = {
    # As gearmand names and makes the tables unless it is told otherwise.
    "sqlite": _Kind(
        table="gearman_queue",
        name="CAST({} AS BLOB)",
        data="CAST(data AS BLOB)",
        as_name="CAST(:{} AS TEXT)",
        order="rowid",
        begin=("BEGIN IMMEDIATE",),
        lock="SELECT 1",
        create="CREATE TABLE IF NOT EXISTS {} (unique_key TEXT, function_name TEXT, priority INTEGER,"
        " data BLOB, when_to_run INTEGER, PRIMARY KEY (unique_key, function_name))",
        create_taken="CREATE TABLE IF NOT EXISTS {} (number INTEGER PRIMARY KEY, unique_key, function_name,"
        " priority, data, when_to_run)",
        longest_function=None,
        largest_time=None,
    ),
    "postgresql": _Kind(
        table="queue",
        name="convert_to({}, getdatabaseencoding())",
        data="data",
        as_name="convert_from(:{}, getdatabaseencoding())",
        order="ctid",
        begin=("BEGIN", f"SELECT pg_advisory_xact_lock({_LOCK})"),
        lock="LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
        create="CREATE TABLE IF NOT EXISTS {} (unique_key VARCHAR(64), function_name VARCHAR(255),"
        " priority INTEGER, data BYTEA, when_to_run INTEGER, UNIQUE (unique_key, function_name))",
        create_taken="CREATE TABLE IF NOT EXISTS {} (number BIGINT PRIMARY KEY, unique_key TEXT,"
        " function_name TEXT, priority INTEGER, data BYTEA, when_to_run INTEGER)",
        longest_function=255,
        largest_time=2**31 - 1,
    ),
}

_URL_PARTS: Final = {
    "user": "username",
    "password": "password",
    "host": "host",
    "port": "port",
    "dbname": "database",
}
"""What libpq calls the parts of a URL, and SQLAlchemy."""


def url_of_conninfo(conninfo: str) -> str:
    """The URL of a store on the database that gearmand is given as ``--libpq-conninfo``.

    Raises `StoreError` for what is no connection string, and `ImportError` where psycopg is not installed.
    """
    # Not at the top: SQLite needs no psycopg.
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        words = {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
    except ProgrammingError as error:
        raise StoreError(f"not a connection string of libpq: {' '.join(str(error).split())}") from None
    parts: dict[str, Any] = {}
    for name, part in _URL_PARTS.items():
        # The folder of a UNIX socket is no host of a URL, nor are several hosts.
        if name in words and not set(words[name]) & {"/", ","}:
            parts[part] = words.pop(name)
    port = parts.get("port", "0")
    if not port.isdecimal():
        raise StoreError(f"not a port of PostgreSQL: {port}")
    parts["port"] = int(port) or None
    url = sa.URL.create("postgresql", query=words, **parts)
    return url.render_as_string(hide_password=False)


class QueuedJob(NamedTuple):
    """A job in gearmand's table. `priority` is as in a `StoredJob`, `run_at` is seconds since the epoch."""

    function: bytes
    unique: bytes
    data: bytes
    priority: int
    run_at: float | None


class TakenJob(NamedTuple):
    """A job that was taken out of gearmand's table, with the number that it got then."""

    number: int
    job: QueuedJob


class GearmandQueue:
    """The table `table`, None for gearmand's default, in the database that `url` names.

    Each method is one transaction. To be closed at last, or used in a ``with`` statement. Raises
    `StoreUnavailable` for what the database says.
    """

    def __init__(self, url: str, table: str | None = None) -> None:
        self._url = parse_url(url)
        backend = self._url.get_backend_name()
        self._kind = _KINDS[backend]
        self.table = table or self._kind.table
        self.place = self._url.set(drivername=backend, query={}).render_as_string()
        """What names the database, without a password."""
        # Beside the number of a job: what of its name PostgreSQL cuts off does not tell the two apart.
        self._taken = f"txgearman_taken_{self.table}"
        self._given = f"txgearman_given_{self.table}"

        self._quote = self._url.get_dialect()().identifier_preparer.quote
        self._connected: sa.Connection | None = None

    def __enter__(self) -> GearmandQueue:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connected = self._connected, None
        if connection is not None:
            connection.close()

    @property
    def is_there(self) -> bool:
        """Whether there may be such a database: SQLite makes an empty one where there is no file."""
        path = self._url.database
        return self._url.get_backend_name() != "sqlite" or bool(path and os.path.isfile(path))

    def gearmands(self) -> list[int]:
        """The process ids of what seems to be a gearmand that runs on this queue: of processes called so that
        have the file open, or of the sessions in PostgreSQL whose last statement is one of gearmand's. It is
        not seen where that is another user's, or where the system does not tell."""
        if self._url.get_backend_name() == "sqlite":
            return _gearmands_with(str(self._url.database))
        with self._errors():
            found = self._execute(
                _SESSIONS, **{name: words + self.table for name, words in _GEARMANDS.items()}
            )
            return [int(pid) for (pid,) in found]

    # -- taking -------------------------------------------------------------------------------------

    def has_table(self) -> bool:
        """Whether gearmand's table is there."""
        with self._errors():
            return self._has(self.table)

    def count(self) -> int:
        """How many jobs gearmand would run, were it started now."""
        with self._errors():
            if not self._has(self.table):
                return 0
            return int(self._execute(f"SELECT count(*) FROM {self._quoted(self.table)}").scalar_one())

    def is_interrupted(self) -> bool:
        """Whether there may be jobs on their way."""
        with self._errors():
            return self._has(self._taken) or self._has(self._given)

    def take(self, number: int) -> int:
        """Take all jobs out of gearmand's table, which gives them numbers from `number` + 1, in gearmand's
        order. Returns how many there were.

        gearmand does not know them any more from then on, and `taken` gives them.
        """
        with self._errors():
            if not self._has(self.table):
                return 0
        with self._transaction():
            table, taken = self._quoted(self.table), self._quoted(self._taken)
            self._execute(self._kind.lock.format(table))
            self._execute(self._kind.create_taken.format(taken))
            columns = "unique_key, function_name, priority, data, when_to_run"
            moved = self._execute(
                f"INSERT INTO {taken} (number, {columns})"
                f" SELECT :number + row_number() OVER (ORDER BY {self._kind.order}), {columns} FROM {table}",
                number=number,
            )
            self._execute(f"DELETE FROM {table}")
            return moved.rowcount

    def taken(self) -> Iterator[list[TakenJob]]:
        """The jobs that were taken and not forgotten, by number, in batches; each is to be forgotten before
        the next is asked for."""
        function, unique = (self._kind.name.format(name) for name in ("function_name", "unique_key"))
        query = (
            f"SELECT number, {function}, {unique}, {self._kind.data}, priority, when_to_run"
            f" FROM {self._quoted(self._taken)} ORDER BY number LIMIT {READ_BATCH}"
        )
        while True:
            with self._errors():
                rows = self._execute(query).all() if self._has(self._taken) else []
            if not rows:
                return
            yield [TakenJob(row[0], _job(row[1:])) for row in rows]

    def forget_taken(self, numbers: Sequence[int]) -> None:
        """Forget taken jobs: the store has them."""
        self._forget(self._taken, numbers)

    # -- giving back --------------------------------------------------------------------------------

    def can_hold(self, job: QueuedJob) -> bool:
        """Whether gearmand's table has room for what `job` is, but for its unique."""
        longest, largest = self._kind.longest_function, self._kind.largest_time
        if longest is not None and not (_is_text(job.function) and len(job.function.decode()) <= longest):
            return False
        return job.run_at is None or largest is None or job.run_at <= largest

    def can_hold_unique(self, unique: bytes) -> bool:
        """Whether gearmand finds a job by this unique."""
        return len(unique) <= LONGEST_UNIQUE and (self._kind.longest_function is None or _is_text(unique))

    def give(self, jobs: Sequence[TakenJob]) -> int:
        """Put jobs into gearmand's table, which `given` names until they are forgotten there. Returns how
        many were not put there, as it has a job with their function and unique."""
        table, given = self._quoted(self.table), self._quoted(self._given)
        function, unique = (self._kind.as_name.format(name) for name in ("function", "unique"))
        with self._transaction():
            self._execute(self._kind.create.format(table))
            self._execute(f"CREATE TABLE IF NOT EXISTS {given} (number BIGINT PRIMARY KEY)")
            inserted = self._execute_many(
                f"INSERT INTO {table} (unique_key, function_name, priority, data, when_to_run) VALUES"
                f" ({unique}, {function}, :priority, :data, :run_at) ON CONFLICT DO NOTHING",
                [{**job._asdict(), "run_at": int(job.run_at or 0)} for _, job in jobs],
            )
            self._execute_many(
                f"INSERT INTO {given} (number) VALUES (:number)", [{"number": number} for number, _ in jobs]
            )
            return len(jobs) - inserted.rowcount

    def given(self) -> list[int]:
        """The numbers of jobs that were given back and not forgotten."""
        with self._errors():
            if not self._has(self._given):
                return []
            rows = self._execute(f"SELECT number FROM {self._quoted(self._given)} ORDER BY number")
            return [int(number) for (number,) in rows]

    def forget_given(self, numbers: Sequence[int]) -> None:
        """Forget the numbers of given jobs: the store does not have them any more."""
        self._forget(self._given, numbers)

    # -- the database -------------------------------------------------------------------------------

    def _forget(self, table: str, numbers: Sequence[int]) -> None:
        """Delete rows of a table of ours, and the table with the last of them."""
        with self._transaction():
            if not self._has(table):
                # Another program has forgotten the last of them.
                return
            name = self._quoted(table)
            deletion = sa.text(f"DELETE FROM {name} WHERE number IN :numbers")
            self._connection.execute(
                deletion.bindparams(sa.bindparam("numbers", expanding=True)), {"numbers": list(numbers)}
            )
            # Counting would read all data, for each batch again.
            if self._execute(f"SELECT 1 FROM {name} LIMIT 1").first() is None:
                self._execute(f"DROP TABLE {name}")

    def _execute(self, statement: str, **values: Any) -> sa.CursorResult[Any]:
        return self._connection.execute(sa.text(statement), values)

    def _execute_many(self, statement: str, rows: Sequence[dict[str, Any]]) -> sa.CursorResult[Any]:
        return self._connection.execute(sa.text(statement), list(rows))

    @property
    def _connection(self) -> sa.Connection:
        if self._connected is None:
            engine = sa.create_engine(self._url, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT")
            self._connected = engine.connect()
        return self._connected

    def _has(self, table: str) -> bool:
        return self.is_there and sa.inspect(self._connection).has_table(table)

    def _quoted(self, table: str) -> str:
        # A colon would be taken for a parameter.
        return self._quote(table).replace(":", "\\:")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            for statement in self._kind.begin:
                self._connection.exec_driver_sql(statement)
            try:
                yield
            except BaseException:
                self._connection.exec_driver_sql("ROLLBACK")
                raise
            self._connection.exec_driver_sql("COMMIT")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as error:
            raise StoreUnavailable(f"{self.place}: {' '.join(str(error.orig).split())}") from error


def _gearmands_with(path: str) -> list[int]:
    """The gearmands of this machine that have a file open, as far as this process may see it."""
    try:
        wanted = os.stat(path)
    except OSError:
        return []
    found = []
    # There is no such folder but on Linux.
    for descriptors in glob.glob("/proc/[0-9]*/fd"):
        folder = os.path.dirname(descriptors)
        pid = int(os.path.basename(folder))
        if pid == os.getpid():
            # This program may be called so too, and has it open.
            continue
        with contextlib.suppress(OSError):
            with open(f"{folder}/comm", "rb") as comm:
                # A program that makes backups may well have it open.
                if b"gearmand" not in comm.read():
                    continue
            if any(_is_file(f"{descriptors}/{number}", wanted) for number in os.listdir(descriptors)):
                found.append(pid)
    return found


def _is_file(path: str, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), wanted)
    except OSError:
        # It was closed meanwhile.
        return False


def _is_text(name: bytes) -> bool:
    """Whether PostgreSQL can have a name as text."""
    try:
        return "\0" not in name.decode()
    except UnicodeDecodeError:
        return False


def _job(row: Sequence[Any]) -> QueuedJob:
    function, unique, data, priority, run_at = row
    return QueuedJob(
        function or b"",
        unique or b"",
        # gearmand keeps no data as NULL, and then cannot read it itself.
        data or b"",
        priority if priority in _PRIORITIES else _NORMAL,
        float(run_at) if run_at else None,
    )
