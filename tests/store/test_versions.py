"""Tables of other versions: upgraded at the start, or refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from tests.databases import needs_postgresql
from tests.store.contract import LEASE
from tests.store.jobs import job, save, stored
from tests.store.sharing import ENDED
from tests.store.test_several_servers import SharedCase
from tests.store.test_sqlite import SqliteCase
from txgearman.errors import StoreError, StoreUnavailable
from txgearman.store import tables
from txgearman.store.contract import Changes
from txgearman.store.urls import open_store

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as _TestCase
else:
    _TestCase = object


def add_column(connection: sa.Connection) -> None:
    """What a version after the first might want."""
    connection.exec_driver_sql("ALTER TABLE txgearman_job ADD COLUMN color TEXT DEFAULT 'red' NOT NULL")


def add_table(connection: sa.Connection) -> None:
    """What one after that might want."""
    connection.exec_driver_sql("CREATE TABLE txgearman_color (color TEXT)")
    connection.exec_driver_sql("INSERT INTO txgearman_color SELECT DISTINCT color FROM txgearman_job")


def break_down(connection: sa.Connection) -> None:
    """An upgrade that fails half way."""
    add_table(connection)
    connection.exec_driver_sql("SELECT * FROM no_such_table")


SECOND: Final = tables.UPGRADES
"""What this program does to tables of version 1; those of the tests come behind it."""

# The tables as the first version made them, with a job in them.
FIRST_VERSION: Final = (
    "CREATE TABLE txgearman_meta (version INTEGER NOT NULL, starts {number} NOT NULL)",
    "INSERT INTO txgearman_meta VALUES (1, 1)",
    "CREATE TABLE txgearman_server (number {number} NOT NULL, name TEXT NOT NULL, lease_end {float} NOT NULL,"
    " dead BOOLEAN NOT NULL, PRIMARY KEY (number))",
    "INSERT INTO txgearman_server VALUES (1, 'old', 0, TRUE)",
    "CREATE TABLE txgearman_job (number {number} NOT NULL, place {number} NOT NULL, handle {bytes} NOT NULL,"
    ' function {bytes} NOT NULL, "unique" {bytes} NOT NULL, priority SMALLINT NOT NULL, run_at {float},'
    " attempts INTEGER NOT NULL, submitted {float} NOT NULL, reducer {bytes}, owner {number} NOT NULL,"
    " unique_key {bytes}, data {bytes} NOT NULL, PRIMARY KEY (number))",
    "CREATE UNIQUE INDEX txgearman_job_unique ON txgearman_job (unique_key, function)"
    " WHERE unique_key IS NOT NULL",
    "CREATE INDEX txgearman_job_queue ON txgearman_job (owner, priority, function, place)"
    " WHERE run_at IS NULL",
    "CREATE INDEX txgearman_job_scheduled ON txgearman_job (owner, place) WHERE run_at IS NOT NULL",
    "INSERT INTO txgearman_job VALUES (1, 1, {handle}, {reverse}, {u}, 1, NULL, 0, 1700000000.25, NULL,"
    " {owner}, {u}, {data})",
)


class VersionContract(_TestCase):
    """For any database at `url`; `types` are what fills `FIRST_VERSION`."""

    url: str
    types: dict[str, str]

    def sql(self, statement: str) -> object:
        """Run a statement on the database."""
        raise NotImplementedError

    def version(self, *upgrades: tables.Upgrade) -> None:
        """From here on this is a program that knows these upgrades."""
        self.patch(tables, "UPGRADES", (*SECOND, *upgrades))

    def test_the_tables_of_each_version_so_far(self) -> None:
        for statement in FIRST_VERSION:
            self.sql(statement.format_map(self.types))
        store = open_store(self.url)
        self.assertEqual(store.open("new", LEASE), 2)
        store.take_over(10, 1)
        self.assertEqual(stored(store), [job(1, b"u")])
        self.assertEqual(save(store, job(2, b"u"), job(3)), {2: b"H:test:1"})
        store.write(Changes(removals=[1]))
        self.assertEqual(stored(store), [job(3)])
        store.close()

    def test_old_tables_are_upgraded_and_keep_their_jobs(self) -> None:
        store = open_store(self.url)
        store.open("old", ENDED)
        save(store, job(1, b"u"), job(2))
        store.close()
        for upgrades in ((add_column,), (add_column,), (add_column, add_table)):
            self.version(*upgrades)
            store = open_store(self.url)
            store.open("new", LEASE)
            store.take_over(10, 1)
            self.assertEqual(stored(store), [job(1, b"u"), job(2)])
            self.assertEqual(save(store, job(3, b"u")), {3: b"H:test:1"})
            store.close()

    def test_over_several_versions_at_once(self) -> None:
        store = open_store(self.url)
        store.open("old", ENDED)
        save(store, job(1))
        store.close()
        self.version(add_column, add_table)
        store.open("new", LEASE)
        store.take_over(10, 1)
        self.assertEqual(stored(store), [job(1)])
        store.close()

    def test_newer_tables_are_refused(self) -> None:
        self.version(add_column)
        store = open_store(self.url)
        store.open("new", LEASE)
        save(store, job(1))
        store.close()
        self.version()
        for _ in range(2):
            with self.assertRaisesRegex(
                StoreError,
                "was written by a newer txgearman: its tables have version 4, this one knows up to 3",
            ):
                store.open("old", LEASE)
        self.version(add_column)
        self.assertEqual(store.open("new", LEASE), 2)
        store.close()

    def test_an_upgrade_that_fails_changes_nothing(self) -> None:
        store = open_store(self.url)
        store.open("old", ENDED)
        save(store, job(1))
        store.close()
        self.version(add_column, break_down)
        with self.assertRaisesRegex(StoreUnavailable, "no_such_table"):
            store.open("new", LEASE)
        self.version()
        self.assertEqual(store.open("old", LEASE), 2)
        store.take_over(10, 1)
        self.assertEqual(stored(store), [job(1)])
        store.close()

    def test_tables_without_a_version(self) -> None:
        store = open_store(self.url)
        store.open("server", LEASE)
        store.close()
        self.sql("DELETE FROM txgearman_meta")
        with self.assertRaisesRegex(StoreError, "the table txgearman_meta is empty"):
            store.open("server", LEASE)


class SqliteVersionTests(SqliteCase, VersionContract):
    types = {
        "number": "INTEGER",
        "float": "DOUBLE",
        "bytes": "BLOB",
        "handle": "X'483A746573743A31'",
        "reverse": "X'72657665727365'",
        "u": "X'75'",
        "data": "X'64617461'",
        "owner": "0",
    }

    def sql(self, statement: str) -> object:
        return self.shell().execute(statement)

    def copies(self) -> list[Path]:
        """What is beside the database, without the files that SQLite and the owner have there."""
        return sorted(self.path.parent.glob("*.version-*"))

    def test_a_copy_is_kept_before_an_upgrade(self) -> None:
        store = open_store(self.url)
        store.open("old", LEASE)
        save(store, job(1))
        store.close()
        self.version(add_column)
        store.open("new", LEASE)
        save(store, job(2))
        store.close()
        store.open("new", LEASE)
        store.close()
        (copy,) = self.copies()
        self.assertEqual(copy.name, "queue.db.version-3")
        # The copy is what it was, and an older program works with it.
        self.version()
        old = open_store(f"sqlite:///{copy}")
        self.assertEqual(old.open("old", LEASE), 2)
        self.assertEqual(stored(old), [job(1)])
        old.close()

    def test_an_older_copy_is_not_overwritten(self) -> None:
        self.path.with_name("queue.db.version-3").write_text("precious")
        self.path.with_name("queue.db.version-3.2").write_text("too")
        store = open_store(self.url)
        store.open("old", LEASE)
        store.close()
        self.version(add_column)
        store.open("new", LEASE)
        store.close()
        self.assertEqual(
            [copy.name for copy in self.copies()], [f"queue.db.version-3{end}" for end in ("", ".2", ".3")]
        )
        with closing(sqlite3.connect(self.copies()[2])) as copy:
            self.assertEqual(copy.execute("SELECT version FROM txgearman_meta").fetchone(), (3,))
        self.assertEqual(self.copies()[0].read_text(), "precious")


@needs_postgresql
class PostgresqlVersionTests(SharedCase, VersionContract):
    types = {
        "number": "BIGINT",
        "float": "DOUBLE PRECISION",
        "bytes": "BYTEA",
        "handle": "'H:test:1'",
        "reverse": "'reverse'",
        "u": "'u'",
        "data": "'data'",
        "owner": "1",
    }

    def test_tables_in_use_are_not_upgraded(self) -> None:
        running = self.opened("running")
        self.opened("died", ENDED)
        self.version(add_column)
        store = open_store(self.url)
        with self.assertRaisesRegex(
            StoreError, "must be upgraded to 4: first stop the servers that use them: running"
        ):
            store.open("new", LEASE)
        save(running, job(1))
        running.close()
        store.open("new", LEASE)
        self.assertEqual(len(store.take_over(10, 1)), 1)
        store.close()
