"""Taking over gearmand's queues: those of a real one, and what it may have left in its tables."""

from __future__ import annotations

import contextlib
import io
import sqlite3
import tempfile
from pathlib import Path
from struct import pack
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.databases import HOST, USER, connected, needs_postgresql, shared_postgresql
from tests.interop.programs import Server, exchange, gearmand
from tests.store.contract import LEASE
from tests.store.jobs import stored
from tests.support import needs_program, on_reactor
from txgearman.server.persistence import migration
from txgearman.server.persistence.lease import NUMBERS_PER_START
from txgearman.store import gearmand as queue
from txgearman.store.contract import StoredJob
from txgearman.store.urls import open_store
from txgearman.wire import packets as p

SUBMITTED: Final = [
    (p.SUBMIT_JOB_BG, b"reverse", b"a unique", b"data with \0 in it"),
    (p.SUBMIT_JOB_HIGH_BG, b"reverse", b"high", b"\xff\xfe"),
    (p.SUBMIT_JOB_LOW_BG, b"other \xc3\xa9", b"low", b"'; --"),
    (p.SUBMIT_JOB_EPOCH, b"reverse", b"later", b"2000000000", b"at its time"),
    (p.SUBMIT_JOB_BG, b"reverse", b"", b"without a unique"),
    (p.SUBMIT_JOB_BG, b"other \xc3\xa9", b"-", b"its data is its unique"),
    (p.SUBMIT_JOB_BG, b"reverse", b"without data", b""),
]

TAKEN_OVER: Final = [
    (b"reverse", b"a unique", b"data with \0 in it", 1, None),
    (b"reverse", b"high", b"\xff\xfe", 0, None),
    (b"other \xc3\xa9", b"low", b"'; --", 2, None),
    (b"reverse", b"later", b"at its time", 1, 2e9),
    (b"reverse", b"", b"without a unique", 1, None),
    (b"other \xc3\xa9", b"-", b"its data is its unique", 1, None),
    (b"reverse", b"without data", b"", 1, None),
]


async def submit(server: Server) -> None:
    """Submit all of `SUBMITTED`; returns when each is accepted."""
    bodies = [(number, b"\0".join(fields)) for number, *fields in SUBMITTED]
    requests = b"".join(b"\0REQ" + pack(">II", number, len(body)) + body for number, body in bodies)
    created = b"\0RES" + pack(">I", p.JOB_CREATED)
    await exchange(server.port, requests, lambda answer: answer.count(created) == len(SUBMITTED))


class MigrationCase(SynchronousTestCase):
    """`store` is the URL of the store, in a `folder` of the test's own."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="txgearman-migrate-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.store = f"sqlite:///{self.folder}/store.db"

    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        """The exit code, output and errors of the command."""
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = migration.main(arguments)
        return code, output.getvalue(), errors.getvalue()

    def migrated(self) -> list[StoredJob]:
        store = open_store(self.store)
        store.open("looker", LEASE)
        jobs = stored(store)
        store.close()
        return jobs

    def check_twice(self, source: str) -> None:
        """Take over what a gearmand was given by `submit`, and then again."""
        code, output, errors = self.run_command(source, self.store)
        self.assertEqual((code, errors), (0, ""))
        self.assertEqual(output, "7 jobs read, 7 saved, 0 were there before.\n")
        jobs = self.migrated()
        found = [(job.function, job.unique, job.data, job.priority, job.run_at) for job in jobs]
        self.assertEqual(found, TAKEN_OVER)
        with queue.GearmandQueue(source) as left:
            self.assertEqual((left.count(), left.is_interrupted()), (0, False))
        self.assertEqual([job.number for job in jobs], [NUMBERS_PER_START + number for number in range(1, 8)])
        for job in jobs:
            self.assertTrue(job.handle.startswith(b"H:"))
            self.assertTrue(job.handle.endswith(b":%d" % job.number))
        code, output, errors = self.run_command(source, self.store)
        self.assertEqual((code, output), (0, "0 jobs read, 0 saved, 0 were there before.\n"))
        self.assertEqual(self.migrated(), jobs)


@needs_program("gearmand")
class RealTests(MigrationCase, TestCase):
    @on_reactor
    async def test_sqlite(self) -> None:
        database = self.folder / "gearmand.db"
        async with gearmand("--queue-type=libsqlite3", f"--libsqlite3-db={database}") as server:
            await submit(server)
        self.check_twice(f"sqlite:///{database}")

    @needs_postgresql
    @on_reactor
    async def test_postgresql(self) -> None:
        cluster = shared_postgresql()
        url = cluster.new_database()
        words = f"host={HOST} port={cluster.port} user={USER} dbname={url.rpartition('/')[2]}"
        async with gearmand("--queue-type=Postgres", f"--libpq-conninfo={words}") as server:
            await submit(server)
        self.check_twice(url)

    @needs_postgresql
    @on_reactor
    async def test_into_a_store_that_servers_share(self) -> None:
        database = self.folder / "gearmand.db"
        async with gearmand("--queue-type=libsqlite3", f"--libsqlite3-db={database}") as server:
            await submit(server)
        self.store = shared_postgresql().new_database()
        living = open_store(self.store)
        living.open("living", LEASE)
        self.addCleanup(living.close)
        self.assertEqual(self.run_command(f"sqlite:///{database}", self.store)[0], 0)
        self.assertEqual(
            sorted(job.data for job in living.take_over(10, 1)), sorted(row[2] for row in TAKEN_OVER)
        )
        self.assertEqual(living.servers(), ["living"])


class TableTests(MigrationCase):
    """Tables as a gearmand may have left them; `source` is the URL of one with `rows`."""

    def source(self, *rows: tuple[Any, ...], table: str = "gearman_queue") -> str:
        with contextlib.closing(sqlite3.connect(self.folder / "gearmand.db")) as connection:
            connection.execute(
                f'CREATE TABLE IF NOT EXISTS "{table}" (unique_key TEXT, function_name TEXT, '
                "priority INTEGER, data BLOB, when_to_run INTEGER, PRIMARY KEY (unique_key, function_name))"
            )
            connection.executemany(f'INSERT INTO "{table}" VALUES (?, ?, ?, ?, ?)', rows)
            connection.commit()
        return f"sqlite:///{self.folder}/gearmand.db"

    def test_what_an_upgraded_table_lacks(self) -> None:
        source = self.source(("u", "f", None, None, None), ("v", "f", 7, "a text", 0))
        self.assertEqual(self.run_command(source, self.store)[0], 0)
        found = [(job.unique, job.data, job.priority, job.run_at) for job in self.migrated()]
        self.assertEqual(found, [(b"u", b"", 1, None), (b"v", b"a text", 1, None)])

    def test_names_that_are_no_text(self) -> None:
        source = self.source()
        with contextlib.closing(sqlite3.connect(self.folder / "gearmand.db")) as connection:
            connection.execute(
                "INSERT INTO gearman_queue VALUES (CAST(x'ff00fe' AS TEXT), CAST(x'c3' AS TEXT), 1, x'00', 0)"
            )
            connection.commit()
        self.assertEqual(self.run_command(source, self.store)[0], 0)
        self.assertEqual([(job.unique, job.function) for job in self.migrated()], [(b"\xff\0\xfe", b"\xc3")])

    def test_a_table_of_another_name(self) -> None:
        source = self.source(("u", "f", 1, b"", 0), table="my queue")
        code, output, _ = self.run_command(source, self.store, "--table", "my queue")
        self.assertEqual((code, output[:11]), (0, "1 jobs read"))
        self.assertEqual(len(self.migrated()), 1)

    def test_many_jobs_keep_their_order(self) -> None:
        count = 3 * queue.READ_BATCH + 1
        source = self.source(*((str(count - number), "f", 1, b"%d" % number, 0) for number in range(count)))
        self.assertEqual(self.run_command(source, self.store)[0], 0)
        self.assertEqual([job.data for job in self.migrated()], [b"%d" % number for number in range(count)])

    def test_one_that_was_interrupted_can_be_done_again(self) -> None:
        rows = [(str(number), "f", 1, b"", 0) for number in range(2 * queue.READ_BATCH)]
        source = self.source(("", "f", 1, b"", 0), *rows)
        store = open_store(self.store)

        class Interrupted(Exception):
            pass

        def renew() -> None:
            raise Interrupted

        self.patch(store, "renew", renew)
        with self.assertRaises(Interrupted):
            migration.take_over(queue.GearmandQueue(source), store, 1.0)
        self.assertEqual(len(self.migrated()), queue.READ_BATCH)
        output = self.run_command(source, self.store)[1]
        self.assertIn("501 jobs read, 501 saved, 0 were there before", output)
        self.assertEqual(len(self.migrated()), len(rows) + 1)

    def test_a_second_queue_after_the_first(self) -> None:
        for unique in ("u", "v", "v"):
            source = self.source()
            with contextlib.closing(sqlite3.connect(self.folder / "gearmand.db")) as connection:
                connection.execute("INSERT INTO gearman_queue VALUES (?, 'f', 1, x'', 0)", [unique])
                connection.commit()
            self.run_command(source, self.store)
        self.assertEqual([job.unique for job in self.migrated()], [b"u", b"v"])

    def test_refusals(self) -> None:
        empty = self.source(table="something_else")
        for source, store, words in (
            (empty, self.store, "gearmand.db has no table gearman_queue.\n"),
            (f"sqlite:///{self.folder}/missing.db", self.store, "there is no file"),
            ("mysql://host/database", self.store, "not the URL of a store"),
            (empty, "memory", "not the URL of a store"),
            (self.source(("u", "f", 1, b"", 0), table="t"), empty, "is a database of something else"),
        ):
            table = ["--table=t"] if store == empty else []
            code, output, errors = self.run_command(source, store, *table)
            self.assertEqual((code, output), (1, ""))
            self.assertIn(words, errors)
            self.assertEqual(errors.count("\n"), 1)
        self.assertFalse((self.folder / "missing.db").exists())

    def test_a_store_in_use(self) -> None:
        server = open_store(self.store)
        server.open("server", LEASE)
        self.addCleanup(server.close)
        source = self.source(("u", "f", 1, b"", 0))
        code, _, errors = self.run_command(source, self.store)
        self.assertEqual(code, 1)
        self.assertIn("another server uses it", errors)
        server.close()
        self.assertEqual(self.run_command(source, self.store)[0], 0)


@needs_postgresql
class PostgresqlTableTests(MigrationCase):
    def test_many_jobs(self) -> None:
        url = shared_postgresql().new_database()
        with connected(url) as connection:
            connection.execute(
                "CREATE TABLE queue (unique_key VARCHAR(64), function_name VARCHAR(255), priority INTEGER, "
                "data BYTEA, when_to_run INTEGER, UNIQUE (unique_key, function_name))"
            )
            connection.execute(
                "INSERT INTO queue SELECT n::text, 'f', 1, decode('00ff', 'hex'), 0 "
                "FROM generate_series(1, 1201) n"
            )
        code, output, errors = self.run_command(url, self.store)
        self.assertEqual((code, errors), (0, ""))
        self.assertIn("1201 jobs read, 1201 saved", output)
        self.assertEqual([job.unique for job in self.migrated()], [b"%d" % n for n in range(1, 1202)])
