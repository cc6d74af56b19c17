"""Tables of other versions: upgraded at the start, or refused."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import unittest
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from tests.chaos.power import library, lose_unsynced
from tests.databases import PostgreSQL, needs_postgresql, shared_postgresql
from tests.store.contract import HERE, LEASE
from tests.store.jobs import RETRIED_AT, bury, dead_jobs, death, job, save, stored
from tests.store.sharing import ENDED
from tests.store.test_several_servers import SharedCase
from tests.store.test_sqlite import SqliteCase
from txgearman.errors import StoreError, StoreUnavailable
from txgearman.store import tables
from txgearman.store.contract import Changes, Retry
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


OURS: Final = tables.UPGRADES
"""What this program does to tables of version 1; those of the tests come behind it."""

# The tables as the first version made them, with jobs in them: one that waits for a worker, one for its time.
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
    "INSERT INTO txgearman_job VALUES (1, 1, {handle}, {reverse}, {u}, 1, NULL, 2, 1700000000.25, NULL,"
    " {owner}, {u}, {data})",
    "INSERT INTO txgearman_job VALUES (2, 2, {handle}, {reverse}, {none}, 0, 5.5, 0, 1700000000.25, {u},"
    " {owner}, NULL, {data})",
)

# Those that the second version made, and did not upgrade.
SECOND_VERSION: Final = tuple(
    statement.replace("VALUES (1, 1)", "VALUES (2, 1)")
    .replace("unique_key {bytes}, data", "unique_key {bytes}, joined {float}, data")
    .replace(", {data})", ", NULL, {data})")
    for statement in FIRST_VERSION
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
        self.patch(tables, "UPGRADES", (*OURS, *upgrades))

    def make(self, version: Sequence[str]) -> None:
        """Make the tables of an older version."""
        for statement in version:
            self.sql(statement.format_map(self.types))

    def upgrade_and_die(self, steps: int, **environment: str) -> None:
        """Upgrade the database in a process that dies after so many steps, see `tests.store.upgrading`."""
        command = [sys.executable, "-m", "tests.store.upgrading", self.url, str(steps)]
        ended = subprocess.run(
            command, cwd=HERE, env=os.environ | environment, capture_output=True, text=True, check=False
        )
        self.assertEqual(ended.returncode, -signal.SIGKILL, ended.stderr)

    def assert_upgraded(self) -> None:
        """Open the database that `make` has made, and use everything of the newest version on it."""
        store = open_store(self.url)
        self.assertGreater(store.open("new", LEASE), 1)
        store.take_over(10, 1)
        old = [
            job(1, b"u", losses=2),
            job(2, run_at=5.5, priority=0, handle=b"H:test:1", reducer=b"u"),
        ]
        self.assertEqual(stored(store), old)
        self.assertEqual(store.scheduled(0, 9), old[1:])
        self.assertEqual(save(store, job(3, b"u"), job(4)), {3: b"H:test:1"})
        store.write(Changes(losses={1: 3}, retries={1: Retry(1, 9.5, 0, b"why")}))
        retrying = job(1, b"u", losses=3, attempts=1, retry_at=9.5, outcome=0, error=b"why")
        self.assertEqual(store.scheduled(0, 9), [retrying, old[1]])
        self.assertEqual(store.fetch(b"reverse", 1, 0, 9), [job(4)])
        store.write(Changes(removals=[2]))
        bury(store, death(retrying))
        self.assertEqual(dead_jobs(store), [death(retrying)])
        self.assertEqual(stored(store), [job(4)])
        retried = job(1, b"u", position=50, submitted=RETRIED_AT)
        self.assertEqual(store.dead_jobs.retry(1, 50, RETRIED_AT), retried)
        store.close()

    def test_the_tables_of_the_first_version(self) -> None:
        self.make(FIRST_VERSION)
        self.assert_upgraded()

    def test_the_tables_of_the_second_version(self) -> None:
        self.make(SECOND_VERSION)
        self.assert_upgraded()

    def test_upgraded_tables_are_as_new_ones(self) -> None:
        """The same columns, but for their order, and the same indexes."""
        shapes = []
        for version in ((), FIRST_VERSION, SECOND_VERSION):
            self.clear()
            self.make(version)
            store = open_store(self.url)
            store.open("new", LEASE)
            store.close()
            shapes.append(self.shape())
        self.assertEqual(shapes[1], shapes[0])
        self.assertEqual(shapes[2], shapes[0])

    def shape(self) -> dict[str, object]:
        """The columns and indexes of each table."""
        engine = sa.create_engine(self.url.replace("postgresql:", "postgresql+psycopg:"))
        with closing(engine.connect()) as connection:
            known = sa.inspect(connection)
            shape = {
                table: (
                    sorted(
                        (column["name"], str(column["type"]), column["nullable"], column["default"])
                        for column in known.get_columns(table)
                    ),
                    sorted(
                        (
                            str(index["name"]),
                            str(index["column_names"]),
                            sorted(f"{name}: {value}" for name, value in index["dialect_options"].items()),
                        )
                        for index in known.get_indexes(table)
                    ),
                )
                for table in known.get_table_names()
            }
        engine.dispose()
        return shape

    def clear(self) -> None:
        """Use an empty database from here on."""
        raise NotImplementedError

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
        "none": "X''",
        "data": "X'64617461'",
        "owner": "0",
    }

    def sql(self, statement: str) -> object:
        return self.shell().execute(statement)

    def clear(self) -> None:
        for path in self.path.parent.iterdir():
            path.unlink()

    @unittest.skipUnless(shutil.which(os.environ.get("CC", "cc")), "there is no C compiler")
    def test_the_power_is_lost_in_an_upgrade(self) -> None:
        """At each of its steps, and just behind its commit: all that was not synced may be gone."""
        chance = random.Random(3)
        folder = self.path.parent / "disk"
        folder.mkdir()
        self.path = folder / "queue.db"
        self.url = f"sqlite:///{self.path}"
        for version, steps in (FIRST_VERSION, 2), (SECOND_VERSION, 1):
            for done in range(steps + 2):
                self.clear()
                self.make(version)
                self.upgrade_and_die(done, LD_PRELOAD=str(library()))
                lose_unsynced(folder, chance)
                self.assert_upgraded()

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
        "none": "''",
        "data": "'data'",
        "owner": "1",
    }

    def clear(self) -> None:
        self.url = shared_postgresql().new_database()

    def test_the_database_dies_in_an_upgrade(self) -> None:
        """Before the commit nothing was done, behind it all."""
        with PostgreSQL() as cluster:
            for steps in range(4):
                self.url = cluster.new_database()
                self.make(FIRST_VERSION)
                self.upgrade_and_die(steps)
                cluster.kill()
                cluster.start()
                self.assert_upgraded()

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
