"""A disk that is full under SQLite: the store's own doing, others', or a reader's. On a small file system of
its own, which root alone can make.

What wants room there: the log, the database when the log is emptied, the file that leads to the log, the copy
before an upgrade. What must work without: removing jobs, emptying the log, opening.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.store.contract import HERE, LEASE
from tests.store.jobs import RETRIED_AT, dead_jobs, death, job, keep, result, save, stored
from tests.store.test_sqlite import SqliteCase
from tests.support import fill, small_disk
from txgearman.errors import StoreError, StoreUnavailable
from txgearman.store import tables
from txgearman.store.contract import Changes, KeptUnique, Retry, Store

DISK_SIZE: Final = 9 * 1024 * 1024
"""Bytes: a fill takes some hundred transactions."""

FULL: Final = "the disk is full"


class FullDiskTests(SqliteCase):
    """On a tmpfs."""

    def setUp(self) -> None:
        disk = small_disk(self, DISK_SIZE)
        self.path = disk / "queue.db"
        self.filler = disk / "filler"

    def free(self) -> int:
        disk = os.statvfs(self.path.parent)
        return disk.f_bavail * disk.f_frsize

    def fill(self) -> None:
        """Let others have all that is left, to the last byte."""
        fill(self.path.parent)
        self.assertEqual(self.free(), 0)

    def save_until_full(self, store: Store, first: int = 1, size: int = 1000) -> list[int]:
        """Save jobs until one is refused; returns the numbers of those that were saved."""
        saved = []
        for number in range(first, first + 10_000):
            try:
                save(store, job(number, b"u%d" % number, data=b"x" * size))
            except StoreUnavailable as error:
                self.assertIn(FULL, str(error))
                return saved
            saved.append(number)
        raise AssertionError("the disk is never full")

    def remove_all(self, store: Store, numbers: list[int]) -> None:
        """Remove jobs, some at a time. All removals are written, whatever is said of saving."""
        for start in range(0, len(numbers), 50):
            with contextlib.suppress(StoreUnavailable):
                store.write(Changes(removals=numbers[start : start + 50]))
        self.assertEqual(stored(store), [])

    def assert_saves(self, store: Store) -> None:
        for number in range(20_000, 20_010):
            save(store, job(number, data=b"x" * 1000))
        self.assertEqual(len(stored(store)), 10)

    def test_by_its_own_jobs(self) -> None:
        store = self.opened()
        saved = self.save_until_full(store)
        self.assertGreater(len(saved), 1000, "most of the disk is used for jobs")
        saved += self.save_until_full(store, 20_000, size=0)
        for _ in range(3):
            with self.assertRaisesRegex(StoreUnavailable, FULL):
                store.write(Changes())
        self.assertEqual([job.number for job in stored(store)], saved)
        self.remove_all(store, saved)
        store.write(Changes())
        self.assert_saves(store)
        # Much larger than what was left beside the database, which gives back what it does not use.
        save(store, job(30_000, data=b"x" * (DISK_SIZE // 4)))

    def test_again_and_again(self) -> None:
        store = self.opened()
        counts = []
        for begin in (1, 30_000, 60_000):
            saved = self.save_until_full(store, begin)
            self.remove_all(store, saved)
            counts.append(len(saved))
        self.assertGreater(min(counts) * 2, counts[0])

    def test_while_it_is_full_jobs_are_removed_and_a_restart_works(self) -> None:
        store = self.opened()
        saved = self.save_until_full(store)
        store.close()
        store = self.opened()
        self.assertEqual([job.number for job in stored(store)], saved)
        self.remove_all(store, saved)
        self.assert_saves(store)

    def test_a_unique_is_kept_with_the_removal_of_its_job(self) -> None:
        """Though the write is not done: a kill before there is room must not lose it."""
        store = self.opened()
        numbers = list(range(1, 30))
        for number in numbers:
            save(store, job(number, data=b"x" * 1000))
        self.fill()
        kept = [KeptUnique(b"f", b"u", b"H:1", 9.0)]
        with self.assertRaisesRegex(StoreUnavailable, FULL):
            store.write(Changes(removals=numbers, kept_uniques=kept))
        self.assertEqual((stored(store), store.kept_uniques(0.0)), ([], kept))
        self.filler.unlink()
        store.write(Changes(removals=numbers, kept_uniques=kept))
        self.assertEqual(store.kept_uniques(0.0), kept)

    def test_by_others(self) -> None:
        store = self.opened()
        numbers = list(range(1, 30))
        for number in numbers:
            save(store, job(number, data=b"x" * 1000))
        self.assertGreater(os.stat(f"{self.path}-wal").st_size, 0, "the log holds what is to be moved")
        self.fill()
        with self.assertRaisesRegex(StoreUnavailable, FULL):
            save(store, job(100, data=b"x" * 1000))
        with self.assertRaisesRegex(StoreUnavailable, FULL):
            store.write(Changes([job(100)], [1], {2: 5}))
        with self.assertRaisesRegex(StoreUnavailable, FULL):
            store.write(Changes(losses={2: 3}))
        for _ in range(2):
            store.close()
            store = self.opened()
            self.assertEqual([job.number for job in stored(store)], numbers)
        self.assertEqual(stored(store)[1].losses, 3)
        self.remove_all(store, numbers)
        self.filler.unlink()
        store.write(Changes())
        self.assert_saves(store)

    def test_failed_jobs(self) -> None:
        """A death waits for room, and holds up no removal; evicting makes room."""
        store = self.opened()
        saved = self.save_until_full(store)
        self.fill()
        dead = [death(job(number, b"u%d" % number, data=b"x" * 1000)) for number in saved[:40]]
        deaths = {job.number: job for job in dead}
        retries = {saved[40]: Retry(1, 9.5, 1, b"why")}
        with self.assertRaisesRegex(StoreUnavailable, FULL):
            store.write(Changes(removals=saved[41:43], retries=retries, deaths=deaths))
        there = {each.number: each.attempts for each in stored(store)}
        self.assertEqual((there[saved[40]], saved[41] in there, dead_jobs(store)), (1, False, []))
        self.assertEqual(there.keys() & deaths.keys(), deaths.keys())
        with contextlib.suppress(StoreUnavailable):
            store.write(Changes(removals=saved[41:]))
        self.filler.unlink()
        store.write(Changes(deaths=deaths))
        self.assertEqual([job.number for job in dead_jobs(store)], saved[:40][::-1])
        self.fill()
        with self.assertRaisesRegex(StoreUnavailable, FULL):
            store.dead_jobs.retry(saved[0], 90_000, RETRIED_AT)
        self.assertEqual(store.dead_jobs.forget(saved[:20]), 20)
        self.assertEqual(store.dead_jobs.evict(0, 0, 0.0, 100), 20)
        self.assertEqual([job.number for job in stored(store)], saved[40:41])

    def test_results(self) -> None:
        """A result waits for room together with its job, and holds up no removal; evicting makes room."""
        store = self.opened()
        saved = self.save_until_full(store)
        self.fill()
        results = [result(job(number), number, b"x" * 1000) for number in saved[:40]]
        with self.assertRaisesRegex(StoreUnavailable, FULL):
            keep(store, *results, removals=saved[41:43])
        there = {each.number for each in stored(store)}
        self.assertEqual((saved[0] in there, saved[39] in there, saved[41] in there), (True, True, False))
        self.assertEqual(store.results.counts(), (0, 0))
        with contextlib.suppress(StoreUnavailable):
            store.write(Changes(removals=saved[41:]))
        self.filler.unlink()
        keep(store, *results)
        self.assertEqual([job.number for job in stored(store)], saved[40:41])
        self.assertEqual(store.results.counts().results, 40)
        self.fill()
        self.assertEqual(store.results.evict(0, 0.0, 100), (0, 40))

    def test_a_job_that_ended_unsaved_is_refused(self) -> None:
        store = self.opened()
        self.fill()
        for end in (death(job(1)), result(job(1))):
            with self.assertRaisesRegex(StoreUnavailable, FULL):
                store.write(
                    Changes(unsaved_ends={1: end}, kept_uniques=[KeptUnique(b"f", b"u", b"H:1", 9.0)])
                )
        self.filler.unlink()
        store.write(Changes())
        self.assertEqual(
            (dead_jobs(store), store.results.counts(), store.kept_uniques(0.0)), ([], (0, 0), [])
        )

    def test_more_removals_than_the_log_has_room_for(self) -> None:
        store = self.opened()
        saved = self.save_until_full(store)
        self.fill()
        with contextlib.suppress(StoreUnavailable):
            store.write(Changes(removals=saved, losses=dict.fromkeys(saved, 1)))
        self.assertEqual(stored(store), [])

    def test_after_a_kill(self) -> None:
        script = (
            "import os, sys\n"
            "from tests.store.jobs import job, save\n"
            "from txgearman.store.urls import open_store\n"
            "store = open_store(sys.argv[1])\n"
            "store.open('here', 10)\n"
            "for number in range(1, 20):\n"
            "    save(store, job(number, data=b'x' * 1000))\n"
            "os._exit(0)\n"
        )
        subprocess.run(
            [sys.executable, "-c", script, f"sqlite:///{self.path}"], check=True, cwd=HERE, timeout=30
        )
        self.fill()
        store = self.opened()
        self.assertEqual(len(stored(store)), 19)
        self.remove_all(store, list(range(1, 20)))

    def test_with_a_reader_who_keeps_the_log(self) -> None:
        store = self.opened()
        save(store, job(1))
        reader = self.shell()
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM txgearman_job").fetchone()
        saved = self.save_until_full(store, 2)
        self.assertGreater(len(saved), 10)
        reader.execute("COMMIT")
        # Half of the disk was left for the log to be moved.
        store.write(Changes())
        self.remove_all(store, [1, *saved])
        self.assert_saves(store)

    def test_a_job_that_is_too_large_for_the_rest(self) -> None:
        store = self.opened()
        with self.assertRaisesRegex(StoreUnavailable, FULL):
            save(store, job(1, data=b"x" * (self.free() * 3 // 4)))
        save(store, job(2, data=b"x" * (self.free() // 4)))
        self.assertEqual([job.number for job in stored(store)], [2])

    def test_without_room_for_the_reserve_nothing_is_saved(self) -> None:
        store = self.opened()
        save(store, job(1))
        store.close()
        Path(f"{self.path}-reserve").unlink()
        self.filler.write_bytes(bytes(self.free() - 200_000))
        store = self.opened()
        with self.assertRaisesRegex(StoreUnavailable, FULL):
            save(store, job(2))
        self.remove_all(store, [1])
        self.filler.unlink()
        save(store, job(2))

    def test_no_room_for_the_copy_before_an_upgrade(self) -> None:
        store = self.opened()
        saved = self.save_until_full(store)
        store.close()
        with contextlib.closing(sqlite3.connect(self.path)) as database:
            database.execute("UPDATE txgearman_meta SET version = version - 1")
            database.commit()
        with self.assertRaisesRegex(StoreError, "cannot be copied to .* full"):
            self.make_store().open("here", LEASE)
        self.assertEqual(list(self.path.parent.glob("*.unfinished*")), [])
        with contextlib.closing(sqlite3.connect(self.path)) as database:
            database.execute("UPDATE txgearman_meta SET version = ?", (tables.newest_version(),))
            database.commit()
        self.assertEqual(len(stored(self.opened())), len(saved))
