"""What a SQLite file has of its own: one owner, its errors, crashes, copies."""

from __future__ import annotations

import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.chaos.power import library, lose_unsynced
from tests.store.contract import HERE, LEASE, CrashContract, StoreContract
from tests.store.jobs import job, save, stored
from tests.store.plot_contract import PlotContract
from tests.store.schedule_contract import TickTransactionContract
from txgearman.errors import StoreError, StoreUnavailable
from txgearman.store.contract import Changes, Store
from txgearman.store.sqlite import session
from txgearman.store.urls import open_store


class SqliteCase(SynchronousTestCase):
    """`path` is where the database is to be."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="txgearman-store-")
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name, "queue.db")

        self.url = f"sqlite:///{self.path}"

    def make_store(self) -> Store:
        return open_store(f"sqlite:///{self.path}")

    def opened(self) -> Store:
        store = self.make_store()
        self.addCleanup(store.close)
        store.open("here", LEASE)
        return store

    def shell(self) -> sqlite3.Connection:
        """What an operator uses beside the server."""
        shell = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(shell.close)
        return shell


class SqliteContractTests(SqliteCase, StoreContract, TickTransactionContract, PlotContract):
    def setUp(self) -> None:
        SqliteCase.setUp(self)
        StoreContract.setUp(self)


class SqliteCrashTests(SqliteCase, CrashContract):
    @unittest.skipUnless(shutil.which(os.environ.get("CC", "cc")), "there is no C compiler")
    def test_of_a_job_that_is_done_the_result_survives_a_loss_of_power(self) -> None:
        chance = random.Random(5)
        folder = self.path.parent / "disk"
        folder.mkdir()
        self.path = folder / "queue.db"
        self.url = f"sqlite:///{self.path}"
        lost = 0
        for _ in range(8):
            writes = str(chance.randrange(100, 400))
            self.finish_until_killed(None, LD_PRELOAD=str(library()), POWER_LOST_AFTER=writes)
            lost += lose_unsynced(folder, chance)
            self.assert_jobs_or_results()
        self.assertGreater(lost, 0, "nothing was ever lost")


class OwnershipTests(SqliteCase):
    def test_a_second_server_is_refused(self) -> None:
        first = self.opened()
        save(first, job(1))
        with self.assertRaisesRegex(StoreError, f"cannot keep jobs in {self.path}: another server uses it"):
            self.make_store().open("there", LEASE)
        save(first, job(2))
        first.close()
        self.assertEqual([job.number for job in stored(self.opened())], [1, 2])

    def test_nor_by_another_name_of_the_file(self) -> None:
        self.opened()
        other = self.path.with_name(self.path.name + "-other-name")
        other.symlink_to(self.path)
        with self.assertRaisesRegex(StoreError, "another server uses it"):
            open_store(f"sqlite:///{other}").open("there", LEASE)

    def test_the_file_stays_the_same_when_the_process_changes_its_folder(self) -> None:
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.path.parent)
        store = open_store(f"sqlite:///{self.path.name}")
        os.chdir("/")
        store.open("here", LEASE)
        store.close()
        self.assertTrue(self.path.exists())

    def test_others_may_look_while_it_runs(self) -> None:
        save(self.opened(), job(1))
        self.assertEqual(self.shell().execute("SELECT count(*) FROM txgearman_job").fetchone(), (1,))


class ErrorTests(SqliteCase):
    def test_a_locked_database(self) -> None:
        self.patch(session, "BUSY_TIMEOUT", 0.01)
        store = self.opened()
        save(store, job(1))
        shell = self.shell()
        shell.execute("BEGIN IMMEDIATE")
        with self.assertRaisesRegex(StoreUnavailable, "database is locked"):
            save(store, job(2))
        with self.assertRaisesRegex(StoreUnavailable, "database is locked"):
            store.write(Changes([job(3)], [1], {1: 5}))
        self.assertEqual([job.number for job in stored(store)], [1])
        shell.execute("COMMIT")
        store.write(Changes([job(3)], [1]))
        self.assertEqual([job.number for job in stored(store)], [3])

    def test_a_full_disk(self) -> None:
        self.patch(session, "SETTINGS", (*session.SETTINGS, "PRAGMA max_page_count=40"))
        store = self.opened()
        save(store, job(1, data=b"x" * 100_000))
        for changes in (
            Changes([job(2, data=b"x" * 300_000)]),
            Changes([job(3), job(2, data=b"x" * 300_000)], [99], {1: 5}),
        ):
            with self.assertRaisesRegex(StoreUnavailable, "full"):
                store.write(changes)
        self.assertEqual([(job.number, job.losses) for job in stored(store)], [(1, 0)])
        store.write(Changes([job(3)], [1]))
        save(store, job(4, data=b"x" * 100_000))
        self.assertEqual([job.number for job in stored(store)], [3, 4])

    def test_a_file_that_cannot_grow(self) -> None:
        store = self.opened()
        save(store, job(1))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
        try:
            with self.assertRaises(StoreUnavailable):
                save(store, job(2, data=b"x" * 2_000_000))
            with self.assertRaises(StoreUnavailable):
                save(store, job(2, data=b"x" * 2_000_000))
            save(store, job(3))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        save(store, job(2, data=b"x" * 2_000_000))
        self.assertEqual([job.number for job in stored(store)], [1, 2, 3])
        with self.assertRaisesRegex(StoreError, "another server"):
            self.make_store().open("there", LEASE)


class WrongFileTests(SqliteCase):
    def refused(self, words: str) -> None:
        """Opening is refused twice, with `words`, and leaves the file free."""
        for _ in range(2):
            with self.assertRaisesRegex(StoreError, words) as caught:
                self.make_store().open("here", LEASE)
            self.assertNotIn("\n", str(caught.exception))

    def test_no_database(self) -> None:
        self.path.write_bytes(b"This is a text, and a long one. " * 100)
        self.refused("is not a SQLite database")

    def test_a_database_of_something_else(self) -> None:
        self.shell().execute("CREATE TABLE gearman_queue (unique_key TEXT)")
        self.refused("is a database of something else: it holds gearman_queue and no txgearman_meta")
        self.assertEqual(
            self.shell().execute("SELECT name FROM sqlite_master").fetchall(), [("gearman_queue",)]
        )

    def test_an_empty_file(self) -> None:
        self.path.touch()
        save(self.opened(), job(1))

    def test_a_folder(self) -> None:
        self.path.mkdir()
        self.refused("cannot keep jobs in .*: it is a folder")
        self.assertEqual([path.name for path in self.path.parent.iterdir()], [self.path.name])

    def test_a_folder_that_is_not_there(self) -> None:
        self.path = self.path / "missing" / "queue.db"
        self.refused("cannot keep jobs in .*missing/queue.db: unable to open database file")


class UrlTests(SynchronousTestCase):
    def test_urls_that_name_no_file(self) -> None:
        for url in ("sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://host/path", "sqlite:///a?b=c"):
            with self.assertRaisesRegex(StoreError, "names no file"):
                open_store(url)

    def test_what_is_no_url_of_a_store(self) -> None:
        for url in ("", "queue.db", "sqlite", "sqlite:queue.db", "oracle://host/path", "memory://"):
            with self.assertRaisesRegex(StoreError, "not the URL of a store"):
                open_store(url)

    def test_a_missing_library_is_named(self) -> None:
        from txgearman.store import urls

        self.patch(urls, "find_spec", lambda name: None)
        with self.assertRaisesRegex(StoreError, r"pip install 'txgearman\[store\]'"):
            open_store("sqlite:///queue.db")

    def test_a_database_is_loaded_only_when_it_is_named(self) -> None:
        code = (
            "import sys, txgearman.store.urls\n"
            "assert not {'sqlalchemy', 'sqlite3', 'psycopg'} & set(sys.modules)\n"
            "txgearman.store.urls.open_store('sqlite:///queue.db')\n"
            "assert 'psycopg' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, cwd=HERE, timeout=30)
