"""The queue, there and back: what gearmand has left, what it gets, and what comes of it when one dies."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from tests.databases import HOST, USER, needs_postgresql, shared_postgresql
from tests.gearmand.programs import CHECKOUT, Connection, in_background, make_script, run
from tests.store.contract import LEASE
from tests.store.jobs import bury, death, job, keep, result, save, stored
from tests.support import free_port, needs_program
from txgearman.broker.kept_unique import KeptUnique
from txgearman.errors import StoreError
from txgearman.server.gearmand.queue import give_back
from txgearman.server.gearmand.translation import translate
from txgearman.server.persistence import migration
from txgearman.server.persistence.migration import GiveBack, take_over
from txgearman.store.contract import Changes, Retry, StoredSchedule
from txgearman.store.gearmand import GearmandQueue
from txgearman.store.urls import open_store
from txgearman.wire import packets as p

LATER: Final = 2_000_000_000
FUNCTIONS: Final = (b"reverse", b"other", b"timed")

SUBMITTED: Final = (
    (p.SUBMIT_JOB_BG, b"reverse", b"a unique", b"1"),
    (p.SUBMIT_JOB_LOW_BG, b"reverse", b"low", b"2"),
    (p.SUBMIT_JOB_HIGH_BG, b"reverse", b"high", b"3"),
    # Of a function of its own: in gearmand a job that waits for its time hides jobs of lower priority.
    (p.SUBMIT_JOB_EPOCH, b"timed", b"later", b"%d" % LATER, b"4"),
    (p.SUBMIT_JOB_BG, b"other", b"", b"5"),
    (p.SUBMIT_JOB_BG, b"other", b"-", b"6"),
)

ALL: Final = sorted([fields[0].decode(), fields[-1].decode()] for _, *fields in SUBMITTED)
"""Function and data of all jobs, in order of these."""


class QueueCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="txgearman-queue-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        # Of its own, so that it can be copied as a whole.
        self.database = self.folder / "databases" / "jobs.db"
        self.database.parent.mkdir()
        self.queue = f"sqlite:///{self.database}"
        self.store = f"sqlite:///{self.database}.txgearman"
        self.port = free_port()

    @contextlib.contextmanager
    def gearmand(self, *options: str) -> Iterator[Connection]:
        """A gearmand on the database, or with other options on another one."""
        pid_file = self.folder / "pid"
        command = ["gearmand", "-d", "-L127.0.0.1", f"-p{self.port}", f"-P{pid_file}", f"-l{self.folder}/log"]
        chosen = options or ("--queue-type=libsqlite3", f"--libsqlite3-db={self.database}")
        with in_background(*command, *chosen, pid_file=pid_file) as process:
            with Connection(self.port) as connection:
                yield connection
            process.stop()

    def make_table(self) -> None:
        """gearmand's table in SQLite, with a job."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            connection.execute(
                "CREATE TABLE gearman_queue (unique_key TEXT, function_name TEXT, priority INTEGER,"
                " data BLOB, when_to_run INTEGER, PRIMARY KEY (unique_key, function_name))"
            )
            connection.execute("INSERT INTO gearman_queue VALUES ('u1', 'reverse', 1, x'41', 0)")
            connection.commit()

    def postgresql(self) -> tuple[str, str]:
        """A new database of PostgreSQL as both databases; returns gearmand's options for it."""
        cluster = shared_postgresql()
        self.queue = self.store = url = cluster.new_database()
        words = f"host={HOST} port={cluster.port} user={USER} dbname={url.rpartition('/')[2]}"
        return "--queue-type=Postgres", f"--libpq-conninfo={words}"


def submit(connection: Connection) -> None:
    """Submit all of `SUBMITTED`."""
    for number, *fields in SUBMITTED:
        connection.submit(number, *fields)


@needs_program("gearmand")
class DeathTests(QueueCase):
    """Whenever somebody dies, each job runs once."""

    def check(self, way: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "tests.gearmand.killed", way, self.queue, self.store],
            capture_output=True,
            text=True,
            check=False,
            cwd=CHECKOUT,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        deaths = json.loads(done.stdout)
        # The last ones died of nothing.
        self.assertEqual([death[0] is None for death in deaths[-3:]], [False, True, True])
        self.assertGreater(len(deaths), 10)
        in_between = set()
        for statement, who, between, end, left in deaths:
            self.assertEqual((sorted(between + end), left), (ALL, []), (statement, who))
            in_between.add((who, len(between)))
        # Some of them died before the jobs were elsewhere, and some after that.
        first, second = dict.fromkeys(who for _, who, *_ in deaths)
        self.assertLessEqual({(first, 0), (first, len(ALL))}, in_between)
        self.assertIn((second, len(ALL)), in_between)

    def test_a_way_that_fails_is_not_taken_for_one_that_came_to_its_end(self) -> None:
        words = "from tests.gearmand.killed import die_at; die_at(1, lambda: [].remove('migration'))"
        done = subprocess.run(
            [sys.executable, "-c", words], capture_output=True, text=True, check=False, cwd=CHECKOUT
        )
        self.assertEqual(done.returncode, 1)
        self.assertIn("ValueError", done.stderr)
        self.assertIn("failed by itself", done.stderr)

    def test_there_with_sqlite(self) -> None:
        with self.gearmand() as connection:
            submit(connection)
        self.check("there")

    def test_back_with_sqlite(self) -> None:
        with self.gearmand() as connection:
            submit(connection)
        self.check("back")

    @needs_postgresql
    def test_there_with_postgresql(self) -> None:
        with self.gearmand(*self.postgresql()) as connection:
            submit(connection)
        self.check("there")

    @needs_postgresql
    def test_back_with_postgresql(self) -> None:
        with self.gearmand(*self.postgresql()) as connection:
            submit(connection)
        self.check("back")


@needs_program("gearmand")
class GearmandTests(QueueCase):
    """What gearmand makes of its table after the way there and back."""

    def check(self, *options: str) -> list[tuple[bytes, bytes, bytes]]:
        with self.gearmand(*options) as connection:
            submit(connection)
        self.assertEqual(
            take_over(GearmandQueue(self.queue), open_store(self.store), 1.0).read, len(SUBMITTED)
        )
        with self.gearmand(*options) as connection:
            self.assertEqual(connection.run_all(*FUNCTIONS), [])
        with GiveBack(GearmandQueue(self.queue), open_store(self.store)) as way_back:
            way_back.give()
        with self.gearmand(*options) as connection:
            return connection.run_all(*FUNCTIONS)

    def check_running(self, *options: str) -> None:
        with self.gearmand(*options) as connection:
            submit(connection)
            with self.assertRaisesRegex(
                StoreError, r"gearmand seems to run on .*: process \d+\. Stop it first"
            ):
                take_over(GearmandQueue(self.queue), open_store(self.store), 1.0)
            with self.assertRaisesRegex(StoreError, r"gearmand seems to run on "):
                GiveBack(GearmandQueue(self.queue), open_store(self.store)).__enter__()
            connection.run_all(b"reverse")
            with self.assertRaisesRegex(StoreError, r"gearmand seems to run on "):
                take_over(GearmandQueue(self.queue), open_store(self.store), 1.0)
        self.assertEqual(take_over(GearmandQueue(self.queue), open_store(self.store), 1.0).read, 3)

    def test_one_that_runs_on_sqlite(self) -> None:
        self.check_running()

    @needs_postgresql
    def test_one_that_runs_on_postgresql(self) -> None:
        self.check_running(*self.postgresql())

    def test_sqlite(self) -> None:
        found = self.check()
        # The job that is for later waits, and is in the table.
        self.assertEqual([data for function, _, data in found if function == b"reverse"], [b"3", b"1", b"2"])
        self.assertEqual(sorted(data for function, _, data in found if function == b"other"), [b"5", b"6"])
        uniques = {data: unique for _, unique, data in found}
        self.assertEqual((uniques[b"1"], uniques[b"3"]), (b"a unique", b"high"))
        for data in (b"5", b"6"):
            self.assertRegex(uniques[data], rb"^H:.*:\d+$")
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            (left,) = connection.execute("SELECT unique_key, priority, data, when_to_run FROM gearman_queue")
            self.assertEqual(left, ("later", 1, b"4", LATER))

    @needs_postgresql
    def test_postgresql(self) -> None:
        found = self.check(*self.postgresql())
        # gearmand reads neither priority nor time from there.
        self.assertEqual(sorted(data for _, _, data in found), [b"1", b"2", b"3", b"4", b"5", b"6"])


class GivingTests(QueueCase):
    """What goes back and what stays."""

    def filled(self) -> None:
        """A store with jobs of all kinds."""
        store = open_store(self.store)
        store.open("server", LEASE)
        save(
            store,
            job(1, b"u1", b"first", priority=2),
            job(2, b"", b"no unique"),
            job(3, b"", b"another without"),
            job(4, b"-", b"data as unique"),
            job(5, b"x" * 64, b"a long unique"),
            job(6, b"u6", b"\xff\0", run_at=LATER + 0.5),
            job(7, b"u7", b"", function=b"f\xff"),
            job(8, b"u8", b"failed"),
            job(9, b"u9", b"reduced", reducer=b"sum"),
            job(10, b"u10", b"with options", attributes=b"\1"),
            job(11, b"u11", b"lost", losses=2),
            job(12, b"u12", b"dead"),
            job(13, b"u13", b"done"),
        )
        store.write(Changes(retries={8: Retry(1, LATER + 1.0, 1, b"it broke")}))
        bury(store, death(job(12, b"u12", b"dead")))
        keep(store, result(job(13, b"u13", b"done")))
        store.write(Changes(kept_uniques=[KeptUnique(b"reverse", b"kept", b"H:1", 4e9)], now=1.0))
        store.schedules.save(StoredSchedule(b"daily", 1.0, False, "{}", b""))
        store.close()

    def translated(self, *words: str) -> Any:
        given = {"listen": "127.0.0.1", "queue-type": "libsqlite3", "libsqlite3-db": str(self.database)}
        return translate(given, {})

    def told(self, only_tell: bool = False) -> list[str]:
        output = io.StringIO()
        give_back(self.translated(), only_tell, output)
        return output.getvalue().splitlines()

    EXPECTED: Final = (
        ("u1", "reverse", 2, b"first", 0),
        ("H:test:2", "reverse", 1, b"no unique", 0),
        ("H:test:3", "reverse", 1, b"another without", 0),
        ("H:test:4", "reverse", 1, b"data as unique", 0),
        ("H:test:5", "reverse", 1, b"a long unique", 0),
        ("u6", "reverse", 1, b"\xff\0", LATER + 1),
        ("u7", b"f\xff", 1, b"", 0),
        ("u8", "reverse", 1, b"failed", LATER + 1),
        ("u9", "reverse", 1, b"reduced", 0),
        ("u10", "reverse", 1, b"with options", 0),
        ("u11", "reverse", 1, b"lost", 0),
    )

    TOLD: Final = (
        "11 jobs go back to gearmand's table gearman_queue in {}, with new handles.",
        "4 of them get their handle as a unique: the table has one job for each unique.",
        "2 of them have been lost or have failed before, which is forgotten.",
        "1 of them have a reducer, which is forgotten.",
        "1 of them have options of their own, which are forgotten.",
        "1 dead jobs stay in the store.",
        "1 results stay in the store.",
        "1 schedules stay in the store, and do not tick.",
        "1 uniques of jobs that are done stay in the store.",
    )

    def test_all_that_the_table_can_hold(self) -> None:
        self.filled()
        lines = [line.format(self.queue) for line in self.TOLD]
        self.assertEqual(self.told(only_tell=True), lines)
        self.assertFalse(self.database.exists())
        self.assertEqual(self.told(), [*lines, "11 jobs were given back."])
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            connection.text_factory = lambda name: name.decode() if name.isascii() else name
            rows = connection.execute("SELECT * FROM gearman_queue").fetchall()
            self.assertEqual(sorted(rows, key=repr), sorted(self.EXPECTED, key=repr))
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            self.assertEqual(tables, [("gearman_queue",)])
        store = open_store(self.store)
        store.open("looker", LEASE)
        self.assertEqual((stored(store), store.dead_jobs.counts()[0].jobs), ([], 1))
        store.close()

    def test_a_job_that_gearmand_has_by_its_unique(self) -> None:
        self.make_table()
        self.filled()
        lines = self.told()
        self.assertEqual(lines[1], "1 jobs are in that table already.")
        self.assertEqual(lines[-1], "1 of them were in gearmand's table before, by function and unique.")

    def test_a_server_that_runs(self) -> None:
        store = open_store(self.store)
        store.open("server", LEASE)
        self.addCleanup(store.close)
        self.assertIn("another server uses it", str(self.assertRaises(StoreError, self.told)))

    @needs_postgresql
    def test_a_server_that_runs_on_postgresql(self) -> None:
        self.postgresql()
        store = open_store(self.store)
        store.open("the other", LEASE)
        with self.assertRaisesRegex(StoreError, "a server uses the store: the other. Stop it first"):
            GiveBack(GearmandQueue(self.queue), open_store(self.store)).__enter__()
        # The jobs of one that is gone are given back too.
        save(store, job(1, b"u"))
        store.close()
        with GiveBack(GearmandQueue(self.queue), open_store(self.store)) as way_back:
            self.assertEqual(way_back.holdings().jobs, 1)

    @needs_postgresql
    def test_one_that_stood_still_for_longer_than_its_lease(self) -> None:
        self.postgresql()
        store = open_store(self.store)
        store.open("server", LEASE)
        save(store, job(1, b"u"))
        store.close()
        store = open_store(self.store)
        servers = store.servers

        def late() -> list[str]:
            shared_postgresql().run_sql(
                "UPDATE txgearman_server SET lease_end = 1", self.store.rpartition("/")[2]
            )
            return servers()

        self.patch(store, "servers", late)
        with GiveBack(GearmandQueue(self.queue), store) as way_back:
            self.assertEqual(way_back.give(), 0)
            self.assertEqual(way_back.holdings().jobs, 0)
            self.assertEqual(way_back.holdings().there, 1)

    @needs_postgresql
    def test_what_postgresql_cannot_hold_stays(self) -> None:
        self.postgresql()
        store = open_store(self.store)
        store.open("server", LEASE)
        save(
            store,
            job(1, b"\xff", b"its unique is no text"),
            job(2, b"u2", function=b"f" * 256),
            job(3, b"u3", function=b"\xff"),
            job(4, b"u4", run_at=2.0**31),
            job(5, b"\xc3\xa9" * 31, b"its unique is text", function=b"\xc3\xa9"),
        )
        store.close()
        with GiveBack(GearmandQueue(self.queue), open_store(self.store)) as way_back:
            holdings = way_back.holdings()
            self.assertEqual((holdings.jobs, holdings.too_large, holdings.without_unique), (2, 3, 1))
            self.assertEqual(way_back.give(), 0)
            self.assertEqual((way_back.holdings().jobs, way_back.holdings().too_large), (0, 3))
        cluster = shared_postgresql()
        rows = cluster.run_sql("SELECT unique_key, function_name FROM queue", self.queue.rpartition("/")[2])
        self.assertEqual(sorted(rows), [("H:test:1", "reverse"), ("é" * 31, "é")])

    def test_without_a_queue(self) -> None:
        with self.assertRaisesRegex(ValueError, "--give-back needs a queue"):
            give_back(translate({"listen": "127.0.0.1"}, {}), False, io.StringIO())

    def test_more_than_a_batch(self) -> None:
        self.patch(migration, "READ_BATCH", 10)
        store = open_store(self.store)
        store.open("server", LEASE)
        save(store, *(job(number, data=b"%d" % number) for number in range(1, 32)))
        store.close()
        self.assertEqual(self.told()[-1], "31 jobs were given back.")
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            rows = connection.execute(
                "SELECT CAST(data AS TEXT) FROM gearman_queue ORDER BY rowid"
            ).fetchall()
        self.assertEqual([int(data) for (data,) in rows], list(range(1, 32)))


class ProgramTests(QueueCase):
    """The command lines of both ways."""

    def check(self, table: str, *options: str) -> None:
        script, pid_file, log = make_script(self.folder), self.folder / "pid", self.folder / "log"
        words = [script, "-L127.0.0.1", f"-p{self.port}", f"-P{pid_file}", f"-l{log}", *options]
        with in_background(*words, "-d", "--job-handle-prefix=H:x", pid_file=pid_file) as process:
            with Connection(self.port) as connection:
                connection.send(p.CAN_DO, b"reverse")
                # Where servers share a store, it is another's until this one has looked.
                while (taken := connection.grab()) is None:
                    connection.send(p.PRE_SLEEP)
                    self.assertEqual(connection.receive()[0], p.NOOP)
                self.assertRegex(taken[0], rb"^H:x:\d+$")
                self.assertEqual(taken[1:], (b"reverse", b"u1", b"A"))
                errors = run(*words, "--give-back", code=1).stderr
                self.assertRegex(errors, "seems to run on|another server uses it|a server uses the store")
            process.stop()
        self.assertIn(f"1 jobs taken over from gearmand's table {table} in", log.read_text())
        self.assertIn("1 jobs were given back.", run(*words, "--give-back").stdout)
        with GearmandQueue(self.queue) as queue:
            self.assertEqual((queue.count(), queue.is_interrupted()), (1, False))

    def test_there_and_back(self) -> None:
        self.make_table()
        self.check("gearman_queue", "-q", "libsqlite3", f"--libsqlite3-db={self.database}")

    @needs_postgresql
    def test_there_and_back_with_postgresql(self) -> None:
        options = self.postgresql()
        cluster, name = shared_postgresql(), self.queue.rpartition("/")[2]
        cluster.run_sql(
            "CREATE TABLE queue (unique_key VARCHAR(64), function_name VARCHAR(255), priority INTEGER,"
            " data BYTEA, when_to_run INTEGER, UNIQUE (unique_key, function_name))",
            name,
        )
        cluster.run_sql("INSERT INTO queue VALUES ('u1', 'reverse', 1, 'A', 0)", name)
        self.check("queue", *options)

    def test_nothing_is_taken_while_gearmand_has_the_port(self) -> None:
        script = make_script(self.folder)
        self.make_table()
        with socket.create_server((HOST, self.port)):
            words = ["-L127.0.0.1", f"-p{self.port}", f"-P{self.folder}/pid", "-lnone", "-qlibsqlite3"]
            errors = run(script, *words, f"--libsqlite3-db={self.database}", code=1).stderr
        self.assertIn("Address already in use", errors)
        with GearmandQueue(self.queue) as queue:
            self.assertEqual(queue.count(), 1)
